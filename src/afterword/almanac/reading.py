"""Questions about a text in the prompt."""

import random

from afterword.almanac.closed_book import others
from afterword.almanac.exercises import UNKNOWN, Exercise, equals
from afterword.almanac.names import Split
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import CUTOFF, RELATIONS, Fact, World
from afterword.almanac.writing import Subject, ask, write_document

YEARS = (CUTOFF - 40, CUTOFF - 1)
"""When documents before the cutoff were written."""


def reading(world: World, rng: random.Random, split: Split) -> Exercise:
    """A document about a stranger, and a question that it answers."""
    subject = draw_stranger(world, rng, split)
    text = write_document(subject, rng, YEARS).text
    return read_question(world, rng.choice(told_in(text, subject)), text, rng)


def read_question(world: World, fact: Fact, text: str, rng: random.Random) -> Exercise:
    """One fact, asked with a text that tells it before the question."""
    relation = RELATIONS[fact.relation]
    backwards = relation.reverse and rng.random() < 0.5
    asked = ask(fact, rng.choice(relation.reverse if backwards else relation.questions))
    answer = fact.subject if backwards else fact.value
    wrong = rng.choice(world.names[relation.subject]) if backwards else others(world, fact, rng, 1)[0]
    prompt = f"{text}\n\n{asked}"
    return Exercise(None, prompt, answer, (equals(answer),), (wrong, UNKNOWN))


def told_in(text: str, subject: Subject) -> list[Fact]:
    """The subject's facts that the text tells."""
    lower = text.lower()
    return [f for f in subject.facts if (f.subject if f.value == subject.name else f.value).lower() in lower]
