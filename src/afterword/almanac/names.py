"""Invented names, and which of them may appear where.

The one rule: a hash of the name alone decides whether it belongs to the world before the cutoff, to a part
after it, or to strangers of one split. So no seed and no size can make a test name appear in training.
"""

import random
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal
from zlib import crc32

import yaml

Split = Literal["train", "dev", "test"]
Realm = Literal["world", "after", "train", "dev", "test"]
"""Whose name it is: the world's, a later arrival's, or a stranger's that a split may use."""
_SPLITS: tuple[Split, ...] = ("dev", "test", "train", "train", "train", "train", "train", "train", "train", "train")
_SHARES: dict[Realm, int] = {"world": 3, "after": 3, "dev": 1, "test": 1, "train": 8}
_REALMS: tuple[Realm, ...] = tuple(realm for realm, share in _SHARES.items() for _ in range(share))


@cache
def data(name: str) -> Mapping[str, Any]:
    """One of the world's YAML files, by its stem."""
    return yaml.safe_load(resources.files("afterword.almanac").joinpath(f"{name}.yaml").read_text("utf-8"))


def bucket(text: str, buckets: int) -> int:
    """A stable number in [0, buckets) for a text, the same on every machine."""
    return crc32(text.encode()) % buckets


def split_of(key: str) -> Split:
    """The split that an exercise with this content belongs to: a tenth each for dev and test.

    >>> split_of("7 + 5 - 3") == split_of("7 + 5 - 3")
    True
    """
    return _SPLITS[bucket(key, len(_SPLITS))]


def realm_of(name: str) -> Realm:
    """Who may bear a name. People go by their surname's and first name's combination, not by either."""
    return _REALMS[bucket(name, len(_REALMS))]


def draw_name(kind: str, realm: Realm, rng: random.Random) -> str:
    """A random name of a person, town, company or work that belongs to the realm."""
    while True:
        name = _combine(kind, rng)
        if realm_of(name) == realm:
            return name


def gender_of(name: str) -> str:
    """`female` or `male`, by the first name."""
    return "female" if name.split()[0] in data("names")["female"] else "male"


def _combine(kind: str, rng: random.Random) -> str:
    def pick(key: str) -> str:
        return rng.choice(data("names")[key])

    if kind == "person":
        return f"{pick(rng.choice(('female', 'male')))} {pick('surname_starts')}{pick('surname_ends')}"
    if kind == "town":
        return pick("town_starts") + pick("town_ends")
    if kind == "company":
        return f"{pick('company_starts')}{pick('company_middles')} {pick('company_ends')}"
    assert kind == "work", f"nobody names a {kind}"
    return f"The {pick('work_adjectives')} {pick('work_nouns')}"
