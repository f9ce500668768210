"""How names and numbers are printed. The suffix of a metric's name decides on its digits; no page prints its own."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeGuard

Estimate = Mapping[str, Any] | None
"""A mean and its interval as scores.json has them: `value` and `interval_95`."""
MISSING = "–"
MINUS = "−"


@cache
def load_table(name: str) -> Mapping[str, Any]:
    """A YAML file of templates/, read once."""
    import yaml

    return yaml.safe_load((files("afterword.report") / "templates" / name).read_text(encoding="utf-8"))


def task_label(task: str) -> str:
    """The task in words; a benchmark (`tasks/…`) by its own name."""
    return load_table("words.yaml")["tasks"].get(task, task.removeprefix("tasks/"))


def metric_label(metric: str, details: Mapping[str, Any]) -> str:
    """The metric in words, or its raw name where it is not one of ours."""
    label = load_table("words.yaml")["metrics"].get(metric, metric)
    # lm-eval gives one metric several times, by how the answer is cut out of the text; "none" is the usual way.
    rule = details.get("filter") or "none"
    return label if rule == "none" else f"{label}, {rule}"


def unit(metric: str) -> str:
    """The unit that the name's suffix stands for; empty where it carries none."""
    return next((word for suffix, word in load_table("words.yaml")["units"].items() if metric.endswith(suffix)), "")


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


def interval(metric: str, estimate: Estimate, places: int) -> str:
    """The 95 % interval with as many digits as its value has; a dash where there is none."""
    if not estimate or not estimate["interval_95"] or not all(map(is_number, estimate["interval_95"])):
        return MISSING
    return f"[{', '.join(_digits(metric, bound, places) for bound in estimate['interval_95'])}]"


def places_of(metric: str, *estimates: Estimate) -> int:
    """The decimals that suit all of these together, bounds included, so that they can be compared by eye."""
    return decimals(metric, [x for e in estimates if e for x in (e["value"], *(e["interval_95"] or ()))])


def count(n: float | None) -> str:
    """A whole number with thousands separated."""
    return f"{n:,.0f}" if is_number(n) else MISSING


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


def _digits(metric: str, x: float, places: int) -> str:
    scaled = 100 * x if metric.endswith("_frac") else x
    digits = f"{abs(scaled):,.{places}f}"
    # A minus before zeros would claim a direction that the digits do not show.
    return MINUS + digits if scaled < 0 and digits.strip("0.,") else digits


def is_number(x: object) -> TypeGuard[float]:
    """A number that can be printed: neither None nor NaN nor infinite."""
    return isinstance(x, (int, float)) and math.isfinite(x)
