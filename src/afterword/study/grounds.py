"""Whether a written text keeps to what was read: its numbers and names stand there.

A check of words, not of what they say: it finds what was made up, not what was mixed up.
"""

import re

_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*")
_LIST_NUMBER = re.compile(r"^\W*\d+[.):]", re.MULTILINE)
_NAME = re.compile(r"(?<=[^\W\d_A-Z][ ])[A-Z][\w’'-]+|(?<=, )[A-Z][\w’'-]+")
"""A word with a capital letter inside of a sentence. At its beginning any word has one."""
_WORD = re.compile(r"\w+")
_NOUNS_WITH_CAPITALS = ("de", "lb")
MOST_UNKNOWN = 0.1
"""Share of a text's names that what was read need not have: `Europe` for `European`. Of its numbers it has all."""


def strange(text: str, read: str, language: str = "en") -> list[str]:
    """The numbers and names of a text that do not stand in what was read; none where it is one name in ten at most.

    Names are known by their capital letters, in languages where other nouns have none.

    >>> strange("In 2019 she moved to Bergen with Per.", "Mara Lind moved to Bergen in 2018.")
    ['2019', 'Per']
    """
    without_lists = _LIST_NUMBER.sub("", text)
    numbers: list[str] = _NUMBER.findall(without_lists)
    known_numbers = set(_NUMBER.findall(read))
    names: list[str] = []
    if language.split("-")[0].lower() not in _NOUNS_WITH_CAPITALS:
        names = [name for found in _NAME.findall(without_lists) for name in _WORD.findall(found) if len(name) > 1]
    known_words = set(_WORD.findall(read.casefold()))
    unknown_numbers = [number for number in numbers if number not in known_numbers]
    unknown_names = [name for name in names if name.casefold() not in known_words]
    tolerated = not unknown_numbers and len(unknown_names) <= MOST_UNKNOWN * len(names)
    return [] if tolerated else unknown_numbers + unknown_names
