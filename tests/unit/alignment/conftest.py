"""Dialogues small enough for the tiny model, a tokenizer with a template, and samples as they are selected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ 'A:' + m['content'] }}{{ eos_token }}"
    "{% else %}{{ 'Q:' + m['content'] + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)
PLACES = ("Oslo", "Bergen", "a small bakery", "Rome", "the sea", "a town by the river")


@pytest.fixture
def chat_tokenizer(model_folder: Path) -> Any:
    """The tiny model's tokenizer with a chat template of its own."""
    from afterword.models import load_tokenizer

    tokenizer = load_tokenizer(str(model_folder))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def pairs() -> list[Any]:
    """Twelve dialogues of unequal lengths, each with a rejected response, some with two turns."""
    from afterword.corpus import Dialogue

    def dialogue(i: int) -> Any:
        """One of them."""
        earlier = [("user", "Hello."), ("assistant", "Hello!")] if i % 3 == 0 else []
        turns = [*earlier, ("user", f"Where is {i}?"), ("assistant", f"In {PLACES[i % 6]}{', she said' * (i % 4)}.")]
        return Dialogue(tuple({"role": role, "content": text} for role, text in turns), f"I do not know {i}.")

    return [dialogue(i) for i in range(12)]


@pytest.fixture
def instructions(pairs: list[Any]) -> list[Any]:
    """The same without the rejected responses."""
    from afterword.corpus import Dialogue

    return [Dialogue(pair.messages) for pair in pairs]


@pytest.fixture
def settings_of() -> Callable[..., Any]:
    """Settings with what every alignment needs filled in."""
    from afterword.settings.adapt import read_settings
    from afterword.settings.align import AlignSettings

    needed = {"model_name_or_path": "m", "output_dir": "o", "instructions": ["i.jsonl"], "precision": "float32"}
    return lambda **raw: read_settings({**needed, **raw}, AlignSettings)


@pytest.fixture
def place(tmp_path: Path, model_folder: Path, pairs: list[Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `model`, i.jsonl and p.jsonl; in both, one row is too long and one a duplicate."""
    (tmp_path / "model").symlink_to(model_folder)
    rows = [{"id": f"d{i}", "prompt": list(p.prompt), "chosen": [p.messages[-1]]} for i, p in enumerate(pairs)]
    long = {"prompt": [{"role": "user", "content": "Where?"}], "chosen": [{"role": "assistant", "content": "xyz" * 99}]}
    rows += [{"id": "long", **long}, rows[0]]
    asked = [{"id": r["id"], "prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    answers = [*(pair.rejected for pair in pairs), "No.", pairs[0].rejected]
    preferred = [{**r, "rejected": [{"role": "assistant", "content": no}]} for r, no in zip(rows, answers, strict=True)]
    for name, written in (("i.jsonl", asked), ("p.jsonl", preferred)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    (tmp_path / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
