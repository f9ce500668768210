"""What was seen of a run as soon as it ended, in words: learned.json, where there is one."""

from pathlib import Path

from afterword.report.display import Score, load_table
from afterword.report.wording import rows_of
from afterword.storage.parsing import parse_json


def read_first_look(run: Path) -> list[Score]:
    """The scores of a run folder's first look; none where nothing was looked at."""
    try:
        return parse_json((run / "learned.json").read_text(encoding="utf-8"))["scores"]
    except FileNotFoundError:
        return []


def in_words(scores: list[Score]) -> dict[str, str]:
    """The change of each part's sentences, by what the part is called.

    >>> e = lambda value: {"value": value, "interval_95": [value - 0.1, value + 0.1]}
    >>> score = {"task": "learning/trained", "metric": "target_nll_nats", "details": {}, "better": "lower", "n": 8}
    >>> in_words([{**score, "before": e(3.0), "after": e(2.0), "change": e(-1.0)}])
    {'trained text': '3.000 → 2.000 nats per token of single sentences, −1.000 [−1.100, −0.900], n = 8'}
    """
    words, names = {}, load_table("words.yaml")["first_look"]
    for row in rows_of(scores):
        if row["score"]["metric"] == "target_nll_nats" and row["score"]["change"]:
            sides = f"{row['before']['mean']} → {row['after']['mean']} nats per token of single sentences"
            change = f"{row['change']['mean']} {row['change']['interval']}"
            aim = f"; with the document before them {row['aim']}" if row["aim"] else ""
            words[names[row["score"]["task"]]] = f"{sides}, {change}, n = {row['score']['n']:,}{aim}"
    return words
