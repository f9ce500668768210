"""Prompts are files of the package, each with a version: what is asked can be read, and a change of it is seen."""

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Prompt:
    """What is asked, in turns with places to be filled."""

    name: str
    version: int
    turns: tuple[tuple[str, str], ...]
    """(role, text with {places})."""

    def filled(self, **values: str) -> tuple[tuple[str, str], ...]:
        """The turns with every place filled."""
        return tuple((role, text.format(**values)) for role, text in self.turns)


def prompt(name: str) -> Prompt:
    """The prompt in `prompts/NAME.txt`: a line `version: N`, then turns, each under a line `## role`."""
    text = (files("afterword.writing") / "prompts" / f"{name}.txt").read_text(encoding="utf-8")
    head, *turns = text.split("\n## ")
    version = int(head.removeprefix("version:").strip())
    parts = [turn.partition("\n") for turn in turns]
    return Prompt(name, version, tuple((role.strip(), body.strip()) for role, _, body in parts))
