"""What is wrong with a question by its words alone: no model is asked.

The one rule: a question must be understood by someone who has never seen the text. So it names what it is about, by a
name or by words that few of the documents have, and it does not speak of a text. And it asks for what the text tells:
a small model takes pieces of a sentence and puts them together to something else, and then answers that, too.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from afterword.evaluation.right_answers import normalised, plain_marks, says, words_of
from afterword.quiz.facts import Fact, Wording

RULES = {
    "not_in_text": "The answer does not stand in the text.",
    "no_question": "It is no question, one of fewer than four words, or one that has a name and says nothing of it.",
    "answer_in_question": "The question says its answer.",
    "names_nothing": "It does not name what it is about, or speaks of a text that the reader does not have.",
    "not_of_text": "Its words are not those of the text: it asks about something else.",
    "not_as_told": "It skips much of what its sentence says between its words, or counts something else.",
    "duplicate": "It was asked already.",
}
"""Why a wording is left out by its words, in the order in which it is looked at."""
_ANSWER_WORDS = 8
_LEAST_WORDS = 4
_SHARED = 0.75
"""Of the longer words of a question, how many must stand in the text, by how they begin."""
_STEM = 4
_ANSWER = ""
"""Stands for the answer among the words of its sentence."""
_SKIPPED = 0.3
"""Of the longer words of a sentence between those that a question has, how many it may lack; one in any case."""
_COMMON_SHARE = 0.1
"""Words that more of the documents have do not tell what a question is about."""
_FEW = 2
_OF_A_TEXT = re.compile(
    r"\b(?:the|this|that|given) (?:\w+ )?"
    r"(?:text|document|passage|article|paragraph|excerpt|sentence|statement|author)s?\b"
    r"|\b(?:mentioned|described|stated|quoted|listed) (?:above|below|here)\b",
    re.IGNORECASE,
)
"""What only a reader of the text could follow."""
_POINTING = {
    "he",
    "she",
    "it",
    "they",
    "him",
    "them",
    "his",
    "their",
    "its",
    "this",
    "these",
    "those",
    "i",
    "we",
    "you",
}
_ASKING = {"when", "which", "what", "where", "whose", "many", "much", "date", "name", "number", "version", "place"}
_ASKING |= {"person", "amount", "money", "percentage", "cent", "belongs", "marked", "does", "were", "have", "been"}
_LINKING = {
    "who",
    "is",
    "was",
    "are",
    "did",
    "do",
    "has",
    "had",
    "the",
    "a",
    "an",
    "of",
    "in",
    "on",
    "at",
    "to",
    "that",
}
_COUNTED = re.compile(r"\b(?:how many|number of) (\w+)", re.IGNORECASE)
_WORD = re.compile(r"\w(?:[\w'’.:-]*\w)?")


@dataclass(frozen=True)
class Rarity:
    """In how many documents a word stands."""

    documents: int
    found: Counter[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Rarity":
        """Counted over the texts."""
        sets = [_words(text) for text in texts]
        return cls(len(sets), Counter(word for words in sets for word in words))

    def is_rare(self, word: str) -> bool:
        """Whether few documents have it, and one does."""
        return 0 < self.found[word.casefold()] <= max(_FEW, _COMMON_SHARE * self.documents)


def problem_of(wording: Wording, fact: Fact, rarity: Rarity) -> str | None:
    """Why a wording is left out, as one of RULES; None where nothing is wrong with it by its words."""
    answer, question = fact.span.answer, wording.question
    if not (answer and len(answer.split()) <= _ANSWER_WORDS and says(fact.excerpt, answer)):
        return "not_in_text"
    if len(question.split()) < _LEAST_WORDS or (wording.how != "gap" and not _is_question(question)):
        return "no_question"
    if says(question, answer) or _gives_away(question, answer):
        return "answer_in_question"
    if _OF_A_TEXT.search(question) or _points(question) or not names_something(question, fact, rarity):
        return "names_nothing"
    if wording.how == "gap":
        return None
    if not _is_of_text(question, fact.excerpt):
        return "not_of_text"
    return None if _is_as_told(question, fact) and _counts_the_same(question, fact) else "not_as_told"


def names_something(question: str, fact: Fact, rarity: Rarity) -> bool:
    """Whether it has a name that few documents have, or a word that the text is about, or two that it alone has."""
    text = _words(fact.excerpt)
    rare = [word for word in _WORD.findall(question) if word.casefold() in text and rarity.is_rare(word)]
    names = [word for word in rare if _is_name(word, fact.excerpt)]
    about = [word for word in rare if len(word) > 3 and says(fact.excerpt, word) > 1]
    return bool(names or about) or len({word.casefold() for word in rare if len(word) > 3}) > 1


def _is_name(word: str, text: str) -> bool:
    """Whether it has a capital, a digit or a mark of code inside, wherever the text says it."""
    marked = any(c.isdigit() or c in "_:" for c in word) and not word.isdigit()
    return marked or (word[0].isupper() and f" {word.lower()} " not in f" {text} ")


def _is_question(question: str) -> bool:
    """Whether it ends as one and has a word beside names and those that every question has: not `Who is Mara Lind?`."""
    said = (word for word in _WORD.findall(question)[1:] if not word[0].isupper())
    return question.endswith("?") and any(word not in _ASKING | _LINKING for word in said)


def _gives_away(question: str, answer: str) -> bool:
    """Whether the question has all words of an answer of several, in whatever order."""
    words = words_of(answer)
    return len(words) > 1 and words <= words_of(question)


def _points(question: str) -> bool:
    """Whether it says `it` or `they` before anything was named."""
    for word in question.split()[1:]:
        if word.strip(",.?'\"").casefold() in _POINTING:
            return True
        if word[0].isupper() or any(c.isdigit() for c in word):
            return False
    return False


def _is_of_text(question: str, text: str) -> bool:
    """Whether its names and numbers are those of the text, and most of its longer words."""
    found = words_of(text)
    stems = {word[:_STEM] for word in found}
    exact = [word for word in question.split()[1:] if word[0].isupper() or word[0].isdigit()]
    long = [word for word in words_of(question) if len(word) > 3 and word not in _ASKING]
    named = all(word[:_STEM] in stems if word[0].isalpha() else word in found for word in words_of(" ".join(exact)))
    return named and sum(word[:_STEM] in stems for word in long) >= _SHARED * len(long)


def _is_as_told(question: str, fact: Fact) -> bool:
    """Whether it has most of what its sentence says between its words, and between them and the answer.

    Of `Today A beats B at home, who won in Torsby`, neither `When did B win?` has it nor `Where did A beat B?`: another
    event has that date, and that place.
    """
    before, _, behind = (_stems(part) for part in fact.span.sentence.partition(fact.span.answer))
    asked = set(_stems(question))
    return not (_skips([*before, *behind], asked) or _skips([*before, _ANSWER, *behind], {*asked, _ANSWER}))


def _skips(told: Sequence[str], asked: set[str]) -> bool:
    """Whether a sentence says much that was not asked, also where the words of the question stand closest together."""
    places = [i for i, stem in enumerate(told) if stem in asked]
    shared, much = {told[i] for i in places}, list[bool]()
    for start in places:
        end = next((i + 1 for i in places if shared <= set(told[start : i + 1])), None)
        if end is not None:
            skipped = end - start - sum(start <= i < end for i in places)
            much.append(skipped > max(1, _SKIPPED * (end - start)))
    return bool(much) and all(much)


def _counts_the_same(question: str, fact: Fact) -> bool:
    """Whether what it counts stands behind the number, and nothing between them that it does not say.

    Of `80 fewer ships in 9 ports`, neither `How many ships` nor `How many ports` asks for 80.
    """
    counted = _COUNTED.search(question)
    if counted is None or fact.span.kind != "number":
        return True
    said = {word[:_STEM] for word in words_of(question)}
    for word in _WORD.findall(plain_marks(fact.span.sentence.partition(fact.span.answer)[2]).casefold()):
        if word[:_STEM] == counted.group(1).casefold()[:_STEM]:
            return True
        if word[:_STEM] not in said:
            return False
    return False


def _stems(text: str) -> list[str]:
    """How the longer words of a text begin, and its numbers whole, in its order."""
    words = (word for word in re.findall(r"\w+", plain_marks(text).casefold()) if word not in _ASKING)
    return [word if word[0].isdigit() else word[:_STEM] for word in words if len(word) > 3 or word[0].isdigit()]


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def ruled(facts: Sequence[Fact], rarity: Rarity, seen: set[str]) -> tuple[list[Fact], Counter[str]]:
    """The facts with the wordings that have no problem, and how many wordings fell by which rule.

    `seen` has the questions that were asked before, and gets these.
    """
    fell, kept = Counter[str](), list[Fact]()
    for fact in facts:
        fine = list[Wording]()
        for wording in fact.wordings:
            same = normalised(wording.question)
            problem = problem_of(wording, fact, rarity) or ("duplicate" if same in seen else None)
            seen.add(same)
            fell.update([problem] if problem else [])
            fine += [] if problem else [wording]
        kept.append(replace(fact, wordings=tuple(fine)))
    return kept, fell
