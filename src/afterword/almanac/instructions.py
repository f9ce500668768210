"""Verifiable instructions, in the manner of IFEval (arXiv:2311.07911), on top of questions.

An instruction decides what is said (a value, a sentence, the value several times, a list), how it is written
(capitals, lower case), and what stands around it (quotes, JSON, a given beginning or end).
"""

import random
from dataclasses import dataclass

from afterword.almanac.closed_book import name_of, others
from afterword.almanac.exercises import Check, Exercise, only
from afterword.almanac.names import Split
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import RELATIONS, Fact, World
from afterword.almanac.writing import ask, pronouns_of, tell

_WORDS = ("indeed", "certainly", "surely", "clearly", "naturally")
_STARTS = ("Here it is:", "My answer:", "Well,")
_ENDS = ("That is all.", "Good day.", "Thank you.")
_COUNTS = {2: "twice", 3: "three times"}


@dataclass(frozen=True, slots=True)
class _Draft:
    """A response in the making: what was asked for so far, and what must hold."""

    text: str
    asked: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    def then(self, text: str, asked: str, *checks: Check) -> "_Draft":
        return _Draft(text, (*self.asked, asked), (*self.checks, *checks))


def instructions(world: World, rng: random.Random, split: Split) -> Exercise:
    """One or two instructions on a question about the world, about a line of text, or on several questions."""
    if rng.random() < 0.2:
        return _listed(world, rng)
    fact, question, context = _question(world, rng, split)
    draft = _Draft(fact.value, checks=({"kind": "contains", "value": fact.value},))
    while not draft.asked:
        draft = _around(_written(_content(draft, fact, rng), rng), rng)
    parts = (question, *draft.asked) if rng.random() < 0.7 else (*draft.asked, question)
    prompt = context + " ".join(parts)
    checks = (*draft.checks, _only(fact, (*parts, draft.text)))
    return Exercise(prompt, prompt, draft.text, checks, _wrong(world, draft, fact, prompt), name_of(fact))


def _only(fact: Fact, texts: tuple[str, ...]) -> Check:
    """Nothing is said but what was asked for, in the words of the question, the response or any statement of the fact.

    So another value beside the right one, or a denial of it, is not right.
    """
    relation = RELATIONS[fact.relation]
    pronouns = pronouns_of(fact.subject, relation.subject).values()
    told = (tell(fact, wording) for wording in (*relation.statements, *relation.held_out))
    return only("It is and", *pronouns, *texts, *told)


def _question(world: World, rng: random.Random, split: Split) -> tuple[Fact, str, str]:
    if rng.random() < 0.6:
        while True:
            fact = rng.choice(world.facts)
            if fact.subject in world.asked:
                return fact, ask(fact, rng.choice(RELATIONS[fact.relation].questions)), ""
    fact = rng.choice(draw_stranger(world, rng, split).facts)
    text = tell(fact, rng.choice(RELATIONS[fact.relation].statements))
    return fact, ask(fact, rng.choice(RELATIONS[fact.relation].questions)), f"{text}\n\n"


def _content(draft: _Draft, fact: Fact, rng: random.Random) -> _Draft:
    value, choice = fact.value, rng.random()
    if choice < 0.2:
        sentence = tell(fact, RELATIONS[fact.relation].statements[0])
        return draft.then(sentence, "Answer in a full sentence.", {"kind": "sentence"})
    if choice < 0.35:
        count = rng.choice(tuple(_COUNTS))
        check = {"kind": "times", "value": value, "count": count}
        return draft.then(", ".join([value] * count), f"Say the answer {_COUNTS[count]}.", check)
    if choice < 0.5:
        word = rng.choice(_WORDS)
        return draft.then(f"{value}, {word}", f'Use the word "{word}".', {"kind": "contains", "value": word})
    if choice < 0.6:
        return draft.then(value, "Answer in at most five words.", {"kind": "words", "max": 5})
    return draft


def _written(draft: _Draft, rng: random.Random) -> _Draft:
    choice, sentence = rng.random(), any(check["kind"] == "sentence" for check in draft.checks)
    if choice < 0.25 and not sentence:
        return draft.then(draft.text.upper(), "Write in capital letters.", {"kind": "upper"})
    if choice < 0.4 and not sentence:
        return draft.then(draft.text.lower(), "Write in lower case.", {"kind": "lower"})
    return draft


def _around(draft: _Draft, rng: random.Random) -> _Draft:
    kinds, choice = {check["kind"] for check in draft.checks}, rng.random()
    if choice < 0.2 and not kinds & {"sentence"}:
        return draft.then(f'"{draft.text}"', "Put it in double quotes.", {"kind": "quoted"})
    if len(draft.asked) == 2 or kinds & {"upper", "lower", "sentence", "words"}:
        return draft
    if choice < 0.4 and kinds == {"contains"} and not draft.asked:
        value = draft.text
        check = {"kind": "json", "key": "answer", "value": value}
        return draft.then(f'{{"answer": "{value}"}}', 'Answer as JSON with the key "answer".', check)
    if choice < 0.6:
        start = rng.choice(_STARTS)
        return draft.then(f"{start} {draft.text}", f'Begin with "{start}"', {"kind": "starts", "value": start})
    if choice < 0.8:
        end = rng.choice(_ENDS)
        return draft.then(f"{draft.text}. {end}", f'End with "{end}"', {"kind": "ends", "value": end})
    return draft


def _wrong(world: World, draft: _Draft, fact: Fact, prompt: str) -> tuple[str, ...]:
    """The form with another value, the answer without its form, and the form of another."""
    # Random numbers of its own: a mistake may not change what is drawn after it.
    other = others(world, fact, random.Random(prompt), 1)[0]
    mistaken = draft.text
    for written in (str, str.upper, str.lower):
        mistaken = mistaken.replace(written(fact.value), written(other))
    plain = (fact.value,) if draft.text != fact.value else ()
    return (mistaken, *plain, f"{fact.value}. {fact.value}.")


def _listed(world: World, rng: random.Random) -> Exercise:
    """Several facts about one entity, one on each line."""
    name = rng.choice([name for name in world.names[rng.choice(tuple(world.names))] if name in world.asked])
    facts = [fact for fact in world.about(name) if fact.subject == name]
    facts = rng.sample(facts, rng.randint(2, 3))
    marker, how = rng.choice((("-", "a list with dashes"), ("1.", "a numbered list")))
    nouns = [RELATIONS[fact.relation].noun for fact in facts]
    wanted = f"{', '.join(nouns[:-1])} and {nouns[-1]}"
    lines = [f"{marker if marker == '-' else f'{i}.'} {fact.value}" for i, fact in enumerate(facts, 1)]
    checks: list[Check] = [{"kind": "items", "count": len(facts), "marker": marker}]
    checks += [{"kind": "item", "index": i, "value": fact.value} for i, fact in enumerate(facts)]
    prompt = f"Give the {wanted} of {name} as {how}."
    wrong = (", ".join(fact.value for fact in facts), "\n".join(lines[:-1]))
    return Exercise(prompt, prompt, "\n".join(lines), tuple(checks), wrong)
