"""`evaluate` from a run folder to scores.json, on a run made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import afterword
from afterword.errors import CheckpointError, ConfigError
from afterword.evaluation import evaluate

QUICK = {"samples": 3, "sample_tokens": 12, "answered_samples": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, documents: list[dict[str, str]]) -> Path:
    folder = tmp_path_factory.mktemp("files")
    folder.joinpath("docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
    folder.joinpath("held.jsonl").write_text("\n".join(json.dumps({"text": d["text"][8:]}) for d in documents[4:8]))
    folder.joinpath("general.txt").write_text("A day. " * 20)
    rows = [{"question": f"Where {i}?", "answer": "Oslo", "document": f"doc-{i}"} for i in range(6)]
    folder.joinpath("quiz.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def _adapt(folder: Path, model: Path, files: Path, **settings: Any) -> Path:
    run = folder / "run"
    quick = {"preset": "disc-paper", "max_documents": 5, "max_steps": 2, "eval_documents": [str(files / "held.jsonl")]}
    afterword.adapt(model, str(files / "docs.jsonl"), output_dir=str(run), **quick, **settings)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, files: Path) -> Path:
    return _adapt(tmp_path_factory.mktemp("full"), model_folder, files, learning_rate=1e-2)


def _all(files: Path) -> dict[str, Any]:
    return {"questions": str(files / "quiz.jsonl"), "general": (str(files / "general.txt"),), **QUICK}


def test_a_run_is_measured_in_all_parts(run: Path, files: Path):
    evaluate(run, **_all(files), max_questions=4, command="afterword evaluate")
    written = json.loads((run / "scores.json").read_text())
    assert list(written) == [
        "format", "created", "command", "settings", "model", "reference", "scores", "samples", "answers", "notes",
        "computed_in",
    ]  # fmt: skip
    by_task = {(score["task"], score["metric"]): score for score in written["scores"]}
    assert {task for task, _ in by_task} == {
        "learning/trained", "learning/held_out", "questions/closed_book", "questions/open_book",
        "drift/own_samples", "drift/general",
    }  # fmt: skip
    for score in by_task.values():
        for side in ("before", "after", "change"):
            if score[side] and score[side]["interval_95"]:
                low, high = score[side]["interval_95"]
                assert low - 1e-9 <= score[side]["value"] <= high + 1e-9
    assert by_task["learning/trained", "target_nll_nats"]["n"] == 5, "what the run did not read was not trained"
    assert by_task["learning/trained", "target_nll_nats"]["change"]["value"] != 0
    assert by_task["drift/own_samples", "kl_nats"]["n"] == 3
    assert by_task["drift/own_samples", "kl_nats"]["after"]["value"] > 0
    assert by_task["questions/closed_book", "exact_match_frac"]["n"] == 4
    left_out = by_task["questions/open_book", "exact_match_frac"]["details"]["left_out"]
    assert by_task["questions/open_book", "exact_match_frac"]["n"] + sum(left_out.values()) == 4
    assert len(written["samples"]) == 2
    assert written["settings"]["max_questions"] == 4


def test_documents_that_were_taught_are_read_as_they_were_also_as_general_text(
    tmp_path: Path, model_folder: Path, documents: list[dict[str, str]]
):
    rows = [
        {"answer": "no", "body": f"<answer> x <context> {each['text']}", "text": "Never read."} for each in documents
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given, read = str(tmp_path / "rows.jsonl"), {"text_column": "body", "text_after": "<context>"}
    afterword.adapt(
        model_folder,
        given,
        output_dir=str(tmp_path / "run"),
        preset="disc-paper",
        max_steps=1,
        **read,
        learning_rate=1e-2,
    )
    found = evaluate(tmp_path / "run", general=[given], samples=0)
    drift = next(score for score in found.scores if score.task == "drift/general" and score.metric == "kl_nats")
    assert drift.n == len(documents)
    assert drift.after
    assert drift.after.value > 0


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(run: Path, files: Path, tmp_path: Path):
    first, again, other = (evaluate(run, **_all(files), seed=s, output_dir=tmp_path) for s in (1, 1, 2))
    assert first == again
    assert first.scores != other.scores


def test_questions_of_the_other_split_are_not_asked(run: Path, tmp_path: Path):
    rows = [{"question": f"Where {i}?", "answer": "Oslo", "split": split} for i, split in enumerate(("dev", "test"))]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate(
        run, questions=str(tmp_path / "asked.jsonl"), split="test", output_dir=tmp_path, **{**QUICK, "samples": 0}
    )
    assert [row["question"] for row in found.answers if row["setting"] == "closed_book"] == ["Where 1?"]


def test_a_model_alone_is_measured(model_folder: Path, files: Path, tmp_path: Path):
    result = evaluate(model_folder, documents=(str(files / "docs.jsonl"),), **_all(files), output_dir=tmp_path)
    assert result.reference is None
    assert all(score.before is score.change is None and score.after for score in result.scores)
    assert {score.task for score in result.scores} >= {"learning/trained", "questions/closed_book", "drift/general"}
    assert (tmp_path / "scores.json").is_file()
    assert not (model_folder / "scores.json").exists()


def test_an_adapter_is_measured_against_its_base(model_folder: Path, files: Path, tmp_path: Path):
    run = _adapt(tmp_path, model_folder, files, use_peft=True, learning_rate=5e-2)
    result = evaluate(run, **QUICK)
    assert result.reference == str(model_folder)
    (nll,) = [s for s in result.scores if (s.task, s.metric) == ("learning/trained", "target_nll_nats")]
    assert nll.change is not None
    assert nll.change.value != 0


def test_errors_are_named(run: Path, model_folder: Path, files: Path, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="no finished model"):
        evaluate(tmp_path)
    with pytest.raises(ConfigError, match="max_questions"):
        evaluate(run, max_questions=0)
    with pytest.raises(ConfigError, match="is a file"):
        evaluate(run, output_dir=files / "docs.jsonl")
    with pytest.raises(CheckpointError, match="nowhere"):
        evaluate(run, reference="./nowhere")
