"""The page of an alignment: what was selected, of what, by which scores. Reads its folder and nothing else."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterword.errors import CheckpointError
from afterword.report import display, figures, pages
from afterword.report.run_folder import flat_settings, read_file, without_tokens
from afterword.report.wording import Rows, grouped
from afterword.storage.parsing import parse_json

_SCORES = {"format_score": "format score: loss with the template over loss without"}
_LOSS = "loss of the response in the template, nats per token"
_REMEDY = "Run `afterword align` first, or give the folder that it wrote."
_SHOWN = 3
"""Selected samples of a kind that are printed; selection.jsonl has all."""


def write_alignment(folder: Path) -> Path:
    """Write align.html (self-contained) into an alignment's folder; the same folder always gives the same bytes.

    CheckpointError where the folder holds no alignment, or a broken one.
    """
    state = read_file(folder / "align.json", parse_json, _REMEDY)
    lines = folder / "selection.jsonl"
    rows = read_file(lines, lambda text: [parse_json(line) for line in text.splitlines()], _REMEDY)
    try:
        return pages._write(folder / "align.html", _page(folder, state, rows))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: broken ({type(error).__name__}: {error}). Align again.") from error


def _page(folder: Path, state: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    settings = state["settings"]
    return {
        "name": folder.resolve().name,
        "model": settings["model_name_or_path"],
        "rule": settings["selection"],
        "template": state["chat_template"],
        "sources": [
            _source_row(group) for of in grouped(rows, "kind").values() for group in grouped(of, "source").values()
        ],
        "samples": {kind: shown for kind, group in grouped(rows, "kind").items() if (shown := _samples(group))},
        "stages": [_stage_row(stage, result) for stage, result in state["stages"].items()],
        "command": without_tokens(state["command"]),
        "settings": flat_settings(settings),
        "drawing": selection_figure(rows, settings["selection"]),
    }


def selection_figure(rows: Rows, rule: str) -> dict[str, str]:
    """Histograms of the scores that the rule selects by: of all scored samples, and of the selected ones."""
    score = rule if rule in _SCORES else "templated_nll_nats"
    panels = grouped([row for row in rows if score in row], "kind")
    figure = figures._figure([2.4] * len(panels), sharex=False)
    words = []
    for axes, (kind, group) in zip(figure.axes, panels.items(), strict=True):
        every, kept = ([row[score] for row in group if row["selected"] or not only] for only in (False, True))
        # The same bins for both, or they could not be compared.
        _, bins, _ = axes.hist(every, bins=40, color=figures._MUTED, alpha=0.35, label="all")
        axes.hist(kept, bins=bins, color=figures._ACCENT, label="selected")
        axes.set_ylabel(kind, color=figures._INK)
        axes.set_xlabel(_SCORES.get(score, _LOSS), color=figures._INK)
        axes.legend(frameon=False, labelcolor=figures._INK)
        medians = [statistics.median(part) for part in (every, kept)]
        middle, chosen = (display.value(score, x, display.decimals(score, medians)) for x in medians)
        words.append(f"{kind}: median {middle} of all {len(every):,}, {chosen} of the {len(kept):,} selected.")
    return figures._drawing(figure, "selection", "Scores of all and of the selected samples", words)


def _source_row(rows: Rows) -> dict[str, Any]:
    counts = {"selected": sum(row["selected"] for row in rows), "usable": sum("left_out" not in row for row in rows)}
    return {"source": rows[0]["source"], "kind": rows[0]["kind"], **counts, "left_out": len(rows) - counts["usable"]}


def _samples(rows: Rows) -> list[dict[str, Any]]:
    """The first of the selected samples, with what was said; none of a folder that was written without."""
    kept = [row for row in rows if row["selected"] and "messages" in row][:_SHOWN]
    named = [{"rejected": None, **row, "prompt": row["messages"][:-1]} for row in kept]
    return [{**row, "response": row["messages"][-1]["content"]} for row in named]


def _stage_row(stage: str, result: Mapping[str, Any]) -> dict[str, Any]:
    losses = list(result["losses"].values())
    places = display.decimals("loss_nats", [losses[0], losses[-1]])
    first, last = (display.value("loss_nats", loss, places) for loss in (losses[0], losses[-1]))
    return {"stage": stage.upper(), **result, "first": first, "last": last}
