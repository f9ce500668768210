"""A study in its folder: usable as documents, readable by a person, never written twice, the same after a stop."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from afterword.corpus import Corpus, read_corpus
from afterword.errors import ConfigError, DataError
from afterword.study.folder import EXAMPLES, RECORD, TEXTS
from afterword.study.plan import StudyPlan
from afterword.study.run import write_study
from afterword.types import Document, Request, Sampling

PLAN = StudyPlan(
    amounts={"rephrase": 1.0, "summary": 1.0}, sampling=Sampling(max_new_tokens=200, temperature=1.0)
)  # fmt: skip


@pytest.fixture
def corpus(documents: list[Document], tmp_path: Path) -> Corpus:
    return read_corpus(documents, cache_dir=tmp_path / "corpus")


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / TEXTS).read_text(encoding="utf-8").splitlines()]


def test_its_texts_are_documents_that_name_theirs(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    result = write_study(writing(), corpus, PLAN, tmp_path / "study", model="m")
    rows = rows_of(result.path)
    assert len(rows) == result.pieces
    assert {row["document_id"] for row in rows} == {document.id for document in corpus}
    read = list(read_corpus(str(result.path / TEXTS), cache_dir=tmp_path / "read"))
    assert [(document.id, document.text) for document in read] == [(row["id"], row["text"]) for row in rows]
    assert {document.title for document in read} == {None, "The Signal"}
    assert {document.source for document in read} == {document.source for document in corpus}


@pytest.mark.parametrize("given", ["study", "study/study.jsonl"])
def test_the_folder_is_read_as_its_texts_alone(writing: Any, corpus: Corpus, tmp_path: Path, given: str) -> None:
    result = write_study(writing(), corpus, PLAN, tmp_path / "study", model="m")
    read = read_corpus(str(tmp_path / given), cache_dir=tmp_path / "read")
    assert len(read) == result.pieces
    assert read.skipped_total == 0


def test_inside_of_a_folder_of_documents_it_is_none(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "own.txt").write_text("A text of one's own.")
    write_study(writing(), corpus, PLAN, tmp_path / "docs" / "study", model="m")
    read = read_corpus(str(tmp_path / "docs"), cache_dir=tmp_path / "read")
    assert [document.text for document in read] == ["A text of one's own."]
    assert any("study" in folder for folder in read.sources[0].aside.ignored_folders)


def test_the_record_counts_all_that_was_asked(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    writer = writing(lambda request: "Too short." if request.seed == 0 else random_words(request))
    result = write_study(writer, corpus, PLAN, tmp_path / "study", model="m", command="afterword study m")
    record = json.loads((result.path / RECORD).read_text())
    assert record["command"] == "afterword study m"
    for kind in PLAN.amounts:
        count, rows = record["kinds"][kind], [row for row in rows_of(result.path) if row["kind"] == kind]
        assert count["requests"] == count["pieces"] + sum(count["dropped"].values())
        assert count["pieces"] == len(rows)
        assert count["dropped"]["empty"] > 0
        assert count["tokens_per_token"] == pytest.approx(count["tokens"] / record["document_tokens"], abs=1e-4)
    identity = record["identity"]
    assert identity["prompts"]["study/summary_short"] == 2
    assert identity["sampling"]["temperature"] == 1.0


def random_words(request: Request) -> str:
    rng = random.Random(f"{request.turns} {request.seed}")
    return " ".join(f"word{rng.randrange(10**6)}" for _ in range(30))


def test_examples_show_three_texts_of_every_kind(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    result = write_study(writing(), corpus, PLAN, tmp_path / "study", model="m")
    page = (result.path / EXAMPLES).read_text()
    for kind in PLAN.amounts:
        assert page.partition(f"## {kind}")[2].partition("\n## ")[0].count("\n**") == 3


def test_a_finished_study_is_left_as_it_is(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    first = write_study(writing(), corpus, PLAN, tmp_path / "study", model="m")
    writer = writing()
    second = write_study(writer, corpus, PLAN, tmp_path / "study", model="m")
    assert second.already_complete
    assert (second.pieces, second.tokens) == (first.pieces, first.tokens)
    assert not writer.asked


def test_a_folder_of_another_study_or_of_something_else_is_refused(
    writing: Any, corpus: Corpus, tmp_path: Path
) -> None:
    write_study(writing(), corpus, PLAN, tmp_path / "study", model="m")
    other = StudyPlan(amounts={"summary": 3.0}, sampling=PLAN.sampling)
    with pytest.raises(ConfigError, match="holds a study with other amounts"):
        write_study(writing(), corpus, other, tmp_path / "study", model="m")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(ConfigError, match="is not empty and holds no study"):
        write_study(writing(), corpus, PLAN, tmp_path / "mine", model="m")


def test_a_study_that_was_killed_ends_with_the_same_bytes(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    whole = write_study(writing(), corpus, PLAN, tmp_path / "whole", model="m")
    kept = dict[Request, str]()

    class KilledError(Exception):
        pass

    for stop in (1, 3, 5, 8, 10**6):
        new = 0

        def reply(request: Request, stop: int = stop) -> str:
            """What the store has, or a new text, until the process is killed."""
            nonlocal new
            if request not in kept:
                if new == stop:
                    raise KilledError
                new += 1
                kept[request] = writing().reply(request)
            return kept[request]

        try:
            again = write_study(writing(reply), corpus, PLAN, tmp_path / "killed", model="m")
        except KilledError:
            assert not (tmp_path / "killed" / RECORD).exists()
    for name in (TEXTS, EXAMPLES):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_where_nothing_can_be_used_that_is_said(writing: Any, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing that m wrote about them can be used \(dropped: .*empty.*\)\. Give"):
        write_study(writing(lambda request: ""), corpus, PLAN, tmp_path / "study", model="m")
    assert not (tmp_path / "study").exists()
