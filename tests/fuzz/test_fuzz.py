"""Every reader on a few hundred random inputs: only our own errors come out. benchmarks/fuzz.py runs it for hours."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
EXAMPLES = {"text_formats": 150, "packed_formats": 40, "sentences": 200, "questions": 150, "suites": 150}
EXAMPLES |= {"mixtures": 100, "configurations": 100, "run_folders": 40}


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
