"""Handing a small local task over to lm_eval, and reading back what it measured."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import byte_tokenizer, random_llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from afterword.errors import ConfigError
from afterword.evaluation.tasks import compare_tasks, run_tasks
from afterword.types import Estimate, Score

CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: median
    higher_is_better: true
  - metric: brier_score
    aggregation: brier_score
    higher_is_better: false
metadata:
  version: 1.5
"""


@pytest.fixture(autouse=True, scope="module")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # datasets read its cache folder when it was imported; the tests do not write to the home folder.
        datasets = pytest.importorskip("datasets")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with its tokenizer in `model`, the same with a chat template in `chat`, and a task."""
    folder = tmp_path_factory.mktemp("tasks")
    tokenizer = byte_tokenizer()
    _model(0).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tokenizer.chat_template = CHAT_TEMPLATE
    _model(0).save_pretrained(folder / "chat")
    tokenizer.save_pretrained(folder / "chat")
    rows = [{"question": f"Is {n} even? ", "label": n % 2} for n in range(8)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "tiny.yaml").write_text(TASK.format(data=folder / "data.jsonl"))
    return folder


def _model(seed: int) -> LlamaForCausalLM:
    return random_llama(seed, initializer_range=0.3, max_position_embeddings=128)


def _accuracy_by_hand(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    right = 0
    for n in range(8):
        question = tokenizer(f"Is {n} even?")["input_ids"]
        likelihoods = []
        for choice in (" yes", " no"):
            ids = torch.tensor([question + tokenizer(choice)["input_ids"]])
            with torch.no_grad():
                logprobs = model(ids).logits[0].log_softmax(-1)
            taken = logprobs[:-1].gather(1, ids[0, 1:, None])[len(question) - 1 :]
            likelihoods.append(taken.sum().item())
        right += max(range(2), key=likelihoods.__getitem__) == n % 2
    return right / 8


def _by_metric(scores: list[Score]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


def test_a_local_task_is_scored_as_by_hand(folder: Path):
    lm_eval = pytest.importorskip("lm_eval")
    scores = _by_metric(run_tasks(str(folder / "model"), [str(folder / "tiny.yaml")]))
    accuracy, brier = scores["acc"], scores["brier_score"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    assert accuracy.after is not None
    assert accuracy.after.value == _accuracy_by_hand(_model(0).eval(), tokenizer)
    assert accuracy.before is accuracy.change is None
    assert (accuracy.task, accuracy.n, accuracy.better) == ("tasks/tiny_choice", 8, "higher")
    assert brier.better == "lower"
    assert accuracy.details["lm_eval_version"] == lm_eval.__version__
    assert accuracy.details["task_version"] == 1.5
    assert accuracy.details["filter"] == "none"
    assert accuracy.details["chat_template_applied"] is False
    p = accuracy.after.value
    assert 0 < p < 1, "both choices are made, or the interval is not tested"
    half = 1.96 * (p * (1 - p) / 7) ** 0.5  # standard error with n − 1, as the harness has it
    assert accuracy.after.interval_95 == pytest.approx((p - half, p + half))
    assert len(accuracy.details["per_sample"]) == 8
    for other in (brier, scores["acc_norm"]):
        assert other.details["per_sample"] is None, "the score is not the mean of these"
    json.dumps(accuracy.details)


def test_the_chat_template_is_applied_where_there_is_one_and_the_limit_is_kept(folder: Path):
    pytest.importorskip("lm_eval")
    scores = run_tasks(str(folder / "chat"), ["tiny_choice"], include_path=str(folder), limit=3)
    accuracy = _by_metric(scores)["acc"]
    assert accuracy.n == 3
    assert accuracy.details["chat_template_applied"] is True
    assert accuracy.details["limit"] == 3
    plain = run_tasks(str(folder / "model"), ["tiny_choice"], include_path=str(folder), limit=3)
    assert _by_metric(scores)["brier_score"].after != _by_metric(plain)["brier_score"].after


def test_an_adapter_folder_is_scored_on_its_base(folder: Path, tmp_path: Path):
    pytest.importorskip("lm_eval")
    peft = pytest.importorskip("peft")
    base = LlamaForCausalLM.from_pretrained(folder / "model")
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=64)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    PreTrainedTokenizerFast.from_pretrained(folder / "model").save_pretrained(tmp_path / "adapter")
    before = run_tasks(str(folder / "model"), ["tiny_choice"], include_path=str(folder))
    after = run_tasks(str(tmp_path / "adapter"), ["tiny_choice"], include_path=str(folder))
    merged = _by_metric(compare_tasks(before, after))
    brier = merged["brier_score"]
    assert brier.before is not None
    assert brier.after is not None
    assert brier.before.value != brier.after.value, "the adapter was not loaded"
    assert brier.change == Estimate(brier.after.value - brier.before.value, None)
    change = merged["acc"].change
    assert change is not None
    assert change.interval_95 is not None
    assert "per_sample" not in merged["acc"].details


def test_an_unknown_task_is_refused_with_the_nearest_names(folder: Path):
    pytest.importorskip("lm_eval")
    with pytest.raises(ConfigError, match="arc_easy"):
        run_tasks(str(folder / "model"), ["arc_easyy"])


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    real_import = builtins.__import__

    def without_lm_eval(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "lm_eval":
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_lm_eval)
    with pytest.raises(ConfigError, match=r"pip install 'afterword\[tasks\]'"):
        run_tasks("model", ["gsm8k"])


def _score(value: float, *, per_sample: dict[str, float] | None = None, filter: str = "none", **how: Any) -> Score:
    details = {"task_version": 1, "filter": filter, "per_sample": per_sample, **how}
    return Score(
        task="tasks/x", metric="acc", version=1, n=4, after=Estimate(value, None), better="higher", details=details
    )


def test_a_change_is_after_minus_before_paired_by_document():
    before = _score(0.5, per_sample={"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0})
    after = _score(0.25, per_sample={"3": 0.0, "2": 1.0, "1": 0.0, "0": 0.0})
    (score,) = compare_tasks([before], [after])
    assert (score.before, score.after) == (Estimate(0.5, None), Estimate(0.25, None))
    assert score.change is not None
    assert score.change.value == -0.25
    # Of the four documents only one changed, by −1: no resample of the differences is above 0.
    assert score.change.interval_95 is not None
    assert score.change.interval_95[1] == 0.0


def test_filters_are_not_mixed_and_one_sided_scores_stay_one_sided():
    before = [_score(0.1, filter="strict"), _score(0.2, filter="flexible")]
    after = [_score(0.7, filter="flexible"), _score(0.9, filter="new")]
    merged = {score.details["filter"]: score for score in compare_tasks(before, after)}
    assert merged["flexible"].change == Estimate(0.7 - 0.2, None)
    assert (merged["strict"].before, merged["strict"].after) == (Estimate(0.1, None), None)
    assert (merged["new"].before, merged["new"].after) == (None, Estimate(0.9, None))


def test_scores_under_different_chat_templates_are_not_compared():
    (score,) = compare_tasks([_score(0.5, chat_template_applied=False)], [_score(0.5, chat_template_applied=True)])
    assert score.change is None
