"""A fingerprint changes with what the scores follow from, and with nothing else."""

import pytest

from afterword.comparison.grid import (
    Contents,
    by_content,
    cells_of,
    fingerprint,
    training_fingerprint,
    weights_settings,
)
from afterword.comparison.run import evaluating, suite_fingerprint
from afterword.evaluation.measure import VERSIONS
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings
from afterword.storage.hashes import json_sha256

GIVEN = {"model_name_or_path": "m", "documents": ["d"], "suite": "s", "output_dir": "o", "learning_rates": "1e-5"}


def training(model="weights", documents="texts", **raw):
    (cell,) = cells_of(read_settings({**GIVEN, "methods": "disc", **raw}, CompareSettings))
    return training_fingerprint(cell, model, documents)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "other weights"},
        {"documents": "other texts"},
        {"learning_rates": "2e-5"},
        {"seeds": "1"},
        {"methods": "finetune"},
        {"adapt": {"num_train_epochs": 2}},
        {"adapt": {"use_peft": True}},
        {"methods": "disc:strategy=all"},
    ],
)
def test_what_changes_the_weights_changes_the_fingerprint(changed):
    assert training(**changed) != training()


@pytest.mark.parametrize(
    "changed",
    [
        {"model_name_or_path": "elsewhere"},
        {"output_dir": "elsewhere"},
        {"adapt": {"save_steps": 7}},
        {"keep_models": True},
        {"max_loss_points": 1},
        {"methods": (), "arms": {"another name": {"method": "disc"}}},
    ],
)
def test_paths_and_names_do_not(changed):
    assert training(**changed) == training()


def test_what_a_method_declares_is_part_of_it():
    (cell,) = cells_of(read_settings({**GIVEN, "methods": "disc"}, CompareSettings))
    assert weights_settings(cell.settings)["temperature"] == 2.0
    # So saying it changes nothing.
    assert training(methods="disc:temperature=2.0") == training()


def test_suite_and_evaluation_change_the_scores_but_not_the_weights():
    prints = {fingerprint(training(), Contents("m", suite, how)) for suite in "ab" for how in ({}, {"max_items": 8})}
    assert len(prints) == 4


@pytest.mark.parametrize("scorer", ["answering", "losses", "questions", "tasks"])
def test_a_later_scorer_changes_the_fingerprint_and_a_first_one_does_not(scorer, monkeypatch):
    for name in VERSIONS:
        monkeypatch.setitem(VERSIONS, name, 1)
    how = {"max_items": 8, "tasks": ["piqa"]}
    contents = Contents("m", "s", how)
    # As rows were recorded before versions counted.
    first = json_sha256({"training": "t", "suite": "s", "evaluate": how})
    assert fingerprint("t", contents) == first
    later = set()
    for version in (2, 3):
        monkeypatch.setitem(VERSIONS, scorer, version)
        later.add(fingerprint("t", contents))
    assert len(later | {first}) == 3


def test_how_tasks_are_scored_counts_where_there_are_tasks(monkeypatch):
    without, asked = (Contents("m", "s", how) for how in ({"tasks": []}, {"tasks": ["piqa"]}))
    before = [fingerprint("t", each) for each in (without, asked)]
    monkeypatch.setitem(VERSIONS, "tasks", VERSIONS["tasks"] + 1)
    after = [fingerprint("t", each) for each in (without, asked)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_settings_of_tasks_count_where_they_are_given():
    def evaluated(**more):
        given = {**GIVEN, "methods": "disc", "evaluate": {"tasks": "piqa", **more}}
        return evaluating(read_settings(given, CompareSettings))

    known = set(evaluated())
    assert not known & {"max_gen_toks", "enable_thinking", "gen_kwargs", "tasks_backend", "tasks_batch_size"}
    assert evaluated(max_gen_toks=9) == {**evaluated(), "max_gen_toks": 9}
    assert evaluated(tasks_batch_size=3, confirm_run_unsafe_code=True, tasks_backend="hf") == evaluated()


def test_files_count_by_their_content(tmp_path):
    for name, text in {"a": "same", "b": "same", "c": "other"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "quiz.jsonl").write_text(text)
    a, b, c = (by_content({"questions": str(tmp_path / name), "general": [str(tmp_path / name)]}) for name in "abc")
    assert a == b != c


def test_a_suite_counts_by_its_items(place):
    before = suite_fingerprint("suite.jsonl")
    (place / "moved.jsonl").write_bytes((place / "suite.jsonl").read_bytes())
    assert suite_fingerprint("moved.jsonl") == before
    (place / "moved.jsonl").write_text((place / "suite.jsonl").read_text().replace("Where? 1", "Where, then?"))
    assert suite_fingerprint("moved.jsonl") != before
