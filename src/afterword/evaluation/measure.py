"""What a measure is: what it needs, what it measures with which unit and direction, and how a page shows it.

The one rule: values are compared within the unit that could have been drawn differently, a document, a question or a
sample. A measure gives one value for each, of both models in the same order, and never an average.

Nothing here imports torch: pages are written without it.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from afterword.corpus import Corpus
from afterword.data.windows import SpecialTokens
from afterword.errors import ConfigError
from afterword.evaluation.exam_files import Exam
from afterword.evaluation.question_file import Question
from afterword.evaluation.suites import Suite
from afterword.evaluation.task_loading import LoadedTasks
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.exams import AS_PUBLISHED as EXAMS
from afterword.types import Score, ShownAs

Numbers = Sequence[float] | np.ndarray
Need = Literal[
    "documents", "held_out", "general", "questions", "suite", "tasks", "reference", "retrieve", "kup", "bioasq"
]
"""What a measure cannot do without, by the setting that gives it."""
Kind = Literal["learned", "kept", "drift"]
"""What a measure shows: what was learned, or what was lost, by answers or by how far the model moved."""
Direction = Literal["lower", "higher"]
_ROUNDING = 1e-6
"""What a share may be beside 0 and 1 by the way it was computed."""
_PER_CENT = ("%", "percent", "per cent", "percentage")
SEARCHED = ("documents", "retrieve_from")
"""Parts of the documents that retrieval searches."""
VERSIONS = {"answering": 1, "exams": 1, "losses": 1, "questions": 3, "retrieval": 1, "tasks": 2}
"""Of what makes scores. Scores of different versions are not compared, nor taken for one another."""
UNITS = {
    "_nats": "nats per token",
    "_frac": "%",
    "bits_per_byte": "bits per byte",
    "_bits": "bits",
    "_tokens": "tokens",
    "_words": "words",
    "_seconds": "seconds",
    "_gib": "GiB",
}
"""What the end of a metric's name says of its unit; the first that fits."""


def unit_of(metric: str) -> str:
    """The unit in words that the end of a name stands for; empty where it carries none."""
    return next((unit for end, unit in UNITS.items() if metric.endswith(end)), "")


@dataclass(frozen=True, slots=True)
class Metric:
    """One quantity that a measure gives."""

    name: str
    """With the unit at its end (see UNITS): `_frac` is a share from 0 to 1, and printed in per cent."""
    label: str = ""
    """In words, for the page; empty: the name."""
    better: Direction | None = None
    """Which way is better; None: neither."""
    unit: str = ""
    """In words, where the name's end does not tell it. Per cent is none: that is how a share is shown."""
    meaning: str = ""
    """A sentence for the glossary of the page."""
    headline: int | None = 50
    """Its place among the few scores that head the page, the lowest first; of several with one place, a task shows the
    first. None: in the table of all scores only."""

    def __post_init__(self) -> None:
        """ConfigError for a direction, a place or a unit that is none."""
        if problems := [f"measures: metric {self.name!r}: {problem}" for problem in self._problems()]:
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        if self.better not in (None, *get_args(Direction)):
            yield f"better is {self.better!r}. Give 'higher' or 'lower', or None where neither is better."
        if self.headline is not None and type(self.headline) is not int:
            yield f"headline is {self.headline!r}. Give a whole number, the lowest stands first, or None."
        told = unit_of(self.name)
        if self.unit.lower() in _PER_CENT and told != "%":
            rule = "Per cent is how a share from 0 to 1 is shown"
            yield f"unit is {self.unit!r}. {rule}: let the name end in _frac, give such values, and no unit."
        elif self.unit and told and self.unit != told:
            yield f"unit is {self.unit!r}, but the end of the name says {told!r}. Leave unit out, or rename the metric."
        elif not self.unit and not told:
            ends = ", ".join(UNITS)
            yield f"its unit is not told. Let the name end in one of {ends}, or give unit='…' in words."


@dataclass(frozen=True)
class Models:
    """The reference M0 and the adapted model θ. A model alone is its own reference, with nothing to compare."""

    reference: Any
    adapted: Any | None
    tokenizer: Any
    special: SpecialTokens
    max_length: int
    """In tokens: what both models read at most."""
    micro_batch_tokens: int = 4096

    @property
    def are_two(self) -> bool:
        """Whether there is something to compare. Asking for it brings no model into memory."""
        return self.adapted is not None

    @property
    def sides(self) -> tuple[str, ...]:
        """Where there are values: a model alone stands where the adapted one would."""
        return ("before", "after") if self.are_two else ("after",)

    def of_side(self, side: str) -> Any:
        """The model of a side."""
        return self.adapted if self.are_two and side == "after" else self.reference

    @property
    def in_turns(self) -> bool:
        """Whether one of the two is in memory at a time: whichever was asked for last."""
        return False


@dataclass(frozen=True)
class Ahead:
    """What was written for several measures at once, before they were made; see `written_ahead`."""

    answers: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict[str, Mapping[str, Sequence[Any]]])
    """By setting and side, what was made of every question that is asked in it (`questions.Answered`)."""
    samples: Sequence[Any] | None = None
    """The reference's own (`generation.Sample`); None where they were not needed."""
    replies: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict[str, Sequence[Sequence[int]]])
    """By side, tokens that answer the first of these."""


@dataclass(frozen=True)
class Inputs:
    """What there is to measure on, read and drawn once for all measures."""

    model: str
    """Where the measured model is."""
    settings: EvaluateSettings
    documents: Mapping[str, Corpus] = field(default_factory=dict[str, Corpus])
    """By part: `documents` (trained), `held_out`, `general`, and `retrieve_from`, which is searched besides."""
    questions: Sequence[Question] = ()
    suite: Suite | None = None
    exams: Mapping[str, Exam] = field(default_factory=dict[str, Exam])
    tasks: LoadedTasks | None = None
    ahead: Ahead = Ahead()

    def has(self, need: Need) -> bool:
        """Whether it was given."""
        if need in ("documents", "held_out", "general"):
            return need in self.documents
        given = {"questions": self.questions, "suite": self.suite, "tasks": self.tasks}
        given |= {name: name in self.exams for name in EXAMS}
        return bool(given[need] if need in given else getattr(self.settings, need))


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One metric of both models: a value for each unit, in the same order before and after. None: not measured."""

    metric: str
    before: Numbers | None = None
    after: Numbers | None = None
    per: Numbers | None = None
    """What values are divided by, sum by sum, as a loss by the bytes of each text. None: the mean is meant."""
    units: Sequence[Hashable] | None = None
    """By any name, where several values are of one unit; they are resampled together. None: each is its own."""
    task: str = ""
    """For a measure of several tasks, such as skills; empty: the measure's name."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measure found."""

    values: Sequence[Values] = ()
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of all values: decoding, prompt, seed; what is needed to repeat the measurement."""
    answers: Sequence[Row] = ()
    """Rows of scores.json for whoever wants to see what was answered."""
    samples: Sequence[Row] = ()
    notes: Sequence[str] = ()
    scores: Sequence[Score] = ()
    """Of a harness that makes its own intervals."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A thing that is measured before and after, from what it needs to its rows on the page."""

    name: str
    """`task` of its scores, as `learning/trained`. A measure of several tasks is named by the word they begin with."""
    label: str = ""
    """In words, for the page; empty: the task's own name."""
    shows: Kind
    """Under which heading its headline stands: what was learned, or what was lost."""
    metrics: tuple[Metric, ...] = ()
    measure: Callable[[Models, Inputs], Measured]
    """Both models on the inputs. See `of_each_model` where each is measured alone."""
    needs: tuple[Need, ...] = ()
    pairs_by: str = "document"
    """What a value is of, in one word: the unit that before and after are paired by."""
    version: int = 1
    """Of the definition. Scores of different versions are not compared."""
    in_verdict: bool = False
    """Of a measure that does not come with the package: whether its shares of which more is better count in the
    verdict, as points that were learned or kept."""

    def __post_init__(self) -> None:
        """ConfigError, with every problem, for fields that are not what they must be."""
        if problems := [f"measures: {self.name!r}: {problem}" for problem in self._problems()]:
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        if self.shows not in get_args(Kind):
            kinds = ", ".join(get_args(Kind))
            yield f"shows is {self.shows!r}. Give one of {kinds}; how it is called on a page is its label."
        if isinstance(self.needs, str):
            yield f"needs is the text {self.needs!r}. Give a tuple: needs=({self.needs!r},)."
        elif unknown := [need for need in self.needs if need not in get_args(Need)]:
            known = ", ".join(get_args(Need))
            yield f"needs {', '.join(map(repr, unknown))}, which no setting gives. Give some of {known}, or ()."
        counted = (each.name for each in self.metrics if each.better == "higher" and each.name.endswith("_frac"))
        if self.in_verdict and (self.shows == "drift" or not any(counted)):
            rule = "What counts there is a share (_frac) of which more is better, learned or kept"
            yield f"in_verdict is set, and nothing of it can count. {rule}. Declare one, or leave in_verdict out."

    def shown_as(self, metric: str, task: str = "") -> ShownAs:
        """How a score of it is shown."""
        found = next((each for each in self.metrics if each.name == metric), None)
        called = self.label or (task or self.name).removeprefix(f"{self.name}/")
        if found is None:  # The harness names the metrics of its tasks.
            place = None if self.metrics else 99
            return ShownAs(task=called, metric=metric, unit=unit_of(metric), shows=self.shows, headline=place)
        return ShownAs(
            task=called,
            metric=found.label or metric,
            unit=found.unit or unit_of(metric),
            shows=self.shows,
            headline=found.headline,
            meaning=found.meaning,
            in_verdict=self.in_verdict,
        )

    def scores(self, found: Measured) -> list[Score]:
        """What was found as scores: means or ratios, and paired changes, with their intervals.

        ConfigError where the values are not one finite number for each unit, the same units before and after, or of a
        share not from 0 to 1.
        """
        own = [replace(score, shown=self.shown_as(score.metric, score.task)) for score in found.scores]
        return [*(self._score(values, found.details) for values in found.values), *own]

    def _score(self, values: Values, details: Mapping[str, Any]) -> Score:
        # scipy takes a second to import, and a page needs none of it.
        from afterword.evaluation.intervals import before_and_after

        metric = next((each for each in self.metrics if each.name == values.metric), None)
        if problem := self._problem(metric, values):
            raise ConfigError(f"measures: {self.name!r} {problem}.")
        assert metric, "just looked at"
        given = values.after if values.after is not None else values.before
        return Score(
            task=values.task or self.name,
            metric=metric.name,
            version=self.version,
            n=0 if given is None else len(given),
            better=metric.better,
            details={**details, **values.details, **_shared(values.units)},
            shown=self.shown_as(metric.name, values.task),
            **before_and_after(values.before, values.after, values.per, units=values.units),
        )

    def _problem(self, metric: Metric | None, values: Values) -> str:
        """What is wrong with values that somebody's measure gave; empty where nothing is."""
        if metric is None:
            declared = ", ".join(each.name for each in self.metrics) or "none"
            return f"gave {values.metric!r}, which its metrics do not declare ({declared}). Declare it"
        sides = {"before": values.before, "after": values.after, "per": values.per}
        given = {side: np.asarray(of, dtype=np.float64) for side, of in sides.items() if of is not None}
        if len({array.shape for array in given.values()}) > 1 or any(a.ndim != 1 or not a.size for a in given.values()):
            sizes = ", ".join(f"{side}: shape {array.shape}" for side, array in given.items())
            return f"gave {metric.name} as {sizes}. Give one number for each {self.pairs_by}, on both sides the same"
        if not all(np.isfinite(array).all() for array in given.values()):
            return f"gave a {metric.name} that is not a finite number. Leave out, on both sides, what has no value"
        if metric.name.endswith("_frac") and values.per is None and given:
            all_given = np.concatenate(list(given.values()))
            outside = all_given[(all_given < -_ROUNDING) | (all_given > 1 + _ROUNDING)]
            if outside.size:
                rule = "A share is between 0 and 1; per cent is shown of it"
                return f"gave a {metric.name} of {outside[0]:g}. {rule}. Divide by the whole, or name it by its unit"
        return ""


def _shared(units: Sequence[Hashable] | None) -> dict[str, int]:
    """How many units an interval is over, where several values are of one."""
    count = len(set(units or ()))
    return {"units": count} if units and count < len(units) else {}


def of_each_model(values: Callable[[Any, Any, Inputs], Mapping[str, Numbers]]) -> Callable[[Models, Inputs], Measured]:
    """A measure of both models from one of a single model: `(model, tokenizer, inputs)` → values by metric."""

    def measured(models: Models, inputs: Inputs) -> Measured:
        """Both sides of every metric; no side after where there is no adapted model."""
        before = values(models.reference, models.tokenizer, inputs)
        nothing: Mapping[str, Numbers] = {}
        after = nothing if not models.are_two else values(models.adapted, models.tokenizer, inputs)
        return Measured([Values(metric=name, before=before[name], after=after.get(name)) for name in before])

    return measured
