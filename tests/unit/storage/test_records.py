"""The small files of a folder are read in one way, and a damaged one is one sentence."""

import pytest

from afterword.errors import CheckpointError
from afterword.storage.records import read_record


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"a": 1}'), ("a.yaml", "a: 1\n")])
def test_values_by_name(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_record(tmp_path / name) == {"a": 1}


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.yaml", "a: [1"), ("a.yaml", "3"), ("a.json", None)])
def test_what_cannot_be_read_is_told(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"a\.(json|yaml): cannot be read .* It is broken\."):
        read_record(tmp_path / name, "It is broken.")
