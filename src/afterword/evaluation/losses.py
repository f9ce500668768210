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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from afterword.corpus import Corpus
from afterword.data import SplitContext, WindowSettings, read_document
from afterword.data.batching import Packing, ReadText, teacher_texts, to_device, views_of
from afterword.data.views import scored_text
from afterword.distributed import own_share, put_together
from afterword.errors import DataError
from afterword.evaluation.intervals import paired_change
from afterword.evaluation.measure import Inputs, Measured, Models, Values
from afterword.models import (
    StoredModel,
    alone_beyond,
    causal_lm,
    continues_cleanly,
    device_of,
    head_of,
    is_adapter,
    trained_states,
)
from afterword.models.generation import Sample, answered_prompts, beside_each_other, token_ids
from afterword.models.kept_samples import kept_own_samples
from afterword.objectives import Comparison, Head, Prediction, hidden_losses, hidden_parts
from afterword.settings.evaluate import EvaluateSettings
from afterword.types import Document, Example, Segment, Window

Text = tuple[Sequence[int], int]
"""Token ids, and the offset of the first that is scored."""
VIEW = SplitContext(strategy="sentence", targets=5, averaging="token")
MIN_CONTEXT_GAIN_NATS = 0.2
"""Below it (b − a) / (b − c) means nothing: on a tiny story model it reached 500 % (METHODS §5)."""


def computed_in(models: Models, name: str, reference: str | None) -> dict[str, str]:
    """The precision that each model's weights are stored in, which is served, and that of the products here.

    With precision auto every weight has the value that it is stored with. Products in bfloat16 are rounded as a server
    rounds them, each kernel in its own way: 0.003 nats of noise a document (docs/LOG.md), the same on both sides.
    """
    sides = {"before": reference, "after": name}
    stored = {f"weights_{side}": stored_dtype(path) for side, path in sides.items() if path}
    device, product = device_of(models.reference).type, models.reference.dtype
    return {**stored, "products": str(product).removeprefix("torch."), "device": device}


def stored_dtype(name: str) -> str:
    """What a model's weights are stored in, by torch's name; of an adapter with those of its base."""
    dtype = str(StoredModel(name).dtype).removeprefix("torch.")
    return f"{dtype}, with an adapter in float32" if is_adapter(name) else dtype


@torch.inference_mode()
def losses_by_unit(
    models: Models, examples: Sequence[Example], units: int, *, shared_tokens: int = 0
) -> dict[str, np.ndarray]:
    """Sums over the scored positions of each unit, [units] float64. An example's `source` is its unit.

    `positions` counts them; `nll_before` and `nll_after` are of M0 and θ, and `kl_before` and `kl_after` are
    KL(M0 ‖ either) per position. Where examples have a teacher's view, the M0 that KL starts from reads that
    view, and `nll_with_context` is its loss. What was not measured is not there. `shared_tokens`: so many all examples,
    which have no such view, begin with alike; nothing before the last of them is scored, and the models go on from it.
    """
    # Rows of their own: packed in one row, attention on a CPU costs the square of the whole micro-batch.
    packing = Packing(max(models.micro_batch_tokens, models.max_length), "padded", real_share=0.9)
    packing = replace(packing, alone_beyond=alone_beyond(causal_lm(models.reference).config))
    # The same parts however many processes share them: so are the sums, to the bit.
    parts = own_share(list(enumerate(_parts(examples, packing, models.micro_batch_tokens, shared_tokens))))
    found = dict[int, tuple[np.ndarray, dict[str, np.ndarray]]]()
    # Models that take turns: all parts by the one, then all by the other.
    for some in [parts] if models.in_turns else ([each] for each in parts):
        read = [_by_reference(models, part) for _, part in some]
        for (number, part), (losses, source) in zip(some, read, strict=True):
            losses = losses | _by_adapted(models, part, source)
            found[number] = (part.units, {name: each.double().cpu().numpy() for name, each in losses.items()})
    sums: dict[str, np.ndarray] = {}
    for _, (of_units, losses) in sorted(put_together(found).items()):
        for name, of_positions in losses.items():
            np.add.at(sums.setdefault(name, np.zeros(units)), of_units, of_positions)
    return sums


@dataclass(frozen=True, eq=False)
class _Part:
    """Examples whose hidden states are there at the same time."""

    examples: Sequence[Example]
    packing: Packing
    shared_tokens: int

    @cached_property
    def segments(self) -> list[Segment]:
        """Of all examples."""
        return [segment for example in self.examples for segment in example.segments]

    @cached_property
    def units(self) -> np.ndarray:
        """[N] int64, of each position."""
        return np.concatenate([np.full(len(s.target_ids), e.source) for e in self.examples for s in e.segments])

    @cached_property
    def target_ids(self) -> torch.Tensor:
        """[N] int64"""
        return torch.tensor(np.concatenate([segment.target_ids for segment in self.segments]))

    @property
    def has_teacher(self) -> bool:
        """Whether M0 reads a view of its own besides."""
        return self.examples[0].teacher_ids is not None

    def states(self, model: Any, head: Head) -> torch.Tensor:
        """Hidden states [N, H], where the head is: of a model on several devices not always where the last layer is."""
        return self._read(model, head, [(s.student_ids, s.student_positions) for s in self.segments])

    def teacher_states(self, model: Any, head: Head) -> torch.Tensor:
        """The same of a teacher's views."""
        return self._read(model, head, [text for example in self.examples for text in teacher_texts(example)])

    def _read(self, model: Any, head: Head, texts: Sequence[ReadText]) -> torch.Tensor:
        found = dict[int, torch.Tensor]()
        for numbers, view in views_of(texts, self.packing, self.shared_tokens):
            states_NH = trained_states(model, to_device(view, device_of(model))).to(head.weight.device)
            found |= zip(numbers, states_NH.split([len(texts[number][1]) for number in numbers]), strict=True)
        return torch.cat([found[number] for number in range(len(texts))])


def _parts(examples: Sequence[Example], packing: Packing, tokens: int, shared_tokens: int) -> Iterator[_Part]:
    """Runs of examples, the shortest first, of so many tokens. All have a teacher's view, or none has."""
    part, size = list[Example](), 0
    for example in sorted(examples, key=_tokens):
        if part and size + _tokens(example) > tokens:
            yield _Part(part, packing, shared_tokens)
            part, size = [], 0
        part.append(example)
        size += _tokens(example)
    if part:
        yield _Part(part, packing, shared_tokens)


def _tokens(example: Example) -> int:
    alone = sum(len(segment.student_ids) for segment in example.segments)
    return alone + (0 if example.teacher_ids is None else len(example.teacher_ids))


_Source = tuple[torch.Tensor, Head]
"""Hidden states and a head, which give the predictions that others are compared with."""


def _by_reference(models: Models, part: _Part) -> tuple[dict[str, torch.Tensor], _Source]:
    """Losses by name, and what the adapted model is compared with."""
    reference = models.reference
    head = head_of(reference)
    losses = {"positions": torch.ones(len(part.units))}
    source = before = (part.states(reference, head), head)
    ids = part.target_ids.to(head.weight.device)
    if part.has_teacher:
        source = (part.teacher_states(reference, head), head)
        parts = hidden_parts(Comparison(), before, source, ids).unbind(-1)
        losses |= zip(("nll_before", "nll_with_context", "kl_before"), parts, strict=True)
    elif not models.are_two:
        losses |= {"nll_before": hidden_losses(Prediction(), before, None, ids)}
    # The other one's turn needs the room.
    return losses, (source[0].cpu() if models.in_turns else source[0], head)


def _by_adapted(models: Models, part: _Part, source: _Source) -> dict[str, torch.Tensor]:
    """Losses by name; none of a model alone."""
    if not models.are_two:
        return {}
    head = head_of(models.adapted)
    there = head.weight.device
    before = (source[0].to(there), source[1].to(there))
    after = (part.states(models.adapted, head), head)
    nll_after, nll_source, kl_after = hidden_parts(Comparison(), after, before, part.target_ids.to(there)).unbind(-1)
    losses = {"nll_after": nll_after, "kl_after": kl_after}
    return losses if part.has_teacher else losses | {"nll_before": nll_source}


def learning(models: Models, inputs: Inputs, part: Literal["documents", "held_out"]) -> Measured:
    """The measure of sentences of documents, alone. DataError where no document has a second sentence."""
    windows = drawn_windows(models, inputs.documents[part], inputs.settings)
    windows = [window for window in windows if VIEW.skip_reason(window) is None]
    if not windows:
        raise DataError(f"{part}: no document has a second sentence to be measured on. Give longer documents.")
    return learned_from(models, windows, inputs.settings.seed)


def learned_from(models: Models, windows: Sequence[Window], seed: int = 0) -> Measured:
    """a, b, c and the KL: of every document the mean nats per target token."""
    unit = {name: i for i, name in enumerate(dict.fromkeys(window.document for window in windows))}
    built = [VIEW.build(window, models.special, np.random.default_rng((seed, window.index))) for window in windows]
    examples = [replace(example, source=unit[example.document]) for example in built]
    sums = losses_by_unit(models, examples, len(unit))
    mean = {name: values / sums["positions"] for name, values in sums.items()}
    before, after = mean["kl_before"], mean.get("kl_after")
    alone, with_it, *share = nll_values(mean["nll_before"], mean["nll_with_context"], mean.get("nll_after"))
    divergence = [Values(metric="kl_from_context_nats", before=before, after=after)]
    if after is not None:
        divergence += [Values(metric="kl_from_context_relative_frac", after=after, per=before)]
    return Measured([alone, with_it, *divergence, *share], {"targets": VIEW.targets, "seed": seed})


def nll_values(b: np.ndarray, c: np.ndarray, a: np.ndarray | None) -> list[Values]:
    """The loss of sentences alone, before and after, and that before with the document; a value for each document.

    The share of the context's gain, (b − a) / (b − c), only where that gain is real.
    """
    values = [
        Values(metric="target_nll_nats", before=b, after=a),
        Values(metric="target_nll_with_context_nats", before=c),
    ]
    gain = paired_change(c, b)
    real = gain.value >= MIN_CONTEXT_GAIN_NATS and gain.interval_95 and gain.interval_95[0] > 0
    if real and a is not None:
        values.append(Values(metric="share_of_context_gain_frac", after=b - a, per=b - c))
    return values


def drawn_windows(models: Models, documents: Sequence[Document] | Corpus, settings: EvaluateSettings) -> list[Window]:
    """Of as many documents as are asked for, and as many of their windows, so that no long text takes for ever."""
    count, how = settings.max_documents, WindowSettings(max_length=models.max_length, language=settings.language)
    read = [
        read_document(document, 0, models.tokenizer, models.special, how).windows
        for document in drawn(documents, count, settings.seed)
    ]
    windows = [replace(window, index=i) for i, window in enumerate(window for part in read for window in part)]
    return drawn(windows, count, settings.seed)


def drift_on_general(models: Models, inputs: Inputs) -> Measured:
    """Drift on windows of general text."""
    settings, bos = inputs.settings, list(models.special.bos_ids)
    windows = drawn_windows(models, inputs.documents["general"], settings)
    texts = [([*bos, *w.token_ids], len(bos) + w.first_new_token) for w in windows]
    return drift(models, texts, {"sources": list(settings.general), "unit": "window", "seed": settings.seed})


def drift_on_suite_texts(models: Models, inputs: Inputs) -> Measured:
    """Drift on the texts that a suite brings, cut to the context."""
    assert inputs.suite, "what it needs"
    bos, read = list(models.special.bos_ids), models.tokenizer
    texts = [([*bos, *token_ids(read, text)][: models.max_length], len(bos)) for text in inputs.suite.texts]
    return drift(models, texts, {"suite": inputs.suite.name, "unit": "text"}) if texts else Measured()


def own_samples_of(models: Models, settings: EvaluateSettings) -> list[Sample]:
    """Text that the reference wrote, to measure drift on; none where there is nothing to compare."""
    if not settings.samples or not models.are_two:
        return []
    tokens = _sample_tokens(models, settings)
    how = {"count": settings.samples, "new_tokens": tokens, "seed": settings.seed}
    return kept_own_samples(models.reference, models.tokenizer, **how)


def _sample_tokens(models: Models, settings: EvaluateSettings) -> int:
    return min(settings.sample_tokens, models.max_length // 2)


def drift_on_own_samples(models: Models, inputs: Inputs) -> Measured:
    """Drift on text that the reference wrote; a few prompts of it are answered by both models, to be read."""
    settings, tokenizer, ahead = inputs.settings, models.tokenizer, inputs.ahead
    samples = own_samples_of(models, settings) if ahead.samples is None else ahead.samples
    if not samples:
        return Measured()
    tokens = _sample_tokens(models, settings)
    details = {"sampled_from": "reference", "temperature": 1.0, "new_tokens": tokens, "seed": settings.seed}
    found = drift(models, [(sample.token_ids, 1) for sample in samples], details)
    asked = samples[: settings.answered_samples]
    if ahead.replies:
        replies = [ahead.replies[side] for side in models.sides]
        return replace(found, samples=beside_each_other(tokenizer, asked, replies))
    writers = (lambda: models.reference, lambda: models.adapted)
    return replace(found, samples=answered_prompts(writers, tokenizer, asked))


def drift(models: Models, texts: Sequence[Text], details: Mapping[str, Any]) -> Measured:
    """`kl_nats` per token (only with an adapted model) and `bits_per_byte`.

    A text is one unit that fits the context. Bytes are counted of the tokens that are scored; what comes
    before them is context.
    """
    sums = _sums_of_texts(models, texts)
    scored = [models.tokenizer.decode(ids[first:], skip_special_tokens=True) for ids, first in texts]
    per = np.array([len(text.encode()) for text in scored], np.float64) * math.log(2)
    bits = Values(metric="bits_per_byte", before=sums["nll_before"], after=sums.get("nll_after"), per=per)
    if "kl_after" not in sums:
        return Measured([bits], details)
    return Measured([Values(metric="kl_nats", after=sums["kl_after"], per=sums["positions"]), bits], details)


def _sums_of_texts(models: Models, texts: Sequence[Text]) -> dict[str, np.ndarray]:
    """`losses_by_unit` of texts; what all of them begin with, as a chat template does, is read and scored once."""
    ids, firsts = [np.array(of_text, np.int64) for of_text, _ in texts], {first for _, first in texts}
    shared = _shared_tokens(ids)
    if shared < _LEAST_SHARED or len(firsts) > 1 or max(firsts) >= shared or not _go_on(models):
        examples = [scored_text(i, each, first) for i, (each, (_, first)) in enumerate(zip(ids, texts, strict=True))]
        return losses_by_unit(models, examples, len(texts))
    beginning = losses_by_unit(models, [scored_text(0, ids[0][:shared], max(firsts))], 1)
    examples = [scored_text(i, each, shared) for i, each in enumerate(ids)]
    sums = losses_by_unit(models, examples, len(texts), shared_tokens=shared)
    return {name: each + beginning[name] for name, each in sums.items()}


def _go_on(models: Models) -> bool:
    """Whether both models go on from what was read; those that take turns would be loaded anew for it."""
    return not models.in_turns and all(continues_cleanly(models.of_side(side)) for side in models.sides)


def _shared_tokens(texts: Sequence[np.ndarray]) -> int:
    """How many tokens all texts begin with alike, without the last of any; 0 of one alone."""
    most = min(map(len, texts)) - 1 if len(texts) > 1 else 0
    same = np.stack([ids[:most] == texts[0][:most] for ids in texts]).all(0)
    return most if same.all() else int(same.argmin())


_LEAST_SHARED = 8
"""Tokens that are worth reading by themselves."""
T = TypeVar("T")


def drawn(items: Sequence[T] | Corpus, count: int, seed: int) -> list[T]:
    """At most so many of them, by the seed, in their order."""
    chosen: Any = items
    return [chosen[int(i)] for i in sorted(np.random.default_rng(seed).permutation(len(items))[:count])]
