"""Documents become windows without losing, adding or moving a token."""

import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from afterword.corpus import split_sentences
from afterword.data import SpecialTokens, WindowSettings, read_document, special_tokens
from afterword.errors import CheckpointError, ConfigError
from afterword.types import Document

WORDS = (
    "Mara",
    "bakery",
    "naïve",
    "北京",
    "🙂",
    "Ωmega",
    "e\u0301t\u0301e",
    "3.14",
    "a",
    "(so-called)",
    "İstanbul",
    "x_y",
)
NONE = SpecialTokens((), 1)
BOS = SpecialTokens((0,), 1)


def random_text(draw):
    """Texts of one word to a few hundred, with sentences of one word and some longer than any context here."""
    sentences = []
    for _ in range(draw.randint(1, draw.choice([1, 4, 25]))):
        length = draw.choice([1, 3, 8, draw.randint(1, 60)])
        sentences.append(" ".join(draw.choices(WORDS, k=length)).capitalize() + draw.choice(".!?"))
    return draw.choice([" ", "  ", "\n", "\n\n"]).join(sentences)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def read(tokenizer, text, special=NONE, *, title=None, **reading):
    reading.setdefault("max_length", 10_000)
    return read_document(Document("d", text, title=title), 0, tokenizer, special, WindowSettings(**reading))


def new_tokens(windows):
    return [token for window in windows for token in window.token_ids[window.first_new_token :].tolist()]


def new_starts(windows):
    """Where new sentences start, in tokens of the document."""
    starts, read_so_far = [], 0
    for window in windows:
        offset = read_so_far - window.first_new_token
        starts += (window.sentence_starts[window.first_new_sentence :] + offset).tolist()
        read_so_far = offset + len(window.token_ids)
    return starts


def rejoined(core):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def changed(tokenizer, template):
    """The same tokenizer with another idea of what stands around a text."""
    from tokenizers import Tokenizer, processors

    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    special = [("<s>", 0), ("</s>", 1)]
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return rejoined(core)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("special", [NONE, BOS])
def test_windows_put_together_are_the_document_whatever_the_text(tokenizer, special, overlap):
    draw = random.Random(f"{overlap} {len(special.bos_ids)}")
    for _ in range(120):
        text, max_length = random_text(draw), draw.randint(16, 90)
        capacity = max_length - len(special.bos_ids) - 1
        whole = ids_of(tokenizer, text)
        windows = read(tokenizer, text, special, max_length=max_length, window_overlap=overlap).windows

        assert new_tokens(windows) == whole
        assert all(1 <= len(window.token_ids) <= capacity for window in windows)
        assert windows[0].first_new_sentence == 0
        assert [bool(window.is_document_end) for window in windows] == [False] * (len(windows) - 1) + [True]
        end = 0
        for window in windows:
            # The overlap is what stood right before, and never more than its share.
            context = window.first_new_token
            assert window.token_ids[:context].tolist() == whole[end - context : end]
            assert context <= int(capacity * overlap)
            assert context > 0 or end == 0 or int(capacity * overlap) == 0
            end += len(window.token_ids) - context


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_every_sentence_is_new_in_exactly_one_window(tokenizer, overlap):
    draw = random.Random(overlap)
    for _ in range(120):
        text = random_text(draw)
        starts = read(tokenizer, text).windows[0].sentence_starts.tolist()
        found = read(tokenizer, text, max_length=draw.randint(16, 90), window_overlap=overlap)
        again = new_starts(found.windows)
        assert again == sorted(set(again))
        assert set(starts) <= set(again)
        assert found.cut_sentences or again == starts


def test_sentence_starts_are_increasing_and_begin_each_window(tokenizer):
    draw = random.Random(5)
    for _ in range(120):
        for window in read(tokenizer, random_text(draw), max_length=draw.randint(16, 90)).windows:
            assert window.sentence_starts[0] == 0
            assert all(a < b for a, b in pairwise([*window.sentence_starts.tolist(), len(window.token_ids)]))


def test_a_token_belongs_to_the_sentence_of_its_last_character(tokenizer):
    draw = random.Random(6)
    for _ in range(120):
        text = random_text(draw)
        spans = split_sentences(text)
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        sentence_of = [next(i for i, (a, b) in enumerate(spans) if a <= end - 1 < b) for _, end in offsets]
        by_hand = [t for t, i in enumerate(sentence_of) if t == 0 or i != sentence_of[t - 1]]
        assert read(tokenizer, text).windows[0].sentence_starts.tolist() == by_hand


def test_the_token_of_a_space_and_a_word_belongs_to_the_sentence_of_the_word():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.train_from_iterator(["He ran. He ran."] * 9, trainers.BpeTrainer(special_tokens=["<s>", "</s>"]))
    tokenizer = rejoined(core)
    assert tokenizer.tokenize("He ran. He ran.") == ["He", "Ġran", ".", "ĠHe", "Ġran", "."]
    assert read(tokenizer, "He ran. He ran.").windows[0].sentence_starts.tolist() == [0, 3]


def test_a_document_that_fits_is_one_untouched_window(tokenizer):
    text = "Mara ran. " + "She went on " * 30 + "and stopped. Then she slept."
    whole = ids_of(tokenizer, text)
    exactly = read(tokenizer, text, BOS, max_length=len(whole) + 2)
    assert len(exactly.windows) == 1
    assert exactly.cut_sentences == 0
    assert exactly.windows[0].token_ids.tolist() == whole
    assert len(exactly.windows[0].sentence_starts) == 3
    assert len(read(tokenizer, text, BOS, max_length=len(whole) + 1).windows) > 1


@pytest.mark.parametrize(
    ("overlap", "firsts", "contexts"),
    [
        (0.0, [0, 4, 8], [0, 0, 0]),
        (0.25, [0, 4, 7], [0, 1, 1]),
        (0.5, [0, 4, 6, 8], [0, 2, 2, 2]),
        (0.75, [0, 4, 5, 6, 7, 8, 9], [0, 3, 3, 3, 3, 3, 3]),
    ],
)
def test_windows_of_equal_sentences_by_hand(tokenizer, overlap, firsts, contexts):
    # Ten sentences of the same length in a context of exactly four.
    text, length = " ".join(["Bread sells."] * 10), len(ids_of(tokenizer, "Bread sells."))
    windows = read(tokenizer, text, max_length=4 * length + 1, window_overlap=overlap, join="authors").windows
    assert [window.first_new_sentence for window in windows] == contexts
    assert [window.first_new_token // length for window in windows] == contexts
    assert [start // length for start in new_starts(windows)] == list(range(10))
    new = [len(window.sentence_starts) - window.first_new_sentence for window in windows]
    assert np.cumsum([0, *new])[:-1].tolist() == firsts


def test_sentences_longer_than_the_context_are_counted(tokenizer):
    long = "bread " * 100
    found = read(tokenizer, f"Mara ran. She sold {long}. She slept. She sold {long}.", max_length=40)
    assert found.cut_sentences == 2
    assert read(tokenizer, "Mara ran. " * 50, max_length=40).cut_sentences == 0


@pytest.mark.parametrize("word", ["A", "北", "🙂", "bread"])
def test_a_document_of_one_word_is_one_window(tokenizer, word):
    (window,) = read(tokenizer, word, max_length=16).windows
    assert window.token_ids.tolist() == ids_of(tokenizer, word)
    assert window.sentence_starts.tolist() == [0]
    assert window.is_document_end


def test_join_authors_is_each_stripped_sentence_tokenised_alone(tokenizer):
    draw = random.Random(8)
    for _ in range(60):
        text = random_text(draw)
        pieces = [ids_of(tokenizer, text[a:b].strip()) for a, b in split_sentences(text)]
        (window,) = read(tokenizer, text, join="authors").windows
        assert window.token_ids.tolist() == [token for piece in pieces for token in piece]
        assert [window.sentence(i)[1] - window.sentence(i)[0] for i in range(len(pieces))] == [len(p) for p in pieces]


def test_the_language_decides_where_sentences_end(tokenizer):
    text = "Es war am 3. Oktober in Oslo. Sie lief."
    starts = read(tokenizer, text, language="de").windows[0].sentence_starts
    assert len(starts) == len(split_sentences(text, "de"))
    assert len(starts) != len(split_sentences(text, "en"))


def test_a_context_too_small_for_any_text_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="max_length: 9 tokens leave 7"):
        read(tokenizer, "Mara ran.", BOS, max_length=9)


def test_cutting_by_offsets_needs_a_fast_tokenizer():
    slow = SimpleNamespace(is_fast=False)
    with pytest.raises(CheckpointError, match="fast tokenizer"):
        read(slow, "Mara ran.")


@pytest.mark.parametrize(
    ("bos", "join", "expected"),
    [
        ("auto", "document", (0,)),
        ("auto", "authors", ()),
        ("always", "document", (0,)),
        ("always", "authors", (0,)),
        ("never", "document", ()),
        ("never", "authors", ()),
    ],
)
def test_bos_is_what_was_asked_for(tokenizer, bos, join, expected):
    assert special_tokens(tokenizer, bos, join) == SpecialTokens(expected, 1)


@pytest.mark.parametrize(
    ("template", "expected"), [("$A", ()), ("$A </s>", ()), ("<s> $A </s>", (0,)), ("<s> <s> $A", (0, 0))]
)
def test_bos_auto_is_what_the_tokenizer_puts_before_a_text(tokenizer, template, expected):
    assert special_tokens(changed(tokenizer, template), "auto", "document").bos_ids == expected


def test_bos_always_needs_a_bos_token(tokenizer):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    without = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    with pytest.raises(ConfigError, match="bos: 'always' needs"):
        special_tokens(without, "always", "document")


TEXT = "Mara ran far.\nShe slept. She ate."


@pytest.mark.parametrize(
    ("title", "text", "read_text", "anchor"),
    [
        ("Oslo notes", TEXT, "Oslo notes\n\n" + TEXT, "Oslo notes\n\n"),
        ("Mara ran far.", TEXT, TEXT, "Mara ran far.\n"),
        (None, TEXT, TEXT, "Mara ran far.\n"),
        ("", "\n " + TEXT, TEXT, "Mara ran far.\n"),
        (" Oslo notes\n", TEXT, "Oslo notes\n\n" + TEXT, "Oslo notes\n\n"),
    ],
)
def test_the_anchor_is_the_title_or_the_first_line(tokenizer, title, text, read_text, anchor):
    found = read(tokenizer, text, title=title, anchored=True)
    (window,) = found.windows
    assert window.token_ids.tolist() == ids_of(tokenizer, read_text)
    assert tokenizer.decode(window.anchor_ids) == anchor
    assert window.token_ids[: len(window.anchor_ids)].tolist() == window.anchor_ids.tolist()
    assert not found.cut_anchor


def test_a_title_is_read_only_where_the_view_is_anchored(tokenizer):
    (window,) = read(tokenizer, TEXT, title="Oslo notes").windows
    assert len(window.anchor_ids) == 0
    assert window.token_ids.tolist() == ids_of(tokenizer, TEXT)


def test_an_anchor_is_cut_at_32_tokens_and_every_window_has_it(tokenizer):
    title = "Notes on bread and coffee in Bergen and Oslo " * 3
    found = read(tokenizer, TEXT * 20, BOS, title=title, anchored=True, max_length=80)
    assert found.cut_anchor
    assert len(found.windows) > 1
    for window in found.windows:
        assert window.anchor_ids.tolist() == ids_of(tokenizer, title)[:32]
        # Both the anchor and the window fit a view, with BOS and EOS.
        assert len(window.token_ids) + 32 + 2 <= 80
