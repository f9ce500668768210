"""Handing small local tasks over to lm_eval, and reading back what it measured."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import byte_tokenizer, random_llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from afterword.errors import ConfigError
from afterword.evaluation import evaluate
from afterword.evaluation.task_items import drawn_items, is_dev
from afterword.evaluation.task_loading import Asking, load_tasks
from afterword.evaluation.task_model import in_memory, read_once
from afterword.evaluation.task_presets import asked_tasks, outside_pick, presets
from afterword.evaluation.task_retention import retention_by_split
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


def scored(path: Path, names: list[str], tasks_path: Path | None = None, **how: Any) -> list[Score]:
    """The scores of the model in a folder, in memory."""
    model = LlamaForCausalLM.from_pretrained(path).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    loaded = load_tasks(names, tasks_path=tasks_path and str(tasks_path), asking=Asking(**how))
    return run_tasks(in_memory(model, tokenizer), tokenizer, loaded)


def test_a_local_task_is_scored_as_by_hand(folder: Path):
    lm_eval = pytest.importorskip("lm_eval")
    scores = _by_metric(scored(folder / "model", [str(folder / "tiny.yaml")]))
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
    assert accuracy.details["counted"]
    for other in (brier, scores["acc_norm"]):
        assert other.details["per_sample"] is None, "the score is not the mean of these"
        assert not other.details["counted"]
    json.dumps(accuracy.details)


def test_likelihoods_are_those_of_the_harness(folder: Path):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    texts = [("Is 1 even?", " yes"), ("Is 1 even?", " no"), ("One.", " Two and three."), ("x" * 300, " cut")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(texts)]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    theirs = HFLM(pretrained=_model(0).eval(), tokenizer=tokenizer).loglikelihood(requests)
    ours = in_memory(_model(0).eval(), tokenizer, batch_tokens=64).loglikelihood(requests)
    for (total, greedy), (expected, expected_greedy) in zip(ours, theirs, strict=True):
        assert total == pytest.approx(expected, rel=1e-5)
        assert greedy == expected_greedy


def test_what_a_model_would_write_itself_is_greedy():
    model, prompt = _model(0).eval(), (5, 6, 7)
    with torch.no_grad():
        written = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, 3:].tolist()
    other = (written[0], (written[1] + 1) % 258, written[2])
    (_, first), (_, second) = read_once(model, [(prompt, tuple(written)), (prompt, other)], 4096)
    assert (first, second) == (True, False)


def test_the_chat_template_is_applied_where_there_is_one_and_the_limit_is_kept(folder: Path):
    pytest.importorskip("lm_eval")
    scores = scored(folder / "chat", ["tiny_choice"], folder, limit=3)
    accuracy = _by_metric(scores)["acc"]
    assert accuracy.n == 3
    assert accuracy.details["chat_template_applied"] is True
    assert accuracy.details["limit"] == 3
    plain = scored(folder / "chat", ["tiny_choice"], folder, limit=3, apply_chat_template=False)
    assert _by_metric(scores)["brier_score"].after != _by_metric(plain)["brier_score"].after
    assert not _by_metric(plain)["acc"].details["chat_template_applied"]


def test_items_are_drawn_by_the_seed_and_half_of_them_are_dev():
    drawn = drawn_items("t", 500, limit=101, seed=1)
    assert drawn == drawn_items("t", 500, limit=101, seed=1) != drawn_items("t", 500, limit=101, seed=2)
    assert len(set(drawn)) == 101
    assert sum(is_dev("t", item) for item in drawn) == 51
    dev = drawn_items("t", 500, split="dev")
    assert sorted([*dev, *drawn_items("t", 500, split="test")]) == list(range(500))
    # What is dev at one seed is dev at every other.
    assert {item for item in drawn if is_dev("t", item)} <= set(dev)


def test_the_items_that_are_asked_are_those_that_were_drawn(folder: Path):
    pytest.importorskip("lm_eval")
    (accuracy,) = [s for s in scored(folder / "model", ["tiny_choice"], folder, limit=4, seed=3) if s.metric == "acc"]
    items = [int(item) for item in accuracy.details["per_sample"]]
    assert items == drawn_items("tiny_choice", 8, limit=4, seed=3)
    whole = _by_metric(scored(folder / "model", ["tiny_choice"], folder))["acc"].details["per_sample"]
    assert accuracy.details["per_sample"] == {str(item): whole[str(item)] for item in items}


def test_retention_of_a_task_is_split_into_dev_and_test(folder: Path):
    pytest.importorskip("lm_eval")
    before, after = (scored(folder / name, ["tiny_choice"], folder) for name in ("model", "chat"))
    after = [replace(s, details={**s.details, "chat_template_applied": False}) for s in after]
    merged = compare_tasks(before, after)
    dev, test = retention_by_split(merged)
    assert (dev.task, test.task) == ("dev/retention/tasks/tiny_choice", "test/retention/tasks/tiny_choice")
    whole = _by_metric(merged)["acc"]
    for side in ("before", "after"):
        parts = [getattr(each, side).value * each.n for each in (dev, test)]
        assert sum(parts) == pytest.approx(getattr(whole, side).value * 8)
    assert dev.n == sum(is_dev("tiny_choice", item) for item in range(8))
    # And what cannot be counted is refused, instead of not counting.
    with pytest.raises(ConfigError, match="tiny_choice have no metric with a value from 0 to 1"):
        retention_by_split([s for s in merged if s.metric == "brier_score"])


def test_an_adapter_is_scored_with_its_base(folder: Path):
    pytest.importorskip("lm_eval")
    peft = pytest.importorskip("peft")
    base, tokenizer = _model(0), PreTrainedTokenizerFast.from_pretrained(folder / "model")
    loaded = load_tasks(["tiny_choice"], tasks_path=str(folder))
    before = run_tasks(in_memory(base, tokenizer), tokenizer, loaded)
    about = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=64)
    adapted = peft.get_peft_model(base, about).eval()
    merged = _by_metric(compare_tasks(before, run_tasks(in_memory(adapted, tokenizer), tokenizer, loaded)))
    brier = merged["brier_score"]
    assert brier.before is not None
    assert brier.after is not None
    assert brier.before.value != brier.after.value, "the adapter was not read"
    assert brier.change == Estimate(brier.after.value - brier.before.value, None)
    change = merged["acc"].change
    assert change is not None
    assert change.interval_95 is not None
    kept = merged["acc"].details["values"]
    assert kept["items"] == [str(n) for n in range(8)]
    assert sum(v for (v,) in kept["after"]) / 8 == merged["acc"].after.value  # type: ignore[union-attr]


WRITES = """
task: tiny_text
dataset_path: json
dataset_kwargs:
  data_files: {{test: data.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "x"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 3, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def test_what_is_set_of_writing_wins_over_the_task(folder: Path):
    pytest.importorskip("lm_eval")
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "tiny_text.yaml").write_text(WRITES.format())
    # The data are beside the folder above, where the harness would not look.
    how: dict[str, Any] = {"limit": 2, "max_gen_toks": 5, "gen_kwargs": {"do_sample": True, "temperature": 0.7}}
    (score,) = scored(folder / "model", [str(folder / "text")], **how)
    assert score.details["generation_kwargs"] == {
        "until": ["\n"],
        "max_gen_toks": 5,
        "do_sample": True,
        "temperature": 0.7,
    }
    (plain,) = scored(folder / "model", [str(folder / "text")], limit=2)
    assert plain.details["generation_kwargs"]["max_gen_toks"] == 3


def test_data_are_found_from_anywhere_or_said_to_be_nowhere(folder: Path, tmp_path: Path, monkeypatch: Any):
    pytest.importorskip("lm_eval")
    deep = tmp_path / "project" / "tasks" / "mine"
    deep.mkdir(parents=True)
    (tmp_path / "project" / "data.jsonl").write_bytes((folder / "data.jsonl").read_bytes())
    # As from the root of a project.
    (deep / "tiny.yaml").write_text(TASK.format(data="../project/data.jsonl"))
    monkeypatch.chdir(folder)
    assert load_tasks(["retention-offline"], tasks_path=str(deep)).tasks[0].items["tiny_choice"] == list(range(8))
    (tmp_path / "project" / "data.jsonl").rename(deep / "data.jsonl")
    assert load_tasks([str(deep)]).tasks[0].asked.name == "tiny_choice"
    (deep / "data.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"tiny.yaml reads '../project/data.jsonl', which is nowhere"):
        load_tasks([str(deep)])


def test_code_is_run_with_consent_only(folder: Path, tmp_path: Path, monkeypatch: Any):
    pytest.importorskip("lm_eval")
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    (tmp_path / "unsafe.yaml").write_text(TASK.format(data=folder / "data.jsonl") + "unsafe_code: true\n")
    with pytest.raises(ConfigError, match=r"'tiny_choice' runs code that the model wrote.*--confirm-run-unsafe-code"):
        load_tasks([str(tmp_path)])
    assert load_tasks([str(tmp_path)], asking=Asking(runs_code=True)).tasks
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)


def test_what_is_missing_of_several_tasks_is_said_at_once_and_before_anything_is_loaded(tmp_path: Path):
    pytest.importorskip("lm_eval")
    (tmp_path / "mine.py").write_text("import a_module_that_is_not_there\n")
    for name in ("one", "two"):
        text = TASK.format(data="nowhere.jsonl").replace("tiny_choice", name)
        (tmp_path / f"{name}.yaml").write_text(text + "process_docs: !function mine.shuffled\n")
    (tmp_path / "three.yaml").write_text(TASK.format(data="nowhere.jsonl"))
    with pytest.raises(ConfigError) as caught:
        load_tasks([str(tmp_path)])
    said = "\n".join(caught.value.problems)
    assert "'one' needs a_module_that_is_not_there, which is not installed. Install it" in said
    assert "'two' needs" in said
    assert "three.yaml reads 'nowhere.jsonl'" in said


def test_the_extra_is_named_for_what_it_brings(tmp_path: Path, folder: Path, monkeypatch: Any):
    pytest.importorskip("lm_eval")
    monkeypatch.setitem(sys.modules, "langdetect", None)
    (tmp_path / "mine.py").write_text("import langdetect\n")
    text = TASK.format(data=folder / "data.jsonl") + "process_docs: !function mine.shuffled\n"
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"needs langdetect.*pip install 'afterword\[tasks\]'"):
        load_tasks([str(tmp_path)])


def test_thinking_is_for_templates_that_can_say_it(folder: Path):
    pytest.importorskip("lm_eval")
    with pytest.raises(ConfigError, match="enable_thinking: the chat template of this model does not read it"):
        scored(folder / "chat", ["tiny_choice"], folder, enable_thinking=True)
    model, tokenizer = _model(0).eval(), PreTrainedTokenizerFast.from_pretrained(folder / "chat")
    tokenizer.chat_template = CHAT_TEMPLATE + "{% if enable_thinking is false %}<none>{% endif %}"
    prompts = []
    for thinking in (False, True):
        loaded = load_tasks(["tiny_choice"], tasks_path=str(folder), asking=Asking(enable_thinking=thinking, limit=1))
        run_tasks(in_memory(model, tokenizer), tokenizer, loaded)
        prompts.append(loaded.tasks[0].objects[0].instances[0].args[0])
    assert prompts[0].endswith("assistant:<none>")
    # Likelihoods are read where thoughts would begin, so that the template is left as it is.
    assert prompts[1].endswith("assistant:")


def test_vllm_that_is_not_there_is_said(model_folder: Path):
    with pytest.raises(ConfigError, match="tasks_backend: vllm is not installed here"):
        evaluate(str(model_folder), tasks=["retention-small"], tasks_backend="vllm")


def test_vllm_is_asked_for_the_model_in_its_folder(folder: Path, monkeypatch: Any):
    pytest.importorskip("lm_eval")
    told = []

    def instead(**about: Any) -> Any:
        told.append(about)
        path = about["pretrained"]
        model, tokenizer = LlamaForCausalLM.from_pretrained(path), PreTrainedTokenizerFast.from_pretrained(path)
        return in_memory(model.eval(), tokenizer)

    monkeypatch.setattr("afterword.evaluation.task_model.refuse_missing_vllm", lambda: None)
    monkeypatch.setattr("afterword.evaluation.scores.refuse_missing_vllm", lambda: None)
    monkeypatch.setattr("lm_eval.api.registry.get_model", lambda name: {"vllm": instead}[name])
    how: dict[str, Any] = {"tasks": ["tiny_choice"], "tasks_path": str(folder), "precision": "float32"}
    (ours, theirs) = (
        _by_metric(evaluate(str(folder / "model"), tasks_backend=backend, **how).scores)["acc"].after
        for backend in ("hf", "vllm")
    )
    assert ours == theirs
    assert [about["pretrained"] for about in told] == [str(folder / "model")]
    assert told[0]["batch_size"] == "auto"


def test_an_unknown_task_is_refused_with_the_nearest_names(monkeypatch: pytest.MonkeyPatch):
    tasks = pytest.importorskip("lm_eval.tasks")

    class ReadsLittle(tasks.TaskManager):
        """Of the harness's own thousands of files only one folder's: reading all takes many seconds."""

        def __init__(self, *, include_path: Any, include_defaults: bool):
            own = Path(tasks.__file__).parent / "arc" if include_defaults else include_path
            super().__init__(include_path=own, include_defaults=False)

    monkeypatch.setattr(tasks, "TaskManager", ReadsLittle)
    with pytest.raises(ConfigError, match=r"no task 'arc_easyy'. Nearest: \['arc_easy'"):
        load_tasks(["arc_easyy"])


def test_presets_hold_tasks_that_the_harness_knows():
    pytest.importorskip("lm_eval")
    import lm_eval.tasks

    # The folders that have them: all of them would take many seconds to read.
    inside = Path(lm_eval.tasks.__file__).parent
    folders = ("arc", "commonsense_qa", "hellaswag", "humaneval", "lambada", "leaderboard", "piqa")
    places = [inside / folder for folder in folders]
    known = set(lm_eval.tasks.TaskManager(include_path=places, include_defaults=False).all_tasks)
    assert set(presets()) == {"retention-disc", "retention-offline", "retention-small"}
    for name in presets():
        assert {task.name for task in asked_tasks([name], None)} <= known
    disc = {task.name: task for task in asked_tasks(["retention-disc"], None)}
    assert disc["leaderboard_ifeval"].max_gen_toks == 2048
    assert outside_pick(["retention-disc"]) == {f"leaderboard_{n}" for n in ("bbh", "gpqa", "mmlu_pro", "musr")}
    with pytest.raises(ConfigError, match="Give it with --tasks-path FOLDER"):
        load_tasks(["retention-offline"])


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    real_import = builtins.__import__

    def without_lm_eval(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "lm_eval":
            raise ImportError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_lm_eval)
    with pytest.raises(ConfigError, match=r"pip install 'afterword\[tasks\]'"):
        load_tasks(["gsm8k"])


def _score(
    value: float, *, per_sample: dict[str, list[float]] | None = None, filter: str = "none", **how: Any
) -> Score:
    details = {"task_version": 1, "filter": filter, "per_sample": per_sample, **how}
    return Score(
        task="tasks/x", metric="acc", version=1, n=4, after=Estimate(value, None), better="higher", details=details
    )


def test_a_change_is_after_minus_before_paired_by_document():
    before = _score(0.5, per_sample={"0": [1.0], "1": [0.0], "2": [1.0], "3": [0.0]})
    after = _score(0.25, per_sample={"3": [0.0], "2": [1.0], "1": [0.0], "0": [0.0]})
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


def test_instructions_of_one_prompt_are_resampled_together():
    # As IFEval has it: several instructions an item, each a value.
    before = _score(0.5, per_sample={"0": [1.0, 1.0, 1.0], "1": [0.0, 0.0, 0.0]})
    after = _score(1.0, per_sample={"0": [1.0, 1.0, 1.0], "1": [1.0, 1.0, 1.0]})
    (score,) = compare_tasks([before], [after])
    assert score.change is not None
    # Two items: a quarter of the resamples show none of the change, a quarter all of it.
    assert score.change == Estimate(0.5, (0.0, 1.0))
