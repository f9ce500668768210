"""What the student writes as it learns: with its weights as they are, kept, and read again by a run that is resumed."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import TrainerCallback

from afterword import adapt
from afterword.errors import ConfigError
from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.rollouts import ROLLOUTS
from afterword.training.steps import ExampleKey

pytestmark = pytest.mark.usefixtures("scripted")


@pytest.fixture
def trainer_of(build_model, tokenizer, documents, tmp_path):
    """Of on_policy, two steps a block, on three short documents."""
    rows = [row for row in documents if len(row["text"]) < 140][:3]

    def build(steps=5, arguments=None, **settings):
        method = METHODS["on_policy"].configured(refresh_steps=2, new_tokens=12, own_questions=2, **settings)
        how = {"output_dir": str(tmp_path), "max_steps": steps, "learning_rate": 1e-2, "seed": 3, "use_cpu": True}
        args = training_arguments(method, **{**how, **(arguments or {})})
        return AdaptationTrainer(
            build_model("llama"), args, train_dataset=rows, processing_class=tokenizer, method=method
        )

    return build


def rows_of(folder, block):
    path = folder / ROLLOUTS / f"block-{block:05d}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_block_is_written_before_its_first_step_for_what_it_reads(trainer_of, tmp_path):
    trainer = trainer_of()
    trainer.train()
    assert sorted(path.name for path in (tmp_path / ROLLOUTS).iterdir()) == ["block-00001.jsonl", "block-00002.jsonl"]
    # Steps 2 and 3: the last of the first epoch, and the first of the second.
    read = {int(trainer.plan.steps(0)[2][0]), int(trainer.plan.steps(1)[0][0])}
    assert {row["window"] for row in rows_of(tmp_path, 1)} == read
    row = next(row for row in rows_of(tmp_path, 2) if len(row["token_ids"]) > 4)
    example = trainer.examples[ExampleKey(row["window"], 1, block=2)]
    student = [segment.student_ids.tolist() for segment in example.segments]
    assert any(ids[-len(row["token_ids"]) :] == row["token_ids"] for ids in student)


def test_what_is_written_is_of_the_student_as_it_is(trainer_of, tmp_path):
    trainer = trainer_of(steps=3, sampling_temperature=0.0)
    seen = {}
    rollouts, ready = trainer.rollouts, trainer.rollouts.ready

    def watched(step, model, tokenizer):
        if step == 2:
            with torch.no_grad():
                for number in range(3):
                    for place, passage in enumerate(trainer.windows[number].passages):
                        seen[number, place] = greedy(model.eval(), passage.student_before.tolist())
        ready(step, model, tokenizer)

    rollouts.ready = watched
    trainer.train()
    rows = rows_of(tmp_path, 1)
    assert rows
    assert all(row["token_ids"] == seen[row["window"], row["passage"]] for row in rows)


def greedy(model, ids):
    """A plain loop."""
    written = []
    while len(written) < 12 and written[-1:] != [1]:
        written.append(int(model(torch.tensor([ids + written])).logits[0, -1].argmax()))
    return written


def test_draws_differ_by_block_window_passage_and_seed(trainer_of):
    rollouts = trainer_of().rollouts
    draws = {tuple(rollouts._draws(*name)[:3]) for name in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))}
    assert len(draws) == 4


def test_a_run_that_is_resumed_reads_what_is_there_and_a_new_one_does_not(trainer_of, tmp_path):
    trainer_of().train()
    rollouts = trainer_of().rollouts
    rollouts.begin(resumed=True)
    # No model is asked.
    rollouts.ready(2, None, None)
    assert rollouts.texts
    assert len(rollouts.texts) == len(rows_of(tmp_path, 1))
    rollouts.begin(resumed=False)
    assert not (tmp_path / ROLLOUTS).exists()


def test_before_a_run_everything_is_read_as_the_view_wrote_it(trainer_of):
    trainer = trainer_of()
    plain, later = (trainer.examples[ExampleKey(0, 1, block=block)] for block in (0, 2))
    assert [s.student_ids.tolist() for s in plain.segments] == [s.student_ids.tolist() for s in later.segments]


def test_a_student_that_says_nothing_keeps_what_it_said_first(trainer_of):
    rollouts = trainer_of().rollouts
    window = rollouts.windows[0]
    rollouts.begin(resumed=True)
    rollouts.block = 1
    rollouts.texts = {(0, number): [1] for number in range(len(window.passages))}
    assert rollouts.rewritten(window, 1) is window


def test_the_teacher_follows_the_student_by_the_share(trainer_of):
    trainer = trainer_of(steps=3, teacher_average=0.25)
    name = "model.layers.0.mlp.down_proj.weight"
    expected = trainer.model.state_dict()[name].clone()

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            expected.copy_(0.75 * expected + 0.25 * model.state_dict()[name])

    trainer.add_callback(Watch())
    start = expected.clone()
    trainer.train()
    assert torch.allclose(trainer.teacher.model.state_dict()[name], expected, atol=1e-7)
    assert not torch.allclose(expected, start, atol=1e-4)


def test_a_teacher_without_weights_of_its_own_cannot_follow(model_folder, documents, tmp_path):
    how = {"method": "on_policy", "output_dir": str(tmp_path / "run"), "max_steps": 1, "learning_rate": 1e-3}
    with pytest.raises(ConfigError, match=r"teacher_average: 0\.1 needs a teacher of its own in memory"):
        adapt(str(model_folder), documents, **how, use_peft=True, teacher_average=0.1)
    assert not (tmp_path / "run").exists()


def test_what_reads_ahead_of_the_student_is_refused(trainer_of):
    with pytest.raises(ConfigError, match=r"dataloader_num_workers: .* under on_policy, and workers read ahead of it"):
        trainer_of(arguments={"dataloader_num_workers": 1})


def test_it_is_refused_before_anything_is_written(model_folder, documents, tmp_path):
    how = {"method": "on_policy", "output_dir": str(tmp_path / "run"), "teacher": "cached", "max_steps": 1}
    with pytest.raises(ConfigError, match="teacher: 'cached' reads every text before the first step") as caught:
        adapt(str(model_folder), documents, **how, learning_rate=1e-3, dataloader_num_workers=1)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "run").exists()
