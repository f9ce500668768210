"""What a method is: a declaration. No loop, no model, no file is touched in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from afterword.errors import ConfigError, nearest
from afterword.objectives import Objective
from afterword.views import ViewBuilder


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of teaching documents: what student and teacher read, and how the student moves."""

    name: str
    summary: str
    paper: str
    view: ViewBuilder
    objective: Objective
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TrainingArguments as the method's authors set them. They win over the Trainer's own defaults;
    what a person sets wins over both."""
    decay_all_parameters: bool = False
    """Weight decay on norms and biases too, which the Trainer leaves out."""
    deviations: str = ""
    """Where we do something else than the paper, in one sentence each."""

    def settings(self) -> dict[str, Any]:
        """The settings of this method and their defaults: the fields of its view and objective."""
        parts: tuple[Any, ...] = (self.view, self.objective)
        return {name: getattr(part, name) for part in parts for name in _settable(part)}

    def configured(self, **settings: Any) -> Method:
        """This method with some of its settings changed. A setting that it does not have is a ConfigError."""
        known = sorted(self.settings())
        if unknown := [name for name in settings if name not in known]:
            raise ConfigError(
                f"{name}: {settings[name]!r} has no meaning for {self.name}. {nearest(name, known) or 'Leave it out. '}"
                f"Settings of {self.name}: {', '.join(known)}."
                for name in unknown
            )
        return replace(self, view=_changed(self.view, settings), objective=_changed(self.objective, settings))


_DECLARED = {"divergence", "needs_teacher", "needs_eos", "anchored"}
"""Fields that make a method what it is; a person does not set them."""


def _settable(part: Any) -> list[str]:
    return [item.name for item in fields(part) if item.name not in _DECLARED]


def _changed(part: Any, settings: Mapping[str, Any]) -> Any:
    return replace(part, **{name: settings[name] for name in _settable(part) if name in settings})
