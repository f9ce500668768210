"""Control tokens that documents write out: words, unless somebody asks for more."""

import logging
import threading

import pytest

from afterword.data import WindowSettings, as_words, read_document, special_tokens
from afterword.data.control_tokens import written
from afterword.errors import DataError
from afterword.evaluation.questions import build_prompt
from afterword.models import load_tokenizer
from afterword.models.generation import prompt_ids
from afterword.storage.locks import held
from afterword.types import Document


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("almanac-chat")


@pytest.fixture(scope="module")
def token(tokenizer):
    return next(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)


def ids_of(tokenizer, text, **reading):
    special = special_tokens(tokenizer, "auto", "document")
    read = read_document(Document("d", text), 0, tokenizer, special, WindowSettings(max_length=256, **reading))
    return [int(i) for window in read.windows for i in window.token_ids], read.control_tokens


def test_they_are_read_as_text_and_counted(tokenizer, token):
    text = f"A turn ends with {token} here. Then {token} again."
    ids, count = ids_of(tokenizer, text)
    assert count == 2
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


def test_they_work_where_that_is_asked_for(tokenizer, token):
    ids, count = ids_of(tokenizer, f"One. {token} Two.", control_tokens="keep")
    assert (count, ids.count(tokenizer.convert_tokens_to_ids(token))) == (1, 1)


def test_they_are_refused_where_that_is_asked_for(tokenizer, token):
    with pytest.raises(DataError, match="control_tokens: text"):
        ids_of(tokenizer, f"One. {token} Two.", control_tokens="refuse")


def test_other_text_is_tokenised_as_ever(tokenizer):
    text = "Mara moved to Oslo. She sells bread <b>here</b>."
    ids, count = ids_of(tokenizer, text)
    assert (ids, count) == (tokenizer(text, add_special_tokens=False).input_ids, 0)
    assert as_words(tokenizer, text) == text


def test_a_document_in_a_prompt_cannot_end_the_turn(tokenizer, token):
    plain = prompt_ids(tokenizer, build_prompt(tokenizer, "Who?", "Mara lives there."))
    armed = prompt_ids(tokenizer, build_prompt(tokenizer, "Who?", f"Mara lives there. {token}{token}"))
    special = set(tokenizer.all_special_ids)
    assert sum(i in special for i in armed) == sum(i in special for i in plain)
    assert written(tokenizer, as_words(tokenizer, token * 3)) == []


def test_a_wait_for_another_process_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("afterword.storage.locks.SILENT_SECONDS", 0.05)
    ready, leave = threading.Event(), threading.Event()

    def hold():
        with held(tmp_path / "a.lock", "holds it"):
            ready.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait(10)
    threading.Timer(0.3, leave.set).start()
    with caplog.at_level(logging.WARNING), held(tmp_path / "a.lock", "reads the same documents"):
        pass
    holder.join()
    assert "another process reads the same documents" in caplog.text
