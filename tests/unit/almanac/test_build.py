"""The build of the embedded models, at two steps of its first stage."""

import json
import subprocess
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

SCRIPT = """
import sys
import torch
from pathlib import Path
from afterword.almanac import build
build.ROWS_PER_STEP = 4
build.build_base(Path(sys.argv[1]) / "scratch", Path(sys.argv[1]) / "models", steps=2, compiled=False)
print("the same again:", torch.are_deterministic_algorithms_enabled())
"""


def test_a_build_is_a_model_and_its_tokenizer_and_asks_for_algorithms_that_repeat(tmp_path):
    # In a process of its own: what it asks for holds for all of one.
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "the same again: True" in said
    folder = tmp_path / "models" / "base"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.num_parameters() == pytest.approx(2.16e6, rel=0.01)
    about = json.loads((tmp_path / "models" / "base.json").read_text(encoding="utf-8"))
    assert (about["steps"], about["resumed_from"]) == (2, None)
