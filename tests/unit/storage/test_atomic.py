"""A folder counts only when its manifest is there and every file is as it says."""

import errno
import json

import pytest

from afterword.models import MANIFEST, STAGING_SUFFIX, is_complete, publish, replace_file, staging_folder
from afterword.storage.atomic import one_move


def staged(target, **files):
    folder = staging_folder(target)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def published(tmp_path):
    """A published folder of two files, one of them in a folder of its own."""
    folder = staged(tmp_path / "checkpoint-1", weights="w" * 99)
    (folder / "sub").mkdir()
    (folder / "sub" / "state").write_text("s")
    publish(folder, tmp_path / "checkpoint-1")
    return tmp_path / "checkpoint-1"


def test_a_published_folder_is_whole_and_lists_every_file(published):
    assert is_complete(published)
    (listed,) = json.loads((published / MANIFEST).read_text()).values()
    assert set(listed) == {"weights", "sub/state"}


def test_a_missing_file_is_found(published):
    (published / "sub" / "state").unlink()
    assert not is_complete(published)


def test_a_changed_byte_is_found(published):
    (published / "weights").write_text("w" * 98 + "x")
    assert not is_complete(published)


def test_a_cut_file_is_found(published):
    (published / "weights").write_text("w" * 98)
    assert not is_complete(published)


@pytest.mark.parametrize("text", [None, "", "{", "{}", '{"files": {"weights": {}}}'])
def test_without_a_readable_manifest_nothing_is_whole(published, text):
    (published / MANIFEST).unlink()
    if text is not None:
        (published / MANIFEST).write_text(text)
    assert not is_complete(published)


def test_a_folder_that_is_not_there_is_not_whole(tmp_path):
    assert not is_complete(tmp_path / "nothing")


def test_nothing_is_at_the_target_before_it_is_published(tmp_path):
    target = tmp_path / "checkpoint-1"
    staging = staged(target, weights="w")
    assert not target.exists()
    assert staging.name == target.name + STAGING_SUFFIX
    publish(staging, target)
    assert not staging.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_what_a_dead_run_left_in_the_staging_folder_is_gone(tmp_path):
    target = tmp_path / "checkpoint-1"
    staged(target, weights="half", leftover="x")
    publish(staged(target, weights="whole"), target)
    assert {path.name for path in target.iterdir()} == {"weights", MANIFEST}
    assert (target / "weights").read_text() == "whole"


def test_publishing_again_replaces_the_whole_folder(published):
    publish(staged(published, weights="new"), published)
    assert {path.name for path in published.iterdir()} == {"weights", MANIFEST}
    assert is_complete(published)
    assert [path.name for path in published.parent.iterdir()] == ["checkpoint-1"]


def test_a_small_file_is_replaced_at_once(tmp_path):
    path = tmp_path / "state.json"
    replace_file(path, "old")
    replace_file(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_a_full_disk_says_which_file_it_did_not_take(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("afterword.storage.atomic.flush", full)
    with pytest.raises(OSError, match="No space left") as caught:
        replace_file(tmp_path / "state.json", "text")
    assert caught.value.filename == str(tmp_path / "state.json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_its_name_when_it_is_written(tmp_path):
    with one_move(tmp_path / "new", lambda: "a.txt") as unfinished:
        unfinished.write_text("all of it")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_what_stops_on_the_way_leaves_nothing(tmp_path):
    def stopped():
        with one_move(tmp_path, lambda: "a.txt") as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []
