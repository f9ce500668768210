"""The page of a sequence: every corpus after every stage, transfer, and retention. Reads sequence.json alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afterword.report import display, figures, pages
from afterword.report.run_folder import flat_settings, read_file, without_tokens
from afterword.storage.parsing import parse_json

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", ":", "-.")
_TRANSFER = {
    "learned": "Learned by its own stage",
    "forward": "Forward: by the stages before",
    "backward": "Backward: by the stages after",
}
"""Rows of the table of transfer, by their names in sequence.json."""


def write_sequence(folder: Path) -> tuple[Path, Path]:
    """Write sequence.html (self-contained) and sequence.md into a sequence's folder, of the stages that ended.

    The same sequence.json always gives the same bytes. CheckpointError where there is none, or a broken one.
    """
    page = build_sequence(folder)
    return pages.write_page(folder / "sequence.html", page), pages.write_page(folder / "sequence.md", page)


def build_sequence(folder: Path) -> dict[str, Any]:
    """Everything that the page prints."""
    again = "Run `afterword sequence` first, or give the folder that it wrote."
    return read_file(folder / "sequence.json", lambda text: _page(folder, parse_json(text)), again)


def _page(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    matrices = [_matrix(measure, data) for measure in data["measures"]]
    ended = data["models"][1:]
    return {
        "name": folder.resolve().name,
        "model": data["settings"]["model_name_or_path"],
        "held_to": data["held_to"],
        "corpora": data["corpora"],
        "stages": [f"after {name}" for name in ended],
        "runs": [_run(stage) for stage in data["stages"]],
        "left": len(data["stages"]) - len(ended),
        "matrices": matrices,
        "retention": [_kept(score, len(ended)) for score in data["retention"]],
        "lead": _lead(matrices[0], data) if matrices and ended else "",
        "drawing": draw_matrix(data["measures"][0], data["models"]) if matrices and ended else None,
        "notes": data["notes"],
        "command": without_tokens(data["command"] or ""),
        "settings": flat_settings(data["settings"]),
    }


def _matrix(measure: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of one quantity, a row for every model; and what they come to, a row for each kind of transfer."""
    metric, shown = measure["metric"], measure["shown"]
    every = [cell for row in measure["cells"] for cell in row]
    places = display.places_of(metric, *every)
    rows = [
        {
            "name": "first model" if number == 0 else f"after {model}",
            "cells": [_cell(measure, metric, number, i, places) for i in range(len(row))],
        }
        for number, (model, row) in enumerate(zip(data["models"], measure["cells"], strict=True))
    ]
    for row in rows:
        row["shown"] = [f"{cell['value']} {cell['interval']}" for cell in row["cells"]]
    return {
        "title": f"{shown['task']}: {shown['metric']}",
        "unit": shown["unit"],
        "lower": measure["better"] == "lower",
        "corpora": [f"{name} (n = {n})" for name, n in zip(measure["corpora"], measure["n"], strict=True)],
        "rows": rows,
        "ceiling": [_estimate(metric, each, places) for each in measure["with_document"]],
        "transfer": [_transfer(measure, part, called, places) for part, called in _TRANSFER.items()],
        "end": _estimate(metric, measure["means"]["end"], places),
    }


def _cell(measure: Mapping[str, Any], metric: str, model: int, corpus: int, places: int) -> dict[str, Any]:
    own = measure["taught_at"][corpus]
    when = "own" if model == own else "before" if model < own else "later"
    return {**_estimate(metric, measure["cells"][model][corpus], places), "when": when}


def _estimate(metric: str, estimate: display.Estimate | None, places: int) -> dict[str, str]:
    value = display.value(metric, estimate["value"] if estimate else None, places)
    interval = display.interval(metric, estimate, places)
    return {"value": value, "interval": "" if interval == display.MISSING else interval}


def _transfer(measure: Mapping[str, Any], part: str, called: str, places: int) -> dict[str, Any]:
    found = [*measure[part], measure["means"][part]]
    cells = [_change(measure["metric"], each, places) for each in found]
    return {"name": called, "cells": cells, "shown": [f"{cell['value']} {cell['interval']}".strip() for cell in cells]}


def _change(metric: str, estimate: display.Estimate | None, places: int) -> dict[str, str]:
    shown = _estimate(metric, estimate, places)
    return {**shown, "value": display.change(metric, estimate["value"] if estimate else None, places)}


def _kept(score: Mapping[str, Any], ended: int) -> dict[str, Any]:
    """A row of retention: the first model, and every stage with its change."""
    metric, found = score["metric"], [each or {"after": None, "change": None} for each in score["stages"]]
    places = display.places_of(metric, score["first"], *(each["after"] for each in found))
    cells = [
        {**_estimate(metric, each["after"], places), "change": _change(metric, each["change"], places)}
        for each in found
    ]
    for cell in cells:
        # A divergence from the first model is a change itself.
        cell["interval"] = (
            cell["change"]["interval"] if cell["change"]["value"] != display.MISSING else cell["interval"]
        )
        cell["change"] = "" if cell["change"]["value"] == display.MISSING else cell["change"]["value"]
    shown = [" ".join(filter(None, (cell["value"], cell["change"], cell["interval"]))) for cell in cells]
    assert len(cells) == ended, "a stage that ended was measured"
    return {
        "name": f"{score['shown']['task']}: {score['shown']['metric']}",
        "n": score["n"],
        "first": display.value(metric, score["first"]["value"] if score["first"] else None, places),
        "cells": cells,
        "shown": shown,
    }


def _run(stage: Mapping[str, Any]) -> dict[str, Any]:
    used, seconds = stage["settings"], stage["seconds"]
    rate = used.get("learning_rate")
    passes = used.get("num_train_epochs")
    return {
        "name": stage["folder"],
        "status": stage["status"],
        "method": used.get("method") or display.MISSING,
        "rate": display.rate(rate) if rate else display.MISSING,
        "passes": f"{passes:g}" if passes else display.MISSING,
        "steps": display.count(stage["steps"]),
        "time": display.duration(seconds) if seconds is not None else display.MISSING,
        "begins_with": stage["begins_with"],
        "held_to": stage["held_to"],
    }


def _lead(matrix: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The sentence that says what became of it, in the quantity that comes first."""
    count, means = len(data["models"]) - 1, data["measures"][0]["means"]
    texts = {row["name"]: row["shown"][-1] for row in matrix["transfer"]}
    said = (
        f"{count} of {len(data['stages'])} corpora are taught. {matrix['title']}: {matrix['end']['value']} in the mean"
    )
    parts = [f"learned by its own stage {texts[_TRANSFER['learned']]}"]
    parts += [f"{name} transfer {texts[_TRANSFER[name]]}" for name in ("forward", "backward") if means[name]]
    return f"{said} over all corpora at the end; {', '.join(parts)}."


def draw_matrix(measure: Mapping[str, Any], models: Sequence[str]) -> dict[str, str]:
    """Every corpus over the stages as inline SVG with its words; the large mark is its own stage."""
    metric, scale = measure["metric"], 100 if measure["metric"].endswith("_frac") else 1
    figure = figures.panels_of([3.2], sharex=False)
    axes, words = figure.axes[0], list[str]()
    for number, name in enumerate(measure["corpora"]):
        path = [(k, scale * row[number]["value"]) for k, row in enumerate(measure["cells"]) if row[number]]
        turn, marker = divmod(number, len(_MARKERS))
        # What tells corpora apart is marker and line, not colour alone.
        style = {"marker": _MARKERS[marker], "linestyle": _LINES[(number + turn) % len(_LINES)]}
        colour = figures.ACCENT if number % 2 else figures.INK
        axes.plot(*zip(*path, strict=True), color=colour, markersize=4, linewidth=1.3, label=f" {name}", **style)
        own = [place for place in path if place[0] == measure["taught_at"][number]]
        axes.plot(
            *zip(*own, strict=True), color=colour, marker=_MARKERS[marker], markersize=9, linestyle=""
        ) if own else None
        values = ", ".join(display.value(metric, row[number]["value"], 3) for row in measure["cells"] if row[number])
        words.append(f"{name}, from the first model to the last stage: {values}.")
    axes.set_xticks(range(len(models)), ["first", *models[1:]])
    axes.grid(axis="y", color=figures.MUTED, alpha=0.25, linewidth=0.6)
    axes.set_xlabel("model after each stage", color=figures.INK)
    axes.set_ylabel("%" if scale == 100 else measure["shown"]["unit"], color=figures.INK)
    for text in axes.legend(frameon=False, labelcolor=figures.INK).get_texts():
        text.set_parse_math(False)
    shown = measure["shown"]
    return figures.as_svg(figure, "matrix", f"{shown['task']}: {shown['metric']}", words)
