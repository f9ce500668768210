"""Progress of whatever takes long: how much is done, how fast, and what is left.

On a terminal a bar. Where output is piped, a line at the start with what it will cost, a line at most every 15 seconds,
the first as soon as something is known, and one at the end. The one rule: it is told on stderr by the main process
alone, and nothing that is computed depends on it.

    for item in tracked(items, "answers"):
        …
    with Progress("answers", len(prompts), cost="200 prompts, 36,000 tokens") as progress:
        progress.advance(8)
"""

import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from afterword.distributed import is_main_process

SECONDS_BETWEEN_LINES = 15.0
T = TypeVar("T")
_SHOWN: list["Progress"] = []
"""What is shown now, the outermost first: a terminal has one display, and what is inside of another joins it."""


class Progress:
    """One task, shown while its `with` block runs. One inside of another is told only where it takes long."""

    def __init__(
        self,
        what: str,
        total: float,
        *,
        unit: str = "",
        cost: str = "",
        done: float = 0,
        console: Console | None = None,
    ):
        """`what` names the work (`answers`), `total` and `done` count it in `unit`, `cost` says it beforehand."""
        self.what, self.total, self.done, self.unit, self.cost = what, total, done, unit, cost
        self.console = console or (_SHOWN[0].console if _SHOWN else Console(stderr=True))
        self.bar: Bar | None = None
        self._begun_with, self._note, self._lines = done, "", 0
        self._started = self._last_line = 0.0

    def __enter__(self) -> "Progress":
        self._started = self._last_line = time.monotonic()
        self._inside = bool(_SHOWN)
        if is_main_process() and self.total:
            _SHOWN.append(self)
            if self.console.is_terminal:
                self._show_bar()
            elif not self._inside:
                self._line(self._place(), self.cost)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self not in _SHOWN:
            return
        _SHOWN.remove(self)
        if self.bar is not None:
            self.bar.remove_task(self._task)
            if not self._inside:
                self.bar.stop()
        elif not self._inside or self._lines:
            state = "done in" if kind is None else "stopped after"
            self._line(self._place(), f"{state} {_time(time.monotonic() - self._started)}", self._note)

    def advance(self, count: float = 1, note: str = "") -> None:
        """So much more is done. `note` stands beside the count until the next one."""
        first = self.done == self._begun_with
        self.done += count
        self._note = note or self._note
        if self.bar is not None:
            self.bar.update(self._task, completed=self.done, description=self._place(), numbers=self._numbers())
        elif self in _SHOWN and self.done < self.total:
            waited = time.monotonic() - self._last_line
            # The first part done gives the first estimate: that is told at once where there is something to wait for.
            if waited >= SECONDS_BETWEEN_LINES or (first and self.seconds_left() >= SECONDS_BETWEEN_LINES):
                self._line(self._place(), self._numbers(), f"{_time(self.seconds_left())} left")

    def seconds_left(self) -> float:
        """By the rate so far."""
        done, seconds = self.done - self._begun_with, time.monotonic() - self._started
        return seconds * (self.total - self.done) / done if done > 0 else 0.0

    def _show_bar(self) -> None:
        if self._inside and _SHOWN[0].bar is not None:
            self.bar = bar = _SHOWN[0].bar
        else:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[numbers]}"))
            # The bar is gone with the end; what was said beforehand stays.
            self.bar = bar = Bar(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            if self.cost:
                self._line(self._place(), self.cost)
            bar.start()
        done, numbers = int(self.done), self._numbers()
        self._task = bar.add_task(self._place(), total=self.total, completed=done, numbers=numbers)

    def _place(self) -> str:
        return f"{self.what} {self.done:,.0f}/{self.total:,.0f}"

    def _numbers(self) -> str:
        """The note, or else the rate."""
        done, seconds = self.done - self._begun_with, time.monotonic() - self._started
        if self._note or done <= 0 or seconds <= 0:
            return self._note
        return f"{done / seconds:,.3g} a second" if done >= seconds else f"{seconds / done:,.3g} s each"

    def _line(self, *parts: str) -> None:
        self._last_line, self._lines = time.monotonic(), self._lines + 1
        self.console.print(" · ".join(filter(None, parts)), highlight=False, markup=False, soft_wrap=True)


def tracked(items: Iterable[T], what: str, *, total: float | None = None, cost: str = "") -> Iterator[T]:
    """The items, one after the other, with their progress. `total` where they cannot be counted beforehand."""
    if total is None:
        assert isinstance(items, Sized), "how many items there are is not known: give total"
        total = len(items)
    with Progress(what, total, cost=cost) as progress:
        for item in items:
            yield item
            progress.advance()


def _time(seconds: float) -> str:
    """A duration in the unit that matters.

    >>> _time(0.4), _time(52), _time(200), _time(4800)
    ('0.4 s', '52 s', '3 min 20 s', '1 h 20 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
