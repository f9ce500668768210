"""The page of a comparison: learning against retention, one curve for each arm. Reads compare.json and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from afterword.errors import CheckpointError
from afterword.report import display, figures, pages
from afterword.report.retrieval import retrieval_block
from afterword.report.run_folder import flat_settings, read_file, without_tokens
from afterword.storage.parsing import parse_json

_AGAIN = "Run `afterword compare` first, or give the folder that it wrote."
_PARTS = ("learning", "retention")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_FRACTION = "_frac"
"""A name that display.py takes for a fraction."""


class Look(NamedTuple):
    """How an arm is drawn: colours told apart by the colour-blind (after Okabe and Ito 2008), and a marker besides."""

    light: str
    dark: str
    marker: str


LOOKS = (
    Look("#0072b2", "#56b4e9", "o"),
    Look("#c2500a", "#f0935a", "s"),
    Look("#00805f", "#3fcfa4", "^"),
    Look("#a8497f", "#e39bc4", "D"),
    Look("#8a6100", "#e9b949", "v"),
    Look("#5b5bc0", "#a9a9f5", "P"),
)
_LINES = ("-", "--", ":", "-.")
"""For every round through LOOKS another."""
_SIDES = ((5, 4, "left"), (-5, -9, "right"), (5, -9, "left"), (-5, 4, "right"))
_SIDES += tuple((x, y + (9 if y > 0 else -9), side) for x, y, side in _SIDES)
"""Where a label may stand: points right of and above its place, and which side of it is there. Beside it before
farther off."""
# Stand for CSS variables, as the placeholders of figures.py do.
_MARGIN = 0.08
"""Of an axis, on either side of what is on it."""
_NARROWEST_POINTS = 4.0
"""Of correct answers in a hundred, on an axis."""
_PAPER = "#060606"
_ARMS = tuple(f"#0708{i:02x}" for i in range(len(LOOKS)))
_ON_PAPER = {figures.INK: "#1c2126", figures.MUTED: "#5f6973", _PAPER: "#ffffff"}


def write_comparison(folder: Path) -> tuple[Path, Path, Path | None]:
    """Write compare.html (self-contained), compare.md and compare.png into a comparison's folder.

    The same compare.json always gives the same page. No picture where no cell is finished. CheckpointError where
    the folder holds no comparison.
    """
    page = build_comparison(folder)
    picture = draw_png(page["data"], folder / "compare.png") if page["drawing"] else None
    return pages.write_page(folder / "compare.html", page), pages.write_page(folder / "compare.md", page), picture


def build_comparison(folder: Path) -> dict[str, Any]:
    """Everything that the page prints."""
    data = _load(folder / "compare.json")
    try:
        return _page(folder, data)
    except (KeyError, TypeError, IndexError) as error:
        problem = f"{folder / 'compare.json'}: broken ({type(error).__name__}: {error})"
        raise CheckpointError(f"{problem}. Write it again with `afterword compare … --report-only`.") from error


def _page(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    settings = data["settings"]
    base = data["base"].get(data["split"])
    points = [_point_row(arm["name"], point) for arm in data["arms"] for point in arm["points"]]
    return {
        "data": data,
        "name": folder.resolve().name,
        "model": settings["model_name_or_path"],
        "suite": settings["suite"],
        "command": without_tokens(data["command"] or ""),
        "settings": flat_settings({**settings, "arms": {arm["name"]: arm["settings"] for arm in data["arms"]}}),
        "base": base,
        "base_shown": {part: _shown(base[part]) for part in _PARTS} if base else None,
        "base_skills": _base_skills(base),
        "reference": [display.value(_FRACTION, x, 1) for x in settings["reference_point"]],
        "limit": f"{settings['max_loss_points']:g}",
        "smallest": _smallest_skills(data["base"].get("dev"), settings["max_loss_points"]),
        "points": points,
        "retrieval": retrieval_block(data.get("retrieval")),
        "hypervolumes": [_hypervolume_row(arm) for arm in data["arms"]],
        "base_hypervolume": _area(data["base_hypervolume"]),
        "picks": [_pick_row(arm) for arm in data["arms"]],
        "cells": [_cell_row(cell) for cell in data["cells"]],
        "machines": [flat_settings(environment) for environment in data["environments"]],
        "hardware": _hardware(data["environments"]),
        "looks": LOOKS,
        "drawing": draw_frontier(data),
    }


def _hardware(environments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each machine once, whatever the versions were on it."""
    names = ("device", "cpu_count", "system")
    found = [flat_settings(environment) for environment in environments]
    return [dict(zip(names, it, strict=True)) for it in dict.fromkeys(tuple(m.get(n) for n in names) for m in found)]


def _load(file: Path) -> dict[str, Any]:
    data = read_file(file, parse_json, _AGAIN)
    if not isinstance(data, dict) or data.get("format") != 1:
        raise CheckpointError(f"{file}: is no comparison of format 1. {_AGAIN}")
    return data


def _shown(estimate: display.Estimate) -> dict[str, str]:
    interval = display.interval(_FRACTION, estimate, 1)
    return {"mean": display.value(_FRACTION, estimate["value"], 1), "interval": interval}


def _area(value: float | None) -> str:
    return display.MISSING if value is None else f"{value:.4f}"


def _point_row(arm: str, point: Mapping[str, Any]) -> dict[str, Any]:
    values = {part: _shown(point[part]) for part in _PARTS}
    rate = display.rate(point["learning_rate"])
    return {"arm": arm, "rate": rate, "dominated": point["dominated"], **values} | {
        name: point[name] for name in ("seeds", "interval_over")
    }


def _hypervolume_row(arm: Mapping[str, Any]) -> dict[str, Any]:
    area = arm["hypervolume"] or {"value": None, "interval_95": None, "seeds": 0}
    bounds = area["interval_95"]
    interval = f"[{', '.join(map(_area, bounds))}]" if bounds else display.MISSING
    return {"arm": arm["name"], "value": _area(area["value"]), "interval": interval, "seeds": area["seeds"]}


def _pick_row(arm: Mapping[str, Any]) -> dict[str, Any]:
    chosen = arm["pick"]
    if "reason" in chosen:
        return {"arm": arm["name"], "reason": chosen["reason"]}
    dev, test = chosen["dev"]["losses_points"], chosen["test"]["losses_points"]
    return {
        "arm": arm["name"],
        "reason": None,
        "rate": display.rate(chosen["learning_rate"]),
        **{part: _shown(chosen["test"][part]) for part in _PARTS},
        **{name: chosen[name] for name in ("seeds", "interval_over", "kept_on_test")},
        "dev_learning": display.value(_FRACTION, chosen["dev"]["learning"], 1),
        "worst_on_test": _lost(max(test.values())),
        "skills": [{"skill": s, "dev": _lost(dev.get(s)), "test": _lost(test[s])} for s in test],
    }


def _smallest_skills(dev: Mapping[str, Any] | None, limit: float) -> list[dict[str, Any]]:
    """The retention skill with the fewest dev items, others of which an item is worth more than the limit, and by how
    much a lost item counts."""
    skills = sorted(dev["retention"]["skills"].items(), key=lambda it: it[1]["n"]) if dev else []
    shown = [
        {"skill": s, "n": it["n"], "points": f"{100 / it['n']:.1f}", "coarse": 100 / it["n"] > limit}
        for s, it in skills
    ]
    return [skill for i, skill in enumerate(shown) if i == 0 or skill["coarse"]]


def _lost(points: float | None) -> str:
    """Percentage points lost as a change: a loss has a minus."""
    return display.change(_FRACTION, None if points is None else -points / 100, 1)


def _cell_row(cell: Mapping[str, Any]) -> dict[str, Any]:
    cost = cell["cost"] or {}
    counts = {name: display.count(cost.get(name)) for name in ("documents", "student_tokens", "teacher_tokens")}
    times = {n: display.duration(cost[n]) if n in cost else "–" for n in ("train_seconds", "evaluate_seconds")}
    passes = f"{cost['epochs']:g}" if cost else display.MISSING
    named = {"arm": cell["arm"], "rate": display.rate(cell["learning_rate"]), "seed": cell["seed"]}
    ended = {"status": cell["status"], "reason": cell["reason"]}
    return {**named, **ended, "passes": passes, **counts, **times, "flops": scientific(cost.get("flops"))}


def scientific(x: float | None) -> str:
    """A large number by its power of ten.

    >>> scientific(1.234e15), scientific(0.0)
    ('1.23·10¹⁵', '0')
    """
    if not display.is_number(x):
        return display.MISSING
    if x == 0:
        return "0"
    digits, power = f"{x:.2e}".split("e")
    return f"{digits}·10{str(int(power)).translate(_SUPERSCRIPTS)}"


def _base_skills(base: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {"part": part, "skill": skill, "n": found["n"], "value": display.value(_FRACTION, found["value"], 1)}
        for part in _PARTS
        for skill, found in (base[part]["skills"] if base else {}).items()
    ]


def draw_frontier(data: Mapping[str, Any]) -> dict[str, str] | None:
    """The figure as inline SVG in the page's colours, with its words; None where no cell is finished."""
    if not any(arm["points"] for arm in data["arms"]):
        return None
    drawing = figures.as_svg(_figure(data, {}), "frontier", "Learning against retention", _in_words(data))
    svg = drawing["svg"].replace(f": {_PAPER}", ": var(--paper)")
    for i, placeholder in enumerate(_ARMS):
        svg = svg.replace(f": {placeholder}", f": var(--arm-{i})")
    return drawing | {"svg": svg}


def draw_png(data: Mapping[str, Any], file: Path) -> Path:
    """The same figure on white, for places that take no SVG."""
    colours = _ON_PAPER | {_ARMS[i]: look.light for i, look in enumerate(LOOKS)}
    figure = _figure(data, colours)
    try:
        figure.savefig(file, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    except OSError as error:
        problem = f"{file}: cannot be written ({error.strerror})"
        raise CheckpointError(f"{problem}. Make room or give write access, then use --report-only.") from error
    return file


def _figure(data: Mapping[str, Any], colours: Mapping[str, str]) -> Any:
    """`colours` replaces the placeholders where the figure is not for the page."""
    arms = [arm for arm in data["arms"] if arm["points"]]
    columns = 2 if all(len(arm["name"]) <= 24 for arm in arms) else 1
    figure = figures.panels_of([4.0 + 0.24 * -(-(len(arms) + 2) // columns)], sharex=False)
    # Narrower than the page's other figures: it holds more text, which a phone must show.
    figure.set_figwidth(4.6)
    axes, ink, muted = figure.axes[0], *(colours.get(c, c) for c in (figures.INK, figures.MUTED))
    labels = [_draw_arm(axes, arm, i, colours) for i, arm in enumerate(data["arms"]) if arm["points"]]
    if base := data["base"].get(data["split"]):
        _draw_bars(axes, base, ink)
        place = [100 * base["retention"]["value"]], [100 * base["learning"]["value"]]
        axes.plot(*place, linestyle="", marker="X", color=ink, markersize=8, label="base model")
    hollow = {"markerfacecolor": colours.get(_PAPER, _PAPER), "markersize": 6, "label": "hollow: dominated"}
    axes.plot([], [], linestyle="", marker="o", color=muted, **hollow)
    _finish(figure, axes, columns, ink, muted)
    _spread(figure, [label for own in labels for label in own])
    return figure


def _draw_arm(axes: Any, arm: Mapping[str, Any], index: int, colours: Mapping[str, str]) -> list[Any]:
    """The curve in the order of the learning rates, a point for each with its intervals. Its labels, to be placed."""
    turn, i = divmod(index, len(LOOKS))
    colour, paper = colours.get(_ARMS[i], _ARMS[i]), colours.get(_PAPER, _PAPER)
    places = [(100 * p["retention"]["value"], 100 * p["learning"]["value"]) for p in arm["points"]]
    line = {"color": colour, "marker": LOOKS[i].marker, "markersize": 6, "linestyle": _LINES[turn % len(_LINES)]}
    axes.plot(*zip(*places, strict=True), **line, linewidth=1.4, label=_short(arm["name"]))
    ends = {arm["points"][end]["learning_rate"] for end in (0, -1)} | {arm["pick"].get("learning_rate")}
    labels = []
    for point, place in zip(arm["points"], places, strict=True):
        _draw_bars(axes, point, colour)
        if point["dominated"]:
            axes.plot(*([x] for x in place), **line, markerfacecolor=paper)
        # All of them would cover each other where gentle rates gather near the base model.
        if point["learning_rate"] in ends and point["learning_rate"]:
            how = {"textcoords": "offset points", "fontsize": 7.5, "color": colour}
            labels.append(axes.annotate(display.rate(point["learning_rate"]), place, xytext=(0, 0), **how))
    return labels


def _spread(figure: Any, labels: Sequence[Any]) -> None:
    """Every label where it covers the fewest of all points and of the labels before it."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    axes, half = figure.axes[0], 3.5 * figure.dpi / 72
    curves = [line.get_xydata() for line in axes.lines if line.get_marker() != "None"]
    places = [axes.transData.transform(place) for curve in curves for place in curve]
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in places]

    def covered(label: Any, side: tuple[float, float, str]) -> int:
        """Put the label there, and count what it covers."""
        label.set(position=side[:2], horizontalalignment=side[2])
        return label.get_window_extent().count_overlaps(taken)

    for label in labels:
        covered(label, min(_SIDES, key=lambda side, label=label: covered(label, side)))
        taken.append(label.get_window_extent())


def _draw_bars(axes: Any, point: Mapping[str, Any], colour: str) -> None:
    x, y = (100 * point[part]["value"] for part in ("retention", "learning"))
    style = {"color": colour, "linewidth": 0.9, "alpha": 0.45, "zorder": 1}
    if across := point["retention"]["interval_95"]:
        axes.plot([100 * bound for bound in across], [y, y], **style)
    if along := point["learning"]["interval_95"]:
        axes.plot([x, x], [100 * bound for bound in along], **style)


def _finish(figure: Any, axes: Any, columns: int, ink: str, muted: str) -> None:
    axes.spines["left"].set_visible(True)
    for spine in axes.spines.values():
        spine.set_color(muted)
    axes.tick_params(colors=muted, labelcolor=ink)
    axes.grid(color=muted, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(_MARGIN)
    _widen(axes)
    # More labels would touch each other where arms keep nearly the same.
    axes.locator_params(axis="x", nbins=6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{share + 0.0:.6g}%")
    axes.set_xlabel("retention: what the base could do, correct", color=ink)
    axes.set_ylabel("learning: what was taught, correct", color=ink)
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=ink)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _widen(axes: Any) -> None:
    """An axis on which all is alike shows some points around it: on a narrower one, nothing would look like much."""
    for interval, limit in ((axes.dataLim.intervalx, axes.set_xlim), (axes.dataLim.intervaly, axes.set_ylim)):
        if interval[1] - interval[0] < _NARROWEST_POINTS:
            half = _NARROWEST_POINTS / 2
            middle = min(max(sum(interval) / 2, half), 100 - half)
            half += _MARGIN * _NARROWEST_POINTS
            limit(middle - half, middle + half)


def _short(name: str) -> str:
    # matplotlib leaves labels that begin with an underscore out of legends.
    return f" {name}" if name.startswith("_") else name[:47] + "…" if len(name) > 48 else name


def _in_words(data: Mapping[str, Any]) -> Sequence[str]:
    """Every point, for those who do not see the figure."""
    words = []
    for arm in data["arms"]:
        rows = [_point_row(arm["name"], point) for point in arm["points"]]
        said = [
            f"at {row['rate']} learning {row['learning']['mean']} {row['learning']['interval']}, retention "
            f"{row['retention']['mean']} {row['retention']['interval']}{', dominated' if row['dominated'] else ''}"
            for row in rows
        ]
        words.append(f"{arm['name']}: {'; '.join(said) or 'no finished cell'}.")
    if base := data["base"].get(data["split"]):
        values = [f"{part} {display.value(_FRACTION, base[part]['value'], 1)}" for part in _PARTS]
        words.append(f"Base model: {', '.join(values)}.")
    return words
