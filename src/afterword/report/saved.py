"""What saving the model kept of what was trained, as data.json has it, for the pages and the card."""

from collections.abc import Iterator, Mapping
from typing import Any

from afterword.report.display import is_number, value

_WAYS = {"nearest": "rounded to the nearest value", "stochastic": "rounded stochastically"}


def saved_block(saved: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The sentence, and a row for every way of saving that was measured; None where a run does not say."""
    if not saved or not saved.get("sentence"):
        return None
    # Of an adapter only the merged model is rounded.
    decided = saved.get("merged") or saved
    # Servers take a model in float32 for one in half precision, which would round it.
    wide = saved.get("choice") == "float32" and saved["came_in"] != "float32"
    block = {"sentence": saved["sentence"], "rows": list(_rows(decided)), "losses": _losses(decided)}
    return {**block, "serve_options": ["--dtype", "float32"] if wide else []}


def _rows(saved: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for name, words in _WAYS.items():
        if way := saved.get(name):
            yield {
                "way": f"{saved['came_in']}, {words}",
                "gain": value("_frac", way["gain_frac"], 1),
                "cosine": value("", way["cosine"], 3),
                "changed": value("_frac", way["changed_frac"], 1),
            }


def _losses(saved: Mapping[str, Any]) -> str:
    before, after = saved.get("loss_before_nats"), saved.get("loss_trained_nats")
    if not is_number(before) or not is_number(after):
        return ""
    return f"{value('', before, 4)} nats before, {value('', after, 4)} as trained"
