"""Options are the settings: each has one, with a sentence that can be read alone, its words and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import run_python

from afterword.cli import _COMMANDS
from afterword.settings.adapt import AdaptSettings
from afterword.settings.align import AlignSettings
from afterword.settings.base import Settings, choices_of
from afterword.settings.compare import BlendSettings, CompareSettings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.export import ExportSettings
from afterword.settings.mixture import SourceSettings
from afterword.settings.sequence import CorpusSettings, SequenceSettings
from afterword.settings.study import StudySettings

KINDS = {
    "adapt": AdaptSettings,
    "align": AlignSettings,
    "blend": BlendSettings,
    "compare": CompareSettings,
    "evaluate": EvaluateSettings,
    "export": ExportSettings,
    "sequence": SequenceSettings,
    "study": StudySettings,
}
ARGUMENTS = {"model_name_or_path", "documents", "base", "adapted", "lambdas", "corpora"}


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_has_a_help(afterword: Any, command: str) -> None:
    said = afterword(command, "--help")
    assert said.code == 0
    assert f"afterword {command}" in said.out


def test_a_pipe_that_takes_ascii_alone_gets_escapes() -> None:
    """As one of Windows, whose letters are not all there are."""
    said = run_python("-m", "afterword", "methods", environment={"PYTHONIOENCODING": "ascii"})
    assert "\\u03b2" in said.out


@pytest.mark.parametrize("command", KINDS)
def test_every_setting_is_an_option(afterword: Any, command: str) -> None:
    shown = afterword(command, "--help").out
    options = {f"--{name}".replace("_", "-") for name in set(KINDS[command].model_fields) - ARGUMENTS}
    assert not [option for option in options if option not in shown]


@pytest.mark.parametrize("kind", [*KINDS.values(), CorpusSettings, SourceSettings], ids=lambda kind: kind.__name__)
def test_every_setting_has_a_sentence(kind: type[Settings]) -> None:
    for name, field in kind.model_fields.items():
        text = str(field.description)
        assert text[-1] in ".…", name
        assert text[0].isupper() or text.split(":")[0] in choices_of(field.annotation) or text[0] in "λβ", name


def test_words_and_defaults_are_shown(afterword: Any) -> None:
    shown = " ".join(afterword("adapt", "--help").out.replace("│", " ").split())
    assert "How targets are drawn from a document. One of sentence, middle, uniform_sentence" in shown
    assert "Rank r of the adapter (default: 16)." in shown
    assert "adapters' first weights (default: 0)." in shown
    assert "Modules that get an adapter (default: all-linear)." in shown
    assert "--use-peft --no-use-peft" in shown or "--use-peft/--no-use-peft" in shown


def test_the_command_line_wins_over_the_file(afterword: Any, tmp_path: Any) -> None:
    (tmp_path / "run.yaml").write_text("max-length: 3\nseed: none\n")
    said = afterword("adapt", "m", "d", "--config", str(tmp_path / "run.yaml"), "--max_length", "512")
    assert said.code == 2
    assert "seed: " in said.err
    assert "max_length" not in said.err


def test_who_goes_on_from_a_run_is_told_what_it_is_held_to(afterword: Any, place: Any) -> None:
    fixed = ("--learning-rate", "1e-4", "--lr-scheduler-type", "linear", "--max-steps", "1")
    said = afterword("adapt", "done", "docs.jsonl", "-o", "more", *fixed)
    assert (said.code, "done is a run from model." in said.err, "--reference model" in said.err) == (0, True, True)
    said = afterword("adapt", "done", "docs.jsonl", "-o", "held", "--reference", "model", *fixed)
    assert (said.code, "is a run from" in said.err) == (0, False)


def test_a_sequence_from_the_command_line(afterword: Any, place: Any) -> None:
    fixed = ("--learning-rate", "1e-4", "--lr-scheduler-type", "linear", "--max-steps", "1", "--evaluate", "samples=2")
    words = ("sequence", "model", "docs.jsonl", "docs.jsonl", "--questions", "quiz.jsonl,quiz.jsonl", "-o", "seq")
    said = afterword(*words, *fixed)
    assert said.code == 0, said.err
    assert "Questions, from memory" in said.out
    assert "after 2-docs-2" in said.out
    assert "Wrote sequence.html, sequence.md to seq." in said.out
    assert afterword("report", "seq").out.startswith("Wrote seq/sequence.html")
    said = afterword(*words, *fixed, "--learning-rate", "2e-4", "--lora-r", "0", "--then", "align")
    assert said.code == 2


_MISSING, _NO_MODEL = "nope.jsonl: no such file or folder", "no folder here and not in the cache of the hub, and HF_HUB"
NOT_THERE = {
    "evaluate almanac-chat --exams kup=nope.jsonl": [_MISSING],
    "evaluate almanac-chat --retrieve 1 --retrieve-from nope.jsonl": [_MISSING],
    "adapt nope/model nope.jsonl -o out": [f"model_name_or_path: 'nope/model' is {_NO_MODEL}"],
    "adapt almanac-chat nope.jsonl -o out --reference nope": [f"  - reference: 'nope' is {_NO_MODEL}"],
    "export nope/model --converter nope.jsonl -o out": ["'nope.jsonl' is not there", "'nope/model' is not here"],
    "compare almanac-chat nope.jsonl -o out --suite almanac --methods disc --ray nope": ["ray: 'nope' is no address"],
    "quiz almanac-chat nope.jsonl -o out.jsonl --ray nope": ["ray: 'nope' is no address of a cluster"],
    "study almanac-chat nope.jsonl -o out --ray nope": ["ray: 'nope' is no address of a cluster"],
}
"""Commands with something that is nowhere, and what they say of it."""


def test_what_is_not_there_is_told_before_libraries_are_loaded(tmp_path: Path) -> None:
    program = f"""
import sys
from afterword.cli import main
for words in {list(NOT_THERE)!r}:
    sys.argv = ["afterword", *words.split()]
    try:
        main()
    except SystemExit:
        print("transformers" in sys.modules, file=sys.stderr)
"""
    ended = run_python("-c", program, cwd=tmp_path, environment={"COLUMNS": "200"}, check=False)
    told = ended.err.split("False\n")
    for (words, said), here in zip(NOT_THERE.items(), told, strict=False):
        assert [each for each in said if each not in here] == [], (words, here)
    assert told[len(NOT_THERE) :] == [""], ended.err
    assert list(tmp_path.iterdir()) == []
