"""What a method is: a declaration. No loop, no model, no file is touched in this folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
        return {name: getattr(part, name) for part, name in self._fields()}

    def configured(self, **settings: Any) -> Method:
        """This method with some of its settings changed. A setting that it does not have is a ConfigError."""
        unknown = [name for name in settings if name not in self.settings()]
        if unknown:
            raise ConfigError(self._unknown(name, settings[name]) for name in unknown)
        view = _replaced(self.view, settings)
        return dataclasses.replace(self, view=view, objective=_replaced(self.objective, settings))

    def _unknown(self, name: str, value: Any) -> str:
        names = sorted(self.settings())
        hint = nearest(name, names) or "Leave it out. "
        return f"{name}: {value!r} has no meaning for {self.name}. {hint}Settings of {self.name}: {', '.join(names)}."

    def _fields(self) -> Iterator[tuple[Any, str]]:
        for part in (self.view, self.objective):
            assert dataclasses.is_dataclass(part)
            for item in dataclasses.fields(part):
                if item.name not in _DECLARED:
                    yield part, item.name


_DECLARED = {"divergence", "needs_teacher", "needs_eos", "anchored"}
"""Fields that make a method what it is; a person does not set them."""


def _replaced(part: Any, settings: Mapping[str, Any]) -> Any:
    names = {item.name for item in dataclasses.fields(part)} - _DECLARED
    return dataclasses.replace(part, **{k: v for k, v in settings.items() if k in names})
