"""What is asked about a document, kind by kind.

A kind without rules of its own is all prompts of `writing/prompts/study/` whose names begin with it, in turn: another
way of writing it is another file. Links relate names that a document holds, in twos and threes, and those that two
documents share (EntiGraph, Yang et al. 2024, arXiv:2409.07431). Strategies are ways of studying that the model
proposes for a document, each then followed (Active Reading, Lin et al. 2025, arXiv:2508.09494).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations, zip_longest
from random import Random

from afterword.method_options import StudyKind
from afterword.study.plan import Part
from afterword.writing import prompt

Turns = tuple[tuple[str, str], ...]
MOST_NAMES = 10
MOST_STRATEGIES = 6
_MOST_LINKS = 64
"""Of a sort, of one document."""
_FOLDER = "study/"
_CAPITALS = re.compile(r"(?<=[\w,;] )(?P<name>[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*)")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d+\s*[.):])\s*")


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that can be asked about a document, as often as there are seeds."""

    prompt: str
    """Name and version."""
    turns: Turns

    @property
    def read(self) -> str:
        """All that the model reads."""
        return "\n\n".join(content for _, content in self.turns)


def ask(name: str, part: Part, **values: str) -> Ask:
    """A prompt of the folder, filled with a document and what else it wants."""
    found = prompt(f"{_FOLDER}{name}")
    return Ask(f"{found.name}@{found.version}", found.filled(document=part.shown, **values))


def names_asked(part: Part) -> Ask:
    """For the names that links are made of."""
    return ask("links_names", part)


def strategies_asked(part: Part) -> Ask:
    """For ways of studying."""
    return ask("strategies_propose", part)


def asks_of(kind: StudyKind, part: Part, first: int = 0) -> list[Ask]:
    """Every way of asking for a kind without rules of its own, in turn from the one with this number on."""
    names = _named(kind)
    return [ask(names[(first + i) % len(names)], part) for i in range(len(names))]


def prompts_of(kinds: Iterable[StudyKind]) -> dict[str, int]:
    """The version of every prompt that these kinds are asked for with, by its name."""
    found = (prompt(f"{_FOLDER}{name}") for kind in kinds for name in _named(kind))
    return {each.name: each.version for each in found}


def _named(kind: StudyKind) -> list[str]:
    folder = files("afterword.writing") / "prompts" / _FOLDER
    return sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.startswith(f"{kind}_"))


def strategies_applied(part: Part, proposed: str) -> list[Ask]:
    """One for each way of studying that the model proposed for the document."""
    ways = [line for line in lines_of(proposed) if 3 <= len(line.split()) <= 60]
    return [ask("strategies_apply", part, strategy=way) for way in ways[:MOST_STRATEGIES]]


def names_of(part: Part, listed: str) -> list[str]:
    """The names of a list that stand in the document, the first ten.

    Where the model lists less than two of them, words with a capital letter inside a sentence are taken: ours.
    """
    text, found = part.text.casefold(), dict[str, str]()
    proposed = [re.split(r"\s*[:(–]|\s-\s|\s*,", line)[0].strip(" .\"'") for line in lines_of(listed)]
    for proposals in (proposed, [match["name"] for match in _CAPITALS.finditer(part.text)]):
        for name in proposals if len(found) < 2 else ():
            if 2 <= len(name) <= 60 and name.casefold() in text:
                found.setdefault(name.casefold(), name)
    return list(found.values())[:MOST_NAMES]


def links_of(
    part: Part, names: Mapping[int, Sequence[str]], parts: Sequence[Part], number: int, seed: int
) -> list[Ask]:
    """Twos and threes of a document's names, and names that it shares with other documents, one of each in turn.

    `names` are those of all parts by their number; this part has `number`. Shuffled by seed and document alone.
    """
    own, rng = names[number], Random(f"{seed} {part.document.id} {number}")
    twos, threes = list(combinations(own, 2)), list(combinations(own, 3))
    shared = _shared(names, parts, number)
    for each in (twos, threes, shared):
        rng.shuffle(each)
    apart = [ask("links_two", part, first=a, second=b) for a, b in twos[:_MOST_LINKS]]
    apart_in_threes = [ask("links_three", part, first=a, second=b, third=c) for a, b, c in threes[:_MOST_LINKS]]
    across = [ask("links_across", part, first=name, other=parts[other].shown) for name, other in shared[:_MOST_LINKS]]
    turns = zip_longest(apart, across, apart_in_threes)
    return [each for turn in turns for each in turn if each]


def lines_of(text: str) -> list[str]:
    """The lines of a list, without what marks them as one."""
    lines = (_BULLET.sub("", line.replace("**", "")).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _shared(names: Mapping[int, Sequence[str]], parts: Sequence[Part], number: int) -> list[tuple[str, int]]:
    """A name of the part, and another document that has it, too."""
    where = defaultdict[str, list[int]](list)
    for place, own in names.items():
        for name in own:
            where[name.casefold()].append(place)
    here = parts[number].document
    return [
        (name, other) for name in names[number] for other in where[name.casefold()] if parts[other].document is not here
    ]
