"""A text that was added is there, whatever ends the process; nothing is written over."""

import json

import pytest

from afterword.errors import DataError
from afterword.storage.text_store import TextStore

TEXTS = {"a prompt": "A text.\nWith a line.", "another": "Ein Größeres \u2028 Wort \ud800", "": ""}


@pytest.fixture
def path(tmp_path):
    """Where a store of three texts is that was closed."""
    place = tmp_path / "run" / "written.jsonl"
    with TextStore(place) as store:
        for key, text in TEXTS.items():
            store.add(key, text)
    return place


def test_what_was_added_is_found_also_when_opened_again(path):
    with TextStore(path) as store:
        assert {key: store[key] for key in TEXTS} == TEXTS
        assert "a promp" not in store
        store.add("a promp", "New.")
        assert (store["a prompt"], store["a promp"]) == (TEXTS["a prompt"], "New.")
    assert len(TextStore(path)) == 4


def test_a_text_is_on_the_disk_before_the_store_is_closed(path):
    store = TextStore(path)
    store.add("killed after this", "Here.")
    assert TextStore(path)["killed after this"] == "Here."


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_was_half_written_is_cut_off(cut, path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with TextStore(path) as store:
        assert ([key in store for key in TEXTS], len(store)) == ([True, True, False], 2)
        store.add("", "")
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"key": 3', lines[2]]) + "\n")
    with pytest.raises(DataError, match=r"written\.jsonl, line 2: is damaged .*Remove the line"):
        TextStore(path)


def test_no_text_takes_the_place_of_another(path):
    with TextStore(path) as store, pytest.raises(ValueError, match="a text of this key already: 'another'"):
        store.add("another", "Other.")
    assert len(path.read_text().splitlines()) == 3


def test_what_all_texts_follow_from_is_part_of_every_key(path):
    with TextStore(path, "another model") as store:
        assert "another" not in store
        store.add("another", "By the other.")
    assert TextStore(path)["another"] == TEXTS["another"]
    assert all(set(json.loads(line)) == {"key", "of", "text"} for line in path.read_text().splitlines())
