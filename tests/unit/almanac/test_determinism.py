"""The same seed gives the same world and everything made from it, in any process; another seed gives another."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from commands import run_python

from afterword.almanac.after import CHOOSING, REPORTING, build_part, held_out_documents, write_documents
from afterword.almanac.general import conversations, preferences
from afterword.almanac.names import gender_of, split_of
from afterword.almanac.suite import build_suite
from afterword.almanac.world import KINDS, RELATIONS, STANDARD, TINY, Size, World, build_world
from almanac_build.posttraining import draw_trained
from almanac_build.pretraining import PretrainingRows


def summary() -> dict[str, str]:
    """A digest of everything that follows from a seed. It must need nothing around it: another process runs it."""
    import hashlib
    import random
    from itertools import islice

    from afterword.almanac import after, general, suite, world
    from almanac_build import posttraining, pretraining

    made = world.build_world(3)
    part = after.build_part(made, 1)
    content = {
        "names": made.names,
        "facts": made.facts,
        "asked": sorted(made.asked),
        "part": (part.names, part.facts, part.changes),
        "documents": after.write_documents(made, part, 2),
        "held out": after.held_out_documents(part),
        "suite": suite.build_suite(made, part, 0.2).fingerprint,
        "pretraining": list(islice(pretraining.texts(made, random.Random("row")), 60)),
        "conversations": list(islice(general.conversations(made, 5, posttraining.draw_trained), 60)),
        "preferences": list(islice(general.preferences(made, 5, posttraining.draw_trained), 60)),
    }
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in content.items()}


def test_another_process_with_another_hash_seed_makes_the_same():
    code = f"from __future__ import annotations\n{inspect.getsource(summary)}\nprint(summary())"
    other = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    where = Path(__file__).resolve().parents[3]
    said = run_python("-c", code, environment={"PYTHONHASHSEED": other}, cwd=where)
    assert said.out.strip() == str(summary())


@pytest.mark.parametrize("size", [TINY, STANDARD, Size(192, 48, 48, 48)], ids=["tiny", "standard", "larger"])
def test_a_seed_gives_one_world_of_the_size_asked_for(size: Size):
    world, again, other = build_world(1, size), build_world(1, size), build_world(2, size)
    assert (world.names, world.facts, world.asked) == (again.names, again.facts, again.asked)
    for kind in KINDS:
        assert len(set(world.names[kind])) == len(world.names[kind]) == size.of(kind)
        assert set(world.names[kind]) != set(other.names[kind])
        assert len(world.asked & set(world.names[kind])) == size.of(kind) // 2
    assert len(world.facts) == sum(size.of(relation.subject) for relation in RELATIONS.values())


def test_a_part_has_as_many_arrivals_and_changes_as_asked_for(world: World):
    part = build_part(world, 2, Size(24, 3, 5, 6), 2)
    assert [len(part.names[kind]) for kind in KINDS] == [24, 3, 5, 6]
    assert sorted(change.new.relation for change in part.changes) == sorted(
        2 * ["mayor", "director", "lives_in", "works_for"]
    )


def test_another_part_has_other_documents_and_items(world: World):
    made = [build_part(world, number) for number in (CHOOSING, REPORTING)]
    texts = [{document.text for document in write_documents(world, part, 2)} for part in made]
    held_out = [{document.text for document in held_out_documents(part)} for part in made]
    learning = [
        {item.prompt for item in build_suite(world, part, 0.1).items if item.part == "learning"} for part in made
    ]
    for first, second in (texts, held_out, learning):
        assert first
        assert second
        assert not first & second


@pytest.mark.parametrize("draws", [conversations, preferences])
def test_another_seed_draws_others(world: World, draws: Callable):
    first, again, other = ([str(row) for row in islice(draws(world, seed, draw_trained), 100)] for seed in (0, 0, 1))
    assert first == again
    assert len(set(first) & set(other)) < 5


class _Characters:
    """As much of a tokenizer as rows need: a token for each character."""

    bos_token_id, eos_token_id = 0, 1

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [ord(character) for character in text]}


def test_a_pretraining_row_follows_from_seed_and_place_alone(world: World):
    rows = PretrainingRows(world, _Characters(), 8, 3000, seed=4)
    backwards = [rows[i]["input_ids"].tolist() for i in reversed(range(8))][::-1]
    random.random()
    again = PretrainingRows(world, _Characters(), 3, 3000, seed=4)
    assert [again[i]["input_ids"].tolist() for i in range(3)] == backwards[:3]
    assert len({tuple(row) for row in backwards}) == 8
    assert PretrainingRows(world, _Characters(), 8, 3000, seed=5)[0]["input_ids"].tolist() != backwards[0]


def test_a_pretraining_row_is_full_and_its_texts_stand_between_their_marks(world: World):
    rows = PretrainingRows(world, _Characters(), 5, 2000, seed=0)
    assert len(rows) == 5
    for i in range(5):
        ids = rows[i]["input_ids"].tolist()
        assert rows[i]["labels"].tolist() == ids
        assert len(ids) == 2000
        assert ids[0] == 0
        ends = [place for place, token in enumerate(ids[:-1]) if token == 1]
        assert ends == [place - 1 for place, token in enumerate(ids) if token == 0 and place]


def test_a_key_falls_into_one_split_and_a_tenth_into_each_of_dev_and_test():
    splits = [split_of(f"key {i}") for i in range(5000)]
    assert splits == [split_of(f"key {i}") for i in range(5000)]
    for split in ("dev", "test"):
        assert 400 < splits.count(split) < 600
    assert splits.count("train") == 5000 - splits.count("dev") - splits.count("test")


def test_gender_goes_by_the_first_name():
    assert gender_of("Vera Holcroft") == "female"
    assert gender_of("Hugo Holcroft") == "male"
