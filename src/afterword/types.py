"""The nouns that travel between folders.

Shape letters, the same in every file of afterword:
    B  sequences (rows) in a micro-batch    T  positions in a row
    V  vocabulary size                      H  hidden size
    N  trained positions of a micro-batch, flattened in row order

The shift between "a position" and "the token it predicts" happens once, in `Segment`: position t of a
view predicts the token at t + 1, and `target_ids` holds that token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Document:
    """One text to be learned, as it was read."""

    id: str
    text: str
    title: str | None = None
    date: str | None = None
    source: str = ""
    """Where it came from: a file, or a data-set id. Losses and counts are reported per source."""
    dialogue: str | None = None
    """The conversation that `text` renders, as `Dialogue.to_json` gives it. None where it is only a text."""
    section: str | None = None
    """Where in a larger whole it stands: a chapter, a sheet. None where the text is the whole."""
    passages: str | None = None
    """What is trained in place of `text`, as `passages_to_json` gives it. None where the text itself is."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that is trained, and what each side reads before it, which is not."""

    text: str
    student_before: str = ""
    teacher_before: str = ""
    """Of several passages of a document, what they begin with alike is read once."""
    ended: bool = False
    """Whether the text came to its own end: then what ends it is trained, too (`data/passages.py` says which token)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a text is drawn."""

    max_new_tokens: int
    temperature: float = 1.0
    """0: the likeliest token, always."""
    top_p: float = 1.0
    """Of the likeliest tokens, those that this much of the probability is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """That the student writes the passages of a document itself, as it learns."""

    steps: int
    """Optimizer steps after which it writes them anew."""
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something to be written: the reply to a conversation, or what goes on from a text."""

    sampling: Sampling
    turns: tuple[tuple[str, str], ...] = ()
    """(role, content), by the model's chat template; what a document writes out is never a control token."""
    text: str = ""
    """Gone on from as it stands, where there are no turns."""
    seed: int = 0
    """Two requests that differ in it alone are drawn independently."""
    about: str = ""
    """What a record says of it: the document, and the prompt with its version. Changes nothing that is written."""
    other_turns: tuple[tuple[str, str], ...] = ()
    """Where there are some, only a `share` of the tokens is written after `turns`, and the rest after these."""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for a request."""

    text: str
    ended: bool
    """Whether it came to its own end; else it was cut at `max_new_tokens`."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row or document that was not used, and why. Nothing is dropped without one of these."""

    source: str
    location: str
    """`line 12`, `row 3`, or a document id."""
    reason: str
    """One of a few words that counts are kept by: empty, duplicate, undecodable, broken, too_short."""
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PassageIds:
    """A passage as tokens, with BOS before it where it has one."""

    ids: np.ndarray  # [n] int64, the text, and what ends it
    student_before: np.ndarray  # [s] int64
    teacher_before: np.ndarray  # [t] int64


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A document, or a piece of it that fits the context: tokens, cut into sentences.

    A document longer than the context is read in overlapping windows at sentence boundaries; each counts
    as a document of its own. Sentences before `first_new_sentence` were trained in the window before and
    are context only.
    """

    index: int
    """Row in the prepared data. Seeds every draw made for this window."""
    document: str
    source: int
    """Position of the document's source among the corpus's sources."""
    token_ids: np.ndarray  # [n] int64, without BOS or EOS
    sentence_starts: np.ndarray  # [m] int64, offsets into token_ids; the first is 0
    first_new_sentence: int
    is_document_end: bool
    anchor_ids: np.ndarray  # [a] int64, the title as the document's own tokens; empty when not asked for
    passage_lengths: np.ndarray = field(default_factory=lambda: _no_ids())
    # [3p] int64, tokens of each passage's student_before, text and teacher_before; then `token_ids` is what the student
    # reads of all of them, one after the other
    teacher_before_ids: np.ndarray = field(default_factory=lambda: _no_ids())  # [·] int64, of all of them

    @property
    def passages(self) -> tuple[PassageIds, ...]:
        """What is trained in place of the document's text, where the document has passages."""
        found: list[PassageIds] = []
        read = taught = 0
        for student, text, teacher in self.passage_lengths.reshape(-1, 3).tolist():
            start, end = read + student, read + student + text
            befores = self.token_ids[read:start], self.teacher_before_ids[taught : taught + teacher]
            found.append(PassageIds(self.token_ids[start:end], *befores))
            read, taught = end, taught + teacher
        return tuple(found)

    @property
    def first_new_token(self) -> int:
        """Offset of the first token that was not in the window before."""
        return int(self.sentence_starts[self.first_new_sentence])

    def sentence(self, i: int) -> tuple[int, int]:
        """Token offsets [start, end) of sentence i."""
        starts = self.sentence_starts
        end = starts[i + 1] if i + 1 < len(starts) else len(self.token_ids)
        return int(starts[i]), int(end)


def _no_ids() -> np.ndarray:
    import numpy as np

    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One sequence that the student reads, and the positions of it that are trained."""

    student_ids: np.ndarray  # [t] int64
    student_positions: np.ndarray  # [n] int64; position p predicts student_ids[p + 1]
    teacher_positions: np.ndarray  # [n] int64; the teacher's position that predicts the same token
    target_ids: np.ndarray  # [n] int64, the gold next tokens
    weights: np.ndarray  # [n] float32, the averaging rule; see Batch.weights
    teacher_rows: Tensor | None = None  # [n, ·], where what the teacher says comes from a cache; see Batch.teacher_rows
    teacher_ids: np.ndarray | None = None
    """[u] int64, what the teacher reads for this segment alone, after what it reads for all of the example;
    `teacher_positions` count from where that begins. None: nothing more."""

    @property
    def alone(self) -> np.ndarray:
        """[u] int64, the same, empty where it is nothing more."""
        return _no_ids() if self.teacher_ids is None else self.teacher_ids


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What one window becomes: what the teacher reads, and the student segments aligned with it."""

    document: str
    source: int
    teacher_ids: np.ndarray | None  # [t] int64, what it reads for all segments; None where the method has no teacher
    segments: tuple[Segment, ...]
    term: int = 0
    """Which of the method's terms it is for."""


@dataclass(frozen=True, slots=True, eq=False)
class InputRows:
    """The rows that one side reads. Packed: B = 1, `position_ids` restart at 0, no attention mask."""

    input_ids: Tensor  # [B, T] int64
    position_ids: Tensor  # [B, T] int64
    attention_mask: Tensor | None  # [B, T] int64, only where rows are padded
    trained: Tensor  # [N] int64, indices into the flattened [B * T]
    tokens: int
    """Real tokens in `input_ids`, counted on the CPU so that reading it costs no synchronisation."""

    @property
    def padding(self) -> int:
        """The rest of `input_ids`."""
        return self.input_ids.numel() - self.tokens


@dataclass(frozen=True, slots=True, eq=False)
class SharedRows:
    """Texts of which several begin alike, to be read only: every beginning once, and what follows it, each a row."""

    beginning_ids: Tensor  # [P, S] int64, padded on the left
    beginning_mask: Tensor  # [P, S] int64
    follows: Tensor  # [B] int64, which beginning a row follows
    input_ids: Tensor  # [B, T] int64, padded on the right
    attention_mask: Tensor  # [B, T] int64
    trained: Tensor  # [N] int64, indices into the flattened [B, 1 + T]: before a row is the last token of its beginning
    tokens: int
    """Real tokens of beginnings and rows, each beginning counted once."""
    rows_at_once: int
    """How many rows are read at a time: each has the keys and values of its beginning beside its own."""

    @property
    def padding(self) -> int:
        """The rest of what is read."""
        return self.beginning_ids.numel() + self.input_ids.numel() - self.tokens


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One micro-batch: student and teacher views, aligned position by position."""

    student: InputRows
    teacher: tuple[InputRows | SharedRows, ...]
    """What a teacher reads, one view after the other: their trained positions together are the student's, in order."""
    target_ids: Tensor  # [N] int64
    weights: Tensor  # [N] float32
    """Carry every averaging rule. Their sum over the whole optimizer step divides the loss, once."""
    sources: Tensor  # [N] int64
    sequences: Tensor  # [N] int64, which of the student's rows or packed sequences a position is in
    term: int
    """Which of the method's terms all of it is for."""
    total_weight: float
    """Sum of `weights`, counted on the CPU."""
    documents: tuple[str, ...]
    teacher_rows: Tensor | None = None
    """[N, ·], what a cache holds of the teacher at these positions: then `teacher` is empty."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval (None where it cannot be had, as for a single value)."""

    value: float
    interval_95: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownAs:
    """How a page shows a score. It travels with the score, so that a page needs nothing of what measured it."""

    task: str
    """What was measured on, in words."""
    metric: str
    """The quantity, in words."""
    unit: str
    """In words; `%` for shares."""
    shows: str = "kept"
    """`learned`, `kept` or `drift`: under which heading its headline stands."""
    headline: int | None = None
    """Its place among the few scores that head a page, the lowest first; None: in the table of all scores only."""
    meaning: str = ""
    """A sentence for the glossary."""
    in_verdict: bool = False
    """Whether it counts in the verdict, of a measure that does not come with the package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One measured quantity, before and after adaptation. `before` or `after` is None where not measured."""

    task: str
    """What was measured on: `learning/trained`, `questions/closed_book`, `drift/own_samples`, …"""
    metric: str
    """Quantity with its unit in the name: `nll_nats`, `exact_match_frac`, `bits_per_byte`, …"""
    version: int
    """Of the measure's definition. Scores of different versions are not compared."""
    n: int
    """What was measured: documents, questions, samples. Where several are about one thing, `details["units"]` says how
    many independent units the interval is over; else it is over these."""
    seeds: int = 1
    before: Estimate | None = None
    after: Estimate | None = None
    change: Estimate | None = None
    """after − before, paired over the same units."""
    better: str | None = None
    """`lower`, `higher`, or None where neither is better."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Decoding, prompt, template: what is needed to repeat the measurement."""
    shown: ShownAs | None = None
    """None: by its names."""
