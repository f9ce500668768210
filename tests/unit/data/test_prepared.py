"""Windows on disk: counted, listed where skipped, the same bytes for the same content."""

import pickle
from dataclasses import replace

import pytest

from afterword.corpus import read_corpus
from afterword.data import (
    RefusedRow,
    SplitContext,
    WholeDocument,
    WindowSettings,
    content_hash,
    prepare,
    read_prepared,
    special_tokens,
)
from afterword.errors import DataError
from afterword.methods import METHODS

ONE = {"id": "one", "text": "One sentence only."}
SHORT = {"id": "short", "text": "Here is one.\n\nA"}
GOOD = {"id": "good", "text": "Mara ran. She slept. She ate."}


def prepared(rows, folder, tokenizer, view=None, *, name="windows", **reading):
    view = view or SplitContext()
    corpus = read_corpus(rows, cache_dir=folder / name)
    special = special_tokens(tokenizer, view.bos, view.join)
    reading.setdefault("max_length", 256)
    reading = WindowSettings(**reading, anchored=view.anchored)
    return prepare(corpus, tokenizer, special, reading, view, folder / f"{name}.arrow")


def test_what_cannot_be_trained_is_counted_and_listed(tokenizer, tmp_path):
    windows = prepared([ONE, GOOD, SHORT], tmp_path, tokenizer)
    assert windows.counts.skipped_windows == {"one_sentence": 1, "too_short": 1}
    assert [(s.location, s.reason) for s in windows.skipped] == [("one", "one_sentence"), ("short", "too_short")]
    assert [window.document for window in windows] == ["good"]
    assert windows.counts.trained_documents == windows.counts.windows == len(windows) == 1


def test_documents_of_one_sentence_are_trained_by_fine_tuning(tokenizer, tmp_path):
    windows = prepared([ONE, GOOD, SHORT], tmp_path, tokenizer, WholeDocument())
    assert windows.counts.skipped_windows == {}
    assert [window.document for window in windows] == ["one", "good", "short"]


def test_a_token_strategy_skips_what_has_under_four_tokens(tokenizer, tmp_path):
    assert len(tokenizer("a.").input_ids) < 4 < len(tokenizer("Bob ran.").input_ids)
    rows = [{"id": "short", "text": "a."}, {"id": "long", "text": "Bob ran."}]
    windows = prepared(rows, tmp_path, tokenizer, SplitContext(strategy="random_token"))
    assert windows.counts.skipped_windows == {"too_short": 1}
    assert [window.document for window in windows] == ["long"]


def test_nothing_trainable_is_an_error_that_says_why(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 documents.*1 one sentence.*1 too short.*two sentences"):
        prepared([ONE, SHORT], tmp_path, tokenizer)


def test_windows_come_back_as_they_were_read(tokenizer, tmp_path):
    text = "Mara ran. " * 29 + "She slept."
    windows = prepared([{"id": "long", "text": text}, GOOD], tmp_path, tokenizer, max_length=60)
    assert windows.counts.split_documents == 1
    assert windows.counts.trained_documents == 2
    long = [window for window in windows if window.document == "long"]
    ids = [token for window in long for token in window.token_ids[window.first_new_token :].tolist()]
    assert ids == tokenizer(text, add_special_tokens=False).input_ids
    assert [window.index for window in windows] == list(range(len(windows)))
    assert windows.lengths.tolist() == [len(window.token_ids) for window in windows]
    assert windows.counts.tokens == sum(windows.lengths)
    assert all(window.token_ids.dtype == "int64" for window in windows)


def test_more_windows_than_a_batch_of_rows_are_all_written(tokenizer, tmp_path):
    rows = [{"id": f"d{i}", "text": f"Number {i} ran. It slept."} for i in range(150)]
    windows = prepared(rows, tmp_path, tokenizer)
    assert [window.document for window in windows] == [f"d{i}" for i in range(150)]


def test_sources_are_numbered_in_the_order_they_come(tokenizer, tmp_path):
    rows = [{**GOOD, "id": f"{i}", "source": source} for i, source in enumerate(["news", "wiki", "news"])]
    rows = [{**row, "text": f"{row['text']} Row {i} ends."} for i, row in enumerate(rows)]
    windows = prepared(rows, tmp_path, tokenizer)
    assert windows.sources == ("news", "wiki")
    assert [int(window.source) for window in windows] == [0, 1, 0]


def test_cut_sentences_and_anchors_are_counted(tokenizer, tmp_path):
    rows = [{"id": "a", "title": "Oslo and Bergen " * 9, "text": "Mara sold " + "bread " * 99 + ". She slept."}]
    counts = prepared(rows, tmp_path, tokenizer, SplitContext(strategy="anchor"), max_length=80).counts
    assert (counts.cut_sentences >= 1, counts.cut_anchors) == (True, 1)


def test_data_json_has_the_counts_and_what_was_skipped(tokenizer, tmp_path):
    row = prepared([ONE, GOOD], tmp_path, tokenizer).to_json()
    assert (row["windows"], row["skipped_windows"]) == (1, {"one_sentence": 1})
    assert row["skipped_windows_listed"][0]["location"] == "one"


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_the_same_text_has_the_same_hash_and_another_text_another(method, documents, tokenizer, tmp_path):
    first = content_hash(prepared(documents, tmp_path, tokenizer, method.view, name="first"))
    again = content_hash(prepared(documents, tmp_path, tokenizer, method.view, name="again"))
    other = [{**documents[0], "text": documents[0]["text"].replace("born", "torn") + " More."}, *documents[1:]]
    assert first == again
    assert first != content_hash(prepared(other, tmp_path, tokenizer, method.view, name="other"))
    assert first != content_hash(prepared(documents, tmp_path, tokenizer, method.view, name="short", max_length=40))


def test_windows_written_again_are_read_anew(tokenizer, tmp_path):
    assert prepared([GOOD], tmp_path, tokenizer)[0].document == "good"
    assert prepared([{**GOOD, "id": "other"}], tmp_path, tokenizer)[0].document == "other"


@pytest.mark.parametrize("stops", [0, 100])
def test_a_reading_that_is_interrupted_leaves_nothing(stops, tokenizer, tmp_path):
    def render(document):
        if document.id == f"d{stops}":
            raise KeyboardInterrupt
        return document

    corpus = read_corpus([{"id": f"d{i}", "text": f"Row {i}. It ends."} for i in range(150)], cache_dir=tmp_path)
    given = (corpus, tokenizer, special_tokens(tokenizer, "auto", "document"), WindowSettings(max_length=40))
    with pytest.raises(KeyboardInterrupt):
        prepare(*given, SplitContext(), tmp_path / "work" / "w.arrow", render=render)
    assert not list((tmp_path / "work").iterdir())
    assert len(prepare(*given, SplitContext(), tmp_path / "work" / "w.arrow")) == 150


def test_what_is_refused_is_left_out_and_counted(tokenizer, tmp_path):
    def render(document):
        if document.id == "one":
            raise RefusedRow("refused_by_template", "no turn")
        return replace(document, text=document.text.upper())

    corpus = read_corpus([ONE, GOOD], cache_dir=tmp_path)
    special = special_tokens(tokenizer, "auto", "document")
    given = (corpus, tokenizer, special, WindowSettings(max_length=60), WholeDocument(), tmp_path / "w.arrow")
    windows = prepare(*given, render=render)
    assert [tokenizer.decode(window.token_ids) for window in windows] == [GOOD["text"].upper()]
    assert windows.counts.skipped_windows == {"refused_by_template": 1}
    assert [(s.location, s.detail) for s in windows.skipped] == [("one", "no turn")]


def test_another_process_finds_all_that_is_known_of_the_windows(tokenizer, tmp_path):
    windows = prepared([ONE, GOOD, SHORT], tmp_path, tokenizer)
    found = read_prepared(windows.path)
    assert (found.counts, found.skipped, found.sources) == (windows.counts, windows.skipped, windows.sources)
    assert (found.lengths.tolist(), found.ends.tolist()) == (windows.lengths.tolist(), windows.ends.tolist())
    assert found.to_json() == windows.to_json()


def test_prepared_windows_travel_to_a_worker(tokenizer, tmp_path):
    windows = prepared([GOOD], tmp_path, tokenizer)
    again = pickle.loads(pickle.dumps(windows))
    assert again[0].token_ids.tolist() == windows[0].token_ids.tolist()
    assert again.counts == windows.counts
