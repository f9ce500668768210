"""Window → Example: what student and teacher read, and the positions at which both predict the same token.

The shift from a position to the token that it predicts happens in `segment` and nowhere else. Split contexts are
from Padmanabhan et al. 2026, arXiv:2602.16093: all six strategies of the paper's code, and two of ours.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

import numpy as np

from afterword.data.windows import SpecialTokens
from afterword.method_options import Averaging, Bos, Join, Strategy, SuffixTokens, Targets
from afterword.types import Document, Example, Request, Rewriting, Segment, Window, Written

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STRATEGIES: tuple[str, ...] = get_args(get_args(Strategy)[0])
MIN_TARGET_TOKENS = 2
"""A target needs a token to predict and one to predict it from."""
MIN_WINDOW_TOKENS = 4
"""Token strategies skip anything shorter."""
Span = tuple[int, int]


class Writer(Protocol):
    """What writes for a view before training. Nothing that it has written is written again."""

    @property
    def model(self) -> "PreTrainedModel":
        """The model that is taught, as it was given: in eval mode, without gradients; also where another one writes."""
        ...

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Of the model that is taught."""
        ...

    def write(self, requests: Sequence[Request], what: str) -> list[Written]:
        """A text for each request, in their order. `what` names them in the progress: `rephrasings`."""
        ...


@dataclass(frozen=True, kw_only=True)
class View:
    """How a window becomes an example. Views are frozen dataclasses of this kind; their fields are settings."""

    join: Join = "document"
    """How sentences are tokenised."""
    bos: Bos = "auto"
    """Whether what is read begins with BOS."""
    averaging: Averaging = "document"
    """Whether documents or positions count alike."""
    needs_eos: bool = False
    """Whether documents end with EOS."""

    @property
    def anchored(self) -> bool:
        """Whether windows must carry the document's title."""
        return False

    @property
    def reads_passages(self) -> bool:
        """Whether windows carry the passages of a document, where it has some, in place of its text."""
        return False

    @property
    def writes(self) -> bool:
        """Whether it has a `prepare` of its own."""
        return type(self).prepare is not View.prepare

    @property
    def takes_parts(self) -> bool:
        """Whether `prepare` is given documents that are long for the context in parts."""
        return False

    @property
    def chooses_tokens(self) -> bool:
        """Whether the texts that `prepare` asks for are chosen token by token here, as no other program can do it."""
        return False

    @property
    def rewriting(self) -> Rewriting | None:
        """Whether the student writes passages anew as it learns; None: what `prepare` gave stays."""
        return None

    @property
    def follows_student(self) -> float:
        """Share of the student's weights that the teacher takes on after every step; 0: it stays as it was."""
        return 0.0

    def prepare(self, writer: Writer, documents: Iterable[Document]) -> Iterable[Document]:
        """The documents that are trained in place of those that were given: these as they are, unless it is overridden.

        Called once, before there are windows, on the main process. A run that is resumed asks for the same documents
        again, and gets the same. The id of a document that is written begins with that of the one that it comes from,
        and its source is the same.
        """
        return documents

    def skip_reason(self, window: Window) -> str | None:
        """Why a window can never be trained under this view, or None. Such windows are counted, not trained."""
        raise NotImplementedError

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """The example of one window in one epoch."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class WholeDocument(View):
    """BOS, the document, EOS after its end; every token but the first is trained, EOS included.

    In a later window of a long document the overlap is context: read, not trained.
    """

    needs_eos: bool = True

    def skip_reason(self, window: Window) -> str | None:
        """A document of one token and no BOS still predicts its EOS, so only an empty one is skipped."""
        return None if len(window.token_ids) else "too_short"

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """No draw is made: every epoch reads the same."""
        # Text that a chat template rendered brings its own end.
        eos = [special.eos_id] if window.is_document_end and special.eos_id is not None else []
        ids = np.concatenate([special.bos_ids, window.token_ids, eos]).astype(np.int64)
        # It predicts the first token that is new; position 0 of the view is never a target.
        first = max(0, len(special.bos_ids) + window.first_new_token - 1)
        return Example(window.document, window.source, ids, (segment(ids, first, first, self.averaging),))


@dataclass(frozen=True, kw_only=True)
class SplitContext(View):
    """The view of DiSC: the student reads a piece of the document alone, the teacher the document up to its end."""

    strategy: Strategy = "sentence"
    targets: Targets = 5
    """k, how many targets are drawn from a document. `middle` and `all` do not read it."""
    suffix_tokens: SuffixTokens | None = None
    """Length of a `random_token_suffix` target in tokens; None: to the end of the document."""

    @property
    def anchored(self) -> bool:
        """Whether student segments begin with the title."""
        return self.strategy == "anchor"

    def skip_reason(self, window: Window) -> str | None:
        """Why this window can never give a target, or None."""
        by_sentence = self.strategy in _SENTENCE_DRAWS
        if by_sentence and len(window.sentence_starts) < 2:
            return "one_sentence"
        long_enough = by_sentence or len(window.token_ids) >= MIN_WINDOW_TOKENS
        return None if long_enough and self._possible(window) else "too_short"

    def build(self, window: Window, special: SpecialTokens, rng: np.random.Generator) -> Example:
        """Draw this epoch's targets and align them. One teacher view serves them all."""
        # The paper's draw can hit short sentences only; then the last sentence that is long enough is the
        # target, so that no document passes through an optimizer step without effect. Ours.
        spans = _long_enough(self._drawn(window, rng)) or self._possible(window)[-1:]
        bos, ids = np.array(special.bos_ids, np.int64), window.token_ids
        prefix = np.append(bos, window.anchor_ids) if self.anchored else bos
        # A target's first token is never trained: alone, the student has nothing to predict it from (METHODS §1.3).
        segments = tuple(
            segment(np.append(prefix, ids[start:end]), len(prefix), len(bos) + start, self.averaging, len(spans))
            for start, end in spans
        )
        # Nothing after the last target is read by anyone.
        teacher_ids = np.append(bos, ids[: max(end for _, end in spans)])
        return Example(window.document, window.source, teacher_ids, segments)

    def _possible(self, window: Window) -> list[Span]:
        """Spans that are new and long enough: sentences, or for token strategies everything that is new."""
        if self.strategy in _SENTENCE_DRAWS:
            first, n = max(1, window.first_new_sentence), len(window.sentence_starts)
            return _long_enough([window.sentence(i) for i in range(first, n)])
        return _long_enough([(max(1, window.first_new_token), len(window.token_ids))])

    def _drawn(self, window: Window, rng: np.random.Generator) -> list[Span]:
        if draw := _SENTENCE_DRAWS.get(self.strategy):
            drawn = draw(window.first_new_sentence, len(window.sentence_starts), self.targets, rng)
            return [window.sentence(i) for i in drawn]
        end = len(window.token_ids)
        starts = _TOKEN_DRAWS[self.strategy](window.first_new_token, end, self.targets, rng)
        if self.strategy == "random_token_suffix":
            return [(start, min(start + (self.suffix_tokens or end), end)) for start in starts]
        return list(zip(starts, [*starts[1:], end], strict=True))


def segment(
    ids: np.ndarray,
    first: int,
    teacher_first: int,
    averaging: Averaging,
    targets: int = 1,
    teacher_ids: np.ndarray | None = None,
) -> Segment:
    """Ids that the student reads and is trained on from position `first` to their end.

    The teacher predicts the same tokens from its position `teacher_first` on; `teacher_ids` it reads for them alone.
    Weights by `document`: a mean over positions of a mean over `targets`, so a document weighs 1 in all. By `token`:
    every position weighs 1.
    """
    positions = np.arange(first, len(ids) - 1)
    weight = 1.0 if averaging == "token" else 1.0 / (targets * len(positions))
    weights = np.full(len(positions), weight, np.float32)
    taught = positions - first + teacher_first
    return Segment(ids, positions, taught, ids[positions + 1], weights, teacher_ids=teacher_ids)


def scored_text(unit: int, ids: np.ndarray, first: int) -> Example:
    """Ids whose tokens are predicted from offset `first` on, as one unit: what comes before them is context."""
    read = segment(ids, max(1, first) - 1, max(1, first) - 1, "token")
    return Example(str(unit), unit, None, (read,))


def _long_enough(spans: list[Span]) -> list[Span]:
    return [(start, end) for start, end in spans if end - start >= MIN_TARGET_TOKENS]


# Draws of k targets from the sentences or tokens 0 … n − 1. Those before `new` are context, and 0 is never a target.


def _random(new: int, n: int, k: int, rng: np.random.Generator) -> list[int]:
    """The last sentence always, and k − 1 distinct ones from all; the last may be among those."""
    candidates = np.arange(max(1, new), n)
    return sorted({n - 1, *rng.choice(candidates, min(k - 1, len(candidates)), replace=False).tolist()})


def _middle(new: int, n: int, k: int, rng: np.random.Generator) -> list[int]:
    return [max(1, new + (n - new) // 2)]


def _uniform(new: int, n: int, k: int, rng: np.random.Generator) -> list[int]:
    # With nothing before it, first = 1 and this is the paper's max(1, round((n − 1) / k' · j)).
    first, k = max(1, new), min(k, n - max(1, new))
    return sorted({first - 1 + max(1, round((n - first) / k * j)) for j in range(1, k + 1)})


def _all(new: int, n: int, k: int, rng: np.random.Generator) -> list[int]:
    return list(range(max(1, new), n))


def _random_tokens(new: int, n: int, k: int, rng: np.random.Generator) -> list[int]:
    """k' = min(k, N − 2) distinct positions from 1 … N − 2, among the tokens that are new."""
    candidates = np.arange(max(1, new), n - 1)
    return sorted(rng.choice(candidates, min(k, len(candidates)), replace=False).tolist())


def _uniform_tokens(new: int, n: int, k: int, rng: np.random.Generator) -> list[int]:
    k = max(1, min(k, n - new - 2))
    return sorted({new + max(1, round((n - new) / (k + 1) * j)) for j in range(1, k + 1)})


_SENTENCE_DRAWS = {"sentence": _random, "middle": _middle, "uniform_sentence": _uniform, "all": _all, "anchor": _random}
_TOKEN_DRAWS = {"random_token": _random_tokens, "uniform_token": _uniform_tokens, "random_token_suffix": _random_tokens}
