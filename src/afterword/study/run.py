"""A study from documents to its folder."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from afterword.corpus import Corpus
from afterword.errors import ConfigError, DataError
from afterword.storage.locks import sole
from afterword.storage.paths import unwritable
from afterword.study import folder as study_folder
from afterword.study.asks import prompts_of
from afterword.study.plan import StudyPlan
from afterword.study.rounds import study_text
from afterword.writing import StoredWriter


@dataclass(frozen=True)
class StudyResult:
    """What a study left behind."""

    path: Path
    record: Mapping[str, Any]
    """As study.json has it."""
    already_complete: bool = False

    @property
    def pieces(self) -> int:
        """Texts of all kinds."""
        return sum(counts["pieces"] for counts in self.record["kinds"].values())

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(counts["tokens"] for counts in self.record["kinds"].values())


def write_study(
    writer: StoredWriter, corpus: Corpus, plan: StudyPlan, path: Path, *, model: str, command: str = ""
) -> StudyResult:
    """Write study.jsonl, study.json and examples.md. A folder that has the same study already is left as it is.

    A study that was stopped goes on by the same call: texts that the store has are not written again. DataError where
    nothing of what was written can be used.
    """
    if parent := unwritable(path):
        raise ConfigError(f"output_dir: {str(path)!r} cannot be written ({parent} is not writable). Give another.")
    identity = {"documents": corpus.content_sha256, "model": writer.generator.name, **_told(plan)}
    with sole(path, "writes into the same folder"):
        if earlier := study_folder.earlier(path, identity):
            return StudyResult(path, earlier, already_complete=True)
        started = time.monotonic()
        study = study_text(writer, corpus, plan)
        seconds = round(time.monotonic() - started, 1)
        if not study.pieces:
            reasons = Counter[str]()
            for count in study.counts.values():
                reasons.update(count.dropped)
            dropped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items())
            problem = f"documents: nothing that {model} wrote about them can be used (dropped: {dropped})"
            raise DataError(f"{problem}. Give other kinds, or a model that follows instructions.")
        record = {"format": 1, "model_name_or_path": model, "command": command, "seconds": seconds}
        record |= {"documents": study.documents, "document_tokens": study.document_tokens}
        record |= {"kinds": {kind: count.to_json(study.document_tokens) for kind, count in study.counts.items()}}
        record |= {"identity": identity}
        study_folder.write(path, study, record)
        return StudyResult(path, record)


def _told(plan: StudyPlan) -> dict[str, Any]:
    return {**asdict(plan), "prompts": prompts_of(plan.amounts)}
