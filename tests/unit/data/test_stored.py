"""Windows are found again by all that they follow from, and never where any of it, or the file, is different."""

import copy
import json
import multiprocessing
import os
import pickle
import re
from dataclasses import dataclass, fields, replace

import pytest
from transformers import ByT5Tokenizer

from afterword.corpus import read_corpus
from afterword.data import (
    SplitContext,
    WholeDocument,
    WindowSettings,
    content_hash,
    prepare,
    prepared,
    special_tokens,
    stored,
)
from afterword.data.reading_ahead import Reader
from afterword.errors import ConfigError, DataError

ROWS = [
    {"id": "one", "text": "One sentence only.", "source": "news"},
    {"id": "good", "text": "Mara ran. She slept. She ate.", "source": "wiki"},
    {"id": "long", "text": "Mara sold bread. " * 20, "source": "news"},
]


@pytest.fixture
def prepared_as(tokenizer, tmp_path):
    """Prepare the three documents with a cache, anything of it changed."""

    def build(name, *, rows=ROWS, tokenizer=tokenizer, view=None, cache=tmp_path / "cache", **how):
        view = view or SplitContext()
        corpus = read_corpus(rows, cache_dir=tmp_path / name)
        reading = how.pop("reading", WindowSettings(max_length=60))
        special = special_tokens(tokenizer, view.bos, view.join)
        return prepare(corpus, tokenizer, special, reading, view, tmp_path / name / "w.arrow", cache=cache, **how)

    return build


@pytest.fixture
def reader(tokenizer, tmp_path):
    """A reader of the three documents, anything of it changed."""
    corpus = read_corpus(ROWS, cache_dir=tmp_path)
    given = {"reading": WindowSettings(max_length=60), "view": SplitContext(), "render": None}
    plain = Reader(corpus, tokenizer, special_tokens(tokenizer, "auto", "document"), **given)
    return lambda **changed: replace(plain, **changed)


def told(windows):
    """All that is known of prepared windows but where they are."""
    said = {field.name: getattr(windows, field.name) for field in fields(windows)}
    del said["path"], said["from_cache"]
    said |= {"lengths": windows.lengths.tolist(), "ends": windows.ends.tolist()}
    return {**said, "windows": [window.token_ids.tolist() for window in windows]}


# ---- found again


def test_the_same_is_not_read_again(prepared_as, monkeypatch):
    first = prepared_as("first")
    monkeypatch.setattr(prepared, "read_ahead", None)
    again = prepared_as("again")
    assert (first.from_cache, again.from_cache) == (False, True)
    assert told(again) == told(first)
    assert again.skipped[0].location == "one"
    assert content_hash(again) == content_hash(first)
    assert again.path != first.path


def test_the_same_content_from_elsewhere_is_found_and_has_its_own_names(prepared_as):
    prepared_as("first")
    renamed = [{**row, "source": f"my {row['source']}"} for row in ROWS]
    again = prepared_as("again", rows=renamed)
    assert again.from_cache
    assert again.sources == ("my news", "my wiki")
    assert again.skipped[0].source == "my news"


def test_another_process_of_a_run_finds_what_the_first_made_without_a_cache(prepared_as, monkeypatch):
    first = prepared_as("run", cache=None)
    monkeypatch.setattr(prepared, "read_ahead", None)
    again = prepared_as("run", cache=None)
    assert told(again) == told(first)
    assert not again.from_cache


def test_without_a_cache_nothing_is_kept_for_others(prepared_as, tmp_path):
    prepared_as("first", cache=None)
    assert not (tmp_path / "cache").exists()
    assert not prepared_as("again").from_cache


def test_processes_at_once_read_once(prepared_as):
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    run = [
        context.Process(target=lambda name=name: found.put(prepared_as(name).from_cache), daemon=True) for name in "abc"
    ]
    for process in run:
        process.start()
    for process in run:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(found.get() for _ in run) == [False, True, True]


# ---- everything that windows follow from


def with_template(tokenizer):
    tokenizer.chat_template = "{{ messages }}"


def with_another_end(tokenizer):
    tokenizer.eos_token = "<s>"


def with_a_token_more(tokenizer):
    tokenizer.add_tokens(["Mara"])


def with_another_merge(tokenizer):
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"][-2:] = state["model"]["merges"][:-3:-1]
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))


@pytest.mark.parametrize("change", [with_template, with_another_end, with_a_token_more, with_another_merge])
def test_another_tokenizer_is_another_fingerprint(change, reader, tokenizer):
    other = copy.deepcopy(tokenizer)
    assert stored.fingerprint(reader(tokenizer=other)) == stored.fingerprint(reader())
    change(other)
    assert stored.fingerprint(reader(tokenizer=other)) != stored.fingerprint(reader())


def test_how_a_tokenizer_was_last_called_is_no_part_of_it(reader, tokenizer):
    before = stored.fingerprint(reader())
    used = copy.deepcopy(tokenizer)
    used.pad_token = used.eos_token
    tokens = [stored.fingerprint(reader(tokenizer=used))]
    used("Mara ran.", truncation=True, max_length=3, padding="max_length")
    tokens.append(stored.fingerprint(reader(tokenizer=used)))
    assert tokens[0] == tokens[1] != before


READINGS = {"control_tokens": "keep", 
    "max_length": 50, "window_overlap": 0.1, "join": "authors", "anchored": True, "language": "de",
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(WindowSettings)])
def test_every_option_of_reading_is_part_of_the_fingerprint(name, reader):
    changed = reader(window_settings=replace(WindowSettings(max_length=60), **{name: READINGS[name]}))
    assert stored.fingerprint(changed) != stored.fingerprint(reader())


VIEWS = {
    "join": "authors", "bos": "never", "averaging": "token", "needs_eos": True, "strategy": "middle", "targets": 2,
    "suffix_tokens": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(SplitContext)])
def test_every_option_of_the_view_is_part_of_the_fingerprint(name, reader):
    changed = reader(view=replace(SplitContext(), **{name: VIEWS[name]}))
    assert stored.fingerprint(changed) != stored.fingerprint(reader())


@dataclass(frozen=True, eq=False)
class Renders:
    """Another text than the document's own."""

    identity: str


def test_what_else_windows_follow_from_is_part_of_the_fingerprint(reader, tmp_path, monkeypatch):
    found = {stored.fingerprint(reader())}
    found.add(stored.fingerprint(reader(view=WholeDocument())))
    found.add(stored.fingerprint(reader(special=replace(reader().special, bos_ids=(7,)))))
    found.add(stored.fingerprint(reader(render=Renders("a"))))
    found.add(stored.fingerprint(reader(render=Renders("b"))))
    for i, (at, change) in enumerate([(0, {"text": "Other."}), (1, {"source": "news"}), (2, {"title": "Bread"})]):
        rows = [*ROWS[:at], {**ROWS[at], **change}, *ROWS[at + 1 :]]
        found.add(stored.fingerprint(reader(corpus=read_corpus(rows, cache_dir=tmp_path / str(i)))))
    with monkeypatch.context() as patch:
        patch.setattr(stored, "PREPARATION", stored.PREPARATION + 1)
        found.add(stored.fingerprint(reader()))
    with monkeypatch.context() as patch:
        patch.setattr(stored.importlib.metadata, "version", lambda name: "99" if name == "sentencex" else "1")
        found.add(stored.fingerprint(reader()))
    assert len(found) == 10
    assert None not in found


@pytest.mark.parametrize("change", ["tokenizer", "reading", "view"])
def test_what_follows_from_something_else_is_read_anew(change, prepared_as, tokenizer):
    other = copy.deepcopy(tokenizer)
    with_a_token_more(other)
    changes = {
        "tokenizer": other,
        "reading": WindowSettings(max_length=50),
        "view": SplitContext(strategy="random_token"),
    }
    prepared_as("first")
    changed = prepared_as("changed", **{change: changes[change]})
    assert not changed.from_cache
    assert told(changed) == told(prepared_as("alone", cache=None, **{change: changes[change]}))


@dataclass(frozen=True, kw_only=True)
class OwnView(SplitContext):
    """Code that this package knows no version of."""


def test_what_cannot_be_told_from_others_has_no_fingerprint(reader, prepared_as):
    assert stored.fingerprint(reader(view=OwnView())) is None
    assert stored.fingerprint(reader(tokenizer=ByT5Tokenizer())) is None
    assert [prepared_as("own", view=OwnView()).from_cache for _ in range(2)] == [False, False]


def test_a_record_without_a_fingerprint_is_no_match_for_none(prepared_as):
    path = prepared_as("first").path
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**record, "key": None}))
    assert stored.find(path, None) is None


# ---- never a damaged, foreign or half-written file


def entries(folder):
    (arrow,) = folder.glob("*.arrow")
    return arrow, arrow.with_suffix(".json")


def cut(arrow, record):
    replaced(arrow, arrow.read_bytes()[:-100])


def flipped(arrow, record):
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    replaced(arrow, bytes(content))


def miscounted(arrow, record):
    replaced(record, re.sub(rb'"windows": \d+', b'"windows": 99', record.read_bytes()))


def of_another(arrow, record):
    said = json.loads(record.read_text())
    replaced(record, json.dumps({**said, "key": "0" * 64}).encode())


def half_a_record(arrow, record):
    replaced(record, record.read_bytes()[:50])


def no_record(arrow, record):
    record.unlink()


def no_file(arrow, record):
    arrow.unlink()


def replaced(path, content):
    """Another file in its place: the run's own is a link to this one."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flipped, miscounted, of_another, half_a_record, no_record, no_file])
def test_what_is_not_as_it_was_written_is_never_used_and_made_again(harm, prepared_as, tmp_path):
    first = prepared_as("first")
    harm(*entries(tmp_path / "cache"))
    again = prepared_as("again")
    assert not again.from_cache
    assert told(again) == told(first)
    assert prepared_as("third").from_cache


def test_a_reading_that_is_interrupted_leaves_nothing_to_be_found(prepared_as, tmp_path, monkeypatch):
    def interrupted(reader, workers):
        yield from list(read_ahead(reader, workers))[:2]
        raise KeyboardInterrupt

    read_ahead = prepared.read_ahead
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "_ROWS_PER_BATCH", 1)
        patch.setattr(prepared, "read_ahead", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared_as("run")
    assert not list(tmp_path.rglob("w.*rrow"))
    assert not list((tmp_path / "cache").glob("*.arrow"))
    assert len(prepared_as("run")) == 8


def test_a_corpus_without_a_trainable_window_is_refused_every_time(prepared_as):
    for name in ("first", "again"):
        with pytest.raises(DataError, match="1 one sentence"):
            prepared_as(name, rows=ROWS[:1])


# ---- the folder


def test_a_run_keeps_its_windows_when_the_cache_is_emptied(prepared_as, tmp_path):
    prepared_as("first")
    run = prepared_as("run")
    windows = told(run)
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    prepared._opened.cache_clear()
    assert told(pickle.loads(pickle.dumps(run))) == windows


def test_windows_are_copied_where_the_disk_has_no_links(prepared_as, monkeypatch):
    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    first = prepared_as("first")
    monkeypatch.setattr(os, "link", refused)
    again = prepared_as("again")
    assert again.from_cache
    assert again.path.stat().st_ino != first.path.stat().st_ino
    assert told(again) == told(first)


def test_what_was_not_used_for_longest_is_removed_when_there_is_too_much(prepared_as, tmp_path, monkeypatch):
    def found(name, targets):
        return prepared_as(name, view=SplitContext(targets=targets)).from_cache

    found("a", 2)
    cache = tmp_path / "cache"
    size = sum(file.stat().st_size for file in cache.iterdir())
    found("b", 3)
    (cache / ".partial-killed").mkdir()
    (cache / ".partial-killed" / "half.arrow").write_bytes(b"0" * size)
    for file in cache.rglob("*"):
        os.utime(file, (1000, 1000))
    assert found("a again", 2)
    monkeypatch.setenv("AFTERWORD_CACHE_GIB", str(2.5 * size / 2**30))
    assert not found("c", 4)
    assert not (cache / ".partial-killed").exists()
    monkeypatch.delenv("AFTERWORD_CACHE_GIB")
    assert [found("a at last", 2), found("c at last", 4), found("b at last", 3)] == [True, True, False]


def test_a_cache_that_cannot_be_written_is_said_and_the_windows_are_there(prepared_as, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match=r"preparation_cache: .*file' cannot be written .* or off"):
        windows = prepared_as("run", cache=tmp_path / "file")
    assert told(windows) == told(prepared_as("other", cache=None))


@pytest.mark.parametrize("given", ["much", "-1", "nan", "inf"])
def test_a_bound_that_is_no_number_is_refused_before_anything_is_read(given, prepared_as, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERWORD_CACHE_GIB", given)
    with pytest.raises(ConfigError, match="AFTERWORD_CACHE_GIB: must be a number of GiB"):
        prepared_as("run")
    assert not (tmp_path / "cache").exists()


def test_the_usual_folder_is_the_variables_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path))
    assert stored.default_cache() == tmp_path / "prepared"
    monkeypatch.setenv("AFTERWORD_CACHE", "off")
    assert stored.default_cache() is None
    monkeypatch.delenv("AFTERWORD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stored.default_cache() == tmp_path / ".cache" / "afterword" / "prepared"
