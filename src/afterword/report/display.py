"""How names and numbers are printed. The suffix of a metric's name decides on its digits; no page prints its own."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any, NotRequired, TypedDict, TypeGuard, cast

from afterword.errors import number_of


class Estimate(TypedDict):
    """A mean and its interval as scores.json has them."""

    value: float
    interval_95: Sequence[float] | None


class Shown(TypedDict):
    """How a score is shown; see `ShownAs` in types.py."""

    task: str
    metric: str
    unit: str
    shows: str
    headline: int | None
    meaning: str
    in_verdict: NotRequired[bool]


class Score(TypedDict):
    """A score as scores.json and learned.json have it; see `Score` in types.py."""

    task: str
    metric: str
    version: int
    n: int
    seeds: int
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None
    better: str | None
    details: Mapping[str, Any]
    shown: Shown | None


MISSING = "–"
MINUS = "−"


@cache
def load_table(name: str) -> Mapping[str, Any]:
    """A YAML file of templates/, read once."""
    import yaml

    return yaml.safe_load((files("afterword.report") / "templates" / name).read_text(encoding="utf-8"))


def shown(score: Score) -> Shown:
    """What a score says of how it is shown; of a file that does not say it, what the measure of that name says now."""
    if own := score.get("shown"):
        return own
    # Only then: it brings half of the package with it.
    from afterword.evaluation.measures import shown_as

    return cast(Shown, asdict(shown_as(score["task"], score["metric"])))


def loss_label(name: str) -> str:
    """A loss of training in words, or its raw name where it is not one of ours."""
    return load_table("words.yaml")["losses"].get(name, name)


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
    leading = 3 if largest >= 1 else 2
    return min(6, max(0, leading - math.floor(math.log10(largest)))) if largest else 3


def value(metric: str, x: float | None, places: int) -> str:
    """A measured value with `places` decimals; `_frac` as a percentage.

    >>> value("exact_match_frac", 0.4123, 1)
    '41.2%'
    """
    return MISSING if not is_number(x) else _digits(metric, x, places) + ("%" if metric.endswith("_frac") else "")


def change(metric: str, x: float | None, places: int) -> str:
    """A difference, always with its sign; of percentages it is in points.

    >>> change("target_nll_nats", -0.5, 3)
    '−0.500'
    """
    if not is_number(x):
        return MISSING
    digits = _digits(metric, x, places)
    plus = "" if digits.startswith(MINUS) or not digits.strip("0.,") else "+"
    return plus + digits + (" points" if metric.endswith("_frac") else "")


def interval(metric: str, estimate: Estimate | None, places: int) -> str:
    """The 95 % interval with as many digits as its value has; a dash where there is none."""
    if not estimate or not estimate["interval_95"] or not all(map(is_number, estimate["interval_95"])):
        return MISSING
    return f"[{', '.join(_digits(metric, bound, places) for bound in estimate['interval_95'])}]"


def places_of(metric: str, *estimates: Estimate | None) -> int:
    """The decimals that suit all of these together, bounds included, so that they can be compared by eye."""
    return decimals(metric, [x for e in estimates if e for x in (e["value"], *(e["interval_95"] or ()))])


def count(n: float | None) -> str:
    """A whole number with thousands separated."""
    return f"{n:,.0f}" if is_number(n) else MISSING


def counted(score: Score) -> str:
    """How much a score is of; where several are about one thing, with how many units its interval is over.

    >>> counted({"n": 1030, "details": {"units": 515}}), counted({"n": 30, "details": {}})
    ('1,030 (515 units)', '30')
    """
    units = units_of(score)
    return count(score["n"]) + (f" ({number_of(units, 'unit')})" if units < score["n"] else "")


def units_of(score: Score) -> int:
    """What the interval of a score is over."""
    return score["details"].get("units", score["n"])


def duration(seconds: float) -> str:
    """Elapsed time in the two units that matter.

    >>> duration(3725)
    '1 h 2 min'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rate(x: float) -> str:
    """A learning rate as it is typed, so that rates of one page compare at a glance; 0 says that nothing was trained.

    >>> rate(0.0001), rate(2.5e-05), rate(0.0)
    ('1e-4', '2.5e-5', 'untrained')
    """
    if x == 0:
        return "untrained"
    digits, power = f"{x:.5e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def _digits(metric: str, x: float, places: int) -> str:
    scaled = 100 * x if metric.endswith("_frac") else x
    digits = f"{abs(scaled):,.{places}f}"
    # A minus before zeros would claim a direction that the digits do not show.
    return MINUS + digits if scaled < 0 and digits.strip("0.,") else digits


def is_number(x: object) -> TypeGuard[float]:
    """A number that can be printed: neither None nor NaN nor infinite."""
    return isinstance(x, (int, float)) and math.isfinite(x)
