"""People, towns, companies and works that exist nowhere, without end.

A text about a stranger can only be understood by reading it: this is what reading is trained and tested on,
and whom a model does not know.
"""

import random

from afterword.almanac.names import Split, draw_name
from afterword.almanac.world import CUTOFF, KINDS, RELATIONS, ROLES, Fact, World, draw_value
from afterword.almanac.writing import Subject

_KIND_SHARES = (5, 2, 2, 2)


def draw_stranger(world: World, rng: random.Random, split: Split) -> Subject:
    """A stranger with all facts; half of the places and firms that it is linked with are the world's."""
    kind = rng.choices(KINDS, _KIND_SHARES)[0]
    name = draw_name(kind, split, rng)
    facts = [
        Fact(name, relation.name, _value(world, relation.name, rng, split))
        for relation in RELATIONS.values()
        if relation.subject == kind
    ]
    if kind == "person" and rng.random() < 0.5:
        role = rng.choice(ROLES)
        facts.append(Fact(draw_name(RELATIONS[role].subject, split, rng), role, name))
    return Subject(name, kind, tuple(facts))


def _value(world: World, relation: str, rng: random.Random, split: Split) -> str:
    kind = RELATIONS[relation].object
    # The world's own people hold the world's offices and no others.
    known = kind in world.names and kind != "person" and rng.random() < 0.5
    objects = world.names if known else {k: (draw_name(k, split, rng),) for k in (kind,) if k in KINDS}
    return draw_value(RELATIONS[relation], objects, rng, CUTOFF)
