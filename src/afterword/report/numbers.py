"""How numbers are printed. The suffix of a metric's name decides; every page takes its digits from here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeGuard

from afterword.types import Estimate

MISSING = "–"
MINUS = "−"


def decimals(metric: str, values: Iterable[float | None]) -> int:
    """Digits after the point that suit the largest of `values`.

    One for percentages (`_frac`), none for counts (`_tokens`); otherwise three or four significant digits, at
    most six decimals.
    """
    if metric.endswith("_frac"):
        return 1
    if metric.endswith(("_tokens", "tokens_per_second")):
        return 0
    largest = max((abs(value) for value in values if is_number(value)), default=0.0)
    if largest == 0:
        return 3
    significant = 4 if largest >= 1 else 3
    return min(6, max(0, significant - 1 - math.floor(math.log10(largest))))


def value(metric: str, x: float | None, places: int) -> str:
    """A measured value with `places` decimals; `_frac` as a percentage.

    >>> value("exact_match_frac", 0.4123, 1)
    '41.2%'
    """
    return MISSING if not is_number(x) else _digits(metric, x, places) + ("%" if _is_frac(metric) else "")


def change(metric: str, x: float | None, places: int) -> str:
    """A difference, always with its sign; of percentages it is in points.

    >>> change("target_nll_nats", -0.5, 3)
    '−0.500'
    """
    if not is_number(x):
        return MISSING
    digits = _digits(metric, x, places)
    plus = "" if digits.startswith(MINUS) or not digits.strip("0.,") else "+"
    return plus + digits + (" points" if _is_frac(metric) else "")


def interval(metric: str, estimate: Estimate | None, places: int) -> str:
    """The 95 % interval with as many digits as its value has; a dash where there is none."""
    if estimate is None or estimate.interval_95 is None:
        return MISSING
    low, high = (_digits(metric, bound, places) for bound in estimate.interval_95)
    return f"[{low}, {high}]"


def places_of(metric: str, *estimates: Estimate | None) -> int:
    """The decimals that suit all of these together, bounds included, so that they can be compared by eye."""
    known = [estimate for estimate in estimates if estimate is not None]
    return decimals(metric, [x for e in known for x in (e.value, *(e.interval_95 or ()))])


def count(n: float | None) -> str:
    """A whole number with thousands separated."""
    return f"{n:,.0f}" if is_number(n) else MISSING


def duration(seconds: float | None) -> str:
    """Elapsed time in the two units that matter.

    >>> duration(3725)
    '1 h 2 min'
    """
    if not is_number(seconds):
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _digits(metric: str, x: float, places: int) -> str:
    scaled = 100 * x if _is_frac(metric) else x
    digits = f"{abs(scaled):,.{places}f}"
    # A minus before zeros would claim a direction that the digits do not show.
    return MINUS + digits if scaled < 0 and digits.strip("0.,") else digits


def _is_frac(metric: str) -> bool:
    return metric.endswith("_frac")


def is_number(x: object) -> TypeGuard[float]:
    """A number that can be printed: neither None nor NaN nor infinite."""
    return isinstance(x, (int, float)) and math.isfinite(x)
