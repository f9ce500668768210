"""How much of a text stands in another one already: by runs of five words.

A text that shares most of its runs with one that is there is the same text with other words put in here and there:
training on it teaches what the first one does.
"""

import re
from dataclasses import dataclass, field

RUN = 5
"""Words of a run. Names and dates that two texts about one document share are shorter; copied clauses are longer."""
MOST_SHARED = 0.7
"""Share of its runs that a text may have in common with another one."""
_WORD = re.compile(r"\w+")

Runs = frozenset[tuple[str, ...]]


def words_of(text: str) -> list[str]:
    """Its words in small letters, without punctuation."""
    return _WORD.findall(text.casefold())


def runs_of(text: str) -> Runs:
    """All runs of five words; of a shorter text, the whole.

    >>> len(runs_of("Mara Lind was born in Oslo."))
    2
    """
    words = words_of(text)
    return frozenset(tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


def shared(runs: Runs, others: Runs) -> float:
    """The share of `runs` that is among the others, in [0, 1]."""
    return len(runs & others) / len(runs)


@dataclass(slots=True)
class Shelf:
    """The texts about one document that are kept: no two of them are nearly the same."""

    texts: set[str] = field(default_factory=set[str])
    """As their words alone."""
    runs: list[Runs] = field(default_factory=list[Runs])

    def refuses(self, text: str) -> str | None:
        """`duplicate` or `near_duplicate` where the text is as good as here; None where it is new."""
        if " ".join(words_of(text)) in self.texts:
            return "duplicate"
        runs = runs_of(text)
        # Either way round: a text that only adds to one that is here, or only leaves out of it, repeats it.
        near = (max(shared(runs, other), shared(other, runs)) for other in self.runs)
        return "near_duplicate" if any(share > MOST_SHARED for share in near) else None

    def add(self, text: str) -> None:
        """Keep a text."""
        self.texts.add(" ".join(words_of(text)))
        self.runs.append(runs_of(text))
