"""Figures as inline SVG. Colours are the page's CSS variables, so that a figure follows light and dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from afterword.report import numbers
from afterword.report.readings import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib wants colours it can parse; these stand for the variables and are replaced in the SVG.
INK, MUTED, ACCENT, BETTER, WORSE = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "ink", MUTED: "muted", ACCENT: "accent", BETTER: "better", WORSE: "worse"}
_TONES = {"better": BETTER, "worse": WORSE}
_WIDTH_INCHES = 5.4
_MOST_POINTS = 400
_MOST_CHARACTERS = 64

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG with the words that stand for it where it cannot be seen."""

    name: str
    svg: str
    title: str
    description: str


def draw_training(metrics: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """Loss over optimizer steps; evaluation NLL, which is another quantity, in a panel of its own."""
    train, loss, nll = (_series(metrics, f"{key}_nats") for key in ("train/loss", "eval/loss", "eval/nll"))
    panels = [panel for panel in ((train, loss, "loss (nats)"), ([], nll, "evaluation NLL (nats)")) if any(panel[:2])]
    if not panels:
        return None
    figure = _figure(1.0 + 2.1 * len(panels))
    for index, (line, dots, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(len(panels), 1, index, sharex=figure.axes[0] if figure.axes else None)
        _draw_curves(axes, line, dots)
        axes.set_ylabel(label, color=INK)
    figure.axes[-1].set_xlabel("optimizer step", color=INK)
    named = (("Training loss", train), ("Evaluation loss", loss), ("Evaluation NLL", nll))
    text = " ".join(_first_and_last(name, points) for name, points in named)
    return _drawing(figure, "training", "Loss during training", text)


def draw_changes(rows: Sequence[Row]) -> Drawing | None:
    """Every change that has an interval, one panel per unit, in the order of the tasks."""
    shown = [row for row in rows if row.score.change and row.score.change.interval_95]
    if not shown:
        return None
    panels: dict[str, list[Row]] = {}
    for row in shown:
        panels.setdefault(row.unit or row.score.metric, []).append(row)
    heights = [len(group) + 0.9 for group in panels.values()]
    figure = _figure(0.5 * sum(heights))
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for index, (unit, group) in enumerate(panels.items()):
        _draw_forest(figure.add_subplot(grid[index]), group, "percentage points" if unit == "%" else unit)
    text = " ".join(
        f"{row.task}, {row.metric}: {row.change} {row.change_interval}, {row.reading.words}." for row in shown
    )
    return _drawing(figure, "changes", "Changes with their 95 % intervals", text)


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> Points:
    return [(row["step"], row[key]) for row in metrics if numbers.is_number(row.get(key))]


def _draw_curves(axes: Axes, line: Points, dots: Points) -> None:
    if line:
        thin = _binned(line, _MOST_POINTS)
        axes.plot(*zip(*thin, strict=True), color=ACCENT, alpha=0.35, linewidth=0.9)
        axes.plot(*zip(*_running_mean(thin), strict=True), color=ACCENT, linewidth=1.8, label="training, running mean")
    if dots:
        axes.plot(*zip(*dots, strict=True), color=INK, marker="o", markersize=4, linewidth=1, label="evaluation")
    if line and dots:
        axes.legend(frameon=False, labelcolor=INK)
    axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
    axes.locator_params(axis="x", integer=True)


def _binned(points: Points, most: int) -> Points:
    """At most `most` points, each the mean of its neighbours: a page must not grow with the run."""
    size = -(-len(points) // most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _running_mean(points: Points) -> Points:
    half = len(points) // 30
    windows = (points[max(0, i - half) : i + half + 1] for i in range(len(points)))
    return [(x, sum(y for _, y in near) / len(near)) for (x, _), near in zip(points, windows, strict=True)]


def _first_and_last(name: str, points: Points) -> str:
    if not points:
        return ""
    rows = max(1, min(10, len(points) // 4))
    means = [sum(y for _, y in part) / rows for part in (points[:rows], points[-rows:])]
    first, last = (numbers.value("loss_nats", x, numbers.decimals("loss_nats", means)) for x in means)
    return f"{name}: {first} nats at the start, {last} nats at the end (rows averaged: {rows})."


def _draw_forest(axes: Axes, rows: Sequence[Row], unit: str) -> None:
    scale = 100 if unit == "percentage points" else 1
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for y, row in enumerate(rows):
        colour = _TONES.get(row.reading.tone, MUTED)
        estimate = row.score.change
        assert estimate, "only rows with a change are drawn"
        assert estimate.interval_95, "only changes with an interval are drawn"
        axes.plot([scale * bound for bound in estimate.interval_95], [y, y], color=colour, linewidth=2)
        # Filled or hollow says the same as the colour, for those who do not see it.
        face = "none" if row.reading.tone == "unclear" else colour
        axes.plot([scale * estimate.value], [y], marker="o", color=colour, markerfacecolor=face, markersize=6)
        name = _shortened(f"{row.task}: {row.metric}")
        label = axes.text(0, y - 0.3, name, transform=axes.get_yaxis_transform(), color=INK, parse_math=False)
        label.set_in_layout(False)  # a long name would squeeze the axes
    axes.set_ylim(len(rows) - 0.5, -0.8)
    axes.set_yticks([])
    axes.set_xlabel(f"change in {unit}", color=INK, parse_math=False)
    axes.margins(x=0.08)


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_CHARACTERS else name[: _MOST_CHARACTERS - 1] + "…"


def _figure(height_inches: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")


def _drawing(figure: Figure, name: str, title: str, description: str) -> Drawing:
    for axes in figure.axes:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelcolor=INK, length=3)
    return Drawing(name, _inline_svg(figure, name), title, " ".join(description.split()))


def _inline_svg(figure: Figure, name: str) -> str:
    """The bare <svg> element: no prologue, namespaces or metadata, ids that no other figure has."""
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box, "matplotlib writes a viewBox"
    opening = f'<svg {view_box[0]} role="img" aria-labelledby="{name}-title" aria-describedby="{name}-text">'
    svg = opening + svg[svg.index(">") + 1 :].replace("xlink:href", "href")
    svg = re.sub(r'(?<= )id="', f'id="{name}-', svg)
    svg = svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": var(--{variable})")
    return svg
