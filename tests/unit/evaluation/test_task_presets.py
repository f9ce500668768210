"""Each preset from the setting to its scores, on stand-ins: tasks of the same names over small files of their own."""

import json
from pathlib import Path

import pytest
import yaml

from afterword.evaluation import evaluate
from afterword.evaluation.task_presets import asked_tasks

pytest.importorskip("lm_eval")

CHOICE = {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_target": "{{gold}}"}
CHOICE |= {"doc_to_choice": "choices"}
CODE = """
def process_results(doc, results):
    return {"pass@1": 0.5}
"""


def task(folder, name, metric, rows, **about):
    """A task file with its data beside it."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"task": name, "dataset_path": "json", "test_split": "test", **about}
    given["dataset_kwargs"] = {"data_files": {"test": f"{name}.jsonl"}}
    if metric:
        given["metric_list"] = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(given))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    (tmp_path / "tasks").mkdir()
    return tmp_path / "tasks"


def choices(count=4):
    return [{"q": f"Question {i}?", "choices": ["Oslo", "Rome"], "gold": i % 2} for i in range(count)]


def counted(scores):
    return {score.task: score.metric for score in scores if score.details["counted"]}


def test_retention_small(folder, model_folder):
    for each in asked_tasks(["retention-small"], None):
        if each.name == "lambada_openai":
            about = {"output_type": "loglikelihood", "doc_to_text": "{{q}}", "doc_to_target": " {{choices[0]}}"}
            task(folder, each.name, each.metric, choices(), **about)
        else:
            task(folder, each.name, each.metric, choices(), **CHOICE)
    found = evaluate(str(model_folder), tasks="retention-small", tasks_path=str(folder), tasks_limit=2)
    expected = {f"tasks/{each.name}": each.metric for each in asked_tasks(["retention-small"], None)}
    assert counted(found.scores) == expected
    assert {score.n for score in found.scores} == {2}
    assert not any(score.details["chat_template_applied"] for score in found.scores)


def test_retention_offline(folder, model_folder):
    task(folder, "mine", "acc", choices(), **CHOICE)
    task(folder, "yours", "acc_norm", choices(), **CHOICE)
    found = evaluate(str(model_folder), tasks="retention-offline", tasks_path=str(folder))
    assert counted(found.scores) == {"tasks/mine": "acc", "tasks/yours": "acc_norm"}


def test_retention_disc(folder, model_folder):
    import lm_eval.tasks

    own = Path(lm_eval.tasks.__file__).parent / "leaderboard"
    asked = {each.name: each for each in asked_tasks(["retention-disc"], None)}
    empty = {"num_words": None, "relation": None}
    says = {"key": 1, "prompt": "Write, with no comma, twice.", "kwargs": [empty, empty]}
    says["instruction_id_list"] = ["punctuation:no_comma", "change_case:english_lowercase"]
    # The harness's own prompts and metrics of IFEval, on a file.
    kept = {"include": str(own / "ifeval" / "ifeval.yaml")}
    task(folder, "leaderboard_ifeval", None, [says, {**says, "key": 2}], **kept)
    (folder / "code.py").write_text(CODE)
    task(folder, "humaneval_instruct", "pass@1", choices(2), output_type="generate_until", unsafe_code=True)
    with (folder / "humaneval_instruct.yaml").open("a") as file:
        file.write('doc_to_text: "{{q}}"\ndoc_to_target: "x"\nprocess_results: !function code.process_results\n')
    about = {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{gold}}"}
    task(folder, "leaderboard_math_hard", "exact_match", choices(2), **about)
    for name in sorted(set(asked) - {"leaderboard_ifeval", "humaneval_instruct", "leaderboard_math_hard"}):
        task(folder, name, asked[name].metric, choices(2), **CHOICE)
    short = {"max_gen_toks": 4, "apply_chat_template": False, "confirm_run_unsafe_code": True}
    found = evaluate(str(model_folder), tasks="retention-disc", tasks_path=str(folder), **short)
    assert counted(found.scores) == {f"tasks/{name}": each.metric for name, each in asked.items()}
    (strict,) = [s for s in found.scores if s.metric == "inst_level_strict_acc"]
    assert strict.n == 2
    # Two instructions for each prompt.
    assert [len(values) for values in strict.details["values"]["after"]] == [2, 2]
    assert strict.details["generation_kwargs"]["max_gen_toks"] == 4
