"""The option that a reply chooses, and what several of them vote for.

The one rule: an option is a mark, a letter or a number as text, and a pure function of the reply finds it, so that a
score can be made again from the replies alone.

How a reply is read beyond its tags is what the authors of arXiv:2602.16093 do in their evaluation. It is generous: of a
model that keeps to no form, much of what is read is chance.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

LETTERS = "ABCD"
Reading = Literal["authors", "tags"]
Tie = Literal["first", "wrong"]

_TAGGED_LETTER = re.compile(rf"<answer>\s*([{LETTERS}])\s*</answer>", re.IGNORECASE)
_THOUGHTS = re.compile(r"<think>.*?</think>", re.IGNORECASE | re.DOTALL)
_LETTER_BEHIND = re.compile(rf"answer\s*[:-]?\s*([{LETTERS}])\b", re.IGNORECASE)
_LETTER_BEFORE = re.compile(rf"\s*([{LETTERS}])[:.)-]", re.IGNORECASE)
_CAPITAL_BEFORE = re.compile(rf"([{LETTERS}])(?:[:. ]|$)")

_TAGGED = re.compile(r"<answer>\s*([^<]+?)\s*</answer>", re.IGNORECASE)
_NUMBER = re.compile(r"\b[1-9][0-9]*\b")
_ALONE = re.compile(r"\b[A-Z]\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")
_NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def letter_of(reply: str, reading: Reading = "authors") -> str | None:
    """A, B, C or D: the last one in tags; else, outside of thoughts, behind `Answer:`, or alone in the first line.

    >>> letter_of("<think>B?</think> <answer> c </answer>"), letter_of("Answer: D."), letter_of("Answer: D.", "tags")
    ('C', 'D', None)
    """
    if tagged := _TAGGED_LETTER.findall(reply):
        return tagged[-1].upper()
    if reading == "tags":
        return None
    lines = _THOUGHTS.sub("", reply).split("\n")
    return _behind_the_word(lines) or _behind_it_in_any_case(lines) or _alone_in_the_first(lines)


def _behind_the_word(lines: Sequence[str]) -> str | None:
    """Of the first line with `Answer:`, the capital that follows it, or that the next line begins with."""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if "Answer:" in line:
            after = line.split("Answer:")[1].strip()[:1]
            found = _CAPITAL_BEFORE.match(following.strip())
            return after if after and after in LETTERS else found[1] if found else None
    return None


def _behind_it_in_any_case(lines: Sequence[str]) -> str | None:
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if "answer:" in line.lower() and (found := _LETTER_BEHIND.search(line) or _LETTER_BEFORE.match(following)):
            return found[1].upper()
    return None


def _alone_in_the_first(lines: Sequence[str]) -> str | None:
    """Of the first sentence, the one of the four letters that is anywhere in it."""
    first = next((line for line in lines if line.strip()), "")
    first = first.split("Answer")[1][:5] if "Answer" in first else first
    found = set(first.split(".")[0].upper()) & set(LETTERS)
    return found.pop() if len(found) == 1 else None


def number_of(reply: str, reading: Reading = "authors") -> str | None:
    """The number of an option: what the first tags say; else the first number, letter or number word anywhere.

    A letter counts as its place in the alphabet. A number that no option has is a vote all the same, and never right.

    >>> number_of("Of 3 options: <answer>2</answer>"), number_of("I take the second"), number_of("None", "tags")
    ('2', '9', None)
    """
    tagged = _TAGGED.search(reply)
    found = _number_in(tagged[1], [tagged[1].strip()]) if tagged else None
    return found or (None if reading == "tags" else _number_in(reply, _WORD.findall(reply)))


def _number_in(text: str, words: Sequence[str]) -> str | None:
    """Its first number; else its first letter that stands alone; else the first of `words` that is a number."""
    if number := _NUMBER.search(text):
        return number[0]
    if letter := _ALONE.search(text):
        return str(ord(letter[0].upper()) - ord("A") + 1)
    return next((str(_NUMBER_WORDS.index(w.lower()) + 1) for w in words if w.lower() in _NUMBER_WORDS), None)


def cut_at(reply: str, stops: Sequence[str]) -> str:
    """The reply up to the first of the texts that end it.

    >>> cut_at("2. Question: next", ["Question:", "Next"])
    '2. '
    """
    return reply[: min((place for stop in stops if (place := reply.find(stop)) >= 0), default=len(reply))]


def voted(votes: Sequence[str | None], tie: Tie) -> str | None:
    """What most replies chose; those that chose nothing do not vote. None: nothing, or a tie that is wrong.

    >>> voted(["C", None, "B", "C"], "wrong"), voted(["C", "B", None], "first"), voted(["C", "B", None], "wrong")
    ('C', 'B', None)
    """
    counts = Counter(vote for vote in votes if vote is not None)
    most = sorted((vote for vote, count in counts.items() if count == max(counts.values())), key=_order)
    return None if not most or (len(most) > 1 and tie == "wrong") else most[0]


def is_tied(votes: Sequence[str | None]) -> bool:
    """Whether two or more options have the most votes."""
    return voted(votes, "first") != voted(votes, "wrong")


def _order(mark: str) -> tuple[int, str]:
    return len(mark), mark
