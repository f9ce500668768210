"""Dense float64 references that a reader can check by eye, and a gradient taken through the real trainer."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from afterword.corpus import split_sentences
from afterword.data import Prepared, WindowSettings
from afterword.data.batching import Packing
from afterword.data.passages import passages_to_json
from afterword.training import AdaptationTrainer, training_arguments
from afterword.types import Document, Passage

Gradients = dict[str, torch.Tensor]


@pytest.fixture
def step_gradient(step_gradients: Callable[..., list[Gradients]]) -> Callable[..., Gradients]:
    """The gradient that the trainer's first optimizer step would use: all its loader's batches, one division."""
    return lambda *given, **how: step_gradients(*given, **how)[0]


@pytest.fixture(scope="session")
def windows_of() -> dict[Any, Prepared]:
    """What was read of documents: by the view, the length of a window, and the documents."""
    return {}


@pytest.fixture
def step_gradients(
    tokenizer: Any, mixture_of: Any, tmp_path: Path, windows_of: dict[Any, Prepared]
) -> Callable[..., list[Gradients]]:
    """The same of the first `steps`, each of the model as it is given. The reference is frozen."""

    def gradients(
        model: Any,
        reference: Any,
        documents: list[dict[str, str]],
        method: Any,
        *,
        steps: int = 1,
        accumulation: int = 1,
        micro_batch_tokens: int = 8192,
        layout: str = "packed",
        arguments: Any = None,
        **options: Any,
    ) -> list[Gradients]:
        from afterword.models import freeze

        how = {"gradient_accumulation_steps": accumulation, "seed": 3, **(arguments or {})}
        length = options.pop("max_length", 256)
        # Not from the step's cutting: it is read once for all of them.
        read = (method.view, length, json.dumps(documents, default=repr))
        trainer = AdaptationTrainer(
            model,
            training_arguments(method, output_dir=str(tmp_path), **how),
            train_dataset=windows_of.get(read, documents),
            processing_class=tokenizer,
            method=method,
            teacher=freeze(reference) if reference is not None else None,
            window_settings=WindowSettings(max_length=length),
            documents_per_step=options.pop("documents_per_step", len(documents)),
            mixture=options.pop("mixture", mixture_of(method)),
            packing=Packing(micro_batch_tokens, layout),
            **options,
        )
        windows_of[read] = trainer.windows
        loader, found = iter(trainer.get_train_dataloader()), []
        for _ in range(steps):
            parts, count = trainer.get_batch_samples(loader, accumulation, trainer.args.device)
            assert len(parts) == accumulation
            for batches in parts:
                trainer.training_step(model, batches, count)
            found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            model.zero_grad()
        return found

    return gradients


@pytest.fixture
def assert_close() -> Callable[[Gradients, Gradients, float], None]:
    """‖Δg‖ / ‖g‖ per parameter."""

    def close(ours: Gradients, expected: Gradients, tolerance: float = 1e-5) -> None:
        assert ours.keys() == expected.keys()
        largest = max(gradient.norm() for gradient in expected.values())
        for name, gradient in expected.items():
            # A gradient that is zero in exact arithmetic (a key's bias) has no relative error.
            scale = max(gradient.norm(), 1e-6 * largest)
            error = (ours[name].double() - gradient.double()).norm() / scale
            assert error <= tolerance, f"{name}: {error:.2e}"

    return close


@pytest.fixture(scope="session")
def pair(build_model: Any, perturb: Any) -> Callable[..., tuple[Any, Any]]:
    """(student, reference): the student perturbed, so that a wrong direction or factor cannot hide."""

    def build(kind: str = "llama", **changes: Any) -> tuple[Any, Any]:
        reference = build_model(kind, **changes)
        return perturb(copy.deepcopy(reference)), reference

    return build


@pytest.fixture(scope="session")
def naive_disc_loss(tokenizer: Any) -> Callable[..., torch.Tensor]:
    """DiSC with every sentence a target, as a loop: one document, one sentence, one token at a time."""

    def loss(
        student: Any, teacher: Any, rows: Any, *, bos: Any = (0,), join: str = "document", tau: float = 2.0
    ) -> Any:
        return _naive_loss(student, teacher, rows, tokenizer, list(bos), join, tau)

    return loss


@pytest.fixture(scope="session")
def passages(documents: Any) -> list[tuple[Document, list[Passage]]]:
    """Of every document its sentences, some behind a question; the teacher reads the document, and other things."""
    found = []
    for number, row in enumerate(documents[:6]):
        sentences = row["text"].split(". ")
        of_it = [
            Passage(
                sentence,
                student_before="" if i % 2 else f"Tell me {i}: ",
                teacher_before=f"{row['text']} Part {i}: " if number != 2 else f"{i}. " * i,
                ended=i % 3 == 0,
            )
            for i, sentence in enumerate(sentences)
        ]
        found.append((Document(row["id"], row["text"], passages=passages_to_json(of_it)), of_it))
    return found


def _teacher_and_student(text: str, tokenizer: Any, join: str) -> list[tuple[list[int], list[int]]]:
    """(tokens before the sentence, tokens of the sentence) for every sentence but the first."""
    spans = split_sentences(text)
    if join == "authors":
        pieces = [tokenizer(text[a:b].strip(), add_special_tokens=False).input_ids for a, b in spans]
        return [(list(itertools.chain(*pieces[:i])), pieces[i]) for i in range(1, len(pieces))]
    ids = tokenizer(text, add_special_tokens=False).input_ids
    ends = [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping]
    cuts = [next(i for i, end in enumerate(ends) if end > start) for start, _ in spans] + [len(ids)]
    return [(ids[: cuts[i]], ids[cuts[i] : cuts[i + 1]]) for i in range(1, len(spans))]


def _naive_loss(
    student: Any, teacher: Any, rows: list[dict], tokenizer: Any, bos: list[int], join: str, tau: float
) -> torch.Tensor:
    """Mean over documents of the mean over targets of τ² · mean over tokens of KL(teacher ‖ student)."""
    per_document = []
    for row in rows:
        per_target = []
        for before, sentence in _teacher_and_student(row["text"], tokenizer, join):
            if len(sentence) < 2:
                continue
            with torch.no_grad():
                z_teacher = teacher(torch.tensor([bos + before + sentence])).logits[0]
            z_student = student(torch.tensor([bos + sentence])).logits[0]
            kls = []
            for t in range(1, len(sentence)):  # the sentence's first token is not a target
                p = torch.softmax(z_teacher[len(bos) + len(before) + t - 1] / tau, -1)
                s = torch.softmax(z_student[len(bos) + t - 1] / tau, -1)
                kls.append((p * (p.log() - s.log())).sum())
            per_target.append(tau**2 * torch.stack(kls).mean())
        per_document.append(torch.stack(per_target).mean())
    return torch.stack(per_document).mean()
