"""Hashes are those that folders of before were written with."""

import hashlib
import json
from pathlib import Path

from afterword.storage.hashes import file_sha256, json_sha256, path_sha256, text_sha256


def test_a_hash_is_the_plain_sha256(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("öl\n", encoding="utf-8")
    expected = hashlib.sha256("öl\n".encode()).hexdigest()
    assert file_sha256(file) == text_sha256("öl\n") == path_sha256(file) == expected


def test_the_order_of_names_does_not_count():
    assert json_sha256({"b": 1, "a": [Path("x")]}) == json_sha256({"a": ["x"], "b": 1})
    assert json_sha256({"a": "ö"}) == hashlib.sha256(json.dumps({"a": "ö"}).encode()).hexdigest()


def test_a_folder_is_its_files_by_name(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "in").mkdir(parents=True)
        (tmp_path / folder / "in" / "a").write_text("1")
    assert path_sha256(tmp_path / "one") == path_sha256(tmp_path / "two")
    (tmp_path / "two" / "in" / "a").rename(tmp_path / "two" / "in" / "b")
    assert path_sha256(tmp_path / "one") != path_sha256(tmp_path / "two")
