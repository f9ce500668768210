"""Exams: read by hand-made rows, marked by hand-worked replies, drawn so that neither batch nor order matters."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import byte_tokenizer, random_llama

from afterword.data import SpecialTokens
from afterword.errors import ConfigError, DataError
from afterword.evaluation import exams
from afterword.evaluation.exam_answers import cut_at, is_tied, letter_of, number_of, voted
from afterword.evaluation.exam_files import Exam, ExamItem, load_exam
from afterword.evaluation.exam_learning import learning_by_split
from afterword.evaluation.measure import Inputs, Models
from afterword.evaluation.measures import MEASURES
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.exams import exams_of
from afterword.types import Request, Written

PLACE = Path(__file__).resolve().parents[3] / "benchmarks" / "exam_stand_ins.py"
CHAT = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if thinks %}<think>{% endif %}"


def stand_ins(folder: Path, count: int = 6) -> Path:
    spec = importlib.util.spec_from_file_location("exam_stand_ins", PLACE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_stand_ins(folder, count)
    return folder


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def kup_row(id_: int = 1, answer: str = "C", **changes: Any) -> dict[str, Any]:
    question = "Question: Which is true?\nA: one.\nB: two.\nC: three.\nD: four.\nAnswer:"
    return {"entity_id": id_, "entity": "Oslo", "question": question, "answer": answer, "evidence_news": "…"} | changes


def load(name: str, file: str, **how: Any) -> Exam:
    return load_exam(name, exams_of({name: {"file": file, **how}})[name])


def models(chat_template: str | None = None, **both: Any) -> Models:
    tokenizer = byte_tokenizer(chat_template)
    reference, adapted = both.get("reference", random_llama()), both.get("adapted")
    return Models(reference, adapted, tokenizer, SpecialTokens((0,), 1), both.get("max_length", 2048))


def inputs(given: dict[str, Any], items: Sequence[ExamItem] = ()) -> Inputs:
    settings = EvaluateSettings.model_validate({"exams": given})
    found = {name: load_exam(name, how) for name, how in exams_of(settings.exams or {}).items()}
    found = {name: replace(exam, items=tuple(items) or exam.items) for name, exam in found.items()}
    return Inputs("m", settings, exams=found)


class Scripted:
    """Replies by the question's subject and the number of the reply."""

    def __init__(self, replies: dict[str, Sequence[str]]):
        self.replies, self.asked = replies, list[Request]()

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        self.asked += requests
        return [Written(self._reply(request), ended=True) for request in requests]

    def _reply(self, request: Request) -> str:
        name = next(name for name in self.replies if name in request.text)
        return self.replies[name][request.seed % 1000]

    @contextmanager
    def opened(self, *_: Any, **__: Any) -> Iterator[Scripted]:
        yield self


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("<think>It is B.</think><answer>C</answer>", "C"),
        ("<answer>a</answer> no, <ANSWER> d\n</ANSWER>", "D"),
        ("<answer>E</answer>\nAnswer: B", "B"),
        ("<think>Answer: A</think>\nAnswer: B, I think", "B"),
        ("Answer:\nC. three", "C"),
        ("Answer: four\nD", "D"),
        ("my answer: (b)\nb) two", "B"),
        ("the answer - c", None),
        ("It is the first", None),
        ("   \nB.", "B"),
        ("Option B: two. Not D.", "B"),
        ("B and D", None),
        ("Why not. A, B", None),
        ("", None),
        ("<think>never closed <answer>B</answer>", "B"),
    ],
)
def test_a_letter_is_found_as_the_authors_find_it(reply: str, mark: str | None) -> None:
    assert letter_of(reply) == mark


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("<answer>3</answer> or <answer>4</answer>", "3"),
        ("<answer>option 2 of 4</answer>", "2"),
        ("<answer>C</answer>", "3"),
        ("<answer> Two </answer>", "2"),
        ("<answer>the second</answer>, so 4", "4"),
        ("There are 12 reasons for 3", "12"),
        ("It must be B!", "2"),
        ("option four", "4"),
        ("0 and 07", None),
        ("nothing", None),
        ("<think>1 or 2?</think>", "1"),
    ],
)
def test_a_number_is_found_as_the_authors_find_it(reply: str, mark: str | None) -> None:
    assert number_of(reply) == mark


def test_in_tags_alone_nothing_is_guessed() -> None:
    assert letter_of("Answer: B", "tags") is None
    assert number_of("It is 2", "tags") is None
    assert (letter_of("<answer>b</answer>", "tags"), number_of("<answer>2</answer>", "tags")) == ("B", "2")


@pytest.mark.parametrize(
    ("votes", "first", "wrong", "tied"),
    [
        (["B", "B", "A", None, "C"], "B", "B", False),
        (["B", "A", "B", "A", None], "A", None, True),
        ([None, None, "D"], "D", "D", False),
        ([None], None, None, False),
        (["10", "2"], "2", None, True),
    ],
)
def test_votes_and_ties(votes: list[str | None], first: str | None, wrong: str | None, tied: bool) -> None:
    assert (voted(votes, "first"), voted(votes, "wrong"), is_tied(votes)) == (first, wrong, tied)


def test_a_reply_ends_at_the_first_stop() -> None:
    assert cut_at("2\n\nQuestion: x\n\n<|user|>", ["\n\n<|user|>", "\n\nQuestion:"]) == "2"


def test_what_is_left_out_of_kup_is_counted(tmp_path: Path) -> None:
    rows = [kup_row(1), kup_row(4641), kup_row(2, evidence_news=None), kup_row(3, entity=float("nan")), kup_row(1)]
    exam = load("kup", write(tmp_path / "kup.jsonl", rows))
    # Rows with the same id stay: they are one unit.
    assert [item.id for item in exam.items] == ["1", "1"]
    assert exam.left_out == {"excluded": 1, "incomplete": 2}
    assert [item.id for item in load("kup", str(tmp_path / "kup.jsonl"), exclude="1 2").items] == ["4641"]


def test_kup_is_asked_as_it_stands_and_shuffled_where_it_is_wished(tmp_path: Path) -> None:
    file = write(tmp_path / "kup.jsonl", [kup_row(id_) for id_ in range(8)])
    assert {(item.question, item.right) for item in load("kup", file).items} == {(kup_row()["question"], "C")}
    shuffled = load("kup", file, shuffle_seed=7).items
    assert len({item.right for item in shuffled}) > 1
    for item in shuffled:
        assert f"\n{item.right}: three.\n" in item.question
        assert sorted(item.question.split()) == sorted(kup_row()["question"].split())
    unlettered = write(tmp_path / "other.jsonl", [kup_row(question="One or two?")])
    with pytest.raises(DataError, match="cannot be shuffled"):
        load("kup", unlettered, shuffle_seed=7)


def test_bioasq_is_shuffled_by_seed_and_row_and_asked_once(tmp_path: Path) -> None:
    options = ["w", "x", "y", "z"]
    rows = [{"question": f"q{n % 5}", "options": options, "correct_index": 2, "meta": None} for n in range(7)]
    file = write(tmp_path / "bioasq.jsonl", rows)
    exam = load("bioasq", file)
    assert (len(exam.items), exam.left_out) == (5, {"duplicate": 2})
    # By random.Random((123 + 9973) ^ (row * 7919)), worked out once.
    assert ["".join(item.options) for item in exam.items[:3]] == ORDERS
    for item in exam.items:
        assert item.options[int(item.right) - 1] == "y"
    # The order of a question is that of its row, whatever is asked beside it.
    later = load("bioasq", write(tmp_path / "b.jsonl", [*rows[:1] * 3, rows[3]]))
    assert later.items[-1].options == exam.items[3].options
    still = load("bioasq", file, shuffle_seed=None)
    assert {(item.options, item.right) for item in still.items} == {(tuple(options), "3")}


ORDERS = ["xzwy", "yxzw", "xywz"]


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("kup", kup_row(answer="E"), "must be one of ABCD"),
        ("kup", {"entity_id": 1, "question": "?", "answer": "A"}, "subject_column"),
        ("bioasq", {"question": "?", "options": ["a", "b"], "correct_index": 2}, "from 0 to 1"),
        ("bioasq", {"question": "?", "options": "a b", "correct_index": 0}, "a list of two options"),
        ("bioasq", {"question": 3, "options": ["a", "b"], "correct_index": 0}, "must be text"),
    ],
)
def test_a_row_that_cannot_be_asked_is_said_with_its_place(tmp_path: Path, name: str, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load(name, write(tmp_path / "rows.jsonl", [row]))
    assert "rows.jsonl, line 1" in str(caught.value)


def test_a_pickle_is_not_read_and_the_way_round_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "wikimcq_df.pickle").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match=r"read_pickle.*to_json"):
        load("kup", str(tmp_path / "wikimcq_df.pickle"))


def test_columns_have_names_of_their_own_and_parquet_is_read(tmp_path: Path) -> None:
    import pandas

    rows = [{"nr": 7, "about": "Oslo", "frage": kup_row()["question"], "richtig": "D"}]
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    named = {"id_column": "nr", "subject_column": "about", "question_column": "frage", "answer_column": "richtig"}
    (item,) = load("kup", str(tmp_path / "rows.parquet"), **named).items
    assert (item.id, item.subject, item.right) == ("7", "Oslo", "D")


def test_the_vote_decides_and_both_models_are_paired_over_questions(tmp_path: Path, monkeypatch: Any) -> None:
    rows = [kup_row(id_, "B", entity=f"town {id_}") for id_ in (1, 2, 3)]
    replies = {
        "town 1": ["<answer>B</answer>", "<answer>B</answer>", "Answer: C"],
        "town 2": ["<answer>B</answer>", "<answer>A</answer>", "?!"],
        "town 3": ["?!", "?!", "?!"],
    }
    scripted = Scripted(replies)
    monkeypatch.setattr(exams, "open_writer", scripted.opened)
    given = {"kup": {"file": write(tmp_path / "kup.jsonl", rows), "samples": 3}}
    found = exams.taken("kup", models(adapted=random_llama(1)), inputs(given))
    scores = {score.metric: score for score in MEASURES["exams/kup"].scores(found)}
    # Town 2 is a tie of A and B, which counts as the first letter: wrong.
    assert scores["correct_frac"].after
    assert scores["correct_frac"].after.value == pytest.approx(1 / 3)
    assert scores["sample_correct_frac"].after
    assert scores["sample_correct_frac"].after.value == pytest.approx(1 / 3)
    assert scores["unparsed_frac"].after
    assert scores["unparsed_frac"].after.value == pytest.approx(4 / 9)
    assert scores["tied_frac"].after
    assert scores["tied_frac"].after.value == pytest.approx(1 / 3)
    change = scores["correct_frac"].change
    assert change
    assert change.value == 0
    assert change.interval_95
    assert [row["after"] for row in found.answers] == ["B, B, C", "B, A, –", "–, –, –"]
    assert {request.text.count("town 1") for request in scripted.asked[:3]} == {1}
    assert scripted.asked[0].text.startswith("Knowledge Cutoff: December 2026.")
    assert scripted.asked[0].text.endswith("Answer:\n")


def test_a_tie_is_wrong_in_bioasq_and_options_are_numbered(tmp_path: Path, monkeypatch: Any) -> None:
    rows = [{"question": "q1", "options": ["w", "x"], "correct_index": 0}]
    scripted = Scripted({"q1": ["1\n\nQuestion: 2", "2", "none at all", "1", "2"]})
    monkeypatch.setattr(exams, "open_writer", scripted.opened)
    given = {"bioasq": {"file": write(tmp_path / "b.jsonl", rows), "shuffle_seed": None}}
    found = exams.taken("bioasq", models(CHAT), inputs(given))
    assert found.answers[0]["after"] == "1, 2, –, 1, 2"
    assert found.answers[0]["after_correct"] is False
    (text,) = {request.text for request in scripted.asked}
    assert text.startswith("[system]")
    assert "[user]" in text
    assert "1. w\n2. x" in text
    assert {request.sampling.top_p for request in scripted.asked} == {0.9}
    assert len({request.seed for request in scripted.asked}) == 5


def test_what_is_drawn_depends_on_neither_batch_nor_order(tmp_path: Path, monkeypatch: Any) -> None:
    folder = stand_ins(tmp_path)
    given = {"kup": {"file": str(folder / "kup.jsonl"), "new_tokens": 12, "samples": 2, "prompt_file": None}}
    read = inputs(given)
    replies = dict[str, list[str]]()

    def written(items: Sequence[ExamItem], batch_tokens: int) -> dict[str, list[str]]:
        from afterword.writing import LocalGenerator

        texts = dict[str, list[str]]()

        class Direct:
            def write(self, requests: Sequence[Request], what: str) -> list[Written]:
                generator = LocalGenerator(random_llama(), byte_tokenizer(), batch_tokens=batch_tokens)
                found = dict[int, Written]()
                for batch in generator.batches(requests):
                    for part in generator.write([requests[i] for i in batch], lambda _: None):
                        found |= {batch[n]: text for n, (text, _) in part.items()}
                for number, request in enumerate(requests):
                    texts.setdefault(request.about, []).append(found[number].text)
                return [found[number] for number in range(len(requests))]

        @contextmanager
        def opened(*_: Any) -> Iterator[Direct]:
            yield Direct()

        monkeypatch.setattr(exams, "open_writer", opened)
        exams.taken("kup", models(), inputs(given, items))
        return texts

    items = read.exams["kup"].items
    replies = written(items, 20_000)
    assert len({text for texts in replies.values() for text in texts}) == 2 * len(items), "every draw is its own"
    assert written(items[::-1][:4], 1) == {about: replies[about] for about in list(replies)[::-1][:4]}


def test_a_question_without_room_is_left_out_of_both_and_counted(tmp_path: Path, monkeypatch: Any) -> None:
    rows = [kup_row(1, entity="town 1"), kup_row(2, entity="town 2" + " far away" * 300)]
    monkeypatch.setattr(exams, "open_writer", Scripted({"town 1": ["<answer>C</answer>"] * 5}).opened)
    found = exams.taken("kup", models(), inputs({"kup": write(tmp_path / "kup.jsonl", rows)}))
    assert found.details["left_out"] == {"too_long": 1}
    assert len(found.answers) == 1


def test_a_prompt_of_ones_own_is_taken_as_it_stands(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "own.txt").write_text('{"of": "{subject}"}\n{question}\n\n', encoding="utf-8")
    scripted = Scripted({"Question": ["A"]})
    monkeypatch.setattr(exams, "open_writer", scripted.opened)
    given = {"file": write(tmp_path / "k.jsonl", [kup_row()]), "prompt_file": str(tmp_path / "own.txt")}
    exams.taken("kup", models(), inputs({"kup": {**given, "samples": 1}}))
    assert scripted.asked[0].text == f'{{"of": "Oslo"}}\n{kup_row()["question"]}\n\n'
    (tmp_path / "own.txt").write_text("## system\nBe brief.\n## user\n{question}\n", encoding="utf-8")
    exams.taken("kup", models(CHAT), inputs({"kup": {**given, "samples": 1, "prompt": "chat"}}))
    assert scripted.asked[1].text == f"[system]Be brief.[user]{kup_row()['question']}"
    (tmp_path / "own.txt").write_text("Nothing to fill", encoding="utf-8")
    with pytest.raises(ConfigError, match="no place for the question"):
        exams.taken("kup", models(), inputs({"kup": given}))


def test_thinking_is_told_to_the_template_where_it_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    told = "{{ 'on' if enable_thinking is not defined else enable_thinking }}"
    template = told + "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    scripted = Scripted({"q1": ["1"]})
    monkeypatch.setattr(exams, "open_writer", scripted.opened)
    file = write(tmp_path / "b.jsonl", [{"question": "q1", "options": ["w", "x"], "correct_index": 0}])
    for said in (None, True, False):
        exams.taken(
            "bioasq", models(template), inputs({"bioasq": {"file": file, "samples": 1, "enable_thinking": said}})
        )
    assert [request.text[:4] for request in scripted.asked] == ["onYo", "True", "Fals"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kop": "f"}, "exams.kop: there is no such exam. Did you mean kup?"),
        ({"kup": "f,sample=3"}, "exams.kup.sample: no such setting. Did you mean samples?"),
        ({"kup": {"samples": 3}}, "exams.kup.file: missing"),
        ({"kup": "f,temperature=-1"}, "exams.kup.temperature"),
        ({"kup": "f,enable_thinking=true"}, "exams.kup.enable_thinking"),
    ],
)
def test_what_is_wrong_with_an_exam_is_said_by_its_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        exams_of(given)
    assert said in str(caught.value)


def test_learning_is_counted_on_dev_and_test_apart() -> None:
    rows = [
        {"setting": "exams/kup", "id": str(n), "before_correct": False, "after_correct": n % 2 == 0} for n in range(200)
    ]
    other = {"setting": "closed_book", "before_correct": True, "after_correct": True}
    dev, test = learning_by_split([*rows, other])
    assert (dev.task, test.task) == ("dev/learning/exams/kup", "test/learning/exams/kup")
    assert dev.n + test.n == 200
    assert 70 < dev.n < 130
    assert dev.after
    assert test.after
    assert dev.after.value * dev.n + test.after.value * test.n == pytest.approx(100)
    # The same questions are dev whatever is asked beside them.
    assert learning_by_split(rows[:50])[0].n == sum(1 for row in rows[:50] if _is_dev(row["id"]))


def _is_dev(id_: str) -> bool:
    from afterword.evaluation.exam_learning import split_of

    return split_of("exams/kup", id_) == "dev"
