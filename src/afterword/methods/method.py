"""What a method is: a declaration. No loop, no model, no file is touched in this folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from afterword.data import View, WholeDocument
from afterword.errors import ConfigError, nearest
from afterword.method_options import ReplayDocuments, ReplayWeight
from afterword.objectives import Distillation, Objective, Prediction, SelfDistillation, forward_kl, reverse_kl

REPLAYS: dict[str, Objective] = {
    "prediction": Prediction(),
    "kl": Distillation(forward_kl),
    "reverse_kl": Distillation(reverse_kl),
    "swap": SelfDistillation(),
}
"""What `replay`, or the `objective` of one source, can do with general text."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """An objective of its own for general text, which is read whole; every token weighs the same."""

    objective: Objective
    weight: ReplayWeight = 1.0
    """Factor beside the loss of the documents. Each of the two is divided by its own count."""
    documents: ReplayDocuments = 0.0
    """Factor of an objective on the documents, read whole; 0: none. Windows that the method's own view cannot train
    are skipped for both."""
    on_documents: Objective | None = None
    """That objective, with settings of its own; None: the same as for general text."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Of the documents, where it is another, and of general text, which alone a person's settings change."""
        return (self.objective,) if self.on_documents is None else (self.on_documents, self.objective)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a step's loss: whose text, what is read of it, how the student moves, with which factor."""

    view: View
    objective: Objective
    weight: float = 1.0
    documents: bool = False
    """Whether it is of the documents."""
    sources: tuple[str, ...] = ()
    """The sources of general text that it is of."""

    def reads(self, source: str | None) -> bool:
        """Whether it is of a source of general text; None: of the documents."""
        return self.documents if source is None else source in self.sources


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of teaching documents: what student and teacher read, and how the student moves."""

    name: str
    summary: str
    paper: str
    view: View
    objective: Objective
    mixes: bool = False
    """Whether general text is treated as documents are: one view, one objective, one count."""
    replay: Replay | None = None
    """What is done with general text otherwise; None: nothing, and a run with some must say."""
    sources: Mapping[str, Replay] = field(default_factory=dict[str, Replay])
    """Sources of general text, by name, with an objective of their own instead of the method's."""
    general_tokens: float | None = None
    """Share of all tokens that is general text of which a person does not say how much; None: it must be said."""
    own_samples: float | None = None
    """Share of all tokens that is text of the model's own, where a person gives no general text; None: none."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of TrainingArguments as the method's authors set them. They win over the Trainer's own defaults;
    what a person sets wins over both."""
    decay_all_parameters: bool = False
    """Weight decay on norms and biases too, which the Trainer leaves out."""
    deviations: str = ""
    """Where we do something else than the paper, in one sentence each."""

    @property
    def takes_general_text(self) -> bool:
        """Whether it says what to do with general text."""
        return self.mixes or self.replay is not None

    @property
    def remark(self) -> str:
        """What a person should know of these settings; empty where there is nothing."""
        whole = isinstance(self.view, WholeDocument)
        if whole and isinstance(self.objective, SelfDistillation) and not self.objective.needs_teacher:
            return "At alpha = 1 nothing is distilled and no teacher is read: this is continual pre-training."
        return ""

    def needs_teacher(self, *, general: Collection[str]) -> bool:
        """Whether any of its terms reads a teacher, with these sources of general text."""
        return any(term.objective.needs_teacher for term in self.terms(general=general))

    def problem_with(self, *, general: Collection[str]) -> str | None:
        """Why this method cannot run with these sources of general text, or with none; None where it can."""
        known = ", ".join(REPLAYS)
        if unknown := [name for name in self.sources if name not in general]:
            return f"mixture.{unknown[0]}: has an objective, and there is no such source. Known: {', '.join(general)}."
        if self._following(general) and not self.takes_general_text:
            problem = f"mixture: the method {self.name} says nothing of general text. Set replay to one of {known}"
            return f"{problem}, or every source's objective."
        if self.replay and self.replay.documents and self.view.reads_passages:
            problem = f"replay_documents: reads documents whole, and {self.name} trains what is written about them"
            return f"{problem}. Leave it out; a mixture can have the documents as a source."
        if self.replay and not general and not self.replay.documents:
            problem = f"mixture: missing, and the method {self.name} is set to replay general text"
            return f"{problem}. Give a mixture, or set replay_documents to replay on the documents."
        return None

    def terms(self, *, general: Collection[str]) -> tuple[Term, ...]:
        """The summands of a step's loss, with these sources of general text."""
        following, whole = self._following(general), self._whole
        mixed = following if self.mixes and not self.replay else ()
        own = Term(view=self.view, objective=self.objective, documents=True, sources=mixed)
        of_sources = (
            Term(view=whole, objective=each.objective, weight=each.weight, sources=(name,))
            for name, each in self.sources.items()
        )
        return (own, *self._replayed(following), *of_sources)

    def _following(self, general: Collection[str]) -> tuple[str, ...]:
        """The sources without an objective of their own."""
        return tuple(name for name in general if name not in self.sources)

    @property
    def _whole(self) -> WholeDocument:
        return WholeDocument(join=self.view.join, bos=self.view.bos, averaging="token")

    def _replayed(self, following: tuple[str, ...]) -> Iterator[Term]:
        if self.replay is None:
            return
        general, documents = self.replay.objectives[-1], self.replay.objectives[0]
        if following and self.replay.weight:
            yield Term(view=self._whole, objective=general, weight=self.replay.weight, sources=following)
        if self.replay.documents:
            yield Term(view=self._whole, objective=documents, weight=self.replay.documents, documents=True)

    def settings(self) -> dict[str, Any]:
        """The settings of this method and their values: the fields of its view, its objective and its replay.

        Those of an objective of its own on the documents are among them, and are not for a person to change.
        """
        parts: tuple[Any, ...] = (self.view, self.objective)
        return {name: getattr(part, name) for part in parts for name in _settable(part)} | self._replay_settings()

    def _replay_settings(self) -> dict[str, Any]:
        if self.replay is None:
            return {}
        own = {name: getattr(part, name) for part in self.replay.objectives for name in _settable(part)}
        own |= {"weight": self.replay.weight, "documents": self.replay.documents}
        return {f"replay_{name}": value for name, value in own.items()}

    def configured(self, *, replay: str | None = None, **settings: Any) -> Method:
        """This method with some of its settings changed. A setting that it does not have is a ConfigError.

        `replay` names what is done with general text: one of REPLAYS. A method with an objective of its own for that
        keeps it for `replay_documents`, so that the combination with it can be asked for, too.
        """
        if replay is not None and replay not in REPLAYS:
            raise ConfigError(
                f"replay: {replay!r} is not known. {nearest(replay, REPLAYS)}Known: {', '.join(REPLAYS)}."
            )
        declared = self.replay.objective if self.replay else None
        given = None if replay is None else Replay(objective=REPLAYS[replay], on_documents=declared)
        chosen = self if given is None else replace(self, replay=given)
        known = sorted(chosen.adjustable())
        if unknown := [name for name in settings if name not in known]:
            raise ConfigError(
                f"{name}: {settings[name]!r} has no meaning for {self.name}. {nearest(name, known) or 'Leave it out. '}"
                f"Settings of {self.name}: {', '.join(known)}."
                for name in unknown
            )
        return chosen._changed(settings)

    def with_sources(self, chosen: Mapping[str, tuple[str, float]]) -> Method:
        """This method with an objective of its own for some sources of general text: one of REPLAYS, and its factor.

        They are read whole, as in a replay; each is divided by its own count. An unknown objective is a ConfigError.
        """
        if wrong := {name: given for name, (given, _) in chosen.items() if given not in REPLAYS}:
            known = f"Known: {', '.join(REPLAYS)}."
            raise ConfigError(
                f"mixture.{name}.objective: {given!r} is not known. {nearest(given, REPLAYS)}{known}"
                for name, given in wrong.items()
            )
        own = {name: Replay(objective=REPLAYS[given], weight=weight) for name, (given, weight) in chosen.items()}
        return replace(self, sources={**self.sources, **own})

    def adjustable(self) -> set[str]:
        """Settings that a person can change: all but those of an objective of its own on the documents."""
        if self.replay is None or self.replay.on_documents is None:
            return set(self.settings())
        kept = set(_settable(self.replay.on_documents)) - set(_settable(self.replay.objective))
        return set(self.settings()) - {f"replay_{name}" for name in kept}

    def _changed(self, settings: Mapping[str, Any]) -> Method:
        replay, ours = self.replay, {n[7:]: value for n, value in settings.items() if n.startswith("replay_")}
        if replay is not None:
            factors = {name: ours[name] for name in ("weight", "documents") if name in ours}
            replay = replace(replay, objective=_changed(replay.objective, ours), **factors)
        view, objective = _changed(self.view, settings), _changed(self.objective, settings)
        return replace(self, view=view, objective=objective, replay=replay)


_DECLARED = {"divergence", "needs_teacher", "needs_eos", "anchored", "step_temperature"}
"""Fields that make a method what it is; a person does not set them."""


def _settable(part: Any) -> list[str]:
    return [item.name for item in fields(part) if item.name not in _DECLARED]


def _changed(part: Any, settings: Mapping[str, Any]) -> Any:
    return replace(part, **{name: settings[name] for name in _settable(part) if name in settings})
