"""A grid of the tiny model: killed and continued, rows that suffice, cells that fail, and what stays on the disk."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from afterword.comparison import run as running
from afterword.comparison.grid import cells_of
from afterword.errors import ConfigError, TrainingError
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings
from afterword.training import AdaptationTrainer, Interrupted
from afterword.types import Estimate

GIVEN = {"model_name_or_path": "model", "documents": ["docs.jsonl"], "suite": "suite.jsonl", "output_dir": "out"}
GIVEN |= {"methods": "disc", "learning_rates": "1e-4,3e-4", "adapt": {"max_steps": 2, "save_steps": 1}}
GIVEN |= {"evaluate": {"samples": 0, "answer_tokens": 4, "max_documents": 2}}


def settings(**raw):
    return read_settings({**GIVEN, **raw}, CompareSettings)


def rows():
    with open("out/rows.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def measured(monkeypatch, by_hand):
    """Evaluation by hand: which run folders were measured; `measured.error` is raised instead once."""
    folders = []

    def measure(run, given, command):
        folders.append(run.name)
        kept = by_hand.retention(0.9, 0.8)
        return {"scores": by_hand.scores(dev=(0.3, kept), test=(0.4, kept)), "notes": []}

    monkeypatch.setattr(running, "measure", measure)
    return folders


def trained(monkeypatch, before=lambda settings: None):
    """The output folders of the runs that are trained from here on; `before` can stop one."""
    folders, real = [], running.run_adaptation

    def run(cell, **how):
        before(cell)
        result = real(cell, **how)
        folders.append((cell.output_dir, result.resumed_from))
        return result

    monkeypatch.setattr(running, "run_adaptation", run)
    return folders


def test_a_grid_with_the_real_evaluation(place):
    summary = running.compare(settings(learning_rates="1e-4"))
    (row,) = rows()
    assert row["status"] == "complete"
    assert {s["task"] for s in row["scores"] if s["metric"] == "correct_frac"} == {
        f"{split}/{part}" for split in ("dev", "test") for part in ("learning/direct", "retention/reading")
    }
    assert summary["split"] == "test"
    assert summary["arms"][0]["pick"]["learning_rate"] == 1e-4
    cost = row["cost"]
    assert (cost["steps"], cost["documents"], cost["epochs"]) == (2, 2, pytest.approx(0.2))
    assert cost["flops"] > 6 * cost["student_tokens"] * 1000
    assert row["environment"]["torch"]
    # The weights are gone; what was measured stays.
    left = {path.name for path in (place / "out/cells/disc-lr0.0001-seed0").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "scores.json"} <= left
    assert not [name for name in left if name.endswith(".safetensors") or name.startswith("checkpoint")]


def test_a_benchmark_is_retention_beside_a_suite_of_learning_alone(place):
    pytest.importorskip("lm_eval")
    (place / "tasks").mkdir()
    asked = [{"q": f"Question {i}?", "choices": ["Oslo", "Rome"], "gold": i % 2} for i in range(10)]
    (place / "tasks" / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    task = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "mine.jsonl"}}}
    task |= {"output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{q}}"}
    task |= {"doc_to_target": "{{gold}}", "doc_to_choice": "choices"}
    task["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    (place / "tasks" / "mine.yaml").write_text(yaml.safe_dump(task))
    items = [line for line in (place / "suite.jsonl").read_text().splitlines() if '"learning"' in line]
    (place / "suite.jsonl").write_text("\n".join(items) + "\n")
    evaluate = {**GIVEN["evaluate"], "tasks": "retention-offline", "tasks_path": "tasks"}
    summary = running.compare(settings(learning_rates="1e-4", evaluate=evaluate))
    counts = {split: summary["base"][split]["retention"]["skills"]["tasks/mine"]["n"] for split in ("dev", "test")}
    assert sum(counts.values()) == 10
    assert "tasks/mine" in summary["arms"][0]["pick"]["dev"]["losses_points"]
    # What the base answers is kept for the other cells.
    assert list((place / "out" / "reference").glob("tasks-*.json"))
    with pytest.raises(ConfigError, match="tasks_path: 'nowhere' is not a folder"):
        running.compare(settings(evaluate={**evaluate, "tasks_path": "nowhere"}))


def test_a_killed_grid_continues_where_it_stopped(place, measured, monkeypatch):
    class Killed(BaseException):
        pass

    save = AdaptationTrainer._save_checkpoint

    def save_and_die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        if self.args.learning_rate == 3e-4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(AdaptationTrainer, "_save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            running.compare(settings())
    assert [row["learning_rate"] for row in rows()] == [1e-4]
    folders = trained(monkeypatch)
    summary = running.compare(settings())
    # The finished cell is left alone, the half-trained one goes on from its checkpoint.
    assert folders == [("out/cells/disc-lr0.0003-seed0", 1)]
    assert measured == ["disc-lr0.0001-seed0", "disc-lr0.0003-seed0"]
    assert (summary["finished"], summary["notes"]) == (2, [])
    assert rows()[1]["cost"]["steps"] == 2


def test_a_second_process_on_the_same_folder_is_refused(place, measured, monkeypatch):
    tried = []

    def compare_too(cell):
        with pytest.raises(ConfigError, match="output_dir: another process runs this comparison in 'out'"):
            running.compare(settings())
        tried.append(cell.output_dir)

    trained(monkeypatch, compare_too)
    running.compare(settings())
    assert len(tried) == len(rows()) == 2
    # Its end gives the folder free.
    assert running.compare(settings())["finished"] == 2


def test_a_pool_of_processes_gives_the_rows_of_one(place, imported_pool):
    running.compare(settings())
    alone = {row["fingerprint"]: row["scores"] for row in rows()}
    running.compare(settings(output_dir="pool", processes=2))
    pooled = [json.loads(line) for line in (place / "pool/rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in pooled] == ["complete"] * 2
    assert {row["fingerprint"]: row["scores"] for row in pooled} == alone
    assert "Loss" not in (place / "pool/cells/disc-lr0.0001-seed0.log").read_text()


def test_rows_alone_suffice(place, measured, monkeypatch):
    running.compare(settings())
    assert len(measured) == 2
    shutil.rmtree("out/cells")
    before = trained(monkeypatch)
    summary = running.compare(settings())
    assert (before, len(measured), summary["finished"]) == ([], 2, 2)


def test_other_settings_leave_the_old_row_in_the_file_and_out_of_the_tables(place, measured, monkeypatch):
    running.compare(settings(learning_rates="1e-4"))
    made = running.compare(settings(learning_rates="1e-4", adapt={"max_steps": 1}))
    assert len(rows()) == 2
    assert made["finished"] == 1
    assert made["notes"][0].startswith("1 row of rows.jsonl is of other settings")
    # The old run is moved aside, not overwritten.
    assert len(list((place / "out/cells").glob("disc-lr0.0001-seed0-*"))) == 1


def test_another_evaluation_does_not_train_again(place, measured, monkeypatch):
    running.compare(settings(learning_rates="1e-4", keep_models=True))
    with monkeypatch.context() as patch:
        real, complete = running.run_adaptation, []
        patch.setattr(running, "run_adaptation", lambda *a, **k: complete.append(real(*a, **k).already_complete))
        running.compare(settings(learning_rates="1e-4", keep_models=True, evaluate={"samples": 1}))
    assert complete == [True]
    assert len(measured) == 2


def test_a_cell_that_fails_is_written_down_and_the_grid_goes_on(place, measured, monkeypatch):
    def diverge(cell):
        if cell.learning_rate == 1e-4:
            raise TrainingError("The loss is not finite at step 1.")

    with monkeypatch.context() as patch:
        trained(patch, diverge)
        made = running.compare(settings())
    assert [(row["learning_rate"], row["status"]) for row in rows()] == [(1e-4, "failed"), (3e-4, "complete")]
    assert made["cells"][0]["reason"] == "The loss is not finite at step 1."
    # Only on request is it tried again.
    assert running.compare(settings())["finished"] == 1
    assert len(rows()) == 2
    assert running.compare(settings(), retry_failed=True)["finished"] == 2
    assert [row["status"] for row in rows()] == ["failed", "complete", "complete"]


def test_a_learning_rate_beyond_reason_is_a_failed_row(place, measured):
    made = running.compare(settings(methods="finetune", learning_rates="1e30,1e-4", adapt={"max_steps": 4}))
    assert [cell["status"] for cell in made["cells"]] == ["complete", "failed"]
    assert "not finite" in made["cells"][1]["reason"]


def test_an_interrupt_is_not_a_failure(place, measured, monkeypatch):
    def interrupt(cell):
        raise Interrupted("Interrupted.")

    trained(monkeypatch, interrupt)
    with pytest.raises(Interrupted):
        running.compare(settings())
    assert not (place / "out/rows.jsonl").exists()


def test_a_suite_that_is_not_there_is_refused_before_anything_is_trained(place, monkeypatch):
    with pytest.raises(ConfigError, match="suite"):
        running.compare(settings(suite="no-such-suite"))
    assert not (place / "out").exists()


def test_half_a_row_is_cut_off_before_the_next_is_written(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"fingerprint": "x"}\n{"finge')
    running.append_row(tmp_path, {"fingerprint": "y"})
    assert (tmp_path / "rows.jsonl").read_text() == '{"fingerprint": "x"}\n{"fingerprint": "y"}\n'


def test_a_cell_of_lora_is_counted_with_a_frozen_backward(place, measured):
    running.compare(settings(methods="disc,disc:use_peft=true", learning_rates="1e-4"))
    whole, lora = (row["cost"]["flops"] for row in rows())
    assert 0.6 < lora / whole < 1
    assert len(cells_of(settings())) == 2


def test_estimates_of_scores_are_written_as_numbers(place, monkeypatch):
    from afterword import evaluation
    from afterword.types import Score

    score = Score(task="test/learning/x", metric="correct_frac", version=1, n=3, after=Estimate(0.5, (0.1, 0.9)))
    monkeypatch.setattr(evaluation, "evaluate", lambda run, **asked: evaluation.Scores("m", None, [score]))
    found = running.measure(place, settings(), "")["scores"][0]
    assert found["after"] == {"value": 0.5, "interval_95": (0.1, 0.9)}
    assert "details" not in found


@pytest.fixture
def general(place):
    """Rows of instructions that an alignment of the tiny model can use."""
    rows = [{"instruction": f"Where is {n}?", "output": f"In town {n}."} for n in range(6)]
    (place / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place / "general.jsonl"


def aligned(**more):
    """Settings of a grid whose cells are aligned after they were adapted."""
    second = {"instructions": "general.jsonl", "chat_template": "plain", "sft_batch_size": 3, **more}
    adapt = {**GIVEN["adapt"], "then": "align", "align": second}
    return settings(learning_rates="1e-4", seeds=3, adapt=adapt)


def test_an_aligned_cell_is_measured_and_counted_with_both_stages(place, general, measured):
    running.compare(settings(learning_rates="1e-4", seeds=3))
    running.compare(aligned())
    assert measured == ["disc-lr0.0001-seed3", "aligned"]
    alone, both = rows()
    cost = both["cost"]
    state = json.loads((place / "out/cells/disc-lr0.0001-seed3/aligned/align.json").read_text(encoding="utf-8"))
    assert state["settings"]["seed"] == 3
    assert (both["settings"]["align"]["sft_batch_size"], "align" in alone["settings"]) == (3, False)
    assert cost["align"]["tokens"]["sft"] == state["stages"]["sft"]["tokens"] > 6 * 8
    assert cost["flops"] == pytest.approx(alone["cost"]["flops"] + cost["align"]["flops"])
    assert cost["align"]["flops"] > 6 * cost["align"]["tokens"]["sft"] * 1000
    assert not list((place / "out/cells").rglob("*.safetensors"))


def test_an_alignment_is_part_of_what_a_cell_is(place, general, measured):
    running.compare(aligned())
    running.compare(aligned())
    assert len(rows()) == 1
    running.compare(aligned(sft_epochs=2))
    assert len(rows()) == 2
    # The same rows under another name are the same; other rows are not.
    general.rename(place / "moved.jsonl")
    running.compare(aligned(sft_epochs=2, instructions="moved.jsonl"))
    assert len(rows()) == 2
    (place / "moved.jsonl").write_text((place / "moved.jsonl").read_text().replace("town 1", "town 9"))
    running.compare(aligned(sft_epochs=2, instructions="moved.jsonl"))
    assert len(rows()) == 3


def test_what_cells_share_before_their_alignment_is_trained_once(place, general, measured, monkeypatch):
    finished, real = [], running.run_adaptation

    def run(cell, **how):
        result = real(cell, **how)
        finished.append((Path(cell.output_dir).name, result.already_complete))
        return result

    monkeypatch.setattr(running, "run_adaptation", run)
    second = {"instructions": "general.jsonl", "chat_template": "plain", "sft_batch_size": 3}
    arm = {"method": "disc", "then": "align"}
    arms = {"once": {**arm, "align": second}, "twice": {**arm, "align": {**second, "sft_epochs": 2}}}
    arms |= {"other": {**arm, "align": second, "temperature": 1.0}}
    together = settings(methods=(), arms=arms, learning_rates="1e-4", seeds=3, keep_models=True)
    running.compare(together)
    assert finished == [("once-lr0.0001-seed3", False), ("twice-lr0.0001-seed3", True), ("other-lr0.0001-seed3", False)]
    assert not (place / "out/stage1").exists()
    config = (place / "out/cells/twice-lr0.0001-seed3/config.yaml").read_text(encoding="utf-8")
    assert "cells/twice-lr0.0001-seed3" in config
    assert "sft_epochs: 2" in config
    alone = {**together.model_dump(), "arms": {"twice": arms["twice"]}, "output_dir": "alone"}
    running.compare(read_settings(alone, CompareSettings))
    assert finished[-1] == ("twice-lr0.0001-seed3", False)
    weights = "cells/twice-lr0.0001-seed3/aligned/model.safetensors"
    assert (place / "out" / weights).read_bytes() == (place / "alone" / weights).read_bytes()
    first, *_, last = (row for row in rows() if row["arm"] in ("once", "twice"))
    assert last["cost"]["flops"] > first["cost"]["flops"] > 0


def test_a_wrong_alignment_is_told_before_anything_is_trained():
    with pytest.raises(ConfigError, match=r"adapt\.align\.sft_learning_rate"):
        aligned(sft_learning_rate=-1)


def test_an_exam_is_learning_beside_what_a_suite_keeps(place):
    question = "Question: Which is true?\nA: one.\nB: two.\nC: three.\nD: four.\nAnswer:"
    rows_of_exam = [{"entity_id": n, "entity": f"town {n}", "question": question, "answer": "B"} for n in range(6)]
    Path("kup.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_exam), encoding="utf-8")
    lines = Path("suite.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if '"learning"' not in line]
    Path("kept.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    Path("short.txt").write_text("{question}", encoding="utf-8")
    exam = {"file": "kup.jsonl", "new_tokens": 2, "samples": 1, "prompt_file": "short.txt"}
    evaluate = {**GIVEN["evaluate"], "exams": {"kup": exam}}
    given = settings(suite="kept.jsonl", evaluate=evaluate, learning_rates="1e-4")
    summary = running.compare(given)
    (row,) = rows()
    assert row["status"] == "complete", row
    learned = {score["task"]: score["n"] for score in row["scores"] if "/learning/exams/kup" in score["task"]}
    assert set(learned) == {"dev/learning/exams/kup", "test/learning/exams/kup"}
    assert sum(learned.values()) == 6
    assert summary["split"] == "test"
    assert "learning_rate" in summary["arms"][0]["pick"]
    # Its questions are part of what a row follows from; where there is none, rows recorded before are as they were.
    assert "exams" in running.evaluating(given)
    assert "exams" not in running.evaluating(settings())
    before = running.evaluating(given)
    Path("kup.jsonl").write_text(json.dumps(rows_of_exam[0]) + "\n", encoding="utf-8")
    assert running.evaluating(given) != before
