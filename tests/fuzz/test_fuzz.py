"""Every reader on a few hundred random inputs: only our own errors come out. benchmarks/fuzz.py runs it for hours."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
EXAMPLES = {"text_formats": 100, "packed_formats": 30, "sentences": 120, "questions": 100, "suites": 100}
EXAMPLES |= {"mixtures": 80, "configurations": 80, "run_folders": 25}


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("fuzz")


@pytest.mark.parametrize("name", EXAMPLES)
def test_only_our_own_errors_come_out(fuzz, name):
    came = fuzz.run(fuzz.TARGETS[name], EXAMPLES[name], number=0)
    assert came["refused"] or name == "sentences"


def test_every_target_is_run_here(fuzz):
    assert set(EXAMPLES) == set(fuzz.TARGETS)
