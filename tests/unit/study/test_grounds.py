"""Numbers and names that were not read."""

from __future__ import annotations

from afterword.study.grounds import strange

READ = "On 3 May 2025 Mara Lind of Oslo sold 1,200 loaves to Per Holm, who is from the European Bakers' Union."


def test_what_stands_there_is_known_in_any_case_and_order() -> None:
    assert strange("Per Holm bought 1,200 loaves in May 2025 from the baker MARA LIND, Oslo.", READ) == []


def test_numbers_and_names_that_do_not_stand_there() -> None:
    assert strange("She sold 1,300 loaves in Bergen.", READ) == ["1,300", "Bergen"]
    assert strange("She sold 200 loaves.", READ) == ["200"], "a part of a number is another number"


def test_beginnings_of_sentences_and_numbers_of_lists_are_no_names() -> None:
    assert strange("1. Loaves were sold.\n2. Many came. Everybody paid.", READ) == []


def test_one_in_ten_may_be_another_word() -> None:
    known = "the baker Mara Lind of Oslo and the buyer Per Holm met in May 2025, "
    assert strange(f"Once {known}{known}and all of Europe heard of it.", READ) == []
    assert strange("Once the baker Mara Lind met all of Europe.", READ) == ["Europe"]
    assert strange(f"Once {known}{known}and 2 more.", READ) == ["2"], "a number is never another word for one"


def test_where_every_noun_has_a_capital_letter_only_numbers_count() -> None:
    assert strange("Sie hat das Brot an Per Holm verkauft, im Jahr 2024.", READ, "de") == ["2024"]
    assert strange("Sie hat das Brot verkauft.", READ, "de-AT") == []
