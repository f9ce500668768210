"""Every filter by a writer whose words are decided here; and the command, with the embedded model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from afterword.evaluation.suites import find_suite
from afterword.models import load_tokenizer
from afterword.quiz.reading import Put, Rule, is_right, passing
from afterword.quiz.run import FILTERS, checked_facts
from afterword.settings.adapt import read_settings
from afterword.settings.quiz import QuizSettings
from afterword.types import Document, Request, Sampling, Written
from afterword.writing import prompt

SAMPLING = Sampling(max_new_tokens=16, temperature=0.5)


@dataclass
class Said:
    """A writer that says what it is told to, and remembers what it was asked."""

    reply: Callable[[str, Request], str]
    tokenizer: Any = field(default_factory=lambda: load_tokenizer("almanac-chat"))
    asked: list[tuple[str, Request]] = field(default_factory=list)
    model: Any = None

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        self.asked += [(what, request) for request in requests]
        return [Written(self.reply(what, request), True) for request in requests]


def last_line(request: Request) -> str:
    return request.text.strip().splitlines()[-2 if request.text.strip().endswith("Answer:") else -1]


def test_samples_are_counted_and_none_is_drawn_in_vain() -> None:
    right_at = {"Always?": {0, 1, 2, 3}, "Never?": set[int](), "Thrice?": {0, 2, 3}, "Twice?": {1, 3}}
    writer = Said(lambda _, r: "Oslo" if r.seed in right_at[last_line(r).removeprefix("Question: ")] else "Rome")
    put = [Put(question, "Oslo", "Oslo is here.") for question in right_at]
    rule = Rule(samples=4, needed=3, sampling=SAMPLING)
    assert passing(writer, put, rule, "reading") == [True, False, True, False]
    drawn = Counter(last_line(request).removeprefix("Question: ") for _, request in writer.asked)
    # Three rights or two wrongs decide.
    assert drawn == {"Always?": 3, "Never?": 2, "Thrice?": 4, "Twice?": 3}


def test_a_reply_that_lists_what_it_might_be_is_not_right() -> None:
    put = Put("Who met Ola?", "Mara", "…", others=("Ola", "Vik"))
    assert is_right(put, "Mara met Ola.")
    assert is_right(put, "Mara\nText: Vik")
    assert not is_right(put, "Mara or Vik")
    assert not is_right(put, "Vik")


DOCUMENTS = [
    Document(f"d{n}", f"On {n + 3} May 2025 the harbour of {town} was opened by the president Mara {name}.")
    for n, (town, name) in enumerate([("Abyxa", "Lindo"), ("Ebyra", "Vikan"), ("Ibysa", "Holmo"), ("Obyta", "Bergo")])
]


def _questions(what: str, request: Request) -> str:
    """Good questions about dates; about persons, one that is of no use."""
    town = request.text.rpartition("harbour of ")[2].split()[0]
    opening = request.text.rpartition("Question: ")[2]
    if opening.startswith(("When", "On")):
        return f" was the harbour of {town} opened?\n\nText: …"
    return " opened the harbour?"


def _reader(what: str, request: Request) -> str:
    if what == "questions":
        return _questions(what, request)
    number = next((n for n, document in enumerate(DOCUMENTS) if document.text.split()[7] in last_line(request)), None)
    date = f"{number + 3} May 2025" if number is not None else "no"
    if what.startswith("reading"):
        return date
    # The date of the last document is known without it.
    return date if number == 3 else "unknown"


def _settings(**given: Any) -> QuizSettings:
    told = {"model_name_or_path": "m", "documents": ["d"], "output": "q.jsonl", "tries": 2, **given}
    return read_settings(told, QuizSettings)


def test_every_wording_is_kept_or_counted_at_the_first_filter_that_it_fails() -> None:
    writer = Said(_reader)
    facts, fell = checked_facts(writer, DOCUMENTS, _settings(gaps=False))
    assert [fact.span.answer for fact in facts] == ["3 May 2025", "4 May 2025", "5 May 2025"]
    assert all([wording.question.split()[0] for wording in fact.wordings] == ["When", "On"] for fact in facts)
    assert all(len(fact.choices) == 3 for fact in facts)
    drafted = sum(what == "questions" for what, _ in writer.asked)
    assert drafted == sum(fell.values()) + 6
    assert fell["known"] == 2
    assert fell["not_read"] == 0
    assert set(fell) == set(FILTERS)


def test_a_second_question_that_the_reader_gets_wrong_leaves_its_answer_with_one() -> None:
    def reply(what: str, request: Request) -> str:
        wrong = what.startswith("reading") and last_line(request).startswith("Question: On")
        return "9 June 1999" if wrong else _reader(what, request)

    facts, fell = checked_facts(Said(reply), DOCUMENTS, _settings(gaps=False))
    assert facts == []
    assert fell["not_read"] == 4
    assert fell["one_wording"] == 3
    assert fell["known"] == 1
    with_gaps, _ = checked_facts(Said(reply), DOCUMENTS, _settings())
    assert [[wording.how for wording in fact.wordings] for fact in with_gaps] == [["asked", "gap"]] * 3


def test_a_document_is_asked_about_only_so_often() -> None:
    facts, fell = checked_facts(Said(_reader), DOCUMENTS, _settings(per_document=1, wordings=2))
    assert Counter(fact.document for fact in facts).most_common(1)[0][1] == 1
    assert sum(fell.values()) >= 2


def test_questions_of_the_models_own_are_read_and_must_stand_in_the_text() -> None:
    own = "1. Question: When was the harbour of Abyxa opened?\nAnswer: 3 May 2025.\nQuestion: Who paid?\nAnswer: Nobody"

    def reply(what: str, request: Request) -> str:
        return (
            own if "own" in what and "Abyxa" in request.turns[0][1] else _reader(what, request) if request.text else ""
        )

    facts, fell = checked_facts(Said(reply), DOCUMENTS, _settings(own_questions=2, gaps=False))
    assert fell["not_in_text"] == 1
    assert fell["duplicate"] == 1
    assert facts


def test_the_command_says_what_it_made_or_why_nothing(afterword: Any, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in DOCUMENTS)
    (tmp_path / "docs.jsonl").write_text(rows, encoding="utf-8")
    out = tmp_path / "new" / "quiz.jsonl"
    command = ("quiz", "almanac-chat", str(tmp_path / "docs.jsonl"), "-o", str(out), "--tries", "2", "--samples", "1")
    done = afterword(*command, "--agree", "1", "--written-folder", str(tmp_path / "written"))
    # A model of names and numbers writes no question that can be used: the counts say where all of them fell.
    assert done.code == 1
    assert "not one question of 4 documents passed every filter" in done.err
    assert not out.exists()


def test_the_command_writes_suite_questions_and_page(
    afterword: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from afterword.quiz import run

    @contextmanager
    def written(*_: Any, **__: Any) -> Any:
        yield Said(_reader)

    monkeypatch.setattr(run, "open_writer", written)
    rows = "".join(json.dumps({"id": d.id, "text": d.text}) + "\n" for d in DOCUMENTS)
    (tmp_path / "docs.jsonl").write_text(rows, encoding="utf-8")
    out = tmp_path / "quiz.jsonl"
    done = afterword("quiz", "almanac-chat", str(tmp_path / "docs.jsonl"), "-o", str(out), "--tries", "2")
    assert done.code == 0
    assert "6 questions for 3 answers about 4 documents (dev 2, test 1); left out: " in done.out
    assert "Then: afterword evaluate RUN --suite" in done.out
    assert "4 documents" in done.err
    assert len(find_suite(str(out)).items) == 6
    page = (tmp_path / "quiz.html").read_text("utf-8")
    assert "When was the harbour of Abyxa opened?" in page
    assert "not_read" in page
    assert f"quiz_date, version {prompt('quiz_date').version}" in page
    out.unlink()
    again = afterword("quiz", "almanac-chat", str(tmp_path / "docs.jsonl"), "-o", str(out), "--tries", "2")
    assert again.code == 0, "a quiz takes the place of one that was stopped between its files"
    assert len(find_suite(str(out)).items) == 6


def test_documents_without_anything_to_ask_for_are_said(afterword: Any, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("velvet", encoding="utf-8")
    done = afterword("quiz", "almanac-chat", str(tmp_path / "words.txt"), "-o", str(tmp_path / "quiz.jsonl"))
    assert done.code == 1
    assert "no name, number or date was found that could be asked for" in done.err


@pytest.mark.parametrize("name", ["quiz.jsonl", "quiz.questions.jsonl", "quiz.json"])
def test_nothing_is_written_over_that_no_quiz_wrote(afterword: Any, tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.write_text('{"text": "Mara Lindo met Ola Vikan."}\n', encoding="utf-8")
    done = afterword("quiz", "almanac-chat", str(mine), "-o", str(tmp_path / "quiz.jsonl"))
    assert done.code == 2
    assert f"{name}' is there, and no quiz wrote it" in " ".join(done.err.split())
    assert "Mara" in mine.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--agree", "5"), "agree: 5 of 3 samples cannot be"),
        (("-o", "."), "is a folder. Give the name of a file"),
        (("--wordings", "1"), "wordings: "),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_read(
    afterword: Any, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    where, broken = () if "-o" in words else ("-o", "quiz.jsonl"), tmp_path / "broken.jsonl"
    broken.write_text("{", encoding="utf-8")
    done = afterword("quiz", "almanac-chat", str(broken), *where, *words)
    assert done.code == 2
    assert said in done.err


@pytest.mark.parametrize("words", [("quiz", "-o", "quiz.jsonl"), ("study", "-o", "written")])
def test_a_model_and_documents_that_are_not_there_are_named(afterword: Any, tmp_path: Path, words: Any) -> None:
    command, *where = words
    done = afterword(command, "almanac-chat", "nothing-here.jsonl", *where)
    assert "nothing-here.jsonl: no such file or folder" in done.err
    there = tmp_path / "there.jsonl"
    there.write_text('{"text": "Mara Quint left. She sailed on Monday."}', encoding="utf-8")
    done = afterword(command, "almanac-chta", str(there), *where)
    assert "Did you mean almanac-chat?" in done.err
    assert "answers tried" not in done.err, "nothing is said of a cost that will not be"
