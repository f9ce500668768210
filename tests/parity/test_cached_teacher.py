"""A cached teacher teaches as the live one does: the same gradient, for every method that reads a teacher."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterword.data import Prompted, SpecialTokens, WholeDocument, WindowSettings
from afterword.data.batching import Packing
from afterword.data.mixture import SourceShare
from afterword.errors import ConfigError
from afterword.methods import METHODS
from afterword.models import HeadOnly, LoraSettings, frozen_copy, with_lora
from afterword.objectives import DeepDistillation
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.sources import MixtureSource
from afterword.training.teacher_caches import Caching
from afterword.types import Example, Window

pytestmark = pytest.mark.usefixtures("scripted")

TAUGHT = [
    name
    for name, method in METHODS.items()
    # What the student writes as it learns cannot be read before, and states of all layers are not kept: both refused.
    if method.needs_teacher(general=("general",))
    and not method.view.rewriting
    and not isinstance(method.objective, DeepDistillation)
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
# Of a method both layouts and both precisions; which of the one has which of the other changes with every method.
READ = [
    (name, layout, dtype)
    for i, name in enumerate(TAUGHT)
    for layout, dtype in zip(("packed", "padded"), list(TOLERANCE)[:: (1, -1)[i % 2]], strict=True)
]
Gradients = dict[str, torch.Tensor]


@pytest.fixture
def trainer_of(tokenizer: Any, mixture_of: Any, tmp_path: Path) -> Callable[..., AdaptationTrainer]:
    """A trainer of all documents in one step; with `cache`, its teacher is cached there."""

    def build(model: Any, teacher: Any, documents: Any, method: Any, *, cache: str = "", **options: Any) -> Any:
        caching = Caching(folder=tmp_path / cache) if cache else None
        arguments = {"seed": 3, "num_train_epochs": 2, **options.pop("arguments", {})}
        return AdaptationTrainer(
            model,
            training_arguments(method, output_dir=str(tmp_path / (cache or "live")), **arguments),
            train_dataset=documents,
            processing_class=tokenizer,
            method=method,
            teacher=teacher,
            window_settings=WindowSettings(max_length=options.pop("max_length", 256)),
            documents_per_step=options.pop("documents_per_step", 30),
            mixture=options.pop("mixture", None) or mixture_of(method),
            packing=Packing(options.pop("micro_batch_tokens", 600), options.pop("layout", "packed")),
            caching=caching,
            **options,
        )

    return build


def gradient(trainer: AdaptationTrainer, epoch: int = 0) -> Gradients:
    """Of an epoch's one step."""
    trainer.model.zero_grad()
    loader = trainer.get_train_dataloader()
    loader.set_epoch(epoch)
    parts, count = trainer.get_batch_samples(iter(loader), 1, trainer.args.device)
    for batches in parts:
        trainer.training_step(trainer.model, batches, count)
    return {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def both(
    trainer_of: Any,
    model: Any,
    teacher: Any,
    documents: Any,
    method: Any,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> tuple[Any, Any]:
    """The trainer with a live teacher, and one whose teacher is cached; everything in a precision from then on."""
    cached = trainer_of(model, teacher, documents, method, cache="cache", **options)
    # Documents are read once for both.
    live = trainer_of(model, teacher, cached.windows, method, **options)
    for trainer in (live, cached):
        trainer.model.to(dtype)
        trainer.teacher.model.to(dtype)
    cached.cache_teacher()
    assert isinstance(cached.teacher, HeadOnly)
    return live, cached


@pytest.mark.parametrize(("name", "layout", "dtype"), READ, ids=str)
def test_gradients_are_those_of_the_live_teacher(
    name: str, layout: str, dtype: torch.dtype, pair: Any, documents: Any, trainer_of: Any, assert_close: Any
) -> None:
    student, reference = pair()
    given = (trainer_of, student, frozen_copy(reference), documents[:5], METHODS[name])
    live, cached = both(*given, layout=layout, dtype=dtype)
    # Draws of the second epoch are other ones; what was cached is enough for them.
    for epoch in (0, 1):
        expected = gradient(live, epoch)
        assert_close(gradient(cached, epoch), expected, TOLERANCE[dtype])
    assert dtype == torch.float32 or max(g.norm() for g in expected.values()) > 1e-3


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_passages(layout: str, pair: Any, passages: Any, trainer_of: Any, assert_close: Any) -> None:
    student, reference = pair()
    method = replace(METHODS["disc"], view=Prompted(passages=2))
    documents = [document for document, _ in passages]
    live, cached = both(trainer_of, student, frozen_copy(reference), documents, method, layout=layout)
    for epoch in (0, 1):
        assert_close(gradient(cached, epoch), gradient(live, epoch), 1e-9)


@pytest.mark.parametrize("kind", ["gemma3", "granite", "phi"])
def test_heads_of_other_kinds(kind: str, pair: Any, documents: Any, trainer_of: Any, assert_close: Any) -> None:
    student, reference = pair(kind)
    live, cached = both(trainer_of, student, frozen_copy(reference), documents, METHODS["mixcpt"], layout="padded")
    assert_close(gradient(cached), gradient(live), 1e-9)


@pytest.mark.parametrize("name", TAUGHT)
def test_documents_longer_than_the_context(
    name: str, pair: Any, documents: Any, trainer_of: Any, assert_close: Any
) -> None:
    if METHODS[name].view.reads_passages:
        pytest.skip("a passage is not cut: it is left out where it does not fit")
    student, reference = pair()
    long = [{"id": "long", "text": " ".join(row["text"] for row in documents[:5])}, *documents[:3]]
    live, cached = both(trainer_of, student, frozen_copy(reference), long, METHODS[name], max_length=96)
    assert len(cached.windows) > len(long)
    assert_close(gradient(cached), gradient(live), 1e-9)


@pytest.mark.parametrize("settings", [{"join": "authors"}, {"bos": "never"}, {"strategy": "anchor"}], ids=str)
def test_other_readings(settings: Any, pair: Any, documents: Any, trainer_of: Any, assert_close: Any) -> None:
    student, reference = pair()
    method = METHODS["disc"].configured(**settings)
    live, cached = both(trainer_of, student, frozen_copy(reference), documents, method)
    assert_close(gradient(cached), gradient(live), 1e-9)


@pytest.mark.parametrize("head", [(), ("lm_head",)], ids=["plain", "own head"])
@pytest.mark.parametrize("name", TAUGHT)
def test_an_adapter_learns_from_its_own_base(
    name: str, head: Any, build_model: Any, perturb: Any, documents: Any, trainer_of: Any, assert_close: Any
) -> None:
    lora = LoraSettings(r=4, alpha=8, dropout=0.0, modules_to_save=head)
    adapted = perturb(with_lora(build_model("llama"), lora, seed=0))
    live, cached = both(trainer_of, adapted, None, documents[:5], METHODS[name])
    assert_close(gradient(cached), gradient(live), 1e-9)


def test_a_model_is_its_own_teacher_before_its_first_step(
    build_model: Any, perturb: Any, documents: Any, trainer_of: Any, assert_close: Any
) -> None:
    model = build_model("llama")
    live, cached = both(trainer_of, model, None, documents, METHODS["disc"])
    # What the student becomes, its head too, is nothing to either teacher.
    perturb(model)
    assert_close(gradient(cached), gradient(live), 1e-9)


def test_an_evaluation_is_the_same(pair: Any, documents: Any, trainer_of: Any) -> None:
    student, reference = pair()
    given = (student, frozen_copy(reference), documents[:5], METHODS["disc"])
    live, cached = both(trainer_of, *given, dtype=torch.float32, eval_dataset=documents[5:])
    expected, found = live.evaluate(), cached.evaluate()
    assert expected["eval_loss"] > 0.05
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)
    assert found["eval_nll_nats"] == pytest.approx(expected["eval_nll_nats"], rel=1e-5)


def test_a_teacher_of_one_source_alone_is_cached_for_that(
    pair: Any, documents: Any, general_rows: Any, trainer_of: Any, assert_close: Any
) -> None:
    student, reference = pair()
    rows = {"plain": general_rows[:3], "chats": general_rows[3:]}
    mixture = {name: MixtureSource(documents=texts, share=SourceShare()) for name, texts in rows.items()}
    method = METHODS["finetune"].with_sources({"plain": ("prediction", 1.0), "chats": ("kl", 1.0)})
    live, cached = both(trainer_of, student, frozen_copy(reference), documents, method, mixture=mixture)
    assert len(cached.train_dataset.cache) == len(general_rows[3:])
    assert_close(gradient(cached), gradient(live), 1e-9)


def test_an_evaluation_of_general_text_is_the_same(
    pair: Any, documents: Any, general_rows: Any, trainer_of: Any
) -> None:
    student, reference = pair()
    held_out = {"general": MixtureSource(documents=general_rows, share=SourceShare(), held_out=general_rows[:3])}
    given = (student, frozen_copy(reference), documents[:5], METHODS["disc_mixcpt"].configured(replay_documents=0.5))
    options = {"eval_dataset": documents[5:], "mixture": held_out}
    live, cached = both(trainer_of, *given, dtype=torch.float32, **options)
    expected, found = live.evaluate(), cached.evaluate()
    assert expected["eval_source/general/replay_distillation_nats"] > 0.05
    for name in expected.keys() - {"eval_seconds"}:
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name


def test_workers_look_up_the_same(pair: Any, documents: Any, trainer_of: Any) -> None:
    student, reference = pair()
    given = (trainer_of, student, frozen_copy(reference), documents, METHODS["disc"])
    _, here = both(*given, dtype=torch.float32)
    _, there = both(*given, dtype=torch.float32, arguments={"dataloader_num_workers": 2})
    expected, found = gradient(here), gradient(there)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_what_is_trained_is_the_same(pair: Any, documents: Any, trainer_of: Any) -> None:
    student, reference = pair()
    options = {"documents_per_step": 3, "arguments": {"learning_rate": 1e-3, "num_train_epochs": 2}}
    trained = []
    for cache in ("", "cache"):
        given = (copy.deepcopy(student), frozen_copy(reference), documents, METHODS["disc_mixcpt"])
        trainer = trainer_of(*given, cache=cache, **copy.deepcopy(options))
        trainer.train()
        trained.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert len(trained[0]) == 8
    np.testing.assert_allclose(trained[1], trained[0], rtol=1e-4)


@dataclass(frozen=True, kw_only=True)
class Behind(WholeDocument):
    """The teacher reads a prompt before the document, of `prompts` by chance; the student the document alone."""

    prompts: int = 1

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """The same targets for both, at other positions."""
        example = super().build(window, special, rng)
        prompt, first = np.array([7, 8, 9]) + int(rng.integers(self.prompts)), len(special.bos_ids)
        ids = np.insert(example.teacher_ids, first, prompt)
        segments = [replace(s, teacher_positions=s.teacher_positions + len(prompt)) for s in example.segments]
        return replace(example, teacher_ids=ids, segments=tuple(segments))


@pytest.mark.parametrize(("prompts", "texts"), [(1, 10), (20, 20)], ids=["one prompt", "a prompt by chance"])
def test_a_view_whose_teacher_reads_something_else(
    prompts: int, texts: int, pair: Any, documents: Any, trainer_of: Any, assert_close: Any
) -> None:
    student, reference = pair()
    method = replace(METHODS["finetune_kl"], view=Behind(prompts=prompts))
    live, cached = both(trainer_of, student, frozen_copy(reference), documents, method, dtype=torch.float32)
    # By chance, a document may have the same prompt twice.
    assert len(documents) <= len(cached.train_dataset.cache) <= texts
    for epoch in (0, 1):
        assert_close(gradient(cached, epoch), gradient(live, epoch), 1e-5)


class Unsteady(Behind):
    """What it draws follows from the clock."""

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """Another prompt every time."""
        return super().build(window, special, np.random.default_rng(time.perf_counter_ns()))


def test_a_text_that_could_not_be_known_is_refused(pair: Any, documents: Any, trainer_of: Any) -> None:
    student, reference = pair()
    method = replace(METHODS["finetune_kl"], view=Unsteady(prompts=250))
    _, cached = both(trainer_of, student, frozen_copy(reference), documents, method, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"teacher: 'cached' reads every text before the first step.* Use copy"):
        gradient(cached)
