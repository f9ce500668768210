"""Documents about what is true: encyclopedia entries, news items and letters, 8 to 30 sentences.

The one rule: every fact that a document tells is told at least twice, in different wordings, so that a reader
who remembers what an earlier sentence said knows what a later one will say.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from afterword.almanac.names import data, gender_of
from afterword.almanac.world import RELATIONS, Fact
from afterword.types import Document

STYLES = ("entry", "news", "letter")
MIN_SENTENCES, MAX_SENTENCES = 8, 30
_PRONOUN_SHARE = 0.4
_SLOTS = ("{S}", "{s}", "{P}", "{p}")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a document is about."""

    name: str
    kind: str
    facts: tuple[Fact, ...]
    """Also those in which the subject is the value, as the offices that a person holds."""


def write_document(subject: Subject, rng: random.Random, years: tuple[int, int], identifier: str = "") -> Document:
    """A document of a random style, dated within the years (both included)."""
    style, date = rng.choice(STYLES), _date(rng, years)
    told = list(subject.facts) if style == "entry" else rng.sample(subject.facts, min(len(subject.facts), 4))
    sentences = _body(subject, told, rng)
    for place, part in ((0, "openings"), (len(sentences) + 1, "closings")):
        if wordings := data("wordings")[part][style]:
            sentences.insert(place, _say(rng.choice(wordings), subject.name, date=date))
    title = _say(rng.choice(data("wordings")["titles"][style]), subject.name)
    return Document(identifier, f"{title}\n\n{_paragraphs(sentences, rng)}", title, date, "almanac")


def tell(fact: Fact, wording: str, pronouns: dict[str, str] | None = None) -> str:
    """A sentence that states a fact, with the subject's name or with pronouns.

    >>> tell(Fact("Dora Ashby", "works_as", "architect"), "{S} works as {a} {o}.")
    'Dora Ashby works as an architect.'
    """
    name, value = fact.subject, fact.value
    # "Aldermoor is famous for its cheese": a name that was just said is not said again.
    own = pronouns_of(name, RELATIONS[fact.relation].subject)["p"] if "{S}" in wording else f"{name}'s"
    slots = pronouns or {"S": name, "s": name, "P": f"{name}'s", "p": own}
    return _say(wording, name, o=value, a="an" if value[0] in "aeiou" else "a", **slots)


def ask(fact: Fact, wording: str) -> str:
    """A question that the fact answers, or for a reverse wording, whose answer is the subject."""
    return wording.format(n=fact.subject, o=fact.value)


def _say(wording: str, name: str, **slots: str) -> str:
    text = wording.format(n=name, **slots)
    return text[0].upper() + text[1:]


def _date(rng: random.Random, years: tuple[int, int]) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(data('names')['month'])} {rng.randint(*years)}"


def _body(subject: Subject, told: Sequence[Fact], rng: random.Random) -> list[str]:
    """Sentences in rounds: every round tells every fact once, in another order and wording."""
    wordings = {fact: rng.sample(RELATIONS[fact.relation].statements, 3) for fact in told}
    rounds = 3 if len(told) * 2 < MIN_SENTENCES or rng.random() < 0.2 else 2
    sentences: list[str] = []
    for turn in range(rounds):
        for fact in rng.sample(told, len(told)):
            if rng.random() < 0.12:
                sentences.append(_filler(subject, rng))
            sentences.append(_told(subject, fact, wordings[fact][turn], rng, bool(sentences)))
    return sentences[: MAX_SENTENCES - 2]


def _told(subject: Subject, fact: Fact, wording: str, rng: random.Random, introduced: bool) -> str:
    own = fact.subject == subject.name and introduced and any(slot in wording for slot in _SLOTS)
    return tell(
        fact, wording, pronouns_of(subject.name, subject.kind) if own and rng.random() < _PRONOUN_SHARE else None
    )


def _filler(subject: Subject, rng: random.Random) -> str:
    wording = rng.choice(data("wordings")["fillers"][subject.kind])
    return _say(wording, subject.name, S=subject.name)


def pronouns_of(name: str, kind: str) -> dict[str, str]:
    """What stands for a name: at the start of a sentence (S), inside it (s), and its possessives (P, p)."""
    return data("wordings")["pronouns"][gender_of(name) if kind == "person" else kind]


def _paragraphs(sentences: Sequence[str], rng: random.Random) -> str:
    cut = rng.randint(3, 7)
    pieces = [" ".join(sentences[i : i + cut]) for i in range(0, len(sentences), cut)]
    return "\n\n".join(pieces)
