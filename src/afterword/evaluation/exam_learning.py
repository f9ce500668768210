"""Learning by exams, where a suite has it by skills: the share that is right by vote, of dev and of test questions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from afterword.evaluation.intervals import before_and_after
from afterword.evaluation.measure import VERSIONS
from afterword.evaluation.suites import SPLITS
from afterword.storage.hashes import text_sha256
from afterword.types import Score

PREFIX = "exams/"


def learning_by_split(answers: Sequence[Mapping[str, Any]]) -> list[Score]:
    """Of every exam among the answers of an evaluation, `dev/learning/exams/NAME` and `test/learning/exams/NAME`."""
    rows = [row for row in answers if str(row["setting"]).startswith(PREFIX)]
    return [part for exam in dict.fromkeys(row["setting"] for row in rows) for part in _parts(exam, rows)]


def split_of(exam: str, item: str) -> str:
    """Whether a question is one to choose by: about half of them are, by their ids, whatever else is asked."""
    return SPLITS[int(text_sha256(f"{exam}/{item}")[:8], 16) % 2]


def _parts(exam: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Score]:
    for split in SPLITS:
        here = [row for row in rows if row["setting"] == exam and split_of(exam, row["id"]) == split]
        sides = {
            side: [float(row[f"{side}_correct"]) for row in here if row[f"{side}_correct"] is not None] or None
            for side in ("before", "after")
        }
        if here:
            measured = before_and_after(sides["before"], sides["after"], units=[row["id"] for row in here])
            task = f"{split}/learning/{exam}"
            yield Score(
                task=task, metric="correct_frac", version=VERSIONS["exams"], n=len(here), better="higher", **measured
            )
