"""Deep context distillation through the real trainer against a naive float64 loop; and what it is refused with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from afterword.corpus import split_sentences
from afterword.errors import ConfigError
from afterword.methods import get_method
from afterword.objectives import hidden_distance
from afterword.training.teacher_caches import Caching

BOS = 0


def pieces_of(text: str, tokenizer: Any, size: int) -> list[list[int]]:
    """Sentences, as many together as have no more than `size` tokens."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids, ends = encoded.input_ids, [end for _, end in encoded.offset_mapping]
    cuts = [next(i for i, end in enumerate(ends) if end > start) for start, _ in split_sentences(text)]
    pieces: list[list[int]] = [[]]
    for sentence in (ids[a:b] for a, b in zip(cuts, [*cuts[1:], len(ids)], strict=True)):
        if pieces[-1] and len(pieces[-1]) + len(sentence) > size:
            pieces.append([])
        pieces[-1] += sentence
    return pieces


def naive_loss(student: Any, teacher: Any, documents: list[list[list[int]]], factor: float) -> Any:
    """Of pieces of documents: every one but the first, taught by the one before it."""
    per_document, of_kl = [], []
    for pieces in documents:
        per_piece = []
        for before, piece in itertools.pairwise(pieces):
            with torch.no_grad():
                theirs = teacher(torch.tensor([[BOS, *before, *piece]]), output_hidden_states=True)
            ours = student(torch.tensor([[BOS, *piece]]), output_hidden_states=True)
            per_token = []
            for t in range(1, len(piece)):  # the piece's first token is not a target
                p = torch.softmax(theirs.logits[0, len(before) + t], -1)
                s = torch.softmax(ours.logits[0, t], -1)
                kl = (p * (p.log() - s.log())).sum()
                distances = [
                    (h_s[0, t] - h_t[0, len(before) + t]).abs().sum() / h_t[0, len(before) + t].abs().sum()
                    for h_s, h_t in zip(ours.hidden_states[1:], theirs.hidden_states[1:], strict=True)
                ]
                per_token.append(kl + factor * torch.stack(distances).mean())
                of_kl.append(kl.detach())
            per_piece.append(torch.stack(per_token).mean())
        per_document.append(torch.stack(per_piece).mean())
    assert torch.stack(of_kl).mean() >= 0.05
    return torch.stack(per_document).mean()


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_gradients_are_those_of_the_formula(
    factor: float, pair: Any, documents: Any, tokenizer: Any, step_gradient: Any, assert_close: Any
) -> None:
    student, reference = pair()
    sentences = [row["text"][a:b] for row in documents for a, b in split_sentences(row["text"])]
    size = 1 + max(len(tokenizer(sentence).input_ids) for sentence in sentences)
    pieces = [pieces_of(row["text"], tokenizer, size) for row in documents]
    rows = [row for row, of_it in zip(documents, pieces, strict=True) if len(of_it) > 1]
    assert max(map(len, pieces)) > 2
    method = get_method("deep_context").configured(piece_tokens=size, hidden_weight=factor)
    ours = step_gradient(student, reference, rows, method)
    several = [of_it for of_it in pieces if len(of_it) > 1]
    naive_loss(student.double(), reference.double(), several, factor).backward()
    assert_close(ours, {n: p.grad for n, p in student.named_parameters() if p.grad is not None}, 2e-5)


def test_the_distance_by_hand() -> None:
    ours = [torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [3.0, 3.0]])]
    theirs = [torch.tensor([[2.0, 2.0], [1.0, 3.0]]), torch.tensor([[1.0, 1.0], [-1.0, 1.0]])]
    # Of the first position 1/4 and 0, of the second 4/4 and 6/2.
    assert hidden_distance(ours, theirs).tolist() == [0.125, 2.0]


def test_what_has_no_other_layers_is_refused(pair: Any, documents: Any, step_gradient: Any, tmp_path: Path) -> None:
    student, reference = pair()
    with pytest.raises(ConfigError, match=r"teacher: 'cached' has one layer, .*Use copy"):
        step_gradient(
            student, reference, documents, get_method("deep_context"), caching=Caching(folder=tmp_path / "cache")
        )
