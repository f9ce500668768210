"""The demo on a terminal: a short story in steps. Whatever a model wrote is printed as it is, as no markup."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from afterword.demo.recipe import Recipe
from afterword.report.printing import MISSING, count, duration

_LONGEST = 100


class Story:
    """Steps in their order."""

    def __init__(self, console: Console):
        self.console = console
        self.step = 0

    def opens(self, model: str, parameters: int, folder: Path) -> None:
        """What is about to happen."""
        self._say(f"A language model of {count(parameters)} parameters ({Path(model).name}), on this machine.")
        self._say(f"All that follows is computed now; its files go to {folder}.", "dim")

    def asks_the_base_model(self, command: str, answers: Sequence[Mapping[str, Any]], recipe: Recipe) -> None:
        """Two steps: what the model knows, and what came after its cutoff."""
        self._heading("What the model knows")
        self._command(command)
        for part, right in (("retention", True), ("learning", False)):
            if part == "learning":
                self._heading("What happened after its cutoff")
            own = [row for row in answers if row["part"] == part]
            known = sum(row["after_correct"] for row in own)
            example = "For example" if right else "Of the others, for example"
            self._say(f"Of {count(len(own))} questions it answers {count(known)} right. {example}:")
            for row in _examples(own, recipe.shown[part], right):
                self._answer(row, right)

    def begins_to_teach(self, counts: Mapping[str, int], recipe: Recipe) -> None:
        """What is taught."""
        self._heading("Teaching it")
        entities = sum(recipe.world[kind] for kind in ("people", "towns", "companies", "works"))
        self._say(f"{counts['documents.jsonl']} documents about {entities} new names, and about what changed.")

    def teaches(self, label: str, command: str) -> None:
        """A run begins."""
        self._say(f"\n{label}", "bold")
        self._command(command)

    def has_taught(self, run: Any, command: str) -> None:
        """A run is measured."""
        self._say(f"{run.steps} steps in {duration(run.seconds)}.")
        self._command(command)

    def compares(self, page: Mapping[str, Any]) -> None:
        """The table, and the first questions that were learned and forgotten."""
        self._heading("Before and after")
        self.console.print(_table(page))
        self._say("\n[95 % interval over questions]; ▲ ▼: the interval of the change from before excludes 0.", "dim")
        for group in page["groups"]:
            if group["name"] in ("learned", "forgotten") and group["questions"]:
                counts = zip(page["runs"], group["counts"], strict=True)
                said = ", ".join(f"{run['label']} {count(number)}" for run, number in counts)
                self._say(f"\n{group['heading']}: {said}. For example:", "bold")
                for question in group["questions"][:2]:
                    self._asked_again(question)

    def ends(self, page: Path, seconds: float) -> None:
        """Where the page is."""
        self._heading("The page")
        self._say(page.resolve().as_uri(), "cyan")
        self._say(f"What was learned, what was lost, and every question, in a browser. {duration(seconds)} in all.")

    def _heading(self, title: str) -> None:
        self.step += 1
        self.console.print()
        self.console.print(Rule(f"{self.step}  {title}", align="left", style="dim"))

    def _say(self, text: str, style: str = "", end: str = "\n") -> None:
        self.console.print(Text(text, style), soft_wrap=True, end=end)

    def _command(self, command: str) -> None:
        self._say(f"$ {command}", "cyan")

    def _answer(self, row: Mapping[str, Any], right: bool) -> None:
        self._say(f"  {row['question']}")
        self._said("", row["after"], right, "" if right else row["expected"][0])

    def _asked_again(self, question: Mapping[str, Any]) -> None:
        self._say(f"  {question['question']}")
        for side in question["sides"]:
            self._said(f"{side['label']}: ", side["text"], side["right"], "")

    def _said(self, label: str, text: str, right: bool, expected: str) -> None:
        mark = ("✓ ", "green") if right else ("✗ ", "red")
        aside = (f"   (right: {_short(expected)})" if expected else "", "dim")
        self.console.print(Text.assemble((f"    {label}", "dim"), mark, _short(text), aside), soft_wrap=True)


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
