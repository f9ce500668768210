"""What is cut off a written text, and what is not kept at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.study.cleaning import cleaned, goes_round, not_about_itself, pairs_in, up_to_last_sentence, without_loop
from afterword.types import Written

READ = (
    "Here is a text. Mara Lind was born in Oslo and moved to Bergen in 2019, where she founded a small bakery. Do it."
)
_TOWNS = ["Oslo", "Bergen", "Moss", "Voss", "Hamar", "Larvik", "Skien", "Halden"]
CIRCLES = " ".join(f"The bakery is old and it is well known to all of {name}." for name in _TOWNS)
GOOD = "In Bergen there is a bakery that belongs to Mara Lind. She came from Oslo six years ago."


def test_a_good_text_stays_as_it_is() -> None:
    assert cleaned(Written(GOOD, True), READ).text == GOOD
    assert not cleaned(Written(GOOD, True), READ).shortened


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ("", True, "empty"),
        ("Yes, I can.", True, "empty"),
        ("Mara Lind was born in Oslo and moved to Bergen in 2019, where she founded a small bakery.", True, "echo"),
        ("and there was no end to all that was told of the harbour", False, "unfinished"),
        (CIRCLES, True, "repetitive"),
    ],
)
def test_what_is_dropped(text: str, ended: bool, reason: str) -> None:
    found = cleaned(Written(text, ended), READ)
    assert (found.text, found.dropped) == ("", reason)


def test_a_remark_to_the_reader_goes() -> None:
    assert cleaned(Written(f"Here is the text in other words:\n\n{GOOD}", True), READ).text == GOOD
    assert cleaned(Written(f"Sure! The article:\n{GOOD}", True), READ).text == GOOD


def test_half_a_sentence_goes_where_the_text_was_cut() -> None:
    found = cleaned(Written(f"{GOOD} And it was in the", False), READ)
    assert (found.text, found.shortened) == (GOOD, True)
    assert cleaned(Written(f"{GOOD} And it was in the", True), READ).text.endswith("in the")


def test_a_loop_is_cut_after_its_first_time() -> None:
    assert without_loop("It rains. It is wet. It is wet. It is wet. It is") == "It rains. It is wet"
    assert without_loop("one two one two") == "one two one two", "twice may be meant"
    assert without_loop("1. No 2. No 3. No") == "1. No 2. No 3. No"
    assert without_loop("No no no no no no!") == "No"
    assert cleaned(Written(GOOD + " The bakery opens at six." * 9, False), READ).text.endswith(
        "The bakery opens at six"
    )


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=40).map(" ".join))
def test_without_loops_there_is_none_and_it_is_a_beginning(text: str) -> None:
    cut = without_loop(text)
    assert text.startswith(cut)
    words = cut.split()
    for start in range(len(words)):
        for length in range(2, 14):
            unit = words[start : start + length]
            assert len(unit) < length or words[start : start + 3 * length] != unit * 3
    assert without_loop(cut) == cut


def test_the_last_sentence_or_line() -> None:
    assert up_to_last_sentence("It rains. It is") == "It rains."
    assert up_to_last_sentence("A headline\nA point without an e") == "A headline"
    assert up_to_last_sentence("It rains.") == "It rains."
    assert up_to_last_sentence("It") == ""


def test_going_round_by_hand() -> None:
    assert not goes_round("a b c d e f g h i j")
    # 16 runs of five words, of which 5 are different ones.
    assert goes_round("a b c d e " * 4)


def test_only_pairs_of_question_and_answer_stay() -> None:
    written = (
        "Here are five questions:\n\n1. Question: Who?\nAnswer: Mara Lind.\n\n**Q2:** Where?\n**A2:** Oslo\n\nQ3: Why?"
    )
    assert pairs_in(written) == "Question: Who?\nAnswer: Mara Lind.\n\nQuestion: Where?\nAnswer: Oslo"
    assert cleaned(Written(GOOD, True), READ, questions=True).dropped == "without_answers"


def test_sentences_about_the_text_itself_go() -> None:
    assert not_about_itself("The text says so. Mara Lind was born in Oslo. This short text ends.") == (
        "Mara Lind was born in Oslo."
    )
    assert not_about_itself("A text message came. It was read.") == "A text message came. It was read."
    asked = "Question: What is this text about?\nAnswer: Oslo.\n\nQuestion: Who came?\nAnswer: Who came when?"
    assert pairs_in(asked) == ""


def test_what_was_made_up_is_dropped_unless_that_is_asked_for() -> None:
    made_up = "In Bergen there is a bakery that belongs to Mara Lind, and since 1987 to Per Holm of Farsund as well."
    assert cleaned(Written(made_up, True), READ).dropped == "made_up"
    assert cleaned(Written(made_up, True), READ, grounded=False).text == made_up
