"""The page of a blend: learning and retention on the way from a model to its adapted self. Reads blend.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afterword.report import display, figures, pages
from afterword.report.run_folder import flat_settings, read_file, without_tokens
from afterword.storage.parsing import parse_json

_FRACTION = "_frac"
"""A name that display.py takes for a fraction."""
_CURVES = {"learning": (figures._ACCENT, "o"), "retention": (figures._INK, "s")}
"""Colour and marker, which tells them apart without the colour."""


def write_blend(folder: Path) -> Path:
    """Write blend.html (self-contained) into a blend's folder; the same blend.json always gives the same bytes.

    CheckpointError where the folder holds no blend, or a broken one.
    """
    again = "Run `afterword blend` first, or give the folder that it wrote."
    page = read_file(folder / "blend.json", lambda text: _page(folder, parse_json(text)), again)
    return pages._write(folder / "blend.html", page)


def _page(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    settings, points, pick = data["settings"], data["points"], data["pick"]
    return {
        "name": folder.resolve().name,
        "base": settings["base"],
        "adapted": settings["adapted"],
        "limit": f"{settings['max_loss_points']:g}",
        "rows": [_base_row(points[0]), *(_row(point, pick) for point in points)],
        "reason": pick.get("reason"),
        "picked": None if "reason" in pick else _picked(pick),
        "drawing": draw_path(points),
        "command": without_tokens(data["command"]),
        "settings": flat_settings(settings),
    }


def draw_path(points: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Learning and retention on test over λ, the base at 0, as inline SVG with its words."""
    figure = figures._figure([3.0], sharex=False)
    axes, words = figure.axes[0], list[str]()
    for part, (colour, marker) in _CURVES.items():
        found = [points[0]["test"][part]["before"], *(point["test"][part]["after"] for point in points)]
        path = sorted(zip([0.0, *(point["lambda"] for point in points)], found, strict=True), key=lambda it: it[0])
        places = [(share, 100 * estimate["value"]) for share, estimate in path]
        axes.plot(*zip(*places, strict=True), color=colour, marker=marker, markersize=5, linewidth=1.4, label=part)
        for share, estimate in path:
            if bounds := estimate["interval_95"]:
                axes.plot([share, share], [100 * bound for bound in bounds], color=colour, linewidth=0.9, alpha=0.45)
        values = ", ".join(f"{display.value(_FRACTION, it['value'], 1)} at {share:g}" for share, it in path)
        words.append(f"{part.capitalize()} on test by λ: {values}.")
    axes.grid(axis="y", color=figures._MUTED, alpha=0.25, linewidth=0.6)
    axes.set_xlabel("λ: share of the way from the base (0) to the adapted model (1)", color=figures._INK)
    axes.set_ylabel("% on test", color=figures._INK)
    axes.legend(frameon=False, labelcolor=figures._INK)
    return figures._drawing(figure, "path", "Learning and retention on the way", words)


def _base_row(point: Mapping[str, Any]) -> dict[str, Any]:
    return {"share": "0 (base)", **_values(point, "before"), "lost": display.MISSING, "picked": False}


def _row(point: Mapping[str, Any], pick: Mapping[str, Any]) -> dict[str, Any]:
    lost = f"{max(point['dev']['losses_points'].values()):.1f}"
    picked = point["lambda"] == pick.get("lambda")
    return {"share": f"{point['lambda']:g}", **_values(point, "after"), "lost": lost, "picked": picked}


def _values(point: Mapping[str, Any], side: str) -> dict[str, Any]:
    shown: dict[str, Any] = {"dev": display.value(_FRACTION, point["dev"]["learning"][side]["value"], 1)}
    for part in _CURVES:
        estimate = point["test"][part][side]
        interval = display.interval(_FRACTION, estimate, 1)
        shown[part] = {"value": display.value(_FRACTION, estimate["value"], 1), "interval": interval}
    return shown


def _picked(pick: Mapping[str, Any]) -> dict[str, Any]:
    lost = f"{max(pick['test']['losses_points'].values()):.1f}"
    return {"share": f"{pick['lambda']:g}", "kept_on_test": pick["kept_on_test"], "lost_on_test": lost}
