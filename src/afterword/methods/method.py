"""What a method is: a declaration. No loop, no model, no file is touched in this folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from afterword.errors import ConfigError, nearest
from afterword.objectives import Distillation, Objective, Prediction, SelfDistillation, forward_kl, reverse_kl
from afterword.views import ViewBuilder, WholeDocument

REPLAYS: dict[str, Objective] = {
    "prediction": Prediction(),
    "kl": Distillation(forward_kl),
    "reverse_kl": Distillation(reverse_kl),
    "swap": SelfDistillation(),
}
"""What `replay` can do with general text."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """An objective of its own for general text, which is read whole; every token weighs the same."""

    objective: Objective
    weight: float = 1.0
    """Factor beside the loss of the documents. Each of the two is divided by its own count."""
    documents: float = 0.0
    """Factor of an objective on the documents, read whole; 0: none. Windows that the method's own view cannot train
    are skipped for both."""
    on_documents: Objective | None = None
    """That objective; None: the same as for general text."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Of the documents, where it is another, and of general text, whose settings come last and count."""
        return (self.objective,) if self.on_documents is None else (self.on_documents, self.objective)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a step's loss: whose text, what is read of it, how the student moves, with which factor."""

    of: Literal["documents", "general", "all"]
    view: ViewBuilder
    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of teaching documents: what student and teacher read, and how the student moves."""

    name: str
    summary: str
    paper: str
    view: ViewBuilder
    objective: Objective
    mixes: bool = False
    """Whether general text is treated as documents are: one view, one objective, one count."""
    replay: Replay | None = None
    """What is done with general text otherwise; None: nothing, and a run with some must say."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
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
        if isinstance(self.objective, SelfDistillation) and not self.objective.needs_teacher:
            return "At alpha = 1 nothing is distilled and no teacher is read: this is continual pre-training."
        return ""

    def needs_teacher(self, *, general: bool) -> bool:
        """Whether any of its terms reads a teacher, with general text or without."""
        return any(term.objective.needs_teacher for term in self.terms(general=general))

    def problem_with(self, *, general: bool) -> str | None:
        """Why this method cannot run with, or without, general text; None where it can."""
        if general and not self.takes_general_text:
            known = ", ".join(REPLAYS)
            return f"mixture: the method {self.name} says nothing of general text. Set replay to one of {known}."
        if self.replay and not general and not self.replay.documents:
            problem = f"mixture: missing, and the method {self.name} is set to replay general text"
            return f"{problem}. Give a mixture, or set replay_documents to replay on the documents."
        return None

    def terms(self, *, general: bool) -> tuple[Term, ...]:
        """The summands of a step's loss, with general text or without."""
        own = Term(
            of="all" if self.mixes and not self.replay else "documents", view=self.view, objective=self.objective
        )
        return (own, *(term for term in self._replayed() if general or term.of == "documents"))

    def _replayed(self) -> Iterator[Term]:
        if self.replay is None:
            return
        whole = WholeDocument(join=self.view.join, bos=self.view.bos, averaging="token")
        general, documents = self.replay.objectives[-1], self.replay.objectives[0]
        summand = Term(of="general", view=whole, objective=general, weight=self.replay.weight)
        whole_too = replace(summand, of="documents", objective=documents, weight=self.replay.documents)
        yield from (term for term in (summand, whole_too) if term.weight)

    def settings(self) -> dict[str, Any]:
        """The settings of this method and their defaults: the fields of its view, its objective and its replay."""
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
        known = sorted(chosen.settings())
        if unknown := [name for name in settings if name not in known]:
            raise ConfigError(
                f"{name}: {settings[name]!r} has no meaning for {self.name}. {nearest(name, known) or 'Leave it out. '}"
                f"Settings of {self.name}: {', '.join(known)}."
                for name in unknown
            )
        return chosen._changed(settings)

    def _changed(self, settings: Mapping[str, Any]) -> Method:
        replay, ours = self.replay, {n[7:]: value for n, value in settings.items() if n.startswith("replay_")}
        if replay is not None:
            factors = {name: ours[name] for name in ("weight", "documents") if name in ours}
            own = replay.on_documents and _changed(replay.on_documents, ours)
            replay = replace(replay, objective=_changed(replay.objective, ours), on_documents=own, **factors)
        view, objective = _changed(self.view, settings), _changed(self.objective, settings)
        return replace(self, view=view, objective=objective, replay=replay)


_DECLARED = {"divergence", "needs_teacher", "needs_eos", "anchored", "step_temperature"}
"""Fields that make a method what it is; a person does not set them."""


def _settable(part: Any) -> list[str]:
    return [item.name for item in fields(part) if item.name not in _DECLARED]


def _changed(part: Any, settings: Mapping[str, Any]) -> Any:
    return replace(part, **{name: settings[name] for name in _settable(part) if name in settings})
