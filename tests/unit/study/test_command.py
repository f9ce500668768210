"""`afterword study` on the embedded model: what is said, what is there, and what is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import ConfigError
from afterword.method_options import KINDS
from afterword.settings.base import validated
from afterword.settings.study import StudySettings

GIVEN = {"model_name_or_path": "m", "documents": ["d"], "output_dir": "o"}
TEXT = "Mara Lind was born in Oslo. She moved to Bergen. Per Holm sells bread in Oslo. The bakery opens at six."


def problems_of(**settings: Any) -> tuple[str, ...]:
    try:
        validated({**GIVEN, **settings}, StudySettings)
    except ConfigError as error:
        return error.problems
    return ()


def test_the_embedded_model_writes_and_a_run_reads_it(afterword: Any, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(json.dumps({"id": "mara", "text": TEXT, "title": "Mara"}) + "\n")
    command = ["study", "almanac-chat", str(tmp_path / "docs.jsonl"), "-o", str(tmp_path / "study")]
    command += ["--kinds", "rephrase,summary", "--tokens-per-token", "2", "--no-grounded"]
    said = afterword(*command)
    assert said.code == 0, said.err
    assert "texts of" in said.out
    assert f"Next: afterword adapt almanac-chat {tmp_path / 'docs.jsonl'}" in said.out
    assert "study text 0/" in said.err
    assert "requests" in said.err
    rows = [json.loads(line) for line in (tmp_path / "study" / "study.jsonl").read_text().splitlines()]
    assert {row["document_id"] for row in rows} == {"mara"}
    before = {path.name: path.read_bytes() for path in (tmp_path / "study").iterdir()}
    again = afterword(*command)
    assert "was complete; nothing was written" in again.out
    assert {path.name: path.read_bytes() for path in (tmp_path / "study").iterdir()} == before
    # In another folder, every text is found in the store.
    other = afterword(*command[:4], str(tmp_path / "other"), *command[5:])
    assert "new tokens a second" not in other.err
    assert (tmp_path / "other" / "study.jsonl").read_bytes() == before["study.jsonl"]
    dry = afterword("adapt", "almanac-chat", str(tmp_path / "study"), "--method", "finetune", "--dry-run")
    assert (dry.code, f"{len(rows)} " in dry.out) == (0, True)


def test_amounts_are_equal_parts_or_said_by_kind() -> None:
    assert validated(GIVEN, StudySettings).shares() == dict.fromkeys(KINDS, 4 / 6)
    some = validated({**GIVEN, "kinds": ["summary", "rephrase"], "tokens_per_token": 3}, StudySettings)
    assert some.shares() == {"rephrase": 1.5, "summary": 1.5}
    said = validated({**GIVEN, "amounts": ["summary=2,rephrase=0.5"]}, StudySettings)
    assert list(said.shares().items()) == [("rephrase", 0.5), ("summary", 2.0)]
    assert said.plan().amounts == said.shares()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"kinds": ["sumary"]}, "kinds.0: should be 'rephrase', 'questions', 'summary'"),
        ({"amounts": {"sumary": 1}}, "amounts.sumary: there is no such kind. Did you mean summary?"),
        ({"amounts": {"summary": 0}}, "amounts.summary: must be a number above 0 and at most 1000, got 0."),
        ({"amounts": {"summary": 1}, "kinds": ["summary"]}, "kinds: says the same as amounts"),
        ({"amounts": {"summary": 1}, "tokens_per_token": 2}, "tokens_per_token: says the same as amounts"),
        ({"tokens_per_token": 0}, "tokens_per_token: should be greater than 0"),
        ({"output_dir": ""}, "output_dir: missing, and it has no default. Give the folder of the texts with -o."),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(settings: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(**settings)
    assert found.startswith(problem)


def test_missing_documents_and_a_missing_model_are_one_sentence(afterword: Any, tmp_path: Path) -> None:
    said = afterword("study", "almanac-chat", str(tmp_path / "nothing"), "-o", str(tmp_path / "study"))
    assert said.code == 1
    assert "no such file or folder" in said.err
    said = afterword("study", "almanac-chatt", __file__, "-o", str(tmp_path / "study"))
    assert "Did you mean almanac-chat?" in said.err
    assert not (tmp_path / "study").exists()
