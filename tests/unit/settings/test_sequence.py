"""Settings of a sequence: what counts for all stages, what for one, and that every problem is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afterword.errors import ConfigError
from afterword.sequence.stages import stages_of
from afterword.settings.sequence import read_sequence
from afterword.settings.yaml_files import load_yaml

GIVEN = {"model_name_or_path": "first", "output_dir": "out"}


def problems(**more: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        read_sequence({**GIVEN, **more})
    return refused.value.problems


def test_what_a_corpus_says_wins_over_what_counts_for_all():
    corpora = {"a": {"documents": "a.jsonl"}, "b": {"documents": ["b.jsonl", "c/"], "learning-rate": "5e-5"}}
    settings = read_sequence(
        {**GIVEN, "corpora": corpora, "method": "finetune", "learning_rate": 1e-4, "adapt": ["seed=3"]}
    )
    first, second = (stage.settings for stage in stages_of(settings))
    assert (first.learning_rate, second.learning_rate) == (1e-4, 5e-5)
    assert (first.seed, second.seed, second.method) == (3, 3, "finetune")
    assert second.documents == ("b.jsonl", "c/")


def test_a_stage_begins_with_the_last_result_and_is_held_to_the_first_model():
    corpora = ["news/a.jsonl", "news/b.jsonl", "c/"]
    stages = stages_of(read_sequence({**GIVEN, "corpora": corpora, "max_steps": 1}))
    begins = [stage.settings.model_name_or_path for stage in stages]
    assert begins == ["first", "out/stages/1-a", "out/stages/2-b"]
    # The first is what `adapt` is without a reference.
    assert [stage.settings.reference for stage in stages] == [None, "first", "first"]
    other = stages_of(read_sequence({**GIVEN, "corpora": corpora, "reference": "before"}))
    assert [stage.settings.reference for stage in other] == ["before"] * 3


def test_an_adapter_is_merged_for_the_stage_behind_it():
    fixed = {"use_peft": True, "learning_rate": 1e-4, "num_train_epochs": 1, "lr_scheduler_type": "linear"}
    first, second = stages_of(read_sequence({**GIVEN, "corpora": ["a", "b"], **fixed}))
    assert first.settings.merge_adapter
    assert second.settings.model_name_or_path == "out/stages/1-a/merged"


def test_questions_are_of_the_corpora_in_their_order():
    settings = read_sequence({**GIVEN, "corpora": ["a", "b"], "questions": "qa.jsonl,qb.jsonl"})
    assert [settings.corpus(name).questions for name in "ab"] == ["qa.jsonl", "qb.jsonl"]
    assert problems(corpora=["a", "b"], questions=["qa"])[0].startswith("questions: 1 files for 2 corpora.")


def test_a_budget_in_points_is_of_the_suite_of_the_sequence():
    given = {**GIVEN, "corpora": ["a"], "suite": "s.jsonl"}
    assert stages_of(read_sequence({**given, "forgetting_budget": "2points"}))[0].settings.suite == "s.jsonl"
    assert stages_of(read_sequence({**given, "forgetting_budget": "0.1nats"}))[0].settings.suite is None


def test_every_problem_is_told_at_once_and_once():
    corpora = {"a": {"documents": "a", "lora_r": "many"}, "b": {}, "c": 3, "a b": {"documents": "a"}}
    corpora |= {"a-b": {"documents": "a"}}
    found = problems(corpora=corpora, max_steps="some", corpra=1, then="align", evaluate={"suite": "s"}, learning_rat=1)
    names = [problem.split(":")[0] for problem in found]
    of_corpora = {"corpora.a.lora_r", "corpora.b.documents", "corpora.c", "corpora.a-b"}
    assert {*names} == of_corpora | {"corpra", "evaluate.suite", "learning_rat", "max_steps", "then"}
    assert len(names) == len({*names})
    by_name = dict(zip(names, found, strict=True))
    assert "Did you mean corpora?" in by_name["corpra"]
    assert "Did you mean learning_rate?" in by_name["learning_rat"]


def test_the_recipe_of_the_news_can_be_read():
    recipe = Path(__file__).parents[3] / "recipes/news-by-quarter.yaml"
    stages = stages_of(read_sequence(load_yaml(recipe)))
    assert [stage.name for stage in stages] == [f"2025-q{number}" for number in (1, 2, 3, 4)]
    assert {stage.settings.held_to for stage in stages} == {"smollm2-135m-instruct"}
