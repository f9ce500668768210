"""The demo of both worlds from nothing to its page, on a tiny model; and what is told without the real one."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from afterword.demo import run as running
from afterword.demo.ferry_lessons import OTHERWISE, TOLD
from afterword.demo.figures import drawn_answers, figures_of
from afterword.demo.folder import begin
from afterword.demo.lessons import OPEN_BOOK, Recipe, Told
from afterword.demo.run import run_demo, tell
from afterword.demo.story import Story
from afterword.demo.worlds import WORLDS, WRITERS, recipe_of
from afterword.errors import CheckpointError, ConfigError
from afterword.evaluation.intervals import estimate
from afterword.evaluation.suites import PARTS
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings


def _short(recipe: Recipe) -> Recipe:
    adapt = {**recipe.adapt, "max_length": 256, "micro_batch_tokens": 1024, "num_train_epochs": 1}
    evaluate = {**recipe.evaluate, "answer_tokens": 4, "max_documents": 2}
    # Of the embedded world's questions a tenth is about the documents.
    evaluate["max_items"] = 160 if recipe.world else 40
    world = {**recipe.world, "per_entity": 1} if recipe.world else {}
    return replace(recipe, adapt=adapt, evaluate=evaluate, world=world)


class Demo(NamedTuple):
    """A demo's world, the place from which its folder is `runs/demo`, its page, and what it said in 80 columns."""

    world: str
    place: Path
    html: str
    said: str

    @property
    def folder(self) -> Path:
        return self.place / "runs" / "demo"

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "demo.json").read_text())

    def answers(self, run: str) -> list[dict[str, Any]]:
        return json.loads((self.folder / run / "scores.json").read_text())["answers"]


@pytest.fixture(scope="module", params=list(WORLDS))
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Demo:
    world, place = request.param, tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        console, recipe = Console(file=io.StringIO(), width=80), _short(recipe_of(world))
        page = tell(Path("runs/demo"), world, model=str(model_folder), console=console, recipe=recipe)
        text = page.read_text(encoding="utf-8")
    return Demo(world, place, text, console.file.getvalue())  # type: ignore[attr-defined]


def test_the_story_has_its_steps_and_ends_with_a_verdict(told: Demo) -> None:
    steps = re.findall(r"^(\d)  (\w.*?) ─", told.said, re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3", "4", "5"]
    verdict = told.said.split("The verdict")[1].splitlines()[1]
    assert verdict in re.sub(r"&#39;", "'", told.html)
    assert "What it learned" in told.said
    assert "What it lost" in told.said
    assert "demo.html" in told.said


def test_the_page_holds_what_it_must(told: Demo) -> None:
    words = ("What it learned", "What it lost", "About the documents", "Must be kept", "answers, before and after")
    words += ("The documents", "95 % intervals", "With your own model and documents", "Fine-tuning", "finetune")
    assert [each for each in words if each.casefold() not in told.html.casefold()] == []
    assert WORLDS[told.world].closing in told.html
    assert f"It read {told.record['taught']} documents." in told.html
    # Drift is on the page where the world has text that is not taught.
    assert ("Text that was not taught" in told.html) == bool(told.record["drift"]) == (told.world == "almanac")


def test_the_printed_commands_are_those_of_the_demo(told: Demo, monkeypatch: Any, capsys: Any) -> None:
    from afterword import cli

    commands = [line.removeprefix("$ ") for line in told.said.splitlines() if line.startswith("$ afterword")]
    assert [command.split()[1] for command in commands] == ["evaluate", "evaluate", "adapt", "evaluate"]
    assert told.html.count("<span>afterword ") == 4
    monkeypatch.chdir(told.place)
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        # Other settings, or another model or other documents, would be refused.
        assert "adapt" not in command.split()[1] or "nothing was trained" in printed.out


def test_the_figures_are_those_of_the_answers(told: Demo) -> None:
    figures, answers = told.record["figures"], told.answers("taught")
    learned = [row["after_chosen"] for row in answers if row["part"] == "learning"]
    figure = figures["learned"]
    assert (figure["n"], figure["after"]["value"]) == (len(learned), pytest.approx(sum(learned) / len(learned)))
    assert figure["units"] < figure["n"]
    reading = told.answers("reading")
    # No document fits the context of the tiny model.
    assert (reading, figures["ceiling"]) == ([], None)
    assert {row["split"] for row in answers} == {"test"}
    assert figure["n"] + figures["kept"]["n"] == len(answers)
    assert sum(each["n"] for each in figures["skills"] if "said" not in each["label"]) == len(answers)


def test_the_run_is_measured_against_the_answers_of_the_base_model(told: Demo) -> None:
    base = {row["id"]: row["after"] for row in told.answers("base")}
    assert {row["id"]: row["before"] for row in told.answers("taught")} == base
    assert len(list((told.folder / "cache").iterdir())) == 1


def _row(name: str, part: str, skill: str, **right: bool) -> dict[str, Any]:
    row = {"id": name, "part": part, "skill": skill, "question": f"{name}? Answer briefly.", "expected": ["x"]}
    said = {"before": "b", "after": "a", "before_correct": False, "after_correct": False}
    return {**row, **said, **right}


def test_a_choice_counts_where_there_is_one_and_the_answer_where_there_is_none() -> None:
    chosen = {"before_chosen": False, "after_chosen": True}
    answers = [
        _row("a/told", "learning", TOLD, **chosen),
        _row("b/told", "learning", TOLD, before_chosen=False, after_chosen=False, after_correct=True),
        _row("a/other", "learning", OTHERWISE, **chosen),
        _row("r/0", "retention", "reading", before_correct=True, after_correct=True),
        _row("f/0", "retention", "facts", before_chosen=True, after_chosen=False, after_correct=True),
    ]
    opened = {"a": True, "b": False}
    reading = [_row(name, "learning", OPEN_BOOK, after_chosen=right) for name, right in opened.items()]
    units = {row["id"]: row["id"].rpartition("/")[0] if row["part"] == "learning" else row["id"] for row in answers}
    figures = figures_of(answers, reading, WORLDS["ferry"], units)
    assert (figures["learned"]["n"], figures["learned"]["units"]) == (3, 2)
    assert figures["learned"]["after"]["value"] == pytest.approx(2 / 3)
    assert figures["ceiling"] is not None
    assert figures["ceiling"]["value"] == 0.5
    skills = {figure["label"]: figure["after"]["value"] for figure in figures["skills"]}
    assert skills["Not chosen but said, in its own words"] == 0.5
    assert (figures["kept"]["before"]["value"], figures["kept"]["after"]["value"]) == (1.0, 0.5)
    assert skills["Facts of general knowledge"] == 0.0
    assert [figure["part"] for figure in figures["skills"]] == ["learning"] * 3 + ["retention"] * 2


def test_questions_about_the_same_fact_are_one_unit() -> None:
    chosen = {"a": True, "b": True, "c": False, "d": False}
    answers = [_row(name, "learning", TOLD, before_chosen=False, after_chosen=right) for name, right in chosen.items()]
    answers.append(_row("kept", "retention", "facts"))

    def learned(*units: str) -> Any:
        named = dict(zip("abcd", units, strict=True)) | {"kept": "kept"}
        return figures_of(answers, [], WORLDS["ferry"], named)["learned"]["after"]

    def expected(units: list[str] | None) -> dict[str, Any]:
        found = estimate([1.0, 1.0, 0.0, 0.0], units=units)
        return {"value": found.value, "interval_95": found.interval_95}

    assert learned("x", "x", "x", "x")["interval_95"] is None
    assert learned(*"abcd") == expected(None)
    assert learned("x", "x", "y", "y") == expected(["x", "x", "y", "y"])


def test_answers_are_drawn_whatever_became_of_them() -> None:
    def rows(right: bool) -> list[dict[str, Any]]:
        told = [_row(f"q{i}/told", "learning", TOLD, after_correct=right and i % 2 > 0) for i in range(30)]
        return [*told, *(_row(f"q{i}/w", "learning", OTHERWISE) for i in range(30))] + [
            _row(f"k/{i}", "retention", "facts", after_correct=right) for i in range(9)
        ]

    told = {f"q{i}/told": Told(("x", "y"), (i,)) for i in range(30)}
    drawn = drawn_answers(rows(True), {"learning": 14, "retention": 6}, told, OTHERWISE)
    assert all(row["documents"] == (int(row["id"][1:-5]),) for row in drawn if row["part"] == "learning")
    assert [row["part"] for row in drawn] == ["learning"] * 14 + ["retention"] * 6
    assert [row["id"] for row in drawn] == [
        row["id"] for row in drawn_answers(rows(False), {"learning": 14, "retention": 6}, told, OTHERWISE)
    ]
    assert not any(row["question"].endswith("briefly.") or row["id"].endswith("/w") for row in drawn)


@pytest.mark.parametrize("world", WORLDS)
def test_the_recipe_is_valid_and_shows_twenty(world: str) -> None:
    recipe = recipe_of(world)
    read_settings({**recipe.adapt, "model_name_or_path": "given"})
    read_settings(recipe.evaluate, EvaluateSettings)
    read_settings(recipe.open_book, EvaluateSettings)
    assert recipe.evaluate["split"] == recipe.open_book["split"] == "test"
    assert sum(recipe.shown.values()) == 20
    assert tuple(recipe.shown) == PARTS


@pytest.mark.parametrize("world", WORLDS)
def test_the_skills_that_are_named_are_those_that_are_asked(world: str, tmp_path: Path) -> None:
    lessons = WRITERS[world](tmp_path / "world", recipe_of(world).world)
    asked = {item.skill for item in lessons.suite.items if item.split == "test"}
    assert set(WORLDS[world].skills) == asked
    assert {item.skill for item in lessons.open_book.items} == {OPEN_BOOK}
    learning = [item for item in lessons.suite.items if item.part == "learning"]
    # A choice of four, as the page says, and its options and documents are known.
    assert {len(item.choices) for item in learning} == {3}
    assert all(set(lessons.told[item.id].options) == {item.answer, *item.choices} for item in learning)
    numbers = {document["number"] for document in lessons.to_read}
    assert all(set(lessons.told[item.id].documents) <= numbers for item in learning)


def test_where_the_real_model_cannot_be_had_the_embedded_world_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    def load(name: str) -> Any:
        raise CheckpointError(f"model_name_or_path: {name!r} cannot be fetched: no [red]network. Check it.")

    told: list[Any] = []
    monkeypatch.setattr(running.models, "load_tokenizer", load)
    monkeypatch.setattr(running, "tell", lambda *a, **k: told.append((a, k["model"])))
    console = Console(file=io.StringIO(), width=80)
    run_demo(tmp_path, console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert told == [((tmp_path, "almanac"), "almanac-chat")]
    assert "no [red]network. Check it. So this is the demo of the embedded world." in said


def test_two_demos_in_one_folder_follow_each_other(tmp_path: Path, monkeypatch: Any) -> None:
    """The first holds the folder also while it empties it."""
    among, most, told = [0], [0], list[Path]()

    def told_slowly(folder: Path, *_: Any, **__: Any) -> Path:
        among[0] += 1
        time.sleep(0.3)
        most[0] = max(most[0], among[0])
        begin(folder)
        time.sleep(0.1)
        among[0] -= 1
        told.append(folder)
        return folder

    monkeypatch.setattr(running, "tell", told_slowly)
    begin(tmp_path / "demo")
    both = [
        threading.Thread(target=run_demo, args=(tmp_path / "demo",), kwargs={"world": "almanac"}, daemon=True)
        for _ in "ab"
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert (most, len(told)) == ([1], 2)


@pytest.mark.parametrize("world", WORLDS)
def test_another_model_that_cannot_be_had_is_an_error_and_leaves_no_folder(world: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model 'almanac-chatt'\. Did you mean almanac-chat\?"):
        run_demo(tmp_path / "demo", world=world, model="almanac-chatt")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("world", WORLDS)
def test_a_folder_of_something_else_is_left_alone(world: str, tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds no demo\. Give a folder that is empty"):
        run_demo(tmp_path, world=world, model=str(model_folder))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "old").write_text("")
    begin(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.json"]


def test_another_world_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no world 'almanack'\. Did you mean almanac\? There are: ferry, almanac"):
        run_demo(tmp_path / "demo", world="almanack")


def test_what_a_model_wrote_is_no_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    row = _row("[red]q", "learning", TOLD) | {"after": "[/bold] :smile:", "expected": ["[b]"]}
    Story(console).asks_the_base_model("$", [row], "15 documents")
    assert "0 questions about what it could always do" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "✗ [/bold] :smile:   (right: [b])" in console.file.getvalue()  # type: ignore[attr-defined]
