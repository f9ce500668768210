"""What is learned and lost: nothing by the model as it was given, and what other measures of the same say."""

import contextlib
import json
import random
from dataclasses import replace

import pytest
import torch
import yaml

from afterword.budget.yardstick import build_yardsticks
from afterword.data import special_tokens
from afterword.errors import ConfigError
from afterword.evaluation.everyday_suite import everyday_prompts
from afterword.evaluation.losses import drift
from afterword.evaluation.measure import Models
from afterword.evaluation.measures import MEASURES
from afterword.evaluation.task_items import is_dev
from afterword.models import load_model, load_tokenizer
from afterword.models.generation import own_samples
from afterword.models.kept_samples import kept_replies
from afterword.settings.adapt import read_settings
from afterword.types import Document


def plain():
    return contextlib.nullcontext()


@pytest.fixture
def perturbed(model_folder):
    model = load_model(str(model_folder)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def some(documents):
    return [Document(id=row["id"], text=row["text"]) for row in documents[:6]]


def settings(model_folder, **more):
    return read_settings({"model_name_or_path": str(model_folder), "method": "disc", **more})


def test_the_model_as_it_was_given_has_learned_and_lost_nothing(model_folder, some):
    (stick,) = build_yardsticks(settings(model_folder), [some], plain)
    standing = stick.standing(load_model(str(model_folder)), plain)
    assert standing.learned_nats == pytest.approx(0, abs=1e-6)
    assert standing.lost == standing.drift_nats == pytest.approx(0, abs=1e-6)


def test_drift_is_what_evaluate_measures_on_the_same_samples(model_folder, some, perturbed):
    (stick,) = build_yardsticks(settings(model_folder), [some], plain)
    reference, tokenizer = load_model(str(model_folder)).eval(), load_tokenizer(str(model_folder))
    samples = own_samples(reference, tokenizer, count=32, new_tokens=64, seed=0)
    models = Models(reference, perturbed, tokenizer, special_tokens(tokenizer, "auto", "document"), 256)
    found = drift(models, [(sample.token_ids, 1) for sample in samples], {})
    moved, _ = MEASURES["drift/own_samples"].scores(found)
    assert moved.after.value > 0.01
    assert stick.standing(perturbed, plain).lost == pytest.approx(moved.after.value, rel=1e-4)


def test_lost_is_the_larger_drift_of_own_text_and_of_replies_to_everyday_questions(
    model_folder, some, perturbed, tmp_path
):
    given, chats = load_model(str(model_folder)).eval(), load_tokenizer(str(model_folder))
    chats.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    given.save_pretrained(tmp_path / "chat")
    chats.save_pretrained(tmp_path / "chat")
    (stick,) = build_yardsticks(settings(tmp_path / "chat"), [some], plain)
    found = stick.standing(perturbed, plain)
    fitting = [text for text in everyday_prompts(64) if len(chats(f"{text}\n")["input_ids"]) + 40 <= 256]
    replies = kept_replies(given, chats, fitting, new_tokens=40)
    models = Models(given, perturbed, chats, special_tokens(chats, "auto", "document"), 256)
    pairs = [(it.token_ids, len(it.prompt_ids)) for it in replies if len(it.token_ids) > len(it.prompt_ids)]
    assert len(pairs) > 10
    moved, _ = MEASURES["drift/own_samples"].scores(drift(models, pairs, {}))
    assert found.replies_drift_nats == pytest.approx(moved.after.value, rel=1e-4)
    assert found.lost == max(found.drift_nats, found.replies_drift_nats) > min(found.drift_nats, moved.after.value)
    # Without a chat template there is nobody to reply.
    (plain_text,) = build_yardsticks(settings(model_folder), [some], plain)
    other = plain_text.standing(perturbed, plain)
    assert other.replies_drift_nats is None
    assert other.lost == other.drift_nats


def test_learned_is_the_change_of_the_sentences_loss(model_folder, some, perturbed):
    whole, first = build_yardsticks(settings(model_folder), [some, some[:1]], plain)
    assert whole.standing(perturbed, plain).learned_nats != first.standing(perturbed, plain).learned_nats
    alone = [segment for each in first.sentences.batches for segment in [each]]
    with torch.no_grad():
        (batch,) = alone
        logits = perturbed(
            batch.student.input_ids,
            attention_mask=batch.student.attention_mask,
            position_ids=batch.student.position_ids,
        ).logits
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1)[batch.student.trained], batch.target_ids)
    expected = first.sentences.nll_nats - float(nll)
    assert first.standing(perturbed, plain).learned_nats == pytest.approx(expected, rel=1e-4)


def test_with_questions_learning_is_read_off_their_answers(model_folder, some, tmp_path, perturbed):
    file = tmp_path / "quiz.jsonl"
    rows = [
        {"question": "Where was Mara born?", "answer": "Oslo", "document": some[0].id},
        {"question": "And when?", "answer": "In 1990", "document": "of other documents"},
        {"question": "And how?", "answer": "By ferry", "document": some[0].id, "split": "test"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (asked,) = build_yardsticks(settings(model_folder, questions=str(file)), [some], plain)
    assert sum(len(batch.target_ids) for batch in asked.answers.batches) == len(
        load_tokenizer(str(model_folder))(" Oslo", add_special_tokens=False)["input_ids"]
    )
    assert asked.standing(load_model(str(model_folder)), plain).learned_nats == pytest.approx(0, abs=1e-6)


def test_points_are_the_mean_over_skills_of_what_is_no_longer_right(model_folder, some, tmp_path, monkeypatch):
    def item(number, skill):
        checks = [{"kind": "contains", "value": "Oslo"}]
        about = {"part": "retention", "skill": skill, "split": "dev", "prompt": f"Question {number}?"}
        return {"id": str(number), **about, "answer": "Oslo", "checks": checks, "choices": ["Rome", "Bergen"]}

    rows = [*(item(i, "many") for i in range(4)), item(9, "few")]
    file = tmp_path / "suite.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (stick,) = build_yardsticks(settings(model_folder, suite=str(file)), [some], plain)
    assert len(stick.kept.items) == 5
    after = {"0": True, "1": False, "2": False, "3": True, "9": False}
    monkeypatch.setattr("afterword.budget.yardstick.answered_right", lambda *_: [after[i.id] for i in stick.kept.items])
    moved = replace(stick, right={"many": [1.0, 1.0, 1.0, 0.0], "few": [1.0]})
    # Of the many a quarter is lost (two of four, and one is new), of the few all: the mean is 62.5 points.
    assert moved.standing(load_model(str(model_folder)), plain).lost == pytest.approx(62.5)


def test_tasks_count_as_skills_and_nothing_random_is_disturbed(model_folder, some, tmp_path, perturbed):
    pytest.importorskip("lm_eval")
    rows = [{"q": f"Question {i}?", "choices": ["Oslo", "Rome"], "gold": i % 2} for i in range(12)]
    (tmp_path / "tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"task": "tiny_kept", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test"}
    task["dataset_kwargs"] = {"data_files": {"test": str(tmp_path / "tiny.jsonl")}}
    task |= {"doc_to_text": "{{q}}", "doc_to_target": "{{gold}}", "doc_to_choice": "choices"}
    task["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(task))
    given = settings(model_folder, tasks=["tiny_kept"], tasks_path=str(tmp_path), forgetting_budget="3points")
    (stick,) = build_yardsticks(given, [some], plain)
    # What is reported is measured on the others.
    dev = sum(is_dev("tiny_kept", item) for item in range(12))
    assert len(stick.right["tasks/tiny_kept"]) == dev
    torch.manual_seed(3)
    before, random_state = torch.get_rng_state(), random.getstate()
    perturbed.train()
    now = stick.kept.answered(perturbed.eval(), load_tokenizer(str(model_folder)))["tasks/tiny_kept"]
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == random_state
    lost = 100 * (sum(stick.right["tasks/tiny_kept"]) - sum(now)) / dev
    assert stick.standing(perturbed, plain).lost == pytest.approx(lost)


def test_points_without_anything_to_lose_them_on_are_one_sentence(model_folder, some, tmp_path):
    item = {"id": "a", "part": "learning", "skill": "news", "split": "dev", "prompt": "Who?", "answer": "Ada"}
    item["checks"] = [{"kind": "contains", "value": "Ada"}]
    (tmp_path / "suite.jsonl").write_text(json.dumps(item) + "\n")
    with pytest.raises(ConfigError, match="no dev items of retention"):
        build_yardsticks(settings(model_folder, suite=str(tmp_path / "suite.jsonl")), [some], plain)
