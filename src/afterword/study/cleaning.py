"""What of a written text can be trained: loops, half sentences and remarks to the reader are cut off, echoes dropped.

The one rule: a text is only ever shortened. Nothing is put into what the model wrote.
"""

import re
from dataclasses import dataclass

from afterword.corpus import split_sentences
from afterword.study.grounds import strange
from afterword.study.overlap import MOST_SHARED, runs_of, shared, words_of
from afterword.types import Written

MIN_WORDS = 5
"""Of a text that says something."""
_LONGEST_LOOP = 60
"""Words of a unit that is looked for again behind itself."""
_LOOPS = 3
"""Times that a unit stands behind itself in a loop; twice may be meant."""
_MIN_DISTINCT = 0.5
"""Share of different runs of words below which a text goes round in circles."""
_WORD = re.compile(r"\w+")
_REMARK = re.compile(r"^(here('s| is| are)|sure|certainly|of course|okay)\b.{0,200}:\s*\n+", re.IGNORECASE)
_ABOUT_ITSELF = re.compile(r"\b(?:the|this|each|both|another) (?:\w+ )?texts?\b", re.IGNORECASE)
"""English, as the prompts are."""
_PAIR = re.compile(
    r"(?:question|q)\s*\d*\s*[:.]\**\s*(?P<question>[^\n]+)\n+[\s*]*(?:answer|a)\s*\d*\s*[:.]\**\s*(?P<answer>[^\n]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text that can be trained, or why there is none."""

    text: str
    dropped: str | None = None
    """`empty`, `echo`, `repetitive`, `made_up`, `unfinished` or `without_answers`; None: it can be trained."""
    shortened: bool = False
    """Whether a loop, half a sentence or sentences about the text itself were cut off."""


def cleaned(
    written: Written, read: str, *, questions: bool = False, language: str = "en", grounded: bool = True
) -> Cleaned:
    """What can be trained of a text that was written to `read`, the prompt with its document.

    `questions`: of a text that should be pairs of question and answer, only those are kept. `grounded`: a text whose
    numbers and names do not stand in what was read is dropped.
    """
    whole = _REMARK.sub("", written.text.strip()).strip()
    text = without_loop(whole)
    if not written.ended and text == whole:
        text = up_to_last_sentence(text, language)
        if not text:
            return Cleaned("", "unfinished")
    text = pairs_in(text) if questions else not_about_itself(text, language)
    if reason := _useless(text, read, questions=questions):
        return Cleaned("", reason)
    if grounded and strange(text, read, language):
        return Cleaned("", "made_up")
    return Cleaned(text, shortened=not questions and text != whole)


def _useless(text: str, read: str, *, questions: bool) -> str | None:
    if questions and not text:
        return "without_answers"
    if len(words_of(text)) < MIN_WORDS:
        return "empty"
    if goes_round(text):
        return "repetitive"
    return "echo" if shared(runs_of(text), runs_of(read)) > MOST_SHARED else None


def not_about_itself(text: str, language: str = "en") -> str:
    """Without the sentences that speak of the text: whoever reads only them does not know of which.

    >>> not_about_itself("The text is about Oslo. Mara Lind was born there. This text is short.")
    'Mara Lind was born there.'
    """
    spans = split_sentences(text, language)
    return "".join(text[a:b] for a, b in spans if not _ABOUT_ITSELF.search(text[a:b])).strip()


def without_loop(text: str) -> str:
    """The text up to where a unit of up to 60 words first stands three times in a row, the unit once included.

    >>> without_loop("It rains. And so on and so on and so on and so on.")
    'It rains. And so on'
    """
    found = list(_WORD.finditer(text))
    words = [match[0].casefold() for match in found]
    for start in range(len(words)):
        for length in range(1, min(_LONGEST_LOOP, (len(words) - start) // _LOOPS) + 1):
            unit = words[start : start + length]
            # One word in a row is how numbers in lists look, so it takes more of them.
            times = _LOOPS if length > 1 else 2 * _LOOPS
            if words[start + length] == unit[0] and words[start : start + length * times] == unit * times:
                return text[: found[start + length - 1].end()]
    return text


def up_to_last_sentence(text: str, language: str = "en") -> str:
    """Without the sentence or line that was not brought to an end; empty where that is all there is."""
    spans = split_sentences(text, language)
    if text.rstrip().endswith((".", "!", "?", "。", "”", '"')):
        return text
    kept = text[: spans[-1][0]].rstrip() if spans else ""
    line = text.rpartition("\n")[0].rstrip()
    return max(kept, line, key=len)


def goes_round(text: str) -> bool:
    """Whether less than half of its runs of five words are different ones."""
    words = words_of(text)
    runs = max(1, len(words) - 4)
    return len(runs_of(text)) < _MIN_DISTINCT * runs


def pairs_in(text: str) -> str:
    """The pairs of question and answer in a text, each written alike; empty where there is none.

    Not those whose answer is a question, or that speak of the text.

    >>> pairs_in("**Q1:** Where was Mara Lind born?\\nA1: In Oslo.\\n\\nQ2: And then?")
    'Question: Where was Mara Lind born?\\nAnswer: In Oslo.'
    """
    pairs = ((match["question"].strip(" *"), match["answer"].strip(" *")) for match in _PAIR.finditer(text))
    good = (pair for pair in pairs if not pair[1].endswith("?") and not _ABOUT_ITSELF.search(" ".join(pair)))
    return "\n\n".join(dict.fromkeys(f"Question: {question}\nAnswer: {answer}" for question, answer in good))
