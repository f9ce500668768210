"""What counts as the same text again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afterword.study.overlap import MOST_SHARED, Shelf, runs_of, shared

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), min_size=1, max_size=30).map(" ".join)


def test_runs_by_hand() -> None:
    assert runs_of("A b, c d e f!") == {("a", "b", "c", "d", "e"), ("b", "c", "d", "e", "f")}
    assert runs_of("Too short.") == {("too", "short")}


def test_shared_by_hand() -> None:
    one, other = runs_of("a b c d e f g h"), runs_of("a b c d e f x y")
    assert shared(one, other) == 2 / 4
    assert shared(one, one) == 1


def test_a_text_that_differs_in_case_and_punctuation_is_the_same() -> None:
    shelf = Shelf()
    shelf.add("Mara Lind was born in Oslo.")
    assert shelf.refuses("mara lind was BORN, in Oslo") == "duplicate"


def test_a_text_with_a_few_words_more_is_nearly_the_same() -> None:
    shelf = Shelf()
    text = "Mara Lind was born in Oslo and moved to Bergen in 2019 where she founded a small bakery"
    shelf.add(text)
    assert shelf.refuses(f"{text} that people like.") == "near_duplicate"
    assert shelf.refuses(text.removesuffix(" a small bakery")) == "near_duplicate"
    assert shelf.refuses("In 2019 Mara Lind, who comes from Oslo, founded a bakery in Bergen.") is None


@given(st.lists(TEXTS, max_size=12))
def test_no_two_kept_texts_are_nearly_the_same(texts: list[str]) -> None:
    shelf, kept = Shelf(), list[str]()
    for text in texts:
        if shelf.refuses(text) is None:
            shelf.add(text)
            kept.append(text)
    for i, one in enumerate(kept):
        for other in kept[:i]:
            assert shared(runs_of(one), runs_of(other)) <= MOST_SHARED
            assert shared(runs_of(other), runs_of(one)) <= MOST_SHARED
    assert bool(kept) == bool(texts)


@given(st.lists(TEXTS, max_size=12))
def test_what_is_on_the_shelf_is_refused_and_what_was_kept_is_kept_again(texts: list[str]) -> None:
    def kept_of(given_texts: list[str]) -> list[str]:
        shelf, kept = Shelf(), list[str]()
        for text in given_texts:
            if shelf.refuses(text) is None:
                shelf.add(text)
                kept.append(text)
        assert all(shelf.refuses(text) for text in given_texts)
        return kept

    once = kept_of(texts)
    assert kept_of(once) == once
