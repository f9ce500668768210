"""A GGUF file read back, against the model that it was made from: what both say, and how they take texts apart.

The one rule: both are read in float32, so that what differs is what the file's numbers lost, or a conversion's error.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afterword.errors import CheckpointError
from afterword.models import load_model, load_tokenizer, only_reading, written_as_folder
from afterword.serving.samples import CONVERSATIONS, TEXTS, rendered

BOUND_NATS = {"f32": 1e-6, "f16": 1e-4, "bf16": 1e-3, "q8_0": 1e-2}
"""Most that a file may differ by in KL(model ‖ file), in nats per token, by its kind of numbers."""
_MOST_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near a file is to its model, over every token of the sample texts."""

    texts: int
    tokens: int
    kl_mean_nats: float
    """KL(model ‖ file) per token."""
    kl_largest_nats: float
    logit_mean: float
    """Mean distance of two logits."""
    logit_largest: float
    same_top_frac: float
    """Tokens after which both hold the same next token for the likeliest."""
    other_tokens: tuple[str, ...]
    """Texts that the file's tokenizer takes apart in another way."""
    same_template: bool

    def record(self) -> dict[str, Any]:
        """As it is written beside the file."""
        return asdict(self)


def read_back(file: Path, folder: str, scratch: Path) -> Agreement:
    """Compare a file with the model of a folder. The file becomes a folder in `scratch` for as long as that takes.

    CheckpointError where transformers cannot read the file.
    """
    tokenizer, texts = load_tokenizer(folder), sample_texts(load_tokenizer(folder))
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"][:_MOST_TOKENS] for text in texts]
    with tempfile.TemporaryDirectory(prefix="read-back-", dir=scratch) as again:
        written_as_folder(file, Path(again), name=str(file), about={"file": file.name}, dtype=torch.float32)
        theirs = load_tokenizer(again)
        other = [text for text in texts if _ids(tokenizer, text) != _ids(theirs, text)]
        same_template = (tokenizer.chat_template or None) == (theirs.chat_template or None)
        # One after the other: both at once may not fit.
        before = list(_logits(folder, ids))
        compared = [_compared(first, second) for first, second in zip(before, _logits(again, ids), strict=True)]
    return _summed(compared, other=tuple(other), same_template=same_template)


def sample_texts(tokenizer: Any) -> list[str]:
    """Plain texts, and the conversations in the tokenizer's chat template where it has one that takes them."""
    texts = list(TEXTS)
    if isinstance(tokenizer.chat_template, str):
        for messages in CONVERSATIONS:
            try:
                texts.append(rendered(tokenizer, messages))
            except Exception:  # A template is a program of somebody else's, and refuses roles in its own words.
                continue
    return texts


def refuse_apart(found: Agreement, file_type: str) -> None:
    """CheckpointError where a file says something else than its model, or reads texts otherwise."""
    bound, problems = BOUND_NATS[file_type], list[str]()
    if not found.kl_mean_nats <= bound:
        problems.append(f"its predictions are {found.kl_mean_nats:.2g} nats per token away, and {bound:g} is the most")
    if found.other_tokens:
        problems.append(f"it takes {len(found.other_tokens)} of {found.texts} texts apart in another way")
    if not found.same_template:
        problems.append("its chat template is another")
    if problems:
        remedy = "Nothing was kept of it. Try another llama.cpp, or --no-check to have it all the same"
        raise CheckpointError(f"{file_type} file: read back, it is not the model: {'; '.join(problems)}. {remedy}.")


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _logits(name: str, ids: list[list[int]]) -> Iterator[Tensor]:
    """Logits [T, V] of every text, float32."""
    model = load_model(name, dtype=torch.float32).eval()
    for each in ids:
        with only_reading(model):
            yield model(input_ids=torch.tensor([each], device=model.device), use_cache=False).logits[0].float().cpu()


@dataclass(frozen=True)
class _Compared:
    """Of one text."""

    kl_nats: Tensor
    apart: Tensor
    same_top: Tensor


def _compared(before: Tensor, after: Tensor) -> _Compared:
    # A file may have rows for tokens that fill up the vocabulary.
    after = after[:, : before.shape[-1]]
    first, second = before.log_softmax(-1), after.log_softmax(-1)
    kl = (first.exp() * (first - second)).sum(-1)
    return _Compared(kl, (before - after).abs(), before.argmax(-1) == after.argmax(-1))


def _summed(compared: list[_Compared], *, other: tuple[str, ...], same_template: bool) -> Agreement:
    kl, same = torch.cat([each.kl_nats for each in compared]), torch.cat([each.same_top for each in compared])
    values = sum(each.apart.numel() for each in compared)
    return Agreement(
        texts=len(compared),
        tokens=len(kl),
        kl_mean_nats=float(kl.double().mean()),
        kl_largest_nats=float(kl.max()),
        logit_mean=sum(float(each.apart.double().sum()) for each in compared) / values,
        logit_largest=max(float(each.apart.max()) for each in compared),
        same_top_frac=float(same.double().mean()),
        other_tokens=other,
        same_template=same_template,
    )
