"""Figures as inline SVG. Colours are the page's CSS variables, so that a figure follows light and dark."""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from afterword.report.display import decimals, is_number, load_table, value
from afterword.report.wording import Rows, grouped

# matplotlib wants colours it can parse; these stand for the variables and are replaced in the SVG.
_COLOURS = {"ink": "#010101", "muted": "#020202", "accent": "#030303", "better": "#040404", "worse": "#050505"}
INK, MUTED, ACCENT = (_COLOURS[name] for name in ("ink", "muted", "accent"))

_TICKS = 5
"""Intervals of an axis: the labels of more would touch each other where numbers are small."""

Points = Sequence[tuple[float, float]]


def draw_training(metrics: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """Loss over optimizer steps."""
    named = load_table("words.yaml")["curves"].items()
    curves = [{**words, "points": _series(metrics, key)} for key, words in named if _series(metrics, key)]
    if not curves:
        return None
    panels = grouped(curves, "panel")
    figure = panels_of([2.6] * len(panels), sharex=True)
    for axes, (label, group) in zip(figure.axes, panels.items(), strict=True):
        for curve in group:
            _draw_curve(axes, **curve)
        axes.set_ylabel(label, color=INK)
        axes.legend(frameon=False, labelcolor=INK)
    figure.axes[-1].set_xlabel("optimizer step", color=INK)
    return as_svg(figure, "training", "Loss during training", [_first_and_last(**curve) for curve in curves])


def draw_changes(rows: Rows) -> dict[str, str] | None:
    """Every change that has an interval, one panel per unit, in the order of the tasks."""
    shown = [row for row in rows if row["score"]["change"] and row["score"]["change"]["interval_95"]]
    if not shown:
        return None
    panels = grouped(({**row, "unit": row["unit"] or row["score"]["metric"]} for row in shown), "unit")
    figure = panels_of([0.5 * len(group) + 0.45 for group in panels.values()], sharex=False)
    for axes, (unit, group) in zip(figure.axes, panels.items(), strict=True):
        _draw_forest(axes, group, scale=100 if unit == "%" else 1)
        axes.set_xlabel(f"change in {unit.replace('%', 'percentage points')}", color=INK, parse_math=False)
    words = [load_table("words.yaml")["change_in_words"].format(**row) for row in shown]
    return as_svg(figure, "changes", "Changes with their 95 % intervals", words)


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> Points:
    return [(row["step"], row[key]) for row in metrics if is_number(row.get(key))]


def _draw_curve(axes: Any, name: str, panel: str, points: Points) -> None:
    if name == "Training loss":
        axes.plot(*zip(*_binned(points, 400), strict=True), color=ACCENT, alpha=0.35, linewidth=0.9)
        axes.plot(*zip(*_binned(points, 40), strict=True), color=ACCENT, linewidth=1.8, label="training, averaged")
        if len(points) == 1:
            # A line of one point is none.
            axes.plot(*zip(*points, strict=True), color=ACCENT, marker="o", markersize=4)
    else:
        axes.plot(*zip(*points, strict=True), color=INK, marker="o", markersize=4, linewidth=1, label="evaluation")
    axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
    if axes.dataLim.width == 0:
        # Steps are whole: the axis of one step has no fractions of it.
        axes.set_xticks([points[0][0]])
    else:
        axes.locator_params(axis="x", integer=True, nbins=_TICKS)
    axes.ticklabel_format(useOffset=False)


def _binned(points: Points, most: int) -> Points:
    """At most `most` points, each the mean of its neighbours: a page must not grow with the run."""
    size = -(-len(points) // most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _first_and_last(name: str, panel: str, points: Points) -> str:
    means = [y for _, y in _binned(points, 10)]
    places = decimals("loss_nats", [means[0], means[-1]])
    first, last = (value("loss_nats", y, places) for y in (means[0], means[-1]))
    return f"{name}: {first} nats at the start, {last} nats at the end (first and last tenth of the rows)."


def _draw_forest(axes: Any, rows: Rows, scale: int) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for y, row in enumerate(rows):
        change, tone = row["score"]["change"], row["reading"].tone
        colour = _COLOURS.get(tone, MUTED)
        axes.plot([scale * bound for bound in change["interval_95"]], [y, y], color=colour, linewidth=2)
        # Filled or hollow says the same as the colour, for those who do not see it.
        face = "none" if tone == "unclear" else colour
        axes.plot([scale * change["value"]], [y], marker="o", color=colour, markerfacecolor=face, markersize=6)
        name = f"{row['task']}: {row['metric']}"[:64]
        # In the layout, a long name would squeeze the axes.
        axes.text(0, y - 0.3, name, transform=axes.get_yaxis_transform(), color=INK, parse_math=False, in_layout=False)
    axes.set(yticks=[], ylim=(len(rows) - 0.5, -0.8), xmargin=0.08)
    if axes.dataLim.width == 0:
        # Nothing has changed: other numbers on the axis would mean nothing.
        axes.set_xticks([0])
    else:
        axes.locator_params(axis="x", nbins=_TICKS)
        axes.ticklabel_format(axis="x", useOffset=False)


def panels_of(heights_inches: Sequence[float], *, sharex: bool) -> Any:
    """Panels one under the other, in the style of the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, sum(heights_inches)), layout="constrained")
    for axes in figure.subplots(len(heights_inches), sharex=sharex, squeeze=False, height_ratios=heights_inches).flat:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelcolor=INK, length=3)
    return figure


def as_svg(figure: Any, name: str, title: str, words: Sequence[str]) -> dict[str, str]:
    """The figure as a bare <svg> element, with the words that stand for it where it cannot be seen."""
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    view_box, drawn = re.findall(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', svg, flags=re.DOTALL)[0]
    # Ids that no other figure of the page has.
    drawn = re.sub(r'( id="| href="#|url\(#)', rf"\g<1>{name}-", drawn.replace("xlink:href", "href"))
    for variable, colour in _COLOURS.items():
        drawn = drawn.replace(f": {colour}", f": var(--{variable})")
    labelled = f'<svg {view_box} role="img" aria-labelledby="{name}-title" aria-describedby="{name}-text">'
    return {"name": name, "title": title, "svg": labelled + drawn, "description": " ".join(words)}
