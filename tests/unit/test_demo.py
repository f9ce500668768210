"""The demo of the real model from nothing to its page, on a tiny model; and what is told where that is out of reach."""

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
from typing import Any

import pytest
from rich.console import Console

from afterword.demo import real_model as teaching
from afterword.demo import run as running
from afterword.demo.folder import begin
from afterword.demo.lessons import OPEN_BOOK, OTHERWISE, TOLD
from afterword.demo.real_model import drawn_answers, figures_of, load_lesson, run_lessons
from afterword.demo.run import run_demo
from afterword.errors import CheckpointError, ConfigError
from afterword.evaluation.suites import PARTS
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings


def _lesson() -> Any:
    lesson = load_lesson()
    short = {"answer_tokens": 4}
    adapt = {**lesson.adapt, "max_length": 256, "micro_batch_tokens": 1024, "num_train_epochs": 1}
    return replace(lesson, adapt=adapt, evaluate={**lesson.evaluate, **short, "max_items": 40})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Any:
    """A demo's folder, page and what it said, in 80 columns."""
    place = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        console = Console(file=io.StringIO(), width=80)
        page = run_lessons(Path("runs/demo"), model=str(model_folder), lesson=_lesson(), console=console)
        text = page.read_text(encoding="utf-8")
    return place, text, console.file.getvalue()  # type: ignore[attr-defined]


def test_the_story_has_its_steps_and_ends_with_a_verdict(told: Any) -> None:
    _, html, said = told
    steps = re.findall(r"^(\d)  (\w.*?) ─", said, re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3", "4", "5"]
    verdict = said.split("The verdict")[1].splitlines()[1]
    assert verdict in re.sub(r"&#39;", "'", html)
    assert "What it learned" in said
    assert "What it lost" in said
    assert "demo.html" in said


def test_the_printed_commands_are_those_of_the_demo(told: Any, monkeypatch: Any, capsys: Any) -> None:
    from afterword import cli

    place, html, said = told
    commands = [line.removeprefix("$ ") for line in said.splitlines() if line.startswith("$ afterword")]
    assert [command.split()[1] for command in commands] == ["evaluate", "evaluate", "adapt", "evaluate"]
    assert html.count("<span>afterword ") == 4
    monkeypatch.chdir(place)
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        # Other settings, or another model or other documents, would be refused.
        assert "adapt" not in command.split()[1] or "nothing was trained" in printed.out


def test_the_figures_are_those_of_the_answers(told: Any) -> None:
    demo = told[0] / "runs" / "demo"
    record = json.loads((demo / "demo.json").read_text())
    answers = json.loads((demo / "taught" / "scores.json").read_text())["answers"]
    learned = [row["after_chosen"] for row in answers if row["part"] == "learning"]
    figure = record["figures"]["learned"]
    assert (figure["n"], figure["after"]["value"]) == (len(learned), pytest.approx(sum(learned) / len(learned)))
    assert figure["units"] < figure["n"]
    reading = json.loads((demo / "reading" / "scores.json").read_text())["answers"]
    # No document fits the context of the tiny model.
    assert (reading, figure["ceiling"]) == ([], None)
    assert {row["split"] for row in answers} == {"test"}


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
    figures = figures_of(answers, reading)
    assert (figures["learned"]["n"], figures["learned"]["units"]) == (3, 2)
    assert figures["learned"]["after"]["value"] == pytest.approx(2 / 3)
    assert figures["learned"]["ceiling"]["value"] == 0.5
    assert figures["said"]["after"]["value"] == 0.5
    assert (figures["kept"]["before"]["value"], figures["kept"]["after"]["value"]) == (1.0, 0.5)
    assert figures["skills"]["facts"]["after"]["value"] == 0.0


def test_answers_are_drawn_whatever_became_of_them() -> None:
    def rows(right: bool) -> list[dict[str, Any]]:
        told = [_row(f"q{i}/told", "learning", TOLD, after_correct=right and i % 2 > 0) for i in range(30)]
        return [*told, *(_row(f"q{i}/w", "learning", OTHERWISE) for i in range(30))] + [
            _row(f"k/{i}", "retention", "facts", after_correct=right) for i in range(9)
        ]

    drawn = drawn_answers(rows(True), {"learning": 14, "retention": 6})
    assert [row["part"] for row in drawn] == ["learning"] * 14 + ["retention"] * 6
    assert [row["id"] for row in drawn] == [
        row["id"] for row in drawn_answers(rows(False), {"learning": 14, "retention": 6})
    ]
    assert not any(row["question"].endswith("briefly.") or row["skill"] == OTHERWISE for row in drawn)


def test_the_recipe_is_valid_and_shows_twenty() -> None:
    lesson = load_lesson()
    read_settings({**lesson.adapt, "model_name_or_path": "given"})
    read_settings(lesson.evaluate, EvaluateSettings)
    read_settings(lesson.open_book, EvaluateSettings)
    assert lesson.evaluate["split"] == lesson.open_book["split"] == "test"
    assert sum(lesson.shown.values()) == 20
    assert tuple(lesson.shown) == PARTS


def test_where_the_real_model_cannot_be_had_the_embedded_world_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    def load(name: str) -> Any:
        raise CheckpointError(f"model_name_or_path: {name!r} cannot be fetched: no [red]network. Check it.")

    told: list[Any] = []
    monkeypatch.setattr(running.models, "load_tokenizer", load)
    monkeypatch.setitem(running.WORLDS, "almanac", ("almanac-chat", lambda *a, **k: told.append((a, k["model"]))))
    console = Console(file=io.StringIO(), width=80)
    run_demo(tmp_path, console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert told == [((tmp_path,), "almanac-chat")]
    assert "no [red]network. Check it. So this is the demo of the embedded world." in said


def test_two_demos_in_one_folder_follow_each_other(tmp_path: Path, monkeypatch: Any) -> None:
    """The first holds the folder also while it empties it."""
    among, most, told = [0], [0], list[Path]()

    def tell(folder: Path, **_: Any) -> Path:
        among[0] += 1
        time.sleep(0.3)
        most[0] = max(most[0], among[0])
        begin(folder)
        time.sleep(0.1)
        among[0] -= 1
        told.append(folder)
        return folder

    monkeypatch.setitem(running.WORLDS, "almanac", ("almanac-chat", tell))
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


def test_another_model_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model 'almanac-chatt'\. Did you mean almanac-chat\?"):
        run_demo(tmp_path / "demo", model="almanac-chatt")
    assert not (tmp_path / "demo").exists()


def test_another_world_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no world 'almanack'\. Did you mean almanac\? There are: ferry, almanac"):
        run_demo(tmp_path / "demo", world="almanack")


def test_what_a_model_wrote_is_no_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    row = _row("[red]q", "learning", TOLD) | {"after": "[/bold] :smile:", "expected": ["[b]"]}
    teaching.LessonsStory(console).asks_the_base_model("$", [row], {"documents": 15})
    assert "✗ [/bold] :smile:   (right: [b])" in console.file.getvalue()  # type: ignore[attr-defined]
