"""Answers that stand in a text, found by their form: dates, versions, numbers, names, code.

The one rule: a span is a piece of the text, letter by letter, with what is needed to ask for it: the sentence that it
stands in, and the kind of thing that it is. No model is asked; another language than English has fewer kinds.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal, get_args

import numpy as np

from afterword.corpus import split_sentences
from afterword.evaluation.right_answers import says

Kind = Literal["date", "version", "percent", "money", "number", "person", "place", "name", "code", "other"]
"""What an answer is, by its form and the words around it. Wrong choices are of the kind of the right one."""
KINDS: tuple[Kind, ...] = get_args(Kind)
FOUND: tuple[Kind, ...] = KINDS[:-1]
"""Kinds that are found by their form: `other` is what a model chose that has none of them."""
_HARD = ("name", "code")
"""Kinds of which a question cannot say by its first word what it asks for."""
_MOST_SAID = 2
"""What a text says more often is what it is about: no one sentence holds it as an answer."""
_MONTHS = ("January", "February", "March", "April", "May", "June", "July")
_MONTHS += ("August", "September", "October", "November", "December")
_MONTH = f"(?:{'|'.join(_MONTHS)})"
_DIGITS = r"(?:\d[\d.,]*\d|\d)"
_SCALE = r"(?: thousand| million| billion| trillion)?"
_ALONE = r"(?![\w/–-]|[.,]\d)"
_FORMS: tuple[tuple[Kind, str], ...] = (
    ("date", rf"\b\d{{1,2}} {_MONTH} \d{{4}}\b|\b{_MONTH} \d{{1,2}}(?:, \d{{4}})?\b|\b{_MONTH} \d{{4}}\b"),
    ("date", r"\b\d{4}-\d\d-\d\d\b"),
    ("version", r"(?<![\w.-])\d+\.\d+\.\d+(?:[.-][\w.]*\w)?(?![\w-])|(?<=version )\d+\.\d+\b"),
    ("code", r"(?<![\w-])[A-Z]{2,}(?:-\d+)+\b|(?<=`)[^`\s]{2,40}(?=`)"),
    ("code", r"(?<![\w:/.-])\w+(?:::\w+)+\b|(?<![\w/.-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b"),
    ("percent", rf"(?<![\w.,/–-]){_DIGITS}(?:%| per ?cent\b)"),
    ("money", rf"(?:US\$|[$€£]){_DIGITS}{_SCALE}{_ALONE}"),
    ("date", r"(?:(?<=\bin )|(?<=\bsince )|(?<=\buntil ))(?:1[89]|20)\d\d\b(?![.,%-]\w|%)"),
    ("number", rf"(?<![\w.,/–$€£-]){_DIGITS}{_SCALE}{_ALONE}"),
)
"""By kind, the first that fits where two would: a date is no number, nor is a part of it."""
_JOINING = {"of", "de", "da", "del", "der", "van", "von", "bin", "al", "el", "la", "le", "du", "for", "the"}
"""Words in lower case that may stand inside a name."""
_OPENING = {
    "a",
    "an",
    "the",
    "in",
    "on",
    "at",
    "it",
    "he",
    "she",
    "they",
    "this",
    "that",
    "these",
    "there",
    "if",
    "when",
}
_OPENING |= {"as", "and", "but", "for", "after", "before", "while", "by", "to", "from", "we", "you", "i", "its", "his"}
_OPENING |= {"however", "although", "because", "since", "with", "both", "our", "their", "her", "some", "all", "no"}
"""Words that have a capital because a sentence begins."""
_CALENDAR = {*_MONTHS, "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
_PLACED = {"in", "near", "at", "from", "to", "into", "outside", "across"}
"""Words before a name that make it a place."""
_TITLES = {"president", "minister", "chancellor", "king", "queen", "prince", "pope", "general", "secretary", "judge"}
_TITLES |= {"mr", "mrs", "ms", "dr", "professor", "senator", "governor", "mayor", "leader", "director", "chairman"}
_TITLES |= {"spokesman", "spokesperson", "ceo", "premier", "actor", "actress", "singer", "author", "sir", "lady"}
"""Words before a name, or at its beginning, that make it a person's."""
_WORD = re.compile(r"[^\W_][\w'’&-]*(?:\.(?=[A-Z]\.))*")


@dataclass(frozen=True, slots=True)
class Span:
    """An answer, and where it stands."""

    answer: str
    kind: Kind
    sentence: str
    """The sentence that says it, without white space around it."""


def spans_of(text: str, language: str = "en") -> list[list[Span]]:
    """Of every sentence of a text, what could be asked for, in its order; each answer once, where it stands first."""
    seen, found = set[str](), list[list[Span]]()
    for start, end in split_sentences(text, language):
        sentence, here = text[start:end].strip(), list[Span]()
        for answer, kind in sorted_spans(sentence):
            if answer.casefold() not in seen and 0 < says(text, answer) <= _MOST_SAID:
                here.append(Span(answer, kind, sentence))
            seen.add(answer.casefold())
        found.append(here)
    return found


def ways_to_say(answer: str) -> list[str]:
    """An answer, and a date also as others write it.

    >>> ways_to_say("5 May 2025")
    ['5 May 2025', 'May 5, 2025', '2025-05-05']
    """
    if not (date := re.fullmatch(rf"(\d{{1,2}}) ({_MONTH}) (\d{{4}})", answer)):
        return [answer]
    day, month, year = date.groups()
    return [answer, f"{month} {day}, {year}", f"{year}-{_MONTHS.index(month) + 1:02d}-{int(day):02d}"]


def drawn_spans(text: str, count: int, rng: np.random.Generator, language: str = "en") -> list[Span]:
    """At most `count` of a text's spans, of as many sentences and kinds as there are."""
    by_sentence = [_by_kind(spans, rng) for spans in spans_of(text, language)]
    order = [by_sentence[i] for i in rng.permutation(len(by_sentence))]
    rounds = chain.from_iterable(zip_longest(*order))
    return [span for span in rounds if span is not None][:count]


def _by_kind(spans: Sequence[Span], rng: np.random.Generator) -> list[Span]:
    """One of each kind, then the second of each, and so on; by draw, the kinds that are hard to ask for last."""
    drawn = sorted((spans[i] for i in rng.permutation(len(spans))), key=lambda span: span.kind in _HARD)
    groups = [[span for span in drawn if span.kind == kind] for kind in dict.fromkeys(span.kind for span in drawn)]
    return [span for span in chain.from_iterable(zip_longest(*groups)) if span is not None]


def sorted_spans(sentence: str) -> list[tuple[str, Kind]]:
    """(answer, kind) of what a sentence holds, in its order; none inside of another.

    >>> sorted_spans("Version 1.2.3 was published by Mara Lind in Oslo on 5 May 2025.")
    [('1.2.3', 'version'), ('Mara Lind', 'name'), ('Oslo', 'place'), ('5 May 2025', 'date')]
    """
    taken: list[tuple[int, int, Kind]] = []
    for kind, form in _FORMS:
        for match in re.finditer(form, sentence):
            if all(match.end() <= start or match.start() >= end for start, end, _ in taken):
                taken.append((*match.span(), kind))
    for start, end, kind in _names(sentence):
        if all(end <= other or start >= other_end for other, other_end, _ in taken):
            taken.append((start, end, kind))
    return [(sentence[start:end], kind) for start, end, kind in sorted(taken)]


def _names(sentence: str) -> Iterator[tuple[int, int, Kind]]:
    """Runs of words with a capital, with words that join names between them."""
    run: list[re.Match[str]] = []
    before = ""
    words = [*_WORD.finditer(sentence)]
    for i, word in enumerate(words):
        text, follows = word.group(), bool(run) and sentence[run[-1].end() : word.start()] == " "
        if run and not (follows and (_is_capital(text) or text.lower() in _JOINING)):
            yield from _named(run, before, sentence)
            run = []
        if run or (_is_capital(text) and text not in _CALENDAR):
            if not run:
                before = words[i - 1].group().lower() if i else ""
            run.append(word)
    if run:
        yield from _named(run, before, sentence)


def _named(run: list[re.Match[str]], before: str, sentence: str) -> Iterator[tuple[int, int, Kind]]:
    while run and run[-1].group().lower() in _JOINING:
        run.pop()
    opens = bool(run) and (not before or sentence[: run[0].start()].rstrip()[-1:] in '.:"“')
    while run and run[0].group().lower() in (_OPENING | _JOINING if opens else _JOINING):
        run.pop(0)
    last = max((i for i, word in enumerate(run) if word.group().lower() in _TITLES), default=-1)
    titled, named = last >= 0 or before in _TITLES, run[last + 1 :]
    # A person has two names at least: `Premier League` and `Chancellor of Austria` have a title, and are none.
    titled = titled and len(named) > 1 and named[0].group().lower() not in _JOINING
    run = named if titled else run
    # A single word that begins a sentence has its capital from there; `Drug` is half of `Food and Drug`.
    halved = before == "and" and sentence[: run[0].start()].endswith(" and ") if run else False
    if not run or halved or (len(run) == 1 and (opens or _is_no_name(run[0].group()))):
        return
    end = run[-1].end() - 2 * run[-1].group().endswith(("'s", "’s"))
    kind: Kind = "person" if titled else "place" if before in _PLACED and len(run) < 3 else "name"
    yield run[0].start(), end, kind


def _is_no_name(word: str) -> bool:
    """Whether a word alone is too short, or says where somebody is from: `British`."""
    return len(word) < 3 or word.endswith(("ish", "ese", "ian", "ean", "can", "man")) or word.lower() in _TITLES


def _is_capital(word: str) -> bool:
    return word[0].isupper()
