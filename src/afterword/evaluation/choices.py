"""Choice by likelihood: how likely a model finds each of several continuations of a prompt.

A prompt is read once, for all its candidates; where a model cannot continue what it has read, prompt and candidate are
read together. The one rule: log-probabilities are float32 and made at the candidates' positions alone, whatever the
batch, so that a candidate's likelihood does not depend on its neighbours, up to the rounding of the arithmetic.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from afterword.distributed import own_share, put_together
from afterword.models import (
    ReadPrompts,
    alone_beyond,
    causal_lm,
    continued_states,
    continues_cleanly,
    device_of,
    head_of,
    read_prompts,
    whole_states,
)
from afterword.models.generation import room_behind
from afterword.objectives import Head, Prediction, hidden_losses

TokenIds = Sequence[int]
Asked = tuple[TokenIds, Sequence[TokenIds]]
"""A prompt, and the candidates that may follow it, all in tokens."""
_Sums = tuple[list[float], list[bool]]
"""Of every candidate of a prompt: its log-probability, and whether it is the likeliest throughout."""


@dataclass(frozen=True, slots=True, eq=False)
class Likelihoods:
    """Of every candidate of one prompt, in their order."""

    logprobs_nats: np.ndarray  # [C] float64: the sum over the candidate's tokens
    tokens: np.ndarray  # [C] int64
    greedy: np.ndarray  # [C] bool: whether each of its tokens is the likeliest; all False where nobody asked

    @property
    def per_token(self) -> np.ndarray:
        """[C] float64: the mean log-probability of a token."""
        return self.logprobs_nats / self.tokens


def is_first_likeliest(scores: np.ndarray) -> bool:
    """Whether the first candidate is strictly the likeliest.

    >>> is_first_likeliest(np.array([-1.0, -2.0])), is_first_likeliest(np.array([-1.0, -1.0]))
    (True, False)
    """
    return bool(scores[0] > scores[1:].max(initial=-np.inf))


@torch.inference_mode()
def likelihoods(
    model: Any,
    asked: Sequence[Asked],
    *,
    batch_tokens: int = 4096,
    greedy: bool = False,
    advance: Callable[[int], object] | None = None,
) -> list[Likelihoods]:
    """The log-likelihood of every candidate behind its prompt. Prompts and candidates have a token at least.

    `batch_tokens` bounds the tokens, padding included, whose keys and values are kept at a time. With `greedy` it is
    also said whether the model would have written a candidate by itself. `advance` is told how many prompts are done
    after each batch; one without candidates is not read.
    """
    assert not model.training, "dropout would be in what is measured"
    assert all(prompt and all(candidates) for prompt, candidates in asked), "nothing predicts the first token"
    read = dict[int, _Sums]()
    longest = max((len(prompt) + max(map(len, texts), default=0) for prompt, texts in asked), default=0)
    room_behind(causal_lm(model), [[*prompt, *max(texts, key=len)[:-1]] for prompt, texts in asked if texts])
    if (limit := alone_beyond(causal_lm(model).config)) and longest > limit:
        batch_tokens = 0
    to_read = [row for row, (_, candidates) in enumerate(asked) if candidates]
    measured = _reader(model, greedy) if to_read else None
    for rows in own_share(list(_batches(asked, to_read, batch_tokens))):
        assert measured is not None
        read |= zip(rows, measured([asked[row] for row in rows]), strict=True)
        if advance:
            advance(len(rows))
    here, read = len(read), put_together(read)
    if advance and here < len(read):
        advance(len(read) - here)
    return _in_order(read, asked)


@torch.inference_mode()
def likelihoods_behind(
    model: Any, begun: ReadPrompts, of_rows: Sequence[int], asked: Sequence[Asked], *, batch_tokens: int = 4096
) -> list[Likelihoods]:
    """The same of prompts that go on from beginnings that were read, here and whatever other processes read.

    Prompt i goes on from the beginning `of_rows[i]`, which stays as it is. Only of a model that `continues_cleanly`.
    """
    read, to_read = dict[int, _Sums](), [row for row, (_, candidates) in enumerate(asked) if candidates]
    for rows in _batches(asked, to_read, batch_tokens, before=begun.mask.shape[1]):
        behind = begun.of_rows([of_rows[row] for row in rows])
        read |= zip(rows, _read_once(model, False, [asked[row] for row in rows], behind), strict=True)
    return _in_order(read, asked)


def _in_order(read: Mapping[int, _Sums], asked: Sequence[Asked]) -> list[Likelihoods]:
    """What was read, by row, as likelihoods of every row; of one that was not read there are none."""
    return [
        Likelihoods(np.array(sums, np.float64), np.array(list(map(len, candidates)), np.int64), np.array(is_top, bool))
        for (sums, is_top), (_, candidates) in ((read.get(row, ([], [])), each) for row, each in enumerate(asked))
    ]


def _reader(model: Any, greedy: bool) -> Callable[[Sequence[Asked]], list[_Sums]]:
    if continues_cleanly(model):
        return partial(_read_once, model, greedy)
    kind = causal_lm(model).config.model_type
    warnings.warn(f"A {kind} model reads every prompt once for each choice: its cache cannot be shared.", stacklevel=3)
    return partial(_read_together, model, greedy)


def _read_once(model: Any, greedy: bool, asked: Sequence[Asked], behind: ReadPrompts | None = None) -> list[_Sums]:
    """The first token of a candidate follows from the prompt alone, the others from what continues it."""
    read = read_prompts(model, [prompt for prompt, _ in asked], behind)
    flat = [(row, list(candidate)) for row, (_, candidates) in enumerate(asked) for candidate in candidates]
    owners = torch.tensor([row for row, _ in flat], device=device_of(model))
    states = [read.last_states[owners]]
    long = [(row, candidate[:-1]) for row, candidate in flat if len(candidate) > 1]
    if long:
        states.append(continued_states(model, read, *map(list, zip(*long, strict=True))))
    ids = [candidate[0] for _, candidate in flat] + [token for _, candidate in flat for token in candidate[1:]]
    units = np.array([*range(len(flat)), *(i for i, (_, candidate) in enumerate(flat) for _ in candidate[1:])])
    return _sums(model, greedy, torch.cat(states), ids, units, asked)


def _read_together(model: Any, greedy: bool, asked: Sequence[Asked]) -> list[_Sums]:
    pairs = [(list(prompt), list(candidate)) for prompt, candidates in asked for candidate in candidates]
    # The last token predicts nothing that is asked for.
    states = whole_states(model, [prompt for prompt, _ in pairs], [candidate[:-1] for _, candidate in pairs])
    ids = [token for _, candidate in pairs for token in candidate]
    units = np.repeat(np.arange(len(pairs)), [len(candidate) for _, candidate in pairs])
    return _sums(model, greedy, states, ids, units, asked)


def _sums(
    model: Any, greedy: bool, states: torch.Tensor, ids: Sequence[int], units: np.ndarray, asked: Sequence[Asked]
) -> list[_Sums]:
    """The log-probabilities of tokens from the states [N, H] that predict them, summed by candidate."""
    head = head_of(model)
    states = states.to(head.weight.device)
    targets = torch.tensor(ids, device=states.device)
    count = sum(len(candidates) for _, candidates in asked)
    if greedy:
        losses, missed = _with_missed(states, head, targets)
        is_top = np.bincount(units, missed, minlength=count) == 0
    else:
        losses = hidden_losses(Prediction(), (states, head), None, targets).double().cpu().numpy()
        is_top = np.zeros(count, bool)
    each = iter(zip((-np.bincount(units, losses, minlength=count)).tolist(), is_top.tolist(), strict=True))
    pairs = [[next(each) for _ in candidates] for _, candidates in asked]
    return [([total for total, _ in own], [top for _, top in own]) for own in pairs]


def _with_missed(states: torch.Tensor, head: Head, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The losses of tokens, and whether another one is likelier, from the same logits, a chunk at a time."""
    rows = max(1, _LOGITS_BYTES // (4 * head.weight.shape[0]))
    losses, missed = list[torch.Tensor](), list[torch.Tensor]()
    for some, wanted in zip(states.split(rows), targets.split(rows), strict=True):
        logits_NV = head.logits(some)
        own = logits_NV.gather(-1, wanted[:, None]).squeeze(-1)
        losses.append(logits_NV.logsumexp(-1) - own)
        missed.append(logits_NV.argmax(-1) != wanted)
    return torch.cat(losses).double().cpu().numpy(), torch.cat(missed).double().cpu().numpy()


_LOGITS_BYTES = 64 * 2**20
"""Of one chunk."""


def _batches(asked: Sequence[Asked], to_read: Sequence[int], batch_tokens: int, before: int = 0) -> Iterator[list[int]]:
    """Indices, longest first: prompts of similar lengths together, and what does not fit in memory fails at once.

    `before`: tokens that stand before every prompt.
    """
    widths = {row: before + len(asked[row][0]) + max(map(len, asked[row][1])) for row in to_read}
    batch: list[int] = []
    for row in sorted(to_read, key=lambda row: (-widths[row], row)):
        rows = sum(len(asked[i][1]) for i in [*batch, row])
        if batch and rows * widths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
