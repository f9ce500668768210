"""Progress: what it costs beforehand, the first estimate, a line now and then, the end; one display on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from afterword import progress
from afterword.progress import Progress, tracked


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def piped():
    return Console(file=io.StringIO(), width=200)


def terminal():
    return Console(file=io.StringIO(), width=120, force_terminal=True)


def said(console):
    return console.file.getvalue()


def test_piped_it_says_the_cost_the_first_estimate_a_line_now_and_then_and_the_end(clock):
    console = piped()
    with Progress("answers", 10, cost="10 prompts, 900 tokens", console=console) as shown:
        for _ in range(10):
            clock[0] += 4
            shown.advance()
    assert said(console).splitlines() == [
        "answers 0/10 · 10 prompts, 900 tokens",
        "answers 1/10 · 4 s each · 36 s left",
        "answers 5/10 · 4 s each · 20 s left",
        "answers 9/10 · 4 s each · 4.0 s left",
        "answers 10/10 · done in 40 s",
    ]


def test_what_is_quick_is_a_line_before_and_a_line_after(clock):
    console = piped()
    with Progress("answers", 100, console=console) as shown:
        for _ in range(100):
            clock[0] += 0.01
            shown.advance()
    assert said(console).splitlines() == ["answers 0/100", "answers 100/100 · done in 1.0 s"]


def test_a_note_takes_the_place_of_the_rate_and_a_resumed_task_counts_its_own_time(clock):
    console = piped()
    with Progress("step", 12, done=8, console=console) as shown:
        clock[0] += 20
        shown.advance(2, "loss 1.2 nats")
    assert said(console).splitlines()[1] == "step 10/12 · loss 1.2 nats · 20 s left"


def test_what_is_inside_of_another_is_told_only_where_it_takes_long(clock):
    console = piped()
    with Progress("cells", 2, console=console) as cells:
        for seconds in (0.1, 9):
            with Progress("answers", 4) as answers:
                for _ in range(4):
                    clock[0] += seconds
                    answers.advance()
            cells.advance()
    assert said(console).splitlines() == [
        "cells 0/2",
        "answers 1/4 · 9 s each · 27 s left",
        "answers 3/4 · 9 s each · 9.0 s left",
        "answers 4/4 · done in 36 s",
        "cells 2/2 · done in 36 s",
    ]


@pytest.mark.parametrize("make", [piped, terminal])
def test_an_error_ends_it_and_gives_the_terminal_back(make):
    with pytest.raises(KeyboardInterrupt), Progress("answers", 3, console=make()) as shown:
        raise KeyboardInterrupt
    assert not progress._SHOWN
    assert shown.bar is None or not shown.bar.live.is_started


def test_an_error_ends_it_as_stopped(clock):
    console = piped()
    with pytest.raises(KeyboardInterrupt), Progress("answers", 3, console=console):
        raise KeyboardInterrupt
    assert said(console).splitlines()[-1] == "answers 0/3 · stopped after 0.0 s"


def test_on_a_terminal_there_is_one_display_and_the_cost_stays():
    console = terminal()
    with Progress("cells", 2, cost="2 cells", console=console) as outer, Progress("answers", 4) as inner:
        assert inner.bar is outer.bar is not None
        assert len(outer.bar.tasks) == 2
        inner.advance(3)
        assert outer.bar.tasks[1].completed == 3
    assert not outer.bar.live.is_started
    assert "cells 0/2 · 2 cells" in said(console)


def test_other_processes_are_silent(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for console in (piped(), terminal()):
        with Progress("answers", 3, console=console) as shown:
            shown.advance()
        assert said(console) == ""


def test_an_iterator_gives_its_items_and_counts_them(capsys):
    assert list(tracked(["a", "b"], "letters")) == ["a", "b"]
    assert list(tracked(iter("ab"), "letters", total=2)) == ["a", "b"]
    out, err = capsys.readouterr()
    assert (out, err.count("letters 2/2 · done")) == ("", 2)
