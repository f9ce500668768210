"""What was read of every source, and what its tokens cost: tables from data.json and metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

from afterword.report import printing


def mixture_rows(mixture: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For every source what was asked for, and the tokens, samples, passes and shares that came of it."""
    return [
        {
            "source": str(row["source"]),
            "asked": _asked(row["asked"]),
            "samples": f"{row['samples']:,}",
            "tokens": f"{row['tokens']:,}",
            "epochs": f"{row['epochs']:.2f}",
            "token_share": printing.value("token_share_frac", row["token_share"], 1),
            "sample_share": printing.value("sample_share_frac", row["sample_share"], 1),
        }
        for row in mixture
    ]


def _asked(asked: Mapping[str, Any]) -> str:
    if not asked:
        return "the documents, once a pass"
    shares = [f"{100 * asked[unit]:g}% of {unit}" for unit in ("tokens", "samples") if asked.get(unit)]
    return f"{shares[0]}, at most {asked['max_epochs']:g} passes" if shares else "all of it, once a pass"


def source_losses(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Parts of the losses by source: means over the positions of the first and of the last tenth of the steps."""
    steps = [row for row in metrics if "train/loss_nats" in row]
    tenth = max(1, len(steps) // 10)
    named = sorted({name for row in steps for name in row if name.startswith("source/")})
    rows = []
    for name in (name for name in named if not name.endswith("positions")):
        source, _, part = name.removeprefix("source/").rpartition("/")
        count = f"source/{source}/{'replay_' if part.startswith('replay_') else ''}positions"
        first, last = (_mean(some, name, count) for some in (steps[:tenth], steps[-tenth:]))
        positions = sum(row.get(count, 0) for row in steps)
        digits = printing.decimals(part, [first, last])
        shown = [printing.value(part, value, digits) for value in (first, last)]
        row = {"source": source, "part": _label(part), "positions": f"{positions:,.0f}"}
        rows.append(row | {"first": shown[0], "last": shown[1]})
    return rows


def _label(part: str) -> str:
    replayed, name = part.startswith("replay_"), part.removeprefix("replay_")
    return printing.metric_label(name, {}) + (" (replay)" if replayed else "")


def _mean(rows: Sequence[Mapping[str, Any]], name: str, count: str) -> float | None:
    found = [(row[name], row[count]) for row in rows if name in row]
    weight = sum(n for _, n in found)
    return sum(value * n for value, n in found) / weight if weight else None
