"""JSON and YAML that others wrote: bounded, and one kind of error."""

import pytest

from afterword.errors import ConfigError, DataError
from afterword.settings.yaml_files import load_yaml
from afterword.storage.json_lines import read_rows
from afterword.storage.parsing import parse_json, parse_yaml

BOMB = "\n".join(
    ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]
)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "1" * 5000, "[1,]"])
def test_json_that_is_none_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000 + "]" * 10_000,
        BOMB,
        "&a [*a]",
        "2026-13-45",
        "!!bool x",
        "!!timestamp x",
        "!!int ''",
        "a: b: c",
        "\x00",
    ],
)
def test_yaml_that_is_none_or_multiplies_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_yaml(text)


def test_aliases_that_stay_small_are_read():
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("content", ["[" * 10_000, BOMB, "a: " + "x" * 2**21])
def test_settings_files_are_bounded(tmp_path, content):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_yaml(tmp_path / "run.yaml")


def test_a_pipe_is_no_file_of_settings(tmp_path):
    import os

    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match="pipe"):
        load_yaml(tmp_path / "run.yaml")
    os.mkfifo(tmp_path / "suite.jsonl")
    with pytest.raises(DataError, match="pipe"):
        read_rows(tmp_path / "suite.jsonl", "")


def test_lines_of_objects_are_bounded(tmp_path):
    import gzip

    with gzip.open(tmp_path / "suite.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(b" " * 2**20)
    with pytest.raises(DataError, match=r"suite\.jsonl\.gz, line 1: larger"):
        read_rows(tmp_path / "suite.jsonl.gz", "")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.jsonl:1"):
        read_rows(tmp_path / "deep.jsonl", "")
