"""A method's declaration wins over the Trainer's defaults, and a person over both."""

import pytest
from transformers import TrainingArguments

from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.arguments import declared_arguments

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


@ALL
def test_the_declaration_wins_over_the_trainers_defaults(method, tmp_path):
    built = training_arguments(method, output_dir=str(tmp_path))
    stock = TrainingArguments(output_dir=str(tmp_path))
    assert (stock.max_grad_norm, stock.lr_scheduler_type.value, stock.weight_decay) == (1.0, "linear", 0.0)
    schedule, warmup = (method.defaults[name] for name in ("lr_scheduler_type", "warmup_steps"))
    assert (built.max_grad_norm, built.lr_scheduler_type.value, built.weight_decay) == (0.0, schedule, 0.01)
    assert built.learning_rate == method.defaults["learning_rate"]
    assert (built.adam_beta1, built.adam_beta2, built.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert (built.warmup_steps, built.num_train_epochs) == (warmup, 1)


@ALL
def test_a_nan_is_never_hidden_and_every_step_is_logged(method, tmp_path):
    built = training_arguments(method, output_dir=str(tmp_path))
    assert built.logging_nan_inf_filter is False
    assert built.logging_steps == 1
    assert built.report_to == []


@ALL
def test_what_a_person_sets_wins(method, tmp_path):
    given = {"learning_rate": 1e-4, "max_grad_norm": 1.0, "weight_decay": 0.0, "lr_scheduler_type": "linear"}
    built = training_arguments(method, output_dir=str(tmp_path), **given)
    assert (built.learning_rate, built.max_grad_norm, built.weight_decay) == (1e-4, 1.0, 0.0)
    assert built.lr_scheduler_type.value == "linear"


@ALL
def test_what_the_design_decides_cannot_be_set(method, tmp_path):
    built = training_arguments(method, output_dir=str(tmp_path), remove_unused_columns=True)
    assert built.remove_unused_columns is False


@ALL
def test_plain_arguments_take_the_declaration_where_they_are_stock(method, tmp_path):
    declared = declared_arguments(method, TrainingArguments(output_dir=str(tmp_path), report_to="none"))
    schedule = method.defaults["lr_scheduler_type"]
    assert (declared.max_grad_norm, declared.lr_scheduler_type.value, declared.weight_decay) == (0.0, schedule, 0.01)
    assert declared.learning_rate == method.defaults["learning_rate"]
    assert declared.num_train_epochs == 1
    assert declared.logging_nan_inf_filter is False
    assert declared.remove_unused_columns is False


@ALL
def test_plain_arguments_keep_what_a_person_set(method, tmp_path):
    given = {"learning_rate": 1e-4, "max_grad_norm": 0.5, "num_train_epochs": 7, "seed": 9, "save_steps": 11}
    declared = declared_arguments(method, TrainingArguments(output_dir=str(tmp_path), report_to="none", **given))
    assert {name: getattr(declared, name) for name in given} == given


@ALL
def test_arguments_built_for_a_method_are_taken_as_they_are(method, tmp_path):
    # Equal to the Trainer's defaults, and chosen: LoRA's rate is 5e-5, too.
    given = {"learning_rate": 5e-5, "max_grad_norm": 1.0, "weight_decay": 0.0, "num_train_epochs": 3.0}
    built = training_arguments(method, output_dir=str(tmp_path), lr_scheduler_type="linear", **given)
    declared = declared_arguments(method, built)
    assert {name: getattr(declared, name) for name in given} == given
    assert declared.lr_scheduler_type.value == "linear"


def test_what_was_replaced_is_said(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        declared_arguments(METHODS["disc"], TrainingArguments(output_dir=str(tmp_path), report_to="none"))
    assert "'disc' declares" in caplog.text
    assert "max_grad_norm" in caplog.text


def test_one_process_trains_on_one_of_several_gpus_and_says_so(build_model, tokenizer, documents, tmp_path):
    arguments = training_arguments(METHODS["finetune"], output_dir=str(tmp_path))
    arguments._n_gpu = 4
    how = {"train_dataset": documents, "processing_class": tokenizer, "method": "finetune"}
    with pytest.warns(UserWarning, match=r"4 GPUs are visible.*torchrun --nproc_per_node 4 -m afterword adapt"):
        trainer = AdaptationTrainer(build_model("llama"), arguments, **how)
    assert trainer.args.n_gpu == 1
