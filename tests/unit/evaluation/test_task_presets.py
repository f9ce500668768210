"""Each preset from the setting to its scores, on stand-ins: tasks of the same names over small files of their own."""

import json

import pytest
import yaml

from afterword.errors import ConfigError
from afterword.evaluation import evaluate
from afterword.evaluation.task_presets import asked_tasks

pytest.importorskip("lm_eval")

CHOICE = {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_target": "{{gold}}"}
CHOICE |= {"doc_to_choice": "choices"}
CODE = """
def passed(doc, results):
    return {"pass@1": 0.5}


def followed(doc, results):
    return {"inst_level_strict_acc": [True, False, doc["gold"] == 0]}


def share(items):
    every = [each for item in items for each in item]
    return sum(every) / len(every)
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


def _append(file, text):
    with file.open("a") as stream:
        stream.write(text)


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
    asked = {each.name: each for each in asked_tasks(["retention-disc"], None)}
    about = {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{gold}}"}
    (folder / "own_code.py").write_text(CODE)
    task(folder, "humaneval_instruct", "pass@1", choices(2), **about, unsafe_code=True)
    _append(folder / "humaneval_instruct.yaml", "process_results: !function own_code.passed\n")
    task(folder, "leaderboard_ifeval", None, choices(2), **about)
    # As of IFEval: several instructions to a prompt.
    metric = "- {metric: inst_level_strict_acc, aggregation: !function own_code.share, higher_is_better: true}"
    _append(
        folder / "leaderboard_ifeval.yaml", f"process_results: !function own_code.followed\nmetric_list:\n{metric}\n"
    )
    task(folder, "leaderboard_math_hard", "exact_match", choices(2), **about)
    for name in sorted(set(asked) - {"leaderboard_ifeval", "humaneval_instruct", "leaderboard_math_hard"}):
        task(folder, name, asked[name].metric, choices(2), **CHOICE)
    short = {"max_gen_toks": 4, "apply_chat_template": False, "confirm_run_unsafe_code": True}
    found = evaluate(str(model_folder), tasks="retention-disc", tasks_path=str(folder), **short)
    assert counted(found.scores) == {f"tasks/{name}": each.metric for name, each in asked.items()}
    (strict,) = [s for s in found.scores if s.metric == "inst_level_strict_acc"]
    assert strict.n == 2
    assert strict.details["values"] == {"items": ["0", "1"], "after": [[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]}
    assert strict.details["generation_kwargs"]["max_gen_toks"] == 4


def test_a_preset_that_there_is_not_is_told_without_the_harness():
    with pytest.raises(ConfigError, match=r"there is no preset 'retention-smal'\. Did you mean retention-small\?"):
        asked_tasks(["retention-smal"], None)
