"""What budget.json says, ready to print: what was chosen, from what, and which point of the way was saved."""

from collections.abc import Mapping
from typing import Any

from afterword.report.display import MISSING, duration

_NAMES = {"learning_rate": "learning rate", "num_train_epochs": "passes", "lr_scheduler_type": "schedule"}


def within_budget(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Sentences and tables of a run that was held to a forgetting budget; None for any other."""
    if not record:
        return None
    budget = record["budget"]
    unit, limit = budget["unit"], f"{budget['limit']:g} {budget['unit']}"
    chosen = {_NAMES.get(name, name): _number(value) for name, value in record["chosen"].items() if value is not None}
    pilots = [
        {
            "rate": f"{row['learning_rate']:g}",
            "learned": f"{row['learned_nats']:.3f}",
            "share": _share(row["share"]),
            "lost": f"{row['lost']:.3g}",
            "end": MISSING if row["lost_at_end"] is None else f"{row['lost_at_end']:.3g}",
            "time": duration(row["seconds"]),
        }
        for row in record["pilots"]
    ]
    return {
        "limit": limit + ("" if budget["given"] else ", the default"),
        "unit": unit,
        "chosen": chosen,
        "pilots": pilots,
        "along": [{"place": f"step {row['step']}", **_standing(row)} for row in record["along"]],
        "path": [{"place": _share(row["share"]), **_standing(row["standing"])} for row in record["path"]],
        "saved": _saved(record, limit),
    }


def _saved(record: Mapping[str, Any], limit: str) -> str:
    taken = record["taken"]
    if not taken:
        return "The run has not come to its end, so nothing is known of what is saved."
    lost, share = f"{taken['standing']['lost']:.3g}", taken["share"]
    if share == 1:
        return f"The weights are saved as they were trained: they lose {lost} of {limit}."
    if share == 0:
        return f"No point between the model as it was given and as it was trained keeps {limit}: it is saved as given."
    return (
        f"Saved is the point at {_share(share)} of the way from the model as it was given: it loses {lost} of {limit}."
    )


def _standing(row: Mapping[str, Any]) -> dict[str, str]:
    # Runs of before replies were asked for have none.
    on_replies = row.get("replies_drift_nats")
    return {
        "learned": f"{row['learned_nats']:.3f}",
        "lost": f"{row['lost']:.3g}",
        "drift": f"{row['drift_nats']:.3g}",
        "replies": MISSING if on_replies is None else f"{on_replies:.3g}",
    }


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)
