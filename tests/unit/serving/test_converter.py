"""llama.cpp's converter: where it is looked for, what is said where it is missing, and what it says when it fails."""

import pytest

from afterword.errors import CheckpointError, ConfigError
from afterword.serving.converter import SCRIPT, convert, find_converter


def refusing(tmp_path, program):
    script = tmp_path / SCRIPT
    script.write_text(program)
    with pytest.raises(CheckpointError) as caught:
        convert(script, tmp_path, tmp_path / "m.gguf", file_type="bf16", name="m")
    return str(caught.value)


def test_where_there_is_none_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"there is no convert_hf_to_gguf\.py on PATH") as caught:
        find_converter(None)
    assert "pip download --no-deps --no-binary llama-cpp-python llama-cpp-python" in str(caught.value)
    with pytest.raises(ConfigError, match="is not there"):
        find_converter(str(tmp_path))


def test_it_is_a_file_its_folder_or_on_path(tmp_path, monkeypatch):
    script = tmp_path / SCRIPT
    script.write_text("")
    assert find_converter(str(script)) == find_converter(str(tmp_path)) == script
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_converter(None) == script
    script.chmod(0o755)
    assert find_converter(None) == script


def test_it_is_told_what_to_write(tmp_path):
    script = tmp_path / SCRIPT
    script.write_text(
        "import os, sys\n"
        "words = sys.argv[1:]\n"
        "open(words[words.index('--outfile') + 1], 'w').write(' '.join([os.environ['HF_HUB_OFFLINE'], *words]))\n"
    )
    file = tmp_path / "m.gguf"
    convert(script, tmp_path / "model", file, file_type="q8_0", name="docs")
    assert file.read_text() == f"1 {tmp_path / 'model'} --outfile {file} --outtype q8_0 --model-name docs"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import a_missing_package.part", "needs the package a_missing_package: pip install a_missing_package"),
        ("raise NotImplementedError('BPE pre-tokenizer was not recognized - update')", "how this model's tokenizer"),
        ("import sys; sys.exit('ERROR:hf-to-gguf:Model XForCausalLM is not supported')", "does not know this kind"),
        ("raise ValueError('Can not map tensor lm_head.bias')", "said: ValueError: Can not map tensor lm_head.bias"),
        ("import sys; sys.exit(3)", "said: nothing, and ended with 3"),
        ("", "said: nothing, and ended with 0"),
    ],
)
def test_what_it_says_is_passed_on(tmp_path, program, said):
    message = refusing(tmp_path, program)
    assert "was not converted" in message
    assert said in message
