"""A demo on a terminal: a short story in steps, with a verdict at its end.

The one rule: whatever a model wrote is printed as it is, as no markup.
"""

from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from afterword.demo.figures import Rows, is_right
from afterword.report.demo_page import Mark, Page
from afterword.report.display import count, duration
from afterword.training.run import RunResult

_EXAMPLES = 3
_WIDTH = 40
_LONGEST = 100


class Story:
    """The steps in their order."""

    def __init__(self, console: Console):
        self.console = console
        self.step = 0

    def opens(self, model: str, parameters: int, folder: Path) -> None:
        """What is about to happen."""
        self._say(f"A chat model of {count(parameters)} parameters ({Path(model).name}), on this machine.")
        self._say(f"All that follows is computed now; its files go to {folder}.", "dim")

    def asks_the_base_model(self, command: str, answers: Rows, documents: str) -> None:
        """What the model knows of what will be taught, and of what must be kept."""
        self._heading("Before: what the model knows", command)
        for part, about, right in (("learning", documents, False), ("retention", "what it could always do", True)):
            own = [row for row in answers if row["part"] == part]
            self._say(f"{count(len(own))} questions about {about}. For example:")
            for row in [row for row in own if row["after_correct"] == right][:_EXAMPLES]:
                self._say(f"  {row['question']}")
                self._said("", row["after"], right, "" if right else row["expected"][0])

    def reads(self, command: str, answers: Rows) -> None:
        """What it knows with the document before it."""
        self._heading("What reading gives: the same questions, with the document before them", command)
        if not answers:
            self._say("None of the documents fits the context of this model.")
            return
        right = sum(is_right(row, "after") for row in answers)
        self._say(f"{count(right)} of {count(len(answers))} right. Teaching can hardly do better than that.")

    def teaches(self, label: str, command: str) -> None:
        """The run begins."""
        self._heading(f"Teaching it the documents: {label.lower()}", command)

    def has_taught(self, run: RunResult) -> None:
        """The run is done."""
        self._say(f"{run.steps} steps in {duration(run.seconds)}.")

    def compares(self, command: str, page: Page) -> None:
        """The two bars, some answers, and the verdict."""
        self._heading("After: what it learned, and what it lost", command)
        for bar in page["bars"]:
            self._say(f"\n{bar['heading']}: {bar['about']}", "bold")
            for mark in bar["marks"]:
                self._draw(mark)
        for name, group in page["groups"].items():
            if group["answers"]:
                self._say(f"\n{group['heading']}, for example:", "bold")
            for row in group["answers"][: 2 if name == "learned" else 1]:
                expected = "" if row["after_correct"] else row["expected"][0]
                self._say(f"  {row['question']}")
                self._said("before: ", row["before"], row["before_correct"])
                self._said("after:  ", row["after"], row["after_correct"], expected)
        self._heading("The verdict")
        self._say(page["verdict"], "bold")

    def ends(self, page: Path, seconds: float) -> None:
        """Where the page is."""
        self._say("\nThe page, with twenty answers before and after, and documents to read:")
        self._say(page.resolve().as_uri(), "cyan")
        self._say(f"{duration(seconds)} in all. Your own documents: afterword adapt MODEL DOCUMENTS -o runs/mine")

    def _heading(self, title: str, command: str = "") -> None:
        """The next step, and what a person would type for it."""
        self.step += 1
        self.console.print()
        self.console.print(Rule(f"{self.step}  {title}", align="left", style="dim"))
        if command:
            self._say(f"$ {command}", "cyan")

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style), soft_wrap=True)

    def _said(self, label: str, text: str, right: bool, expected: str = "") -> None:
        """An answer, whether it is right, and what would have been."""
        mark = ("✓ ", "green") if right else ("✗ ", "red")
        aside = (f"   (right: {_short(expected)})" if expected else "", "dim")
        self.console.print(Text.assemble((f"    {label}", "dim"), mark, _short(text), aside), soft_wrap=True)

    def _draw(self, mark: Mark) -> None:
        filled = round(mark["value"] * _WIDTH)
        drawn = ("█" * filled, mark["style"]), ("·" * (_WIDTH - filled), "dim")
        line = Text.assemble(f"  {mark['label']:<14}", *drawn, f" {mark['mean']} {mark['interval']}")
        self.console.print(line, soft_wrap=True)


def _short(text: str) -> str:
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
