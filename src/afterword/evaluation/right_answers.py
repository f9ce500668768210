"""What counts as a right answer to a question: equal, with words in common, or said.

The one rule: texts are compared as `checks.normalised` has them, like the answers to a suite. Matching of whole answers
follows SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1) otherwise.
"""

from collections import Counter
from collections.abc import Sequence

from afterword.evaluation.checks import normalised, says

_VERDICTS = {"yes", "no", "true", "false", "none", "both", "neither", "never", "always"}
"""Answers of one word that stand in every other sentence: they are given where the answer begins."""


def exact_match(text: str, expected: Sequence[str]) -> float:
    """1.0 if the text is one of the expected answers after normalisation, else 0.0.

    >>> exact_match("the Broncos.", ["Denver Broncos", "Broncos"]), exact_match("Bronco", ["Broncos"])
    (1.0, 0.0)
    """
    return float(normalised(text) in map(normalised, expected))


def token_f1(text: str, expected: Sequence[str]) -> float:
    """Harmonic mean of precision and recall in words, the best over the expected answers, in [0, 1].

    >>> token_f1("Denver won", ["the Denver Broncos"])  # 1 of 2 words written, 1 of 2 expected
    0.5
    >>> token_f1("Denver", ["Denver Colorado Broncos", "x"])  # precision 1, recall 1/3
    0.5
    >>> token_f1("", ["Denver"])
    0.0
    """
    return max(_f1(normalised(text).split(), normalised(answer).split()) for answer in expected)


def said(text: str, expected: Sequence[str], others: Sequence[str] = ()) -> float:
    """1.0 if the text says one of the expected answers, as whole words, and none of the others; else 0.0.

    An answer in a sentence counts, one that lists what it might be does not: `others` are answers that are wrong, and
    count against the text where they are not a part of what is right. An answer of one short word that stands in every
    other sentence, as `no`, counts where the text begins with it.

    >>> said("It is Hanoi, of course.", ["Hanoi"]), said("Hanoian", ["Hanoi"])
    (1.0, 0.0)
    >>> said("Hanoi or Hue.", ["Hanoi"], ["Hue"]), said("Upper Hanoi.", ["Upper Hanoi"], ["Hanoi"])
    (0.0, 1.0)
    >>> said("In 0.2.21.", ["0.2.2"]), said("There is no rule", ["no"]), said("No, there is not.", ["no"])
    (0.0, 0.0, 1.0)
    """
    plain = normalised(text)
    right = [answer for answer in map(normalised, expected) if _is_said(plain, answer)]
    longest = max(right, key=len, default="")
    return float(bool(right) and not any(_contradicts(plain, normalised(other), longest) for other in others))


def _contradicts(plain: str, other: str, right: str) -> bool:
    """Whether a wrong answer is said beside the right one."""
    return says(plain, other) > says(right, other) * says(plain, right)


def _is_said(plain: str, answer: str) -> bool:
    if answer in _VERDICTS:
        return plain.replace(",", " ").split()[:1] == [answer]
    return bool(answer) and says(plain, answer) > 0


def _f1(words: list[str], expected: list[str]) -> float:
    shared = (Counter(words) & Counter(expected)).total()
    return 2 * shared / (len(words) + len(expected)) if words or expected else 1.0
