"""The suite `everyday` can be asked, of either split, and repeats nothing that the demo asks."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from afterword.demo.ferry_lessons import load_kept
from afterword.evaluation.checks import passes, problem_of
from afterword.evaluation.everyday_suite import everyday_prompts, everyday_suite
from afterword.evaluation.suites import Item, find_suite, load_suite

ITEMS = everyday_suite().items
BESIDE_THE_POINT = "i would rather talk about ships " * 6


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_a_right_answer_is_right_and_talk_beside_the_point_is_not(item: Item):
    assert [problem_of(check) for check in item.checks] == [None] * len(item.checks)
    assert all(passes(item.answer, check) for check in item.checks)
    assert not all(passes(BESIDE_THE_POINT, check) for check in item.checks)


def test_every_item_is_one_of_its_own_and_not_of_the_demo():
    prompts = [item.prompt for item in ITEMS]
    assert len(set(prompts)) == len(prompts)
    assert not set(prompts) & {kept.prompt for kept in load_kept()}


def test_each_skill_has_as_many_on_either_split():
    skills = {item.skill for item in ITEMS}
    for skill in skills:
        dev, test = ([i for i in ITEMS if i.skill == skill and i.split == split] for split in ("dev", "test"))
        assert len(dev) == len(test) >= 15
    assert len(ITEMS) == 260
    assert {item.part for item in ITEMS} == {"retention"}


def test_it_is_found_by_name_and_is_the_same_from_a_file(tmp_path: Path):
    file = tmp_path / "everyday.jsonl"
    rows = [{name: value for name, value in asdict(item).items() if value is not None} for item in ITEMS]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    assert find_suite("everyday").fingerprint == everyday_suite().fingerprint == load_suite(file).fingerprint


def test_prompts_are_drawn_from_dev_and_every_skill():
    items = {item.prompt: item for item in everyday_suite().items}
    prompts = everyday_prompts(64)
    assert len(set(prompts)) == 64
    assert {items[prompt].split for prompt in prompts} == {"dev"}
    shares = Counter(items[prompt].skill for prompt in prompts)
    whole = Counter(item.skill for item in items.values())
    assert all(abs(shares[skill] - 64 * count / len(items)) <= 1 for skill, count in whole.items())
    assert len(everyday_prompts(10_000)) == len(items) // 2
