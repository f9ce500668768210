"""README and the pages of docs are run: every command and Python example under a mark `<!-- run -->`, page by page."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterword.methods import METHODS

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
}
LESS = {
    "afterword almanac ": "--people 4 --changes 1 --documents-per-entity 1",
    # A run without a schedule is held to a budget, which is measured: README's first command is one.
    "afterword adapt almanac-chat ": "--max-steps 2 --lr-scheduler-type linear",
    "afterword sequence ": "--max-steps 2 --learning-rate 1e-4 --lr-scheduler-type linear --evaluate samples=2",
    "afterword evaluate runs/learned ": "--max-items 24 --samples 0 --max-documents 4",
    "afterword evaluate runs/docs ": "--samples 4",
    "afterword compare ": "--evaluate samples=2",
    "afterword blend ": "--evaluate samples=2",
}
"""What the longest commands are run with besides: as they stand they take two minutes."""


def _blocks(text: str, language: str) -> list[str]:
    """The blocks of a page that are to be run."""
    return re.findall(rf"<!-- run -->\n```{language}\n(.*?)```", text, re.DOTALL)


def _commands(text: str) -> list[str]:
    return [line for block in _blocks(text, "") for line in block.splitlines() if line.startswith("afterword ")]


COMMANDS = {page: found for page, text in PAGES.items() if (found := _commands(text))}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, documents: Any) -> Path:
    """What the pages' names stand for: a model, documents, questions, general text."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    question = {"question": "Where did she move?", "answer": "Bergen", "document": "doc-0"}
    (folder / "quiz.jsonl").write_text(json.dumps(question) + "\n")
    sides = [(part, split) for part in ("learning", "retention") for split in ("dev", "test")]
    item = {"skill": "facts", "prompt": "Where did she move?", "answer": "Bergen"}
    item["checks"] = [{"kind": "contains", "value": "Bergen"}]
    items = [{"id": f"{part}-{split}", "part": part, "split": split, **item} for part, split in sides]
    (folder / "suite.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    turns = [{"prompt": f"Where is {name}?", "completion": f"In {name}land."} for name in ("Ada", "Bo", "Cy", "Di")]
    pairs = [{"prompt": turn["prompt"], "chosen": turn["completion"], "rejected": "Away."} for turn in turns]
    for name, rows in (("chats", turns), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, half in (("spring", documents[:5]), ("autumn", documents[5:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in half))
        (folder / f"{name}-quiz.jsonl").write_text(json.dumps(question) + "\n")
    (folder / "notes.txt").write_text("It rained all day. The cat slept. Nobody went out.")
    return folder


@pytest.fixture
def run(workplace: Path, model_folder: Path, afterword: Any, monkeypatch: Any) -> Callable[[str], str]:
    """`run(command)`: what a command of a page prints; it must end well."""

    def typed(command: str) -> str:
        names = {"MODEL": str(model_folder), "DOCUMENTS": "documents.jsonl"}
        words = [names.get(word, word) for word in shlex.split(command, comments=True)]
        # The tiny model has no template of its own.
        words += ["--chat-template", "plain"] if words[1] == "align" else []
        monkeypatch.chdir(workplace)
        said = afterword(*words[1:])
        assert not said.code, f"{command}: {said.err}"
        return said.out

    return typed


@pytest.mark.parametrize("page", COMMANDS)
def test_every_command_of_a_page_runs(page: str, workplace: Path, run: Any) -> None:
    made = workplace / "runs" / "docs"
    if page != "README.md" and not made.exists():
        run(COMMANDS["README.md"][0])
    for command in COMMANDS[page]:
        shorter = next((more for start, more in LESS.items() if command.startswith(start)), "")
        assert run(f"{command.split('  #')[0]} {shorter}"), command
    if page == "README.md":
        for name in ("config.yaml", "command.txt", "environment.json", "metrics.jsonl", "data.json", "scores.json"):
            assert (made / name).is_file(), name
        for name in ("report.html", "report.md", "README.md", "model.safetensors", "tokenizer.json"):
            assert (made / name).is_file(), name
    if page == "docs/guides/almanac.md":
        measured = json.loads((workplace / "runs" / "learned" / "scores.json").read_text())
        assert {row["part"] for row in measured["answers"]} == {"learning", "retention"}


def test_no_command_is_left_out() -> None:
    words = [command.split() for commands in COMMANDS.values() for command in commands]
    # `models` and `fetch` are about the cache of a person, and `demo` takes minutes.
    shown = {"adapt", "align", "almanac", "blend", "compare", "evaluate", "methods", "report", "sample", "sequence"}
    assert {command[1] for command in words} == shown
    assert {"--dry-run", "--suite", "--questions", "--general"} <= {word for command in words for word in command}


def test_the_python_example_runs(
    workplace: Path, model_folder: Path, tokenizer: Any, build_model: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(workplace)
    (code,) = _blocks(PAGES["docs/guides/python.md"], "python")
    code = code.replace('"MODEL"', repr(str(model_folder))).replace('"docs/"', '"documents.jsonl"')
    code = code.replace("runs/docs", "runs/python").replace('{"text": "…"}', '{"text": "It rains. It pours."}')
    exec(compile(code, "python.md", "exec"), {"model": build_model("llama"), "tokenizer": tokenizer})
    assert (workplace / "runs" / "python" / "model.safetensors").is_file()
    assert (workplace / "runs" / "python" / "scores.json").is_file()


def test_the_table_of_methods_is_the_registry() -> None:
    table = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", README, re.DOTALL)[1]
    link = {name: f"[`{name}`]({each.paper})" if each.paper else f"`{name}`" for name, each in METHODS.items()}
    rows = [f"| {link[name]} | {method.summary} |" for name, method in METHODS.items()]
    assert table.splitlines() == ["| method | what it does |", "|---|---|", *rows]


def test_the_example_is_that_of_the_tutorial() -> None:
    example = re.search(r"<!-- example -->\n```\n(.*?)```\n<!-- /example -->", README, re.DOTALL)[1]
    told = PAGES["docs/first_hour.md"].splitlines()
    assert [line for line in example.splitlines() if line not in told] == []


def test_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 150
