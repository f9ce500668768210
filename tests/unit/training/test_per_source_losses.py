"""Every source's losses are logged under a name of their own, or what shares a line says so."""

import warnings

import pytest
import torch

from afterword.data.mixture import SourceShare
from afterword.errors import ConfigError
from afterword.methods import get_method
from afterword.models import frozen_copy
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.per_source_losses import MOST_SOURCES, OTHERS
from afterword.training.sources import MixtureSource


@pytest.fixture
def trainer_of(build_model, perturb, tokenizer, general_rows, tmp_path):
    """A trainer of a method on these rows and one source of general text of this name."""

    def build(method, rows, name="general", **options):
        reference = build_model("llama")
        text = MixtureSource(documents=general_rows, share=SourceShare(), held_out=options.pop("held_out", None))
        return AdaptationTrainer(
            perturb(build_model("llama")),
            training_arguments(get_method(method), output_dir=str(tmp_path), max_steps=1),
            train_dataset=rows,
            processing_class=tokenizer,
            method=method,
            teacher=frozen_copy(reference),
            mixture={name: text},
            documents_per_step=len(rows),
            **options,
        )

    return build


def of_sources(count):
    return [{"text": f"Place {i} is small. It is old.", "source": f"s{i}"} for i in range(count)]


def logged(trainer):
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "loss" in row]
    return {name: value for name, value in row.items() if name.startswith("source/")}, row


def test_general_text_may_not_go_by_the_name_of_a_source_of_the_documents(trainer_of):
    with pytest.raises(ConfigError, match=r"mixture.s1: a source of the documents has this name.*Give the mixture's"):
        trainer_of("cpt", of_sources(3), name="s1")
    with pytest.raises(ConfigError, match=r"mixture.\(other documents\): a source"):
        trainer_of("cpt", of_sources(3), name=OTHERS)


def test_nor_by_one_of_the_held_out_documents(trainer_of):
    held_out = [{"text": "Not trained. Not read.", "source": "general"}]
    with pytest.raises(ConfigError, match=r"mixture.general: a source of the documents has this name"):
        trainer_of("cpt", of_sources(2), eval_dataset=held_out, held_out=held_out)


@pytest.mark.parametrize("method", ["cpt", "mol"])
def test_every_position_is_on_a_line_and_general_text_always_on_its_own(method, trainer_of, general_rows, tokenizer):
    rows = of_sources(MOST_SOURCES + 3)
    with pytest.warns(UserWarning, match=f"The documents have {MOST_SOURCES + 3} sources: the first {MOST_SOURCES}"):
        trainer = trainer_of(method, rows)
    found, row = logged(trainer)
    positions = {name.split("/")[1]: value for name, value in found.items() if name.endswith("positions")}
    assert list(positions) == [*(f"s{i}" for i in range(MOST_SOURCES)), OTHERS, "general"]
    assert sum(positions.values()) == row["trained_positions"]

    def tokens(texts):
        """With EOS."""
        return sum(len(tokenizer(text["text"].lstrip(), add_special_tokens=False).input_ids) + 1 for text in texts)

    assert positions[OTHERS] == tokens(rows[MOST_SOURCES:])
    assert positions["general"] == tokens(general_rows)


@pytest.mark.parametrize("count", [1, MOST_SOURCES - 1, MOST_SOURCES])
def test_up_to_the_limit_every_source_has_its_line_and_nothing_is_said(count, trainer_of):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer = trainer_of("cpt", of_sources(count))
    lines = trainer.source_sums.lines
    assert lines == (*(f"s{i}" for i in range(count)), "general")
    numbers = torch.arange(count + 1)
    assert torch.equal(trainer.source_sums._line(numbers), numbers)


def test_a_line_is_the_mean_over_its_positions(trainer_of, documents):
    """The sources' means, weighted by their positions, are the step's loss where every token weighs the same."""
    found, row = logged(trainer_of("cpt", [{**text, "source": text["id"]} for text in documents]))
    counts = {name.removesuffix("positions"): value for name, value in found.items() if name.endswith("positions")}
    mean = sum(found[f"{name}prediction_nats"] * count for name, count in counts.items()) / sum(counts.values())
    assert mean == pytest.approx(row["loss"], rel=1e-5)
