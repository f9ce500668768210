"""What was read of every source, and what its tokens cost: tables from data.json and metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

from afterword.report import display


def mixture_rows(mixture: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For every source what was asked for, and the tokens, samples, passes and shares that came of it."""
    return [
        {
            "source": str(row["source"]),
            "asked": _asked(row["asked"]),
            "samples": f"{row['samples']:,}",
            "tokens": f"{row['tokens']:,}",
            "epochs": f"{row['epochs']:.2f}",
            "token_share": display.value("token_share_frac", row["token_share"], 1),
            "sample_share": display.value("sample_share_frac", row["sample_share"], 1),
            "note": row.get("note") or "",
        }
        for row in mixture
    ]


def _asked(asked: Mapping[str, Any]) -> str:
    if not asked:
        return "the documents, once a pass"
    shares = [f"{100 * asked[unit]:g}% of {unit}" for unit in ("tokens", "samples") if asked.get(unit)]
    return f"{shares[0]}, at most {asked['max_epochs']:g} passes" if shares else "all of it, once a pass"


def with_general_text(data: Mapping[str, Any]) -> dict[str, Any]:
    """data.json with the files of general text, and what was skipped of them, after those of the documents."""
    mixture = data["mixture"]
    sources = [it | {"source": f"{row['source']}: {it['source']}"} for row in mixture for it in row["sources"]]
    skipped = [it | {"source": f"{row['source']}: {it['source']}"} for row in mixture for it in row["skipped_rows"]]
    total = (data["skipped_total"] or len(data["skipped"])) + sum(row["skipped_total"] or 0 for row in mixture)
    more = {"sources": [*data["sources"], *sources], "skipped": [*data["skipped"], *skipped]}
    return {**data, **more, "skipped_total": total}


def source_losses(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Parts of the losses by source: means over the positions of the first and of the last tenth of the steps."""
    steps = [row for row in metrics if "train/loss_nats" in row]
    tenth = max(1, len(steps) // 10)
    return _by_source(steps, (steps[:tenth], steps[-tenth:]), "source/")


def held_out_losses(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The same of held-out text, in the first and in the last evaluation; every evaluation reads the same positions."""
    evaluations = [row for row in metrics if "eval/loss_nats" in row]
    return _by_source(evaluations[-1:], (evaluations[:1], evaluations[-1:]), "eval_source/")


def _by_source(
    counted: Sequence[Mapping[str, Any]], first_and_last: Sequence[Sequence[Mapping[str, Any]]], prefix: str
) -> list[dict[str, str]]:
    """A row for every part of every source: its positions in what is counted, and its means, first and last."""
    named = sorted({name for row in counted for name in row if name.startswith(prefix)})
    rows = []
    for name in (name for name in named if not name.endswith("positions")):
        source, _, part = name.removeprefix(prefix).rpartition("/")
        count = f"{prefix}{source}/{'replay_' if part.startswith('replay_') else ''}positions"
        means = [_mean(some, name, count) for some in first_and_last]
        digits = display.decimals(part, means)
        first, last = (display.value(part, value, digits) for value in means)
        positions = f"{sum(row.get(count, 0) for row in counted):,.0f}"
        rows.append({"source": source, "part": _label(part), "positions": positions, "first": first, "last": last})
    return rows


def _label(part: str) -> str:
    replayed, name = part.startswith("replay_"), part.removeprefix("replay_")
    return display.loss_label(name) + (" (replay)" if replayed else "")


def _mean(rows: Sequence[Mapping[str, Any]], name: str, count: str) -> float | None:
    found = [(row[name], row[count]) for row in rows if name in row]
    weight = sum(n for _, n in found)
    return sum(value * n for value, n in found) / weight if weight else None


def read_aside(data: Mapping[str, Any]) -> list[str]:
    """What a reader should know of the documents beside their counts: what was not read, what the model wrote."""
    said = [*data["not_read"]]
    if written := data["prepared_by_view"]:
        made = f"{written['documents']:,} documents that the view {written['view']} made of {data['documents']:,}"
        said.append(f"trained: {made}, before training, with the model as it was (written.jsonl)")
    for row in data["mixture"]:
        said += [f"{row['source']}: {sentence}" for sentence in row["not_read"]]
    if data["control_tokens"]:
        where = f"{data['control_tokens']:,} written in {data['control_token_documents'] or 0:,} of the documents"
        read = "read as control tokens" if data["control_tokens_are"] == "keep" else "read as text"
        said.append(f"control tokens of the model: {where}, {read}")
    return said
