"""An alignment that could not begin is told of before anything is trained: alone, after a run, and in a grid."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from afterword import align as align_alone
from afterword.alignment import run as running
from afterword.alignment import stages
from afterword.alignment.inputs import check
from afterword.comparison import run as grids
from afterword.errors import AfterwordError, CheckpointError, ConfigError
from afterword.models import load_tokenizer
from afterword.settings.adapt import read_settings
from afterword.settings.align import following, joiner_of
from afterword.settings.compare import CompareSettings

ADAPT = ("adapt", "model", "docs.txt", "-o", "run", "--preset", "disc-paper", "--max-steps", "2", "--then", "align")
GOOD = {"instructions": "i.jsonl", "chat_template": "plain", "sft_batch_size": 3, "instruction_count": 3}


@pytest.fixture
def docs(place: Path) -> Path:
    """The working folder with docs.txt, no-eos (a model without one) and what is broken."""
    (place / "docs.txt").write_text("Mara Lind was born in Oslo. She moved to Bergen. The bakery sells bread.")
    (place / "broken.jsonl").write_text('{"prompt": "Where?"}\n', encoding="utf-8")
    silent = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    (place / "silent.jinja").write_text(silent, encoding="utf-8")
    two = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}"
    two += "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
    (place / "short.jinja").write_text(two, encoding="utf-8")
    shutil.copytree((place / "model").resolve(), place / "no-eos")
    tokenizer = load_tokenizer("model")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(place / "no-eos")
    return place


def words(**align: Any) -> list[str]:
    return [word for name, value in {**GOOD, **align}.items() for word in ("--align", f"{name}={value}")]


WRONG = [
    ({"instructions": "nothere.jsonl"}, "align.instructions: nothere.jsonl: no such file or folder"),
    ({"preferences": "./gone"}, "align.preferences: ./gone: no such file or folder"),
    ({"instructions": "broken.jsonl"}, "align.instructions: broken.jsonl, line 1: "),
    ({"instructions": "docs.txt"}, "align.instructions: docs.txt: "),
    ({"chat_template": "plian"}, "align.chat_template: 'plian' is no template and no file. Did you mean plain?"),
    ({"chat_template": "silent.jinja"}, "align.chat_template: 'silent.jinja' writes nothing for the response"),
    ({"chat_template": "short.jinja"}, "align.chat_template: 'short.jinja' cannot write a dialogue (one turn only)"),
    ({"chat_template": "null"}, "align.chat_template: missing, and the tokenizer has none"),
    ({"quotas": "{other.jsonl: 2}"}, "align.quotas.other.jsonl: no source has this name. "),
    ({"quotas": "{i.jsonl: 99}"}, "align.quotas: come to 99 samples of 3"),
    ({"max_length": 999}, "align.max_length: 999 is more than the model's 256 positions"),
    ({"max_length": 16}, "align.instructions: none of 14 can be used"),
    ({"use_peft": "true", "save_precision": "bf16"}, "align.save_precision: bf16 is for whole models"),
]


@pytest.mark.parametrize(("align", "says"), WRONG, ids=[f"{next(iter(a))}-{i}" for i, (a, _) in enumerate(WRONG)])
def test_what_is_wrong_with_an_alignment_leaves_no_run(docs: Path, afterword: Any, align: Any, says: str):
    said = afterword(*ADAPT, *words(**align))
    assert (said.code, says in said.err) == (2, True), said.err
    assert not (docs / "run").exists()
    assert afterword(*ADAPT, "--dry-run", *words(**align)).code == 2


def test_a_tokenizer_without_an_end_is_told_before_the_run(docs: Path, afterword: Any):
    said = afterword("adapt", "no-eos", *ADAPT[2:], *words())
    assert (said.code, "has no EOS token, so no response would end" in said.err) == (1, True)
    assert not (docs / "run").exists()


def test_all_that_is_wrong_with_both_stages_is_said_at_once(docs: Path, afterword: Any, monkeypatch: Any):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    wrong = words(instructions="nothere.jsonl", preferences="gone.jsonl", chat_template="plian")
    said = afterword(*ADAPT, "--learning-rate", "-1", *wrong)
    starts = [line.split(": ")[0].removeprefix("  - ") for line in said.err.splitlines()[1:]]
    names = ["align.chat_template", "align.instructions", "align.preferences"]
    assert (said.code, starts) == (2, ["learning_rate", "align", *names])
    said = afterword(*ADAPT, "--learning-rate", "-1", "--align", "selection=best")
    assert all(f"- {name}: " in said.err for name in ("learning_rate", "align.selection", "align.instructions"))
    assert not (docs / "run").exists()


def test_without_trl_nothing_is_trained(docs: Path, afterword: Any, monkeypatch: Any):
    real = importlib.util.find_spec
    monkeypatch.setattr(stages.importlib.util, "find_spec", lambda name, *a: None if name == "trl" else real(name, *a))
    said = afterword(*ADAPT, *words())
    assert (said.code, "align: needs trl" in said.err, (docs / "run").exists()) == (2, True, False)


def test_an_alignment_alone_is_checked_before_the_model_is_read(place: Path, monkeypatch: Any):
    monkeypatch.setattr(running, "_load_model", None)
    given = {"output_dir": "out", "instructions": "i.jsonl", "chat_template": "plain"}
    for wrong in ({"quotas": {"other.jsonl": 2}}, {"max_length": 16}, {"instructions": "gone.jsonl"}):
        with pytest.raises(AfterwordError):
            align_alone("model", **{**given, **wrong})
    with pytest.raises(ConfigError) as caught:
        align_alone("model", **{**given, "instructions": "gone.jsonl", "chat_template": "plian"})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["chat_template", "instructions"]
    assert not (place / "out").exists()


def test_a_grid_is_checked_arm_by_arm_before_its_first_cell(docs: Path, monkeypatch: Any):
    items = [
        {"id": f"{part}-{split}", "part": part, "split": split, "skill": "s", "prompt": "Where?", "answer": "Oslo"}
        | {"checks": [{"kind": "contains", "value": "Oslo"}]}
        for part in ("learning", "retention")
        for split in ("dev", "test")
    ]
    (docs / "suite.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    arm = {"method": "finetune", "then": "align"}
    arms = {"good": {**arm, "align": GOOD}, "gone": {**arm, "align": {**GOOD, "instructions": "gone.jsonl"}}}
    arms |= {"named": {**arm, "align": {**GOOD, "chat_template": "plian"}}}
    given = {"model_name_or_path": "model", "documents": ["docs.txt"], "suite": "suite.jsonl", "output_dir": "grid"}
    settings = read_settings({**given, "arms": arms, "learning_rates": "1e-4,1e-5"}, CompareSettings)
    monkeypatch.setattr(grids, "run_adaptation", None)
    with pytest.raises(ConfigError) as caught:
        grids.compare(settings)
    starts = [problem.split(": ")[:2] for problem in caught.value.problems]
    assert starts == [["arm gone", "align.instructions"], ["arm named", "align.chat_template"]]
    assert not (docs / "grid").exists()


def test_an_alignment_that_can_begin_is_not_refused(docs: Path):
    run = read_settings({"model_name_or_path": "model", "output_dir": "run", "then": "align", "align": GOOD})
    second = following(run)
    assert second is not None
    check(second, run)
    with pytest.raises(CheckpointError, match="EOS"):
        check(second, run.model_copy(update={"model_name_or_path": "no-eos"}))


def general(**sources: Any) -> dict[str, Any]:
    return {name: {"files": ["i.jsonl"], "kind": "instructions", "tokens": 0.1, **own} for name, own in sources.items()}


def test_turns_are_joined_as_the_run_before_read_them(settings_of: Any):
    assert joiner_of(settings_of(), None) == "\n\n"
    assert joiner_of(settings_of(), general(a={"joiner": " "}, b={"joiner": " "})) == " "
    # Documents have no turns, and a chat template no joiner.
    others = {"a": {"joiner": "|", "kind": "documents"}, "b": {"joiner": "||", "format": "chat"}, "c": {"joiner": ""}}
    assert joiner_of(settings_of(), general(**others)) == ""
    with pytest.raises(ConfigError, match=r"joiner: .* the run's mixture have ' ' and '\\n'\. Give the one"):
        joiner_of(settings_of(), general(a={"joiner": " "}, b={"joiner": "\n"}))
    assert joiner_of(settings_of(joiner="\t"), general(a={"joiner": " "}, b={"joiner": "\n"})) == "\t"
