"""The first look at a run: what `evaluate` measures, on what was saved; and what the console says of it."""

from __future__ import annotations

import json

import pytest

import afterword
from afterword.evaluation import evaluate, first_look
from afterword.report.first_look import in_words, read_first_look


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_folder, documents):
    folder = tmp_path_factory.mktemp("look")
    for name, rows in {"docs": documents, "held": documents[3:6]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    how = {"method": "disc", "learning_rate": 1e-2, "max_steps": 2, "eval_documents": [str(folder / "held.jsonl")]}
    afterword.adapt(model_folder, str(folder / "docs.jsonl"), output_dir=str(folder / "run"), **how)
    return folder / "run"


def test_it_is_what_evaluate_measures_of_the_saved_model(run, tmp_path):
    seen = {(s["task"], s["metric"]): s for s in read_first_look(run)}
    measured = {(s.task, s.metric): s for s in evaluate(run, samples=0, output_dir=tmp_path).scores}
    assert {task for task, _ in seen} == {"learning/trained", "learning/held_out"}
    for key, score in seen.items():
        assert score["n"] == measured[key].n
        for side in ("before", "after", "change"):
            ours, theirs = score[side], getattr(measured[key], side)
            assert (ours is None) == (theirs is None)
            # Windows are drawn in another order, so other sentences are targets; of short documents all of them are.
            assert ours is None or ours["value"] == pytest.approx(theirs.value, abs=0.1)
    assert seen["learning/trained", "target_nll_nats"]["change"]["value"] != 0


def test_only_the_first_windows_are_read(run, monkeypatch, model_folder, tmp_path):
    from afterword.settings.adapt import read_settings
    from afterword.settings.yaml_files import load_yaml

    monkeypatch.setattr(first_look, "WINDOWS", 4)
    copy = tmp_path / "run"
    copy.symlink_to(run)
    settings = read_settings({**load_yaml(run / "config.yaml"), "output_dir": str(copy)})
    kept = (run / "learned.json").read_text()
    scores = first_look.look(settings)
    (run / "learned.json").write_text(kept)
    assert [s.n for s in scores if s.metric == "target_nll_nats"] == [4, 3]


def test_documents_that_cannot_be_read_again_are_not_looked_at(tmp_path, model_folder, documents):
    run = tmp_path / "run"
    how = {"method": "disc", "max_steps": 1, "learning_rate": 1e-3}
    result = afterword.adapt(model_folder, iter(documents), output_dir=str(run), **how)
    assert result.steps == 1
    assert read_first_look(run) == []
    assert in_words([]) == {}


def test_the_console_ends_with_it(run, afterword, tmp_path):
    config = run / "config.yaml"
    said = afterword("adapt", "--config", str(config), "-o", str(tmp_path / "again"))
    assert said.code == 0, said.err
    assert "trained text" in said.out
    assert "held-out text" in said.out
    assert "nats per token of single sentences" in said.out
    assert "training loss" not in said.out
    reported = afterword("report", str(tmp_path / "again"))
    assert reported.code == 0, reported.err
    assert [line.split()[0] for line in reported.out.splitlines()] == ["Learned", "Lost", "Next", "Wrote"]
