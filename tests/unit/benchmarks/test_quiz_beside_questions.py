"""A quiz beside given questions: what is read of a quiz as it is written, and correlations of rows made by hand."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from afterword.models import load_model, load_tokenizer
from afterword.quiz.facts import Fact, Wording
from afterword.quiz.files import items_of, write_rows
from afterword.quiz.spans import Span

SCRIPTS = Path(__file__).parents[3] / "benchmarks"
UNITS = ["a: 1", "a: 1", "b: 2", "b: 2", "c: 3"]


@pytest.fixture
def script(monkeypatch):
    """Imports one of the scripts, which find each other as they do when they are run."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def row(right: list[int], quiz: list[int], arm: str = "finetune", units: list[str] = UNITS) -> dict:
    return {"arm": arm, "right": right, "said": right, "quiz_right": quiz, "quiz_said": quiz, "quiz_units": units}


def rows_with(quiz: list[list[int]]) -> list[dict]:
    """Cells that answer 0, 1, 2 and 3 of four questions right."""
    return [row([1] * n + [0] * (4 - n), each) for n, each in enumerate(quiz)]


AS_THEY = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_the_same_order_is_1_and_the_other_way_round_minus_1(script):
    beside = script("quiz_beside_questions")
    for rows, expected in ((rows_with(AS_THEY), 1.0), (rows_with(AS_THEY[::-1]), -1.0)):
        questions, quiz = beside.Items.of(rows, "right"), beside.Items.of(rows, "quiz_right", UNITS)
        assert beside.correlations(questions.all, quiz.all) == pytest.approx((expected, expected))


def test_correlations_by_hand_with_one_pair_of_four_changed(script):
    """Ranks 1 2 3 4 and 2 1 3 4: Spearman's is 1 − 6·2/(4·15) = 0.8, Kendall's is (5 − 1)/6."""
    beside = script("quiz_beside_questions")
    found = beside.correlations(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.2, 0.1, 0.3, 0.4]))
    assert found == pytest.approx((0.8, 4 / 6))


def test_wordings_of_an_answer_are_drawn_together(script):
    items = script("quiz_beside_questions").Items.of(rows_with(AS_THEY), "quiz_right", UNITS)
    assert items.counts.tolist() == [2, 2, 1]
    assert items.right[2].tolist() == [1, 1, 0]
    assert items.shares(np.array([0, 0, 2])).tolist() == [0, 2 / 5, 2 / 5, 1]


def test_what_was_asked_the_same_goes_together_without_the_model_as_it_was_given(script):
    beside = script("quiz_beside_questions")
    rows = [row([0], [1], arm, ["a: 1"]) for arm in ("base", "as given", "disc", "finetune")]
    others = [row([0], [1], "disc", ["b: 1"]), row([0, 1], [1], "disc", ["a: 1"])]
    groups, without = beside.groups_of([*rows, *others, {"arm": "disc", "right": [0]}, {"arm": "base", "right": [0]}])
    assert ([[each["arm"] for each in group] for group in groups], without) == (
        [["disc", "finetune"], ["disc"], ["disc"]],
        1,
    )


def test_the_table_of_rows_by_hand(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows_with(AS_THEY)))
    monkeypatch.setattr("sys.argv", ["quiz_beside_questions.py", str(tmp_path / "rows.jsonl")])
    script("quiz_beside_questions").main()
    told = capsys.readouterr().out
    assert "4 cells; 4 questions; 5 of the quiz, for 3 answers" in told
    assert "| chosen of four | 0 to 75 | 0 to 100 | 1.00 [" in told


@pytest.mark.parametrize(("rows", "expected"), [
    (rows_with(AS_THEY)[:2], "Fewer than 3 cells"),
    (rows_with([[0] * 5] * 4), "none: all cells alike"),
    ([{"arm": "disc", "right": [0]}], "1 cells have no quiz"),
])  # fmt: skip
def test_where_there_is_no_order_it_is_said(script, tmp_path, monkeypatch, capsys, rows, expected):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    monkeypatch.setattr("sys.argv", ["quiz_beside_questions.py", str(tmp_path / "rows.jsonl")])
    script("quiz_beside_questions").main()
    assert expected in capsys.readouterr().out


@pytest.fixture
def quiz_file(tmp_path):
    """A quiz as `afterword quiz` writes it: a dev fact, two test facts, one of which has no choices."""
    years = ("2031", "2032", "2033")
    ask = tuple(Wording(f"{how} did the ferry Tern first leave?", "asked") for how in ("When", "In which year"))
    facts = [
        Fact(f"news-{n}", "…", Span(f"203{n}", "date", "…"), ask, choices)
        for n, choices in ((4, years), (5, years), (6, ()), (7, years))
    ]
    rows = items_of(facts, ["dev", "test", "test", "test"], "Answer briefly.")
    write_rows(tmp_path / "quiz.jsonl", [{"suite": {"name": "quiz", "version": 1}}, *rows])
    return tmp_path / "quiz.jsonl"


def test_of_a_quiz_the_test_half_is_read_with_choices_about_these_documents(script, quiz_file, model_folder, capsys):
    quiz = script("real_measures").read_quiz(quiz_file, load_tokenizer(model_folder), ["news-4", "news-5", "news-6"])
    assert [item.unit for item in quiz.items] == ["news-5: 2035"] * 2
    assert [(len(each.candidates), each.gold) for each in quiz.asked] == [(4, 0)] * 2
    assert "2 of other documents and 2 without wrong choices" in capsys.readouterr().err


def test_a_quiz_of_other_documents_is_refused(script, quiz_file, model_folder):
    with pytest.raises(SystemExit, match="about the documents"):
        script("real_measures").read_quiz(quiz_file, load_tokenizer(model_folder), ["other"])


def test_a_row_gets_the_quiz_beside_the_questions(script, quiz_file, model_folder, monkeypatch):
    measures = script("real_measures")
    tokenizer, model = load_tokenizer(model_folder), load_model(model_folder).eval()
    quiz = measures.read_quiz(quiz_file, tokenizer, ["news-5", "news-7"])
    replies = ["It was 2035.", "2035 or 2031", "2037", "I do not know."]
    monkeypatch.setattr(measures, "answers_of", lambda *_: replies)
    found = measures.quiz_measured(quiz, model, tokenizer)
    assert (found["quiz_said"], found["quiz_said_frac"]) == ([1, 0, 1, 0], 0.5)
    assert found["quiz_units"] == ["news-5: 2035"] * 2 + ["news-7: 2037"] * 2
    assert len(found["quiz_right"]) == 4
    assert found["quiz_choice_frac"] == sum(found["quiz_right"]) / 4
