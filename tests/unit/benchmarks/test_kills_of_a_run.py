"""What counts as a kill, what is compared after them, and when a run is given to its end."""

from __future__ import annotations

import importlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which finds its neighbours as it does when it is run."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("kills_of_a_run")


@pytest.fixture
def case(killing: Any, tmp_path: Path) -> Any:
    """A run that ends at once; `moments` are what its kills come to, `results` what its runs come to."""

    class Case(killing.Killing):
        most_in_a_run = 3
        code = 0

        def store(self, name: str) -> Path:
            return self.folder

        def attend(self, child: int) -> None:
            raise AssertionError("no reference is run")

        def start(self, name: str) -> int:
            (self.folder / f"{name}.log").write_text("said at the end")
            if not (child := os.fork()):
                os._exit(self.code)
            return child

        def kill(self, name: str, child: int, chance: random.Random) -> str | None:
            os.waitpid(child, 0)
            return self.moments.pop(0)

        def result_of(self, name: str) -> dict[str, int]:
            return self.results[name]

    made = Case(tmp_path, ())
    made.results = {"run-1": {"losses": 1, "weights": 2}, "reference": {"losses": 1, "weights": 2}}
    return made


def run_one(killing: Any, case: Any, *, done: int, kills: int) -> int:
    return killing._one(case, "run-1", done, kills, random.Random(0))


@pytest.mark.parametrize(
    ("moments", "kills", "counted", "left"),
    [
        (["a", "b", "c", "d"], 20, 3, 1),  # as many as a run has at most
        (["a", "", "b", None, "c"], 20, 2, 1),  # one proves nothing, then the run has ended
        (["a", "b", "c"], 1, 1, 2),  # as many as are asked for
    ],
)
def test_a_kill_counts_where_it_proves_something(
    moments: list[str | None], kills: int, counted: int, left: int, killing: Any, case: Any, tmp_path: Path
) -> None:
    case.moments = moments
    assert run_one(killing, case, done=0, kills=kills) == counted
    assert (len(moments), case.problems) == (left, [])
    assert list(tmp_path.iterdir()) == []


def test_what_is_other_than_without_a_kill_is_a_problem(killing: Any, case: Any) -> None:
    case.moments, case.results["run-1"] = ["a", None], {"losses": 1, "weights": 3}
    run_one(killing, case, done=0, kills=5)
    assert case.problems == ["run-1: other weights"]


def test_a_run_that_fails_at_last_is_a_problem(killing: Any, case: Any) -> None:
    case.moments, case.code = [None], 3
    run_one(killing, case, done=0, kills=5)
    assert case.problems == ["run-1 ended with 3: said at the end"]
