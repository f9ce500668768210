"""README is run: every command of its "Use" block, its Python example, and its table of methods."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterword.methods import METHODS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def _block(heading: str, language: str = "") -> str:
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, documents: Any) -> Path:
    """What README's names stand for: a model, documents, questions, general text."""
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
    (folder / "notes.txt").write_text("It rained all day. The cat slept. Nobody went out.")
    return folder


@pytest.fixture
def run(workplace: Path, model_folder: Path, afterword: Any, monkeypatch: Any) -> Callable[[str], str]:
    """`run(command)`: what a command of README prints; it must end well."""

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


def test_every_command_of_the_use_block_runs(workplace: Path, run: Any) -> None:
    commands = [line for line in _block("Use").splitlines() if line.startswith("afterword ")]
    assert len(commands) >= 5
    # In README's order: a run is made before it is measured and reported.
    outputs = [run(command) for command in commands]
    assert all(outputs)
    made = workplace / "runs" / "docs"
    for name in ("config.yaml", "command.txt", "environment.json", "metrics.jsonl", "data.json", "scores.json"):
        assert (made / name).is_file(), name
    for name in ("report.html", "report.md", "README.md", "model.safetensors", "tokenizer.json"):
        assert (made / name).is_file(), name


def test_the_python_example_runs(
    workplace: Path, model_folder: Path, tokenizer: Any, build_model: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(workplace)
    code = _block("Use", "python").replace('"MODEL"', repr(str(model_folder))).replace('"docs/"', '"documents.jsonl"')
    code = code.replace("runs/docs", "runs/python").replace('{"text": "…"}', '{"text": "It rains. It pours."}')
    exec(compile(code, "README.md", "exec"), {"model": build_model("llama"), "tokenizer": tokenizer})
    assert (workplace / "runs" / "python" / "model.safetensors").is_file()
    assert (workplace / "runs" / "python" / "scores.json").is_file()


def test_the_table_of_methods_is_the_registry() -> None:
    table = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", README, re.DOTALL)[1]
    rows = [f"| `{method.name}` | {method.summary} | {method.paper} |" for method in METHODS.values()]
    assert table.splitlines() == ["| method | what it does | paper |", "|---|---|---|", *rows]


def test_every_command_of_the_almanac_block_runs(workplace: Path, run: Any) -> None:
    commands = [line for line in _block("Almanac: a world to try it on").splitlines() if line.startswith("afterword ")]
    # As they stand they take two minutes.
    less = {"almanac": "--people 4 --changes 1 --documents-per-entity 1", "adapt": "--max-steps 2"}
    less |= {"evaluate": "--max-items 24 --samples 0 --max-documents 4"}
    assert [command.split()[1] for command in commands] == list(less)
    for command in commands:
        assert run(f"{command} {less[command.split()[1]]}")
    measured = json.loads((workplace / "runs" / "learned" / "scores.json").read_text())
    assert {row["part"] for row in measured["answers"]} == {"learning", "retention"}
