"""The demo of the embedded world on a terminal, a short story in steps; and the voice that tells every demo.

The one rule: whatever a model wrote is printed as it is, as no markup.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from afterword.demo.recipe import Recipe
from afterword.report.display import MISSING, count, duration

_LONGEST = 100


class Voice:
    """What every story says on a terminal: headings with numbers, plain lines, commands, answers."""

    def __init__(self, console: Console):
        self.console = console
        self.step = 0

    def heading(self, title: str) -> None:
        """The next step."""
        self.step += 1
        self.console.print()
        self.console.print(Rule(f"{self.step}  {title}", align="left", style="dim"))

    def say(self, text: str, style: str = "") -> None:
        """A line, as it is."""
        self.console.print(Text(text, style), soft_wrap=True)

    def command(self, command: str) -> None:
        """What a person would type."""
        self.say(f"$ {command}", "cyan")

    def said(self, label: str, text: str, right: bool, expected: str = "") -> None:
        """An answer, whether it is right, and what would have been."""
        mark = ("✓ ", "green") if right else ("✗ ", "red")
        aside = (f"   (right: {_short(expected)})" if expected else "", "dim")
        self.console.print(Text.assemble((f"    {label}", "dim"), mark, _short(text), aside), soft_wrap=True)


class Story:
    """The steps of the embedded world's demo in their order."""

    def __init__(self, console: Console):
        self.console = console
        self.voice = Voice(console)

    def opens(self, model: str, parameters: int, folder: Path) -> None:
        """What is about to happen."""
        self.voice.say(f"A language model of {count(parameters)} parameters ({Path(model).name}), on this machine.")
        self.voice.say(f"All that follows is computed now; its files go to {folder}.", "dim")

    def asks_the_base_model(self, command: str, answers: Sequence[Mapping[str, Any]], recipe: Recipe) -> None:
        """Two steps: what the model knows, and what came after its cutoff."""
        self.voice.heading("What the model knows")
        self.voice.command(command)
        for part, right in (("retention", True), ("learning", False)):
            if part == "learning":
                self.voice.heading("What happened after its cutoff")
            own = [row for row in answers if row["part"] == part]
            known = sum(row["after_correct"] for row in own)
            example = "For example" if right else "Of the others, for example"
            self.voice.say(f"Of {count(len(own))} questions it answers {count(known)} right. {example}:")
            for row in _examples(own, recipe.shown[part], right):
                self._answer(row, right)

    def begins_to_teach(self, counts: Mapping[str, int], recipe: Recipe) -> None:
        """What is taught."""
        self.voice.heading("Teaching it")
        entities = sum(recipe.world[kind] for kind in ("people", "towns", "companies", "works"))
        self.voice.say(f"{counts['documents.jsonl']} documents about {entities} new names, and about what changed.")

    def teaches(self, label: str, command: str) -> None:
        """A run begins."""
        self.voice.say(f"\n{label}", "bold")
        self.voice.command(command)

    def has_taught(self, run: Any, command: str) -> None:
        """A run is measured."""
        self.voice.say(f"{run.steps} steps in {duration(run.seconds)}.")
        self.voice.command(command)

    def compares(self, page: Mapping[str, Any]) -> None:
        """The table, and the first questions that were learned and forgotten."""
        self.voice.heading("Before and after")
        self.console.print(_table(page))
        self.voice.say(
            "\n[95 % interval over questions]; ▲ ▼: the interval of the change from before excludes 0.", "dim"
        )
        for group in page["groups"]:
            if group["name"] in ("learned", "forgotten") and group["questions"]:
                counts = zip(page["runs"], group["counts"], strict=True)
                said = ", ".join(f"{run['label']} {count(number)}" for run, number in counts)
                self.voice.say(f"\n{group['heading']}: {said}. For example:", "bold")
                for question in group["questions"][:2]:
                    self._asked_again(question)

    def ends(self, page: Path, seconds: float) -> None:
        """Where the page is."""
        self.voice.heading("The page")
        self.voice.say(page.resolve().as_uri(), "cyan")
        self.voice.say(
            f"What was learned, what was lost, and every question, in a browser. {duration(seconds)} in all."
        )

    def _answer(self, row: Mapping[str, Any], right: bool) -> None:
        self.voice.say(f"  {row['question']}")
        self.voice.said("", row["after"], right, "" if right else row["expected"][0])

    def _asked_again(self, question: Mapping[str, Any]) -> None:
        self.voice.say(f"  {question['question']}")
        for side in question["sides"]:
            self.voice.said(f"{side['label']}: ", side["text"], side["right"])


def _examples(rows: Sequence[Mapping[str, Any]], skills: Sequence[str], right: bool) -> Iterator[Mapping[str, Any]]:
    """The first question of each skill that came out so, three at most."""
    fitting = [row for row in rows if row["after_correct"] == right]
    first = [next((row for row in fitting if row["skill"] == skill), None) for skill in skills]
    yield from [row for row in first if row][:3]


def _short(text: str) -> str:
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _table(page: Mapping[str, Any]) -> Table:
    """In 80 columns: whole per cent, and the interval."""
    table = Table("correct answers in %", "n", "before", box=None, padding=(0, 1, 0, 0), header_style="bold")
    for run in page["runs"]:
        table.add_column(run["label"])
    for part in page["tables"]:
        table.add_row(Text(f"\n{part['heading']}", "bold"))
        for row in (*part["rows"], *part["totals"]):
            after = [Text(f"{_cell(side['score']['after'])}{_mark(side)}", _tone(side)) for side in row["runs"]]
            table.add_row(Text(row["label"]), count(row["n"]), _cell(row["runs"][0]["score"]["before"]), *after)
    return table


def _cell(found: Mapping[str, Any]) -> str:
    bounds = [f"{100 * bound:.0f}" for bound in found["interval_95"] or ()]
    return f"{100 * found['value']:.0f} " + (f"[{', '.join(bounds)}]" if bounds else MISSING)


def _tone(side: Mapping[str, Any]) -> str:
    return {"better": "green", "worse": "red"}.get(side["reading"].tone, "")


def _mark(side: Mapping[str, Any]) -> str:
    return {"better": " ▲", "worse": " ▼"}.get(side["reading"].tone, "")
