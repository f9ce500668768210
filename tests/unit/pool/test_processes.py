"""Tasks in processes: every result once, whatever dies; and nothing outlives the one that gives them out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from commands import killed_at_last, line_of

from afterword.errors import ConfigError, TrainingError
from afterword.pool import Workers, open_pool


def squared(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def refuse(number: int) -> int:
    raise ConfigError([f"seed: {number} is none.", "rate: is none."])


def die_at_first(place: str) -> str:
    """Killed the first time, as where memory is short."""
    mark = Path(place)
    if mark.name == "dies" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_result_is_given_once(processes):
    with open_pool(Workers(processes=processes)) as pool:
        found = dict(pool.results(squared, range(7)))
        assert {number: square for number, (square, _) in found.items()} == {n: n**2 for n in range(7)}
        assert (os.getpid() in {place for _, place in found.values()}) == (processes == 1)
        # What a process loaded for one round of tasks is there for the next.
        again = {place for _, (_, place) in pool.results(squared, range(7))}
        assert pool.keeps
        assert len(again | {place for _, place in found.values()}) <= processes


def test_what_a_task_says_reaches_the_person_whole():
    with open_pool(Workers(processes=2)) as pool, pytest.raises(ConfigError) as told:
        list(pool.results(refuse, [3]))
    assert told.value.problems == ("seed: 3 is none.", "rate: is none.")


def test_a_process_that_dies_takes_no_result_with_it(tmp_path):
    tasks = [str(tmp_path / name) for name in ("a", "dies", "b", "c")]
    with open_pool(Workers(processes=2)) as pool:
        found = list(pool.results(die_at_first, tasks))
    assert sorted(found) == [(0, "a"), (1, "dies"), (2, "b"), (3, "c")]


def test_a_task_that_always_dies_is_said():
    with open_pool(Workers(processes=2, retries=1)) as pool, pytest.raises(TrainingError, match="died 2 times"):
        list(pool.results(die, [0]))


def test_one_of_several_launched_processes_gives_out_no_tasks(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"), open_pool(Workers()):
        pass


GIVING_OUT = """
import time
from afterword.pool import Workers, open_pool

def sleeps(_):
    import os
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with open_pool(Workers(processes=2)) as pool:
        list(pool.results(sleeps, range(2)))
"""


def test_no_process_outlives_the_one_that_was_killed(tmp_path):
    (tmp_path / "giving_out.py").write_text(GIVING_OUT)
    words = [sys.executable, str(tmp_path / "giving_out.py")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with killed_at_last(process):
        at_work = [psutil.Process(int(line_of(process))) for _ in range(2)]
        process.kill()
        until = time.monotonic() + 30
        while any(each.is_running() for each in at_work) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in at_work)
