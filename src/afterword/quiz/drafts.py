"""Questions drafted: the model is given an answer and asks for it, or chooses both; and the text itself with a gap.

A small model that is told what to do in a turn of chat asks about something else. One that goes on from three examples
of the same kind of answer, with the question begun for it, asks for what it was given.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from afterword.corpus import split_sentences
from afterword.data import as_words
from afterword.data.views import Writer
from afterword.quiz.facts import Fact, Wording, excerpts_of, lead_up
from afterword.quiz.spans import FOUND, Kind, Span, sorted_spans
from afterword.types import Document, Request, Sampling
from afterword.writing import Prompt, prompt

PROMPTS = (*(f"quiz_{kind}" for kind in FOUND), "quiz_own", "quiz_gap", "quiz_read", "quiz_closed")
_QUESTION = Sampling(max_new_tokens=32, temperature=0.0)
_ANOTHER = Sampling(max_new_tokens=32, temperature=0.5, top_p=0.95)
_OWN_TOKENS = 48
"""Room for a question and its answer."""
_GAP = "____"
_GAP_WORDS = 45
"""The longest text that is shown with a gap."""


def own_facts(writer: Writer, documents: Sequence[Document], *, count: int, words: int, language: str) -> list[Fact]:
    """Questions and answers that the model chooses, `count` for a piece of a document; as many as it gives."""
    pieces = [(doc.id, piece) for doc in documents for piece in excerpts_of(doc.text, words, language)]
    sampling = Sampling(max_new_tokens=_OWN_TOKENS * count, temperature=0.0)
    asked = prompt("quiz_own")
    requests = [Request(sampling=sampling, turns=asked.filled(text=p, count=str(count))) for _, p in pieces]
    written = writer.write(requests, "questions of the model's own")
    pairs = [(*piece, pair) for piece, text in zip(pieces, written, strict=True) for pair in _pairs(text.text)]
    return [_own(document, piece, pair, language) for document, piece, pair in pairs]


def _pairs(text: str) -> list[tuple[str, str]]:
    """(question, answer) in what was written."""
    found = re.findall(r"Question:[ \t]*(.+?)\s*\n+\s*Answer:[ \t]*(.+)", text)
    return [(question.strip(), answer.strip().rstrip(".").strip("\"'“”")) for question, answer in found]


def _own(document: str, piece: str, pair: tuple[str, str], language: str) -> Fact:
    question, answer = pair
    sentences = (piece[start:end].strip() for start, end in split_sentences(piece, language))
    sentence = next((each for each in sentences if answer and answer.casefold() in each.casefold()), "")
    kinds: list[Kind] = [kind for text, kind in sorted_spans(sentence) if text.casefold() == answer.casefold()]
    span = Span(answer, kinds[0] if kinds else "other", sentence)
    return Fact(document, piece, span, (Wording(question, "own"),))


def asked_for(writer: Writer, facts: Sequence[Fact], *, drafts: int) -> list[Fact]:
    """The facts with questions that the model wrote to their answers: `drafts` for each way of beginning one."""
    prompts = {kind: prompt(f"quiz_{kind}") for kind in FOUND}
    requests, begun = list[Request](), list[tuple[int, str]]()
    for number, fact in enumerate(facts):
        asked = prompts.get(fact.span.kind)
        for opening in openings(asked) if asked else ():
            assert asked
            text = asked.turns[0][1].format(text=lead_up(fact), answer=fact.span.answer, opening=opening)
            for seed in range(drafts):
                sampling = _ANOTHER if seed else _QUESTION
                requests.append(Request(sampling=sampling, text=as_words(writer.tokenizer, text), seed=seed))
                begun.append((number, opening))
    more: list[list[Wording]] = [[] for _ in facts]
    for (number, opening), written in zip(begun, writer.write(requests, "questions"), strict=True):
        more[number].append(Wording(_question(opening, written.text), "asked"))
    return [replace(fact, wordings=(*fact.wordings, *own)) for fact, own in zip(facts, more, strict=True)]


def openings(asked: Prompt) -> list[str]:
    """The ways in which a question for an answer of this kind begins."""
    return [text for role, text in asked.turns if role == "opening"]


def _question(opening: str, written: str) -> str:
    """The question in what was written behind its opening, up to its mark; a model in chat may begin it anew."""
    line = next((line for line in written.splitlines() if line.strip()), "").strip()
    line = line if line.casefold().startswith(opening.casefold()) else f"{opening} {line}"
    return line.partition("?")[0].strip() + "?" * ("?" in line)


def with_gap(fact: Fact) -> Fact:
    """The fact with its own sentence, or that behind the ones before it, as further wordings: the answer is a gap.

    A text that says its answer twice, or is too long to be asked, gives none.
    """
    gap, found = prompt("quiz_gap").turns[0][1], list[Wording]()
    for text in dict.fromkeys((" ".join(fact.span.sentence.split()), lead_up(fact, _GAP_WORDS))):
        if text.count(fact.span.answer) == 1 and len(text.split()) <= _GAP_WORDS:
            found.append(Wording(gap.format(text=text.replace(fact.span.answer, _GAP)), "gap"))
    return replace(fact, wordings=(*fact.wordings, *found))
