"""What an answer is held against in a choice among four.

The one rule: whoever does not look at the question is right one time in four. So the alternatives are values that
the documents tell too, of the same relation, new where the answer is new and old where it is old: neither a name that
was never seen before nor one that is often read gives the answer away.
"""

import random
from collections.abc import Collection, Iterable, Mapping

from afterword.almanac.after import Part
from afterword.almanac.world import RELATIONS, Fact

_OTHERS = 3


def forward_choices(part: Part) -> dict[Fact, tuple[str, ...]]:
    """For every new fact and changed one, three other values; for a change the first is the value that is gone.

    A fact is not there where the documents do not tell enough others that are as new or as old.
    """
    changed = {change.new: change.new.value for change in part.changes}
    told = {fact: fact.value for fact in part.facts} | changed
    gone = {change.new: change.old.value for change in part.changes}
    # A change is told more often than what is only new, so that it is first held against other changes.
    of_changes = {**_drawn(part, told, _OTHERS - 1, gone), **_drawn(part, changed, _OTHERS - 1, gone)}
    drawn = {fact: (gone[fact], *others) for fact, others in of_changes.items() if fact in gone}
    return {fact: others for fact, others in _drawn(part, told, _OTHERS, {}).items() if fact not in gone} | drawn


def reverse_choices(part: Part) -> dict[Fact, tuple[str, ...]]:
    """For every new fact that can be asked backwards, three other new entities of which the same is told."""
    bearers = {fact: fact.subject for fact in part.facts if RELATIONS[fact.relation].reverse}
    return _drawn(part, bearers, _OTHERS, {})


def _drawn(
    part: Part, answers: Mapping[Fact, str], count: int, gone: Mapping[Fact, str]
) -> dict[Fact, tuple[str, ...]]:
    """On a circle of the facts in random order, the next different answers of each: none is a choice more often."""
    new, drawn = {name for names in part.names.values() for name in names}, dict[Fact, tuple[str, ...]]()
    alike: dict[tuple[str, bool], list[Fact]] = {}
    for fact, answer in answers.items():
        alike.setdefault((fact.relation, answer in new), []).append(fact)
    for kind, facts in alike.items():
        # Numbers of its own: what else is drawn does not depend on the choices.
        circle = random.Random(f"choices {part.number} {kind}").sample(facts, len(facts))
        for place, fact in enumerate(circle):
            following = (answers[other] for other in (*circle[place:], *circle[:place]))
            others = _first(count, following, (answers[fact], gone.get(fact)))
            drawn |= {fact: others} if len(others) == count else {}
    return drawn


def _first(count: int, values: Iterable[str], taken: Collection[str | None]) -> tuple[str, ...]:
    """The first so many different values that are not taken, or all there are."""
    return tuple(dict.fromkeys(value for value in values if value not in taken))[:count]
