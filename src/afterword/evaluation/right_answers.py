"""What counts as a right answer: equal, with words in common, or said. The one place where texts are compared.

Checks of a suite, answers to questions and refusals all go through `normalised` and `says`. Matching of whole answers
follows SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1) otherwise.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = {"a", "an", "the"}
_QUOTES = str.maketrans("“”„‘’", '"""\'\'')
_EDGES = string.punctuation + "«»…–—"
_VERDICTS = {"yes", "no", "true", "false", "none", "both", "neither", "never", "always"}
"""Answers of one word that stand in every other sentence: they are given where the answer begins."""


def normalised(text: str) -> str:
    """Lower case, no articles, single spaces, and punctuation only inside words and numbers.

    What would change a value stays: hyphens and apostrophes inside a word, the point of a number, its sign and %.
    A text with nothing else in it stays as it is.

    >>> normalised(' "The  Gold-Leaf  Inn", at 3.5 %!')
    'gold-leaf inn at 3.5 %'
    >>> normalised("-5%."), normalised("A"), normalised("?")
    ('-5%', 'a', '?')
    """
    words = [word for word in map(_bare, plain_marks(text).casefold().split()) if word]
    return " ".join([word for word in words if word not in _ARTICLES] or words) or text.strip()


def says(text: str, value: str) -> int:
    """How often a value is said in a text, as whole words in any case, from left to right.

    A hyphen joins words and a point joins digits, so neither half of `KX-12` or of `3.5` is said; `Oslo's` says Oslo.

    >>> says("Oslo, then oslo's port; Oslofjord, Oslo-based", "Oslo")
    2
    >>> says("3.5 and -3 and 13", "3"), says("New\\n York", "new york")
    (0, 1)
    """
    words = r"\s+".join(map(re.escape, plain_marks(value).split()))
    sign = r"(?<![-−])" if value.strip()[:1].isdigit() else ""
    whole = rf"(?<!\w)(?<!\w-)(?<!\d[.,:]){sign}{words}(?!\w|-\w|[.,:]\d)"
    return len(re.findall(whole, plain_marks(text), re.IGNORECASE))


def words_of(text: str) -> set[str]:
    """The runs of letters and digits in a text, in lower case.

    >>> sorted(words_of("Vera's {7} VERA"))
    ['7', 's', 'vera']
    """
    return set(re.findall(r"\w+", plain_marks(text).casefold()))


def plain_marks(text: str) -> str:
    """One way of writing accents and quotation marks."""
    return unicodedata.normalize("NFC", text).translate(_QUOTES)


def _bare(word: str) -> str:
    # A sign before a digit, and a per cent behind one, are part of the number.
    sign = "-" if re.match(r"[^\w]*[-−]\d", word) else ""
    percent = "%" if re.search(r"(\d|^)%[^\w]*$", word) else ""
    return sign + word.strip(_EDGES + "−") + percent


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
