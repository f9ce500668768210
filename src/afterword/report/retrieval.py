"""What retrieval adds to the page of a comparison: what a question costs, when training has paid, and both together."""

from collections.abc import Mapping
from typing import Any

from afterword.report import display

_FRACTION = "_frac"


def retrieval_block(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The three tables, ready to print; None where nothing was retrieved."""
    if not data:
        return None
    return {
        "questions": [row for question in data["questions"] for row in _question_rows(question)],
        "arms": [question["arm"] for question in data["questions"]],
        "paid_after": [_paid_row(row) for row in data["paid_after"]],
        "together": [_together_row(row) for row in data["together"]],
    }


def _question_rows(question: Mapping[str, Any]) -> list[dict[str, str]]:
    """Without what was found, and with it."""
    return [
        dict.fromkeys(("found", "index", "always"), display.MISSING)
        | {"arm": question["arm"], "how": "alone"}
        | _costs(question["alone"]),
        {
            "arm": question["arm"],
            "how": "with what was found",
            "found": display.value(_FRACTION, question["answer_found_frac"], 1),
            "always": _always(question["kept_if_always"]),
            "index": _seconds(question["index_seconds"]),
        }
        | _costs(question["retrieved"]),
    ]


def _always(kept: display.Estimate | None) -> str:
    return display.value(_FRACTION, kept["value"], 1) + " " + display.interval(_FRACTION, kept, 1) if kept else "–"


def _costs(side: Mapping[str, float | None]) -> dict[str, str]:
    places = display.decimals("gflops", [side["gflops"]])
    return {
        "prompt": display.count(side["prompt_tokens"]),
        "gflops": display.value("gflops", side["gflops"], places),
        "seconds": _seconds(side["seconds"]),
    }


def _seconds(seconds: float | None) -> str:
    return display.value("seconds", seconds, 2)


def _paid_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"arm": row["arm"], "questions": {name: display.count(n) for name, n in row["questions"].items()}}


def _together_row(row: Mapping[str, Any]) -> dict[str, Any]:
    change = row["change"]
    named = {"arm": row["arm"], "rate": display.rate(row["learning_rate"]), "seeds": row["seeds"]}
    shares = {
        name: display.value(_FRACTION, row[name]["value"], 1) for name in ("alone", "base_retrieved", "retrieved")
    }
    changed = {
        "change": display.change(_FRACTION, change["value"], 1),
        "interval": display.interval(_FRACTION, change, 1),
    }
    return named | shares | changed
