"""Text of a model's own in a file: what it said, by seed, in rows that a mixture reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from afterword.errors import ConfigError
from afterword.models import evaluation_dtype, load_model, load_tokenizer, precision
from afterword.models.generation import own_samples
from afterword.models.own_text import write_own_text


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_chat_models_exchanges_are_the_samples_that_drift_is_measured_on(tmp_path: Path):
    path = tmp_path / "new" / "own.jsonl"
    count = write_own_text("almanac-chat", path, count=6, new_tokens=16, seed=3)
    tokenizer, model = load_tokenizer("almanac-chat"), load_model("almanac-chat").eval()
    samples = own_samples(model, tokenizer, count=6, new_tokens=16, seed=3)
    expected = []
    for sample in samples:
        reply = tokenizer.decode(sample.token_ids[len(sample.prompt_ids) :], skip_special_tokens=True).strip()
        if sample.prompt and reply:
            turns = [{"role": "user", "content": sample.prompt}, {"role": "assistant", "content": reply}]
            expected.append({"messages": turns})
    assert _rows(path) == expected
    assert count == len(expected) > 0
    write_own_text("almanac-chat", tmp_path / "other.jsonl", count=6, new_tokens=16, seed=4)
    assert _rows(tmp_path / "other.jsonl") != expected


def test_a_model_without_a_template_writes_texts(tmp_path: Path):
    write_own_text("almanac-base", tmp_path / "own.jsonl", count=3, new_tokens=16)
    assert [list(row) for row in _rows(tmp_path / "own.jsonl")] == [["text"]] * 3


def test_a_folder_is_no_file_to_write(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"output: .* is a folder\. Give a file"):
        write_own_text("almanac-chat", tmp_path, count=1)


@pytest.mark.parametrize(
    ("asked", "stored", "faster", "expected"),
    [
        ("auto", torch.bfloat16, "bf16_mixed", torch.bfloat16),
        ("auto", torch.bfloat16, "float32", torch.float32),
        ("auto", torch.float32, "bf16_mixed", torch.float32),
        ("float32", torch.bfloat16, "bf16_mixed", torch.float32),
        ("bf16", torch.float32, "float32", torch.bfloat16),
    ],
)
def test_models_are_computed_in_what_they_are_served_in_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, asked: str, stored: torch.dtype, faster: str, expected: torch.dtype
):
    class Stored:
        """A folder of that precision."""

        def __init__(self, _: str):
            self.dtype = stored

    monkeypatch.setattr(precision, "StoredModel", Stored)
    monkeypatch.setattr(precision, "measured_precision", lambda _: faster)
    assert evaluation_dtype(["before", "after"], asked) == expected
