"""What the losses of two models say: what was learned, without questions, and how far the model drifted.

Label-free learning (METHODS §5): how well the adapted model predicts sentences alone that it has read about.

    a  mean NLL of the targets under the adapted model θ, without context
    b  the same under the reference M0
    c  the same under M0 with the document before them

and KL(M0 with context ‖ model without), which plain domain adaptation does not lower for free. The same
targets for every method, whatever it was trained on: five sentences a window, drawn by the seed.

Drift: KL(M0 ‖ θ) per token relates to forgetting (arXiv:2602.16093). Bits per byte compare across tokenizers:
the sum of nats over the sum of UTF-8 bytes, over ln 2.

The one rule: losses come from hidden states through `hidden_losses`, as in training, so that no logits of a
whole batch ever exist, and are summed by the unit that intervals are over.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from afterword.data import SpecialTokens, SplitContext, special_tokens
from afterword.data.batching import Packing, micro_batches, to_device
from afterword.evaluation.intervals import before_and_after, estimate, paired_change, ratio_of_means
from afterword.models import (
    StoredModel,
    alone_beyond,
    causal_lm,
    context_length,
    head_of,
    is_adapter,
    load_adapted,
    load_tokenizer,
    measured_precision,
    refuse_foreign_tokenizer,
    trained_states,
)
from afterword.objectives import Comparison, Prediction, hidden_losses, hidden_parts
from afterword.settings.evaluate import EvaluateSettings
from afterword.types import Batch, Example, Score, Segment, Window

VERSION = 1
Text = tuple[Sequence[int], int]
"""Token ids, and the offset of the first that is scored."""
VIEW = SplitContext(strategy="sentence", targets=5, averaging="token")
MIN_CONTEXT_GAIN_NATS = 0.2
"""Below it (b − a) / (b − c) means nothing: on a tiny story model it reached 500 % (METHODS §5)."""


@dataclass(frozen=True)
class Models:
    """The reference M0 and the adapted model θ. A model alone is its own reference, with nothing to compare."""

    reference: Any
    adapted: Any | None
    tokenizer: Any
    special: SpecialTokens
    max_length: int
    micro_batch_tokens: int = 4096


def load_models(name: str, settings: EvaluateSettings) -> Models:
    """Both models in evaluation mode, on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = [path for path in (settings.reference, name) if path]
    dtype = evaluation_dtype(paths, settings.precision)
    loaded = [load_adapted(path, dtype=dtype).eval().to(device) for path in paths]
    pair = (loaded[0], loaded[1] if settings.reference else None)
    for each in loaded:
        refuse_foreign_tokenizer(load_tokenizer(name), each, name)
    tokenizer, length = load_tokenizer(name), context_length(causal_lm(loaded[-1]).config, settings.max_length)
    return Models(*pair, tokenizer, special_tokens(tokenizer, "auto", "document"), length, settings.micro_batch_tokens)


def evaluation_dtype(paths: Sequence[str], precision: str = "auto") -> torch.dtype:
    """What weights are held and products are made in, of all models alike.

    `auto`: bfloat16 where every one of them is stored in it, and so served in it, and where this machine is clearly
    faster at it; else float32, which holds every stored value.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    served = all(StoredModel(path).dtype == torch.bfloat16 for path in paths)
    return torch.bfloat16 if served and measured_precision(paths[-1]) == "bf16_mixed" else torch.float32


def computed_in(models: Models, name: str, reference: str | None) -> dict[str, str]:
    """The precision that each model's weights are stored in, which is served, and that of the products here.

    With precision auto every weight has the value that it is stored with. Products in bfloat16 are rounded as a server
    rounds them, each kernel in its own way: 0.003 nats of noise a document (docs/LOG.md), the same on both sides.
    """
    sides = {"before": reference, "after": name}
    stored = {f"weights_{side}": stored_dtype(path) for side, path in sides.items() if path}
    device, product = models.reference.device.type, next(models.reference.parameters()).dtype
    return {**stored, "products": str(product).removeprefix("torch."), "device": device}


def stored_dtype(name: str) -> str:
    """What a model's weights are stored in, by torch's name; of an adapter with those of its base."""
    dtype = str(StoredModel(name).dtype).removeprefix("torch.")
    return f"{dtype}, with an adapter in float32" if is_adapter(name) else dtype


@torch.inference_mode()
def losses_by_unit(models: Models, examples: Sequence[Example], units: int) -> dict[str, np.ndarray]:
    """Sums over the scored positions of each unit, [units] float64. An example's `source` is its unit.

    `positions` counts them; `nll_before` and `nll_after` are of M0 and θ, and `kl_before` and `kl_after` are
    KL(M0 ‖ either) per position. Where examples have a teacher's view, the M0 that KL starts from reads that
    view, and `nll_with_context` is its loss. What was not measured is not there.
    """
    sums: dict[str, np.ndarray] = {}
    # Rows of their own: packed in one row, attention on a CPU costs the square of the whole micro-batch.
    packing = Packing(max(models.micro_batch_tokens, models.max_length), "padded", real_share=0.9)
    packing = replace(packing, alone_beyond=alone_beyond(causal_lm(models.reference).config))
    for cpu_batch in micro_batches(sorted(examples, key=_longest), packing):
        for name, losses in _position_losses(models, to_device(cpu_batch, models.reference.device)):
            np.add.at(sums.setdefault(name, np.zeros(units)), cpu_batch.sources.numpy(), losses.double().cpu().numpy())
    return sums


def _longest(example: Example) -> int:
    # A teacher's view holds the whole window, a segment at most that.
    return len(example.segments[0].student_ids if example.teacher_ids is None else example.teacher_ids)


def _position_losses(models: Models, batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
    reference, ids = models.reference, batch.target_ids
    yield "positions", torch.ones_like(batch.weights)
    source = before = (trained_states(reference, batch.student), head_of(reference))
    if batch.teacher:
        source = (trained_states(reference, *batch.teacher), head_of(reference))
        parts = hidden_parts(Comparison(), before, source, ids).unbind(-1)
        yield from zip(("nll_before", "nll_with_context", "kl_before"), parts, strict=True)
    elif models.adapted is None:
        yield "nll_before", hidden_losses(Prediction(), before, None, ids)
    if models.adapted is not None:
        after = (trained_states(models.adapted, batch.student), head_of(models.adapted))
        nll_after, nll_source, kl_after = hidden_parts(Comparison(), after, source, ids).unbind(-1)
        yield from (("nll_after", nll_after), ("kl_after", kl_after))
        if not batch.teacher:
            yield "nll_before", nll_source


def learning_scores(models: Models, windows: Sequence[Window], task: str, *, seed: int = 0) -> list[Score]:
    """a, b, c and the KL, means over documents of the mean nats per target token of each.

    The share of the context's gain only where that gain is real.
    """
    unit = {name: i for i, name in enumerate(dict.fromkeys(window.document for window in windows))}
    drawn = [VIEW.build(window, models.special, np.random.default_rng((seed, window.index))) for window in windows]
    examples = [replace(example, source=unit[example.document]) for example in drawn]
    sums = losses_by_unit(models, examples, len(unit))
    mean = {name: values / sums["positions"] for name, values in sums.items()}
    b, c, a = mean["nll_before"], mean["nll_with_context"], mean.get("nll_after")
    kl_before, kl_after = mean["kl_before"], mean.get("kl_after")
    details = {"targets": VIEW.targets, "seed": seed}
    score = partial(Score, task=task, version=VERSION, n=len(unit), details=details, better="lower")
    scores = target_nll_scores(task, b, c, a, details)
    scores.append(score(metric="kl_from_context_nats", **before_and_after(kl_before, kl_after)))
    if a is None or kl_after is None:
        return scores
    relative = ratio_of_means(kl_after, kl_before)
    scores.append(score(metric="kl_from_context_relative_frac", after=relative))
    share = share_of_context_gain(task, b, c, a, details)
    return [*scores, share] if share else scores


def target_nll_scores(
    task: str, b: np.ndarray, c: np.ndarray, a: np.ndarray | None, details: dict[str, Any]
) -> list[Score]:
    """The loss of sentences alone, before and after, and that before with the document; a value for each document."""
    score = partial(Score, task=task, version=VERSION, n=len(b), details=details)
    return [
        score(metric="target_nll_nats", better="lower", **before_and_after(b, a)),
        score(metric="target_nll_with_context_nats", before=estimate(c)),
    ]


def share_of_context_gain(
    task: str, b: np.ndarray, c: np.ndarray, a: np.ndarray, details: dict[str, Any]
) -> Score | None:
    """(b − a) / (b − c); None where the context's gain is not real."""
    gain = paired_change(c, b)
    if gain.value < MIN_CONTEXT_GAIN_NATS or not gain.interval_95 or gain.interval_95[0] <= 0:
        return None
    how = {"metric": "share_of_context_gain_frac", "better": "higher", "details": details}
    return Score(task=task, version=VERSION, n=len(b), after=ratio_of_means(b - a, b - c), **how)


def drift_scores(models: Models, texts: Sequence[Text], task: str, details: dict[str, Any]) -> list[Score]:
    """`kl_nats` per token (only with an adapted model) and `bits_per_byte`.

    A text is one unit that fits the context. Bytes are counted of the tokens that are scored; what comes
    before them is context.
    """
    examples = [_example(i, np.array(ids, np.int64), first) for i, (ids, first) in enumerate(texts)]
    sums = losses_by_unit(models, examples, len(texts))
    scored = [models.tokenizer.decode(ids[first:], skip_special_tokens=True) for ids, first in texts]
    utf8_bytes = np.array([len(text.encode()) for text in scored], np.float64)
    bits = before_and_after(sums["nll_before"], sums.get("nll_after"), per=utf8_bytes * math.log(2))
    score = partial(Score, task=task, version=VERSION, n=len(texts), better="lower", details=details)
    drift = ratio_of_means(sums["kl_after"], sums["positions"]) if "kl_after" in sums else None
    scores = [score(metric="kl_nats", after=drift), score(metric="bits_per_byte", **bits)]
    return scores if drift else scores[1:]


def _example(unit: int, ids: np.ndarray, first: int) -> Example:
    positions = np.arange(max(1, first) - 1, len(ids) - 1)
    segment = Segment(ids, positions, positions, ids[positions + 1], np.ones(len(positions), np.float32))
    return Example(str(unit), unit, None, (segment,))
