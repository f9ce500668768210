"""A measure that does not come with the package: by place, by entry point, from Python; and on the page."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from afterword import plugins
from afterword.errors import ConfigError, DataError
from afterword.evaluation import Measure, Measured, Metric, Values, evaluate
from afterword.evaluation.measures import chosen_measures, get_measure
from afterword.report import write_report
from afterword.report.verdict import verdict_of

PAGE = Path(__file__).parents[3] / "docs" / "ADD_A_MEASURE.md"
EXAMPLE = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
QUICK = {"samples": 0, "max_documents": 2}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the working folder."""
    (tmp_path / "my_measures.py").write_text(EXAMPLE + "NOTHING = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(plugins.sys.modules, "my_measures", raising=False)
    monkeypatch.setattr(plugins.sys, "path", list(plugins.sys.path))
    return "my_measures"


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_folder, documents):
    import afterword

    folder = tmp_path_factory.mktemp("own")
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
    asked = [{"question": f"Where {i}?", "answer": "Oslo", "document": f"doc-{i}"} for i in range(6)]
    (folder / "quiz.jsonl").write_text("\n".join(map(json.dumps, asked)))
    quick = {"preset": "disc-paper", "max_steps": 1, "learning_rate": 1e-2, "output_dir": str(folder / "run")}
    afterword.adapt(model_folder, str(folder / "docs.jsonl"), **quick)
    return folder / "run"


def values(*found, **how):
    """A measure whose function gives these values."""
    declared = (Metric("right_frac", "Right", "higher"), Metric("odd", unit="it"))
    fields = {"name": "own", "shows": "kept", "metrics": declared, "measure": lambda *_: Measured(found)}
    return Measure(**{**fields, **how})


def test_the_example_of_the_page_is_short_and_is_measured_by_a_command(run, module, afterword):
    assert len(EXAMPLE.splitlines()) <= 30
    quiz = run.parent / "quiz.jsonl"
    words = f"evaluate {run} --questions {quiz} --measures {module}:MEASURE --samples 0 --max-documents 2"
    said = afterword(*words.split())
    assert said.code == 0, said.err
    written = json.loads((run / "scores.json").read_text())
    assert written["settings"]["measures"] == ["my_measures:MEASURE"]
    own = {score["metric"]: score for score in written["scores"] if score["task"] == "style/answers"}
    assert own["length_words"]["n"] == own["brief_frac"]["n"] == 6
    assert own["length_words"]["before"]["value"] > 0
    assert own["brief_frac"]["change"]["interval_95"]
    for line in ("style/answers, n = 6", "length_words", "brief_frac"):
        assert line in said.out
    html, markdown = (file.read_text() for file in write_report(run))
    for text in (html, markdown):
        assert "How answers are written" in text
        assert "Answers of ten words at most" in text
        assert "Length of an answer" in text
    lost = markdown[markdown.index("## What was lost") : markdown.index("## All scores")]
    assert "Answers of ten words at most" in lost
    assert "Length of an answer" not in lost, "it has no place in the headline"
    assert "| words | 6 |" in markdown
    for text, entry in (
        (html, "<dt>Answers of ten words at most</dt>"),
        (markdown, "- **Answers of ten words at most**"),
    ):
        meanings = text[text.index("What the measures mean") :]
        assert entry in meanings
        assert "Share of answers that a reader takes in at a glance." in meanings


def test_a_page_is_written_where_the_measure_is_not(run, module, tmp_path):
    evaluate(run, measures=[f"{module}:MEASURE"], questions=str(run.parent / "quiz.jsonl"), **QUICK)
    Path("my_measures.py").unlink()
    del plugins.sys.modules["my_measures"]
    assert "How answers are written" in write_report(run)[1].read_text()


def test_an_object_from_python_is_measured_beside_the_others(run, tmp_path):
    seen = []

    def measured(models, inputs):
        seen.append((models.adapted is not None, len(inputs.documents["documents"])))
        return Measured([Values(metric="right_frac", before=[0.0, 1.0], after=[1.0, 1.0])], {"why": "so"}, notes=["!"])

    result = evaluate(run, measures=[values(measure=measured, needs=("documents",))], output_dir=tmp_path, **QUICK)
    (own,) = (score for score in result.scores if score.task == "own")
    assert (own.before.value, own.after.value, own.change.value, own.n) == (0.5, 1.0, 0.5, 2)
    assert (own.details, own.better, own.shown.unit, result.notes) == ({"why": "so"}, "higher", "%", ["!"])
    assert {score.task for score in result.scores} == {"learning/trained", "own"}
    assert seen[0][0]
    assert json.loads((tmp_path / "scores.json").read_text())["settings"]["measures"] == ["own"]


def test_a_measure_of_an_installed_package_has_its_name(module, monkeypatch):
    points = {"theirs": EntryPoint("theirs", f"{module}:MEASURE", "afterword.measures")}
    monkeypatch.setattr(plugins, "added", lambda kind: points if kind == "measures" else {})
    monkeypatch.syspath_prepend(str(plugins.os.getcwd()))
    assert get_measure("theirs").name == "style/answers"
    with pytest.raises(ConfigError, match=r"'theirz' is not known .* Did you mean theirs\?"):
        get_measure("theirz")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("my_measures:GONE", "cannot be loaded .*has no attribute 'GONE'"),
        ("no_such_module:MEASURE", "cannot be loaded .*No module named 'no_such_module'"),
        ("my_measures:NOTHING", "is of the type int, not a Measure"),
        ("style", r"'style' is not known .*Give package\.module:NAME of your own"),
        ("learning/trained", "It is made wherever what it needs is given"),
    ],
)
def test_a_place_that_gives_no_measure_is_named(place, words, module):
    with pytest.raises(ConfigError, match=words):
        get_measure(place)


def test_two_measures_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two of the name 'learning/trained'"):
        chosen_measures([values(name="learning/trained")])
    with pytest.raises(ConfigError, match="two of the name 'own'"):
        chosen_measures([values(), values()])


@pytest.mark.parametrize(
    ("needs", "words"),
    [(("questions",), "needs questions. Give --questions"), (("held_out", "suite"), "Give --held-out, --suite")],
)
def test_what_a_measure_needs_is_asked_for_before_a_model_is_loaded(run, needs, words, monkeypatch):
    monkeypatch.setattr("afterword.evaluation.scores.load_models", None)
    with pytest.raises(ConfigError, match=words):
        evaluate(run, measures=[values(needs=needs)], **QUICK)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Values(metric="other", after=[1.0]), r"gave 'other', which its metrics do not declare \(right_frac, odd\)"),
        (Values(metric="odd", before=[1.0, 2.0], after=[1.0]), r"before: shape \(2,\), after: shape \(1,\)"),
        (Values(metric="odd", before=[float("nan")], after=[1.0]), "not a finite number"),
        (Values(metric="odd", after=[]), r"Give one number for each document"),
        (
            Values(metric="right_frac", before=[0.5], after=[37.0]),
            r"'own' gave a right_frac of 37\. A share is between 0",
        ),
        (
            Values(metric="right_frac", before=[-0.5], after=[0.5]),
            r"of -0\.5\. A share is between 0 and 1; per cent is",
        ),
    ],
)
def test_values_that_cannot_be_paired_are_refused(found, words):
    measure = values(found)
    with pytest.raises(ConfigError, match=words):
        measure.scores(measure.measure(None, None))


def test_a_ratio_and_shares_at_both_ends_are_no_error():
    for each in (Values(metric="right_frac", after=[3.0], per=[1.0]), Values(metric="right_frac", after=[0.0, 1.0])):
        assert values().scores(Measured([each]))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"shows": "First person"}, "'own': shows is 'First person'. Give one of learned, kept, drift"),
        ({"needs": ("prompts",)}, "needs 'prompts', which no setting gives. Give some of documents, held_out, general"),
        ({"needs": "suite"}, r"needs is the text 'suite'. Give a tuple: needs=\('suite',\)"),
        ({"in_verdict": True, "shows": "drift"}, "in_verdict is set, and nothing of it can count"),
        ({"in_verdict": True, "metrics": (Metric("said_frac"),)}, "a share .* of which more is better"),
    ],
)
def test_fields_that_a_measure_cannot_have_are_refused(how, words):
    with pytest.raises(ConfigError, match=words):
        values(**how)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"better": "up"}, "metric 'it_frac': better is 'up'. Give 'higher' or 'lower'"),
        ({"headline": "first"}, "headline is 'first'. Give a whole number"),
        ({"name": "it", "unit": "percent"}, "unit is 'percent'. .* let the name end in _frac"),
        ({"unit": "words"}, "unit is 'words', but the end of the name says '%'"),
        ({"name": "length"}, r"'length': its unit is not told. .*_frac, .*_words.*unit='…'"),
    ],
)
def test_fields_that_a_metric_cannot_have_are_refused(how, words):
    with pytest.raises(ConfigError, match=words):
        Metric(**{"name": "it_frac", **how})


def test_what_a_module_declares_wrongly_is_said_as_it_is(module):
    path = Path(f"{module}.py")
    path.write_text(path.read_text().replace('shows="kept"', 'shows="First person"'))
    with pytest.raises(ConfigError, match=r"^  - measures: 'style/answers': shows is 'First person'"):
        get_measure(f"{module}:MEASURE")


@pytest.mark.parametrize("name", ["tasks/own", "drift/own", "test/retention/own"])
def test_a_name_that_begins_as_those_of_afterword_is_refused(name):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be told apart"):
        chosen_measures([values(name=name)])


def broken(models, inputs):
    return {}["gone"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"measure": broken}, r"'own' failed at test_own_measures\.py, line \d+ \(KeyError: 'gone'\)\. What was"),
        ({"measure": lambda *_: Measured([Values(metric="gone", after=[1.0])])}, r"'own' gave 'gone', which"),
        (
            {"measure": lambda *_: Measured([Values(metric="odd", after=[1.0], task="learning/trained")])},
            r"'own' gave the task 'learning/trained'\. Let it begin with 'own/'",
        ),
    ],
)
def test_what_was_measured_before_a_measure_failed_is_written(how, words, run, tmp_path):
    with pytest.raises(DataError, match=words) as raised:
        evaluate(run, measures=[values(**how)], output_dir=tmp_path, **QUICK)
    assert isinstance(raised.value.__cause__, KeyError | ConfigError)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert {score["task"] for score in written["scores"]} == {"learning/trained"}
    assert "'own'" in written["notes"][0]


def test_a_measure_that_fails_is_named_on_the_command_line_in_one_sentence(run, module, afterword, tmp_path):
    path = Path(f"{module}.py")
    path.write_text(path.read_text().replace("len(answer.split())", "answer['words']"))
    words = f"evaluate {run} --questions {run.parent / 'quiz.jsonl'} --measures {module}:MEASURE -o {tmp_path / 'out'}"
    said = afterword(*words.split(), "--samples", "0", "--max-documents", "2")
    assert said.code == 1
    assert "'style/answers' failed at my_measures.py, line " in said.err
    assert "Traceback" not in said.err
    assert "questions/closed_book" in (tmp_path / "out" / "scores.json").read_text()


def test_points_lost_of_what_must_be_kept_count_in_the_verdict_where_the_measure_says_so():
    lost = Values(metric="right_frac", before=[1.0] * 200, after=[1.0] * 140 + [0.0] * 60)
    for shows in ("kept", "learned"):
        (silent,) = values(lost, shows=shows).scores(Measured([lost]))
        found = verdict_of([asdict(silent)])
        assert (found.learned_class, found.lost_class) == ("unknown", "unknown")
    kept, learned = (
        values(lost, shows=shows, in_verdict=True).scores(Measured([lost])) for shows in ("kept", "learned")
    )
    assert verdict_of([asdict(kept[0])]).lost_class == "much"
    better = replace(kept[0], change=replace(kept[0].change, value=0.1, interval_95=(0.05, 0.15)))
    said = "Nothing noticeable was lost: changed by +10.0 points (1 measure, n = 200; 95 % interval 5.0 to 15.0)."
    assert verdict_of([asdict(better)]).lost == said
    assert verdict_of([asdict(learned[0])]).lost_class == "unknown"
    gained = replace(learned[0], change=replace(learned[0].change, value=0.4, interval_95=(0.3, 0.5)))
    assert verdict_of([asdict(gained)]).learned_class == "most"
