"""A divergence of one's own trains, by the plain formula, and a person reads once what it costs."""

import warnings
from dataclasses import replace

import torch

from afterword.data import WindowSettings
from afterword.methods import METHODS
from afterword.models import frozen_copy
from afterword.objectives import Distillation, of_logprobs
from afterword.training import AdaptationTrainer, training_arguments


@of_logprobs
def bhattacharyya(student, teacher):
    """−log Σ √(s p)."""
    return -((student + teacher) / 2).logsumexp(-1)


def plain_gradient(student, teacher, tokenizer, rows):
    """A mean over documents of a mean over their tokens, BOS before and EOS after them."""
    student.zero_grad()
    for row in rows:
        ids = tokenizer(row["text"], add_special_tokens=False).input_ids
        ids = torch.tensor([[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]])
        s, p = (model(input_ids=ids).logits[0, :-1].softmax(-1) for model in (student, teacher))
        (-(s * p.detach()).sqrt().sum(-1).log().mean() / len(rows)).backward()
    return {name: parameter.grad.clone() for name, parameter in student.named_parameters()}


def test_it_trains_as_the_formula_says_and_one_sentence_says_what_it_takes(
    pair, documents, tokenizer, assert_close, tmp_path
):
    student, reference = pair()
    method = replace(METHODS["finetune_kl"], objective=Distillation(bhattacharyya))
    trainer = AdaptationTrainer(
        student,
        training_arguments(method, output_dir=str(tmp_path)),
        train_dataset=documents,
        processing_class=tokenizer,
        method=method,
        teacher=frozen_copy(reference),
        window_settings=WindowSettings(max_length=256),
        documents_per_step=len(documents),
    )
    expected = plain_gradient(student.double(), trainer.teacher.model.double(), tokenizer, documents)
    student.zero_grad()
    parts, count = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for batches in parts:
            trainer.training_step(trainer.model, batches, count)
    assert_close({name: p.grad for name, p in student.named_parameters()}, expected, 1e-6)
    said = [str(each.message) for each in caught if "closed form" in str(each.message)]
    assert len(said) == 1
    assert "Distillation (bhattacharyya_nats) has no closed form" in said[0]
    assert "about 12 float32 tensors over the vocabulary" in said[0]
