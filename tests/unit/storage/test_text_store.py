"""A text that was added is there, whatever ends the process, whoever else adds, and when the disk is full."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import run_python

from afterword.errors import DataError, TrainingError
from afterword.storage.text_store import TextStore

TEXTS = {"a prompt": "A text.\nWith a line.", "another": "Ein Größeres \u2028 Wort \ud800", "": ""}


def row(key, text="A text."):
    return {"key": key, "text": text}


@pytest.fixture
def path(tmp_path):
    """Where a store of three texts is that was closed; the last two were added together."""
    place = tmp_path / "run" / "written.jsonl"
    first, *others = (row(key, text) for key, text in TEXTS.items())
    with TextStore(place) as store:
        store.add([first])
        store.add(others)
    return place


def test_what_was_added_is_found_also_when_opened_again(path):
    with TextStore(path) as store:
        assert {key: store[key]["text"] for key in TEXTS} == TEXTS
        assert "a promp" not in store
        store.add([row("a promp", "New.")])
        assert (store["a prompt"]["text"], store["a promp"]["text"]) == (TEXTS["a prompt"], "New.")
    assert len(TextStore(path)) == 4


def test_a_text_is_on_the_disk_before_the_store_is_closed(path):
    store = TextStore(path)
    store.add([row("killed after this", "Here.")])
    assert TextStore(path)["killed after this"]["text"] == "Here."


@pytest.mark.parametrize("cut", [1, 5, 70, 110])
def test_what_was_added_together_and_is_half_written_is_cut_off(cut, path):
    whole = path.read_bytes()
    assert len(whole.splitlines()[-1]) < 70 < len(b"".join(whole.splitlines(keepends=True)[1:])) < 200
    path.write_bytes(whole[:-cut])
    with TextStore(path) as store:
        assert list(filter(store.__contains__, TEXTS)) == ["a prompt"]
        store.add([row("")])
        assert path.read_bytes().startswith(whole.splitlines(keepends=True)[0])
    assert sorted(json.loads(line)["key"] for line in path.read_bytes().splitlines()) == ["", "a prompt"]


def test_the_first_of_two_texts_of_a_key_stays(path):
    with TextStore(path) as store, TextStore(path) as other:
        other.add([row("meanwhile", "First.")])
        store.add([row("meanwhile", "Second."), row("new", "New.")])
        assert (store["meanwhile"]["text"], store["new"]["text"]) == ("First.", "New.")
        assert "new" not in other
        other.refresh()
        assert other["new"]["text"] == "New."


@pytest.mark.parametrize("line", ['{"key": 1, "part": [1, 1]}', "{", '{"key": "a"}'])
def test_a_damaged_line_is_said(line, path):
    path.write_text(f"{line}\n" + path.read_text())
    with pytest.raises(DataError, match=r"written.jsonl, byte 0: the line is damaged .* Remove it"):
        TextStore(path)


@pytest.mark.parametrize("after", [0, 20])
def test_a_full_disk_is_said_and_leaves_a_readable_store(after, path, monkeypatch):
    before, real = path.read_bytes(), os.write

    def full(file, content):
        """A part is still written; the next one finds no room."""
        if after and len(content) > after:
            return real(file, bytes(content[:after]))
        raise OSError(errno.ENOSPC, "No space left on device")

    with TextStore(path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(TrainingError, match=r"cannot be stored \(the disk is full\)\. Make room, and give the"):
                store.add([row("too much", "x" * (30 if after else 10))])
        if not after:
            assert path.read_bytes() == before
        assert len(TextStore(path)) == len(TEXTS)
        store.add([row("there is room again")])
    with TextStore(path) as store:
        assert len(store) == len(TEXTS) + 1


ADDING = """
import sys
from pathlib import Path
from afterword.storage.text_store import TextStore
place, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
keys = [f"{batch}/{row}" for batch in range(count) for row in range(3)]
later, written = [], 0
with TextStore(place) as store:
    batches = [keys[at:at + 3] for at in range(0, len(keys), 3)]
    for wait in (False, True):
        for batch in batches:
            with store.claimed(batch, wait=wait) as mine:
                # As long as a short text takes.
                import time; time.sleep(0.002 * len(mine))
                store.add([{"key": key, "text": f"{name} wrote {key}" * 20} for key in mine])
                written += len(mine)
    assert len(store) == len(keys)
print(written)
"""


def test_two_processes_write_every_text_once(tmp_path):
    place, count = tmp_path / "written.jsonl", 40
    words = [sys.executable, "-c", ADDING, str(place)]
    others = [subprocess.Popen([*words, str(n), str(count)], stdout=subprocess.PIPE, text=True) for n in range(2)]
    written = [int(other.communicate(timeout=100)[0]) for other in others]
    assert sum(written) == 3 * count, "no text was written twice"
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    assert len({each["key"] for each in rows}) == len(rows) == 3 * count
    assert all(f"wrote {each['key']}" in each["text"] for each in rows)


def test_a_store_outlives_twenty_kills(tmp_path):
    place, known = tmp_path / "written.jsonl", dict[str, str]()
    for number in range(20):
        other = subprocess.Popen(
            [sys.executable, "-c", ADDING, str(place), str(number), "1000"], stdout=subprocess.PIPE
        )
        seen = place.stat().st_size if place.exists() else 0
        until = time.monotonic() + 60
        while time.monotonic() < until and (not place.exists() or place.stat().st_size <= seen):
            time.sleep(0.01)
        time.sleep(0.013 * (number % 3))
        other.send_signal(signal.SIGKILL)
        other.wait()
        with TextStore(place) as store:
            found = {key: store[key]["text"] for key in store}
        assert known.items() <= found.items()
        assert len(found) > len(known)
        known = found
    done = run_python("-c", ADDING, str(place), "last", "200")
    assert done.code == 0, done.all
