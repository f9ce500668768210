"""The demo of the embedded world, from nothing to its page, on a tiny model; and what it may not do."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from afterword.almanac.after import CHOOSING, build_part
from afterword.almanac.suite import RETENTION, build_suite
from afterword.almanac.world import Fact, Size, build_world
from afterword.almanac.writing import tell
from afterword.demo import almanac
from afterword.demo.almanac import run_almanac
from afterword.demo.almanac_story import Story, _cell
from afterword.demo.evidence import evidence_of
from afterword.demo.folder import begin
from afterword.demo.recipe import Plan, load_recipe
from afterword.errors import CheckpointError, ConfigError
from afterword.evaluation.intervals import estimate
from afterword.evaluation.suites import Item
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings

TINY = {"people": 2, "towns": 1, "companies": 1, "works": 1, "changes": 1, "per_entity": 1}
ASKED = {"split": "test", "max_items": 60, "answer_tokens": 8, "max_documents": 2, "samples": 0}


def _recipe() -> Any:
    recipe, short = load_recipe(), {"max_length": 256, "micro_batch_tokens": 1024, "num_train_epochs": 1}
    runs = {name: Plan(plan.label, {**plan.settings, **short}) for name, plan in recipe.runs.items()}
    return replace(recipe, world=TINY, evaluate=ASKED, runs=runs)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Any:
    """A demo's folder, page and what it said, in 80 columns."""
    place = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        console = Console(file=io.StringIO(), width=80)
        page = run_almanac(Path("runs/demo"), model=str(model_folder), recipe=_recipe(), console=console)
        text = page.read_text(encoding="utf-8")
    return place, text, console.file.getvalue()  # type: ignore[attr-defined]


def test_the_story_has_its_steps_and_a_table_in_80_columns(told: Any) -> None:
    _, _, said = told
    steps = re.findall(r"^(\d)  (\w.*?) ─", said, re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3", "4", "5"]
    rows = [line for line in said.splitlines() if line.startswith(("All of these", "New facts"))]
    assert rows
    assert any(re.search(r"\d+ \[\d+, \d+\]", row) for row in rows)
    assert all(len(row) <= 80 for row in rows)
    assert "demo.html" in said


def test_the_page_holds_what_it_must(told: Any) -> None:
    _, html, _ = told
    for words in (
        "What was learned",
        "What was lost",
        "Learning against retention",
        "Every question, before and after",
        "The settings",
        "On your own model and documents",
        "DiSC",
        "Fine-tuning",
        "95 % interval",
        "<mark>",
        "0.0008",
    ):
        assert words in html, words


def test_the_printed_commands_are_those_of_the_runs(told: Any, monkeypatch: Any, capsys: Any) -> None:
    from afterword import cli

    place, html, said = told
    commands = [line.removeprefix("$ ") for line in said.splitlines() if line.startswith("$ afterword")]
    assert len(commands) == 5
    monkeypatch.chdir(place)
    for command in commands:
        assert command.split()[2] in html
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        # Other settings, or another model or other documents, would be refused.
        assert "adapt" not in command.split()[1] or "nothing was trained" in printed.out


def test_every_run_is_measured_against_the_same_answers(told: Any) -> None:
    demo = told[0] / "runs" / "demo"
    record = json.loads((demo / "demo.json").read_text())
    before = [json.loads((demo / run["name"] / "scores.json").read_text())["answers"] for run in record["runs"]]
    assert len({json.dumps([(row["id"], row["before"]) for row in rows]) for rows in before}) == 1
    assert len(list((demo / "cache").iterdir())) == 1
    counted = sum(total[0]["scores"][record["runs"][0]["name"]]["n"] for total in record["totals"].values())
    assert counted == len(before[0])


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds no demo\. Give a folder that is empty"):
        run_almanac(tmp_path, model=str(model_folder))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "old").write_text("")
    begin(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.json"]


def test_a_model_that_is_not_there_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no model 'almanac-chatt'\. Did you mean almanac-chat\?"):
        run_almanac(tmp_path / "demo", model="almanac-chatt")
    assert not (tmp_path / "demo").exists()


def test_the_recipe_is_valid_and_names_skills_that_there_are() -> None:
    recipe = load_recipe()
    assert len(recipe.runs) == 2
    for plan in recipe.runs.values():
        read_settings({**plan.settings, "model_name_or_path": "given"})
    read_settings(recipe.evaluate, EvaluateSettings)
    Size(**{name: count for name, count in recipe.world.items() if name not in ("changes", "per_entity")})
    world = build_world()
    suite = build_suite(world, build_part(world, CHOOSING, Size(2, 1, 1, 1), 1), scale=0.1)
    there = {part: {item.skill for item in suite.items if item.part == part} for part in recipe.skills}
    assert {part: set(names) for part, names in recipe.skills.items()} == there
    assert set(RETENTION) < there["retention"]
    assert all(set(recipe.shown[part]) <= there[part] for part in recipe.shown)


def test_every_new_fact_that_is_asked_for_is_told_in_the_document_that_is_shown(told: Any) -> None:
    world = told[0] / "runs" / "demo" / "world"
    documents = {row["id"]: row["text"] for row in map(json.loads, (world / "documents.jsonl").open())}
    items = [json.loads(line) for line in (world / "suite.jsonl").read_text().splitlines()[1:]]
    evidence = json.loads((world.parent / "demo.json").read_text())["evidence"]
    asked = [item for item in items if item["skill"] in ("new_direct", "new_other_wording", "changed")]
    found = [(item, entry) for item in asked for entry in evidence.get(item["id"], ())]
    # One document about each does not tell every fact.
    assert len(found) > len(asked) / 3
    for item, entry in found:
        assert entry["sentence"] in documents[entry["document"]]
        assert item["answer"].casefold() in entry["sentence"].casefold()
    assert not [name for name in evidence if name.startswith("retention")]


def test_evidence_of_two_steps_is_every_step_that_is_new() -> None:
    new, old = Fact("Ada Arden", "lives_in", "Fenby"), Fact("Fenby", "mayor", "Bo Dahl")
    answer = "Ada Arden lives in Fenby. Bo Dahl is the mayor of Fenby. Answer: Bo Dahl"
    item = Item("a", "learning", "two", "test", "Who is the mayor of the town where Ada Arden lives?", answer, ())
    document = {"id": "d", "text": f"A letter. {tell(new, '{S} lives in {o}.')} The end."}
    told = {"a": [{"document": "d", "sentence": "Ada Arden lives in Fenby."}]}
    assert evidence_of([item], [new], [document]) == told
    assert evidence_of([item], [old], [document]) == {}


def test_questions_about_the_same_fact_are_one_unit_of_a_total() -> None:
    checks = ({"kind": "equals", "value": "Oslo"},)
    answers = [{"id": name, "before": "", "after": "Oslo" if name in "ab" else "Rome"} for name in "abcd"]

    def total(units: list[str | None]) -> Any:
        items = [
            Item(name, "learning", "s", "test", "?", "Oslo", checks, unit=u)
            for name, u in zip("abcd", units, strict=True)
        ]
        return almanac._total({item.id: item for item in items}, answers, "")

    assert total(["x", "x", "x", "x"]).after.interval_95 is None
    assert total([None] * 4).after == estimate([1.0, 1.0, 0.0, 0.0])
    assert total(["x", "x", "y", "y"]).after == estimate([1.0, 1.0, 0.0, 0.0], units=["x", "x", "y", "y"])


def test_where_there_is_no_interval_the_table_has_a_dash() -> None:
    assert _cell({"value": 0.5, "interval_95": None}) == "50 –"
    assert _cell({"value": 0.5, "interval_95": [0.25, 0.75]}) == "50 [25, 75]"


def test_what_a_model_wrote_is_no_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    row = {"id": "a", "part": "learning", "skill": "s", "question": "[red]?", "after": "[/bold] :smile:"}
    row |= {"after_correct": False, "expected": ["[b]"]}
    recipe = replace(load_recipe(), shown={"retention": ["s"], "learning": ["s"]})
    story = Story(console)
    story.asks_the_base_model("$", [row], recipe)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Of 0 questions" in said
    assert "✗ [/bold] :smile:   (right: [b])" in said
