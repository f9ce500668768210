"""Sentences: spans that tile any text, and splits where a reader would split."""

import random
from itertools import pairwise

import pytest

from afterword.corpus import split_sentences
from afterword.errors import ConfigError

PIECES = [
    *(" ", "  ", "\n", "\n\n", "\n \n", "\t", "\r\n", "\r\n\r\n", "\u2028", "\u00a0", "\x1c", "\u200b"),
    *("a", "Word", "Dr.", "e.g. ", "B. ", "! ", "?", "… ", "3.14", "1. ", "- ", '"', "“", "”", "(", ")"),
    *("é", "😀", "e\u0301", "日本語。", "是的！", "Über", "नमस्ते।", "שלום.", "Что? ", "\ud800", "\x00"),
]


def sentences(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, language)]


def assert_tiles(text: str, language: str) -> None:
    spans = split_sentences(text, language)
    if not text.strip():
        assert spans == []
        return
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
    assert all(text[start:end].strip() for start, end in spans)
    assert not any(text[start].isspace() for start, _ in spans[1:])


@pytest.mark.parametrize("language", ["en", "de", "ja", "hi", "el", "hy", "my", "zh-Hant", "und"])
def test_spans_tile_whatever_text(language):
    draw = random.Random(language)
    for _ in range(400):
        assert_tiles("".join(draw.choices(PIECES, k=draw.randint(0, 60))), language)


def test_spans_tile_a_text_far_longer_than_the_pieces_the_splitter_works_in():
    paragraph = "Été comes late. Is it 3.5 °C? “Yes!” 😀 she said.  "
    text = "\n\n".join(paragraph * n for n in range(1, 80))
    assert len(text) > 100_000
    assert_tiles(text, "en")
    starts = {start for start, _ in split_sentences(text)}
    breaks = [i + 2 for i in range(len(text)) if text[i : i + 2] == "\n\n"]
    assert set(breaks) <= starts


def test_a_paragraph_without_a_blank_line_is_never_cut_inside_a_word():
    assert split_sentences("word " * 20_000) == [(0, 100_000)]
    assert sentences("A first sentence is here. " * 5_000) == ["A first sentence is here. "] * 5_000


def test_whitespace_belongs_to_the_sentence_before_it():
    assert sentences("\n  First one.  Second one.\n\n \n\tThird one.\n\n") == [
        "\n  First one.  ",
        "Second one.\n\n \n\t",
        "Third one.\n\n",
    ]


def test_a_heading_and_its_paragraph_are_apart():
    assert sentences("Motivation\n==========\n\nIt is slow. We know.") == [
        "Motivation\n==========\n\n",
        "It is slow. ",
        "We know.",
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u2028 \t"])
def test_a_text_of_whitespace_has_no_sentences(text):
    assert split_sentences(text) == []


# By hand: | marks where a reader would split, and the splitter does.
READ_BY_HAND = [
    ("en", "It costs $3.50 today. |Tomorrow it will be 4.5 percent more."),
    ("en", "He asked, “Are you sure?” |She nodded."),
    ("en", "See Fig. 3 and Sec. 2 for details. |Then read on."),
    ("en", "Prof. Smith met Mrs. Jones at 5 p.m. on Monday. |They talked."),
    ("en", "Some fruit, e.g. apples, i.e. round ones, etc. are sold here. |Others are not."),
    ("en", "Use version 3.11.2 or later. |Earlier ones fail."),
    ("en", "Visit www.example.com/a.b?c=1 for more. |Then log in."),
    ("en", "Really?! |Yes! |No..."),
    ("de", "Am 3. Mai kam z. B. Dr. Müller. |Er blieb."),
    ("ja", "これは本です。|それはペンです。"),
    ("zh", "你好吗？|我很好。"),
    ("ru", "Это г. Москва. |Привет!"),
    ("hi", "यह एक वाक्य है। |यह दूसरा है।"),
]


@pytest.mark.parametrize(("language", "marked"), READ_BY_HAND)
def test_sentences_end_where_a_reader_would_end_them(language, marked):
    assert sentences(marked.replace("|", ""), language) == marked.split("|")


def test_a_region_is_read_as_its_language():
    text = "Am 3. Mai kam z. B. Dr. Müller. Er blieb."
    assert split_sentences(text, "de_AT") == split_sentences(text, "DE-ch") == split_sentences(text, "de")


@pytest.mark.parametrize("language", ["english", "", "e", "12", "en;"])
def test_an_unknown_language_is_named_with_its_setting_and_a_remedy(language):
    with pytest.raises(ConfigError) as error:
        split_sentences("text", language)
    for words in ["language:", "ISO 639", repr(language), "use en"]:
        assert words in str(error.value)


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u2009", "\x85", " \u00a0"])
def test_a_wide_space_before_a_full_stop_is_read(space):
    text = f"Oranges hold vitamin C{space}. They grow in the south. People eat them."
    assert split_sentences(text)[-1] == (text.index("People"), len(text))
    assert_tiles(text, "en")


def test_a_splitter_that_breaks_down_costs_only_its_own_paragraph(monkeypatch):
    import sentencex

    class PanicException(BaseException):
        pass

    real = sentencex.get_sentence_boundaries

    def breaks(code, text):
        if "boom" in text:
            raise PanicException
        return real(code, text)

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", breaks)
    assert sentences("A boom. It was loud.\n\nOne. Two.") == ["A boom. It was loud.\n\n", "One. ", "Two."]


def test_a_long_paragraph_is_split_as_a_short_one():
    part = "彼は外に出た。寒かった。"
    assert sentences(part * 3000, "ja") == ["彼は外に出た。", "寒かった。"] * 3000
    text = "Mara moved to Oslo in 2019. She sells bread, e.g. rye. Is it good? "
    assert (
        sentences(text * 1000) == ["Mara moved to Oslo in 2019. ", "She sells bread, e.g. rye. ", "Is it good? "] * 1000
    )


def test_time_is_proportional_to_length_in_scripts_without_spaces():
    import time

    def seconds(count):
        started = time.process_time()
        split_sentences("彼は外に出た。寒かった。" * count, "ja")
        return time.process_time() - started

    seconds(100)
    # Eight times the length: 8 where time is proportional, 64 where it goes with the square.
    assert seconds(16000) < 24 * max(seconds(2000), 0.02)
