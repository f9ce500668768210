"""The demo of the real model on a terminal: a short story in steps, with a verdict at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from afterword.demo.almanac_story import Voice
from afterword.report.display import count, duration

_EXAMPLES = 3
_WIDTH = 40
Rows = Sequence[Mapping[str, Any]]


class LessonsStory:
    """Steps in their order."""

    def __init__(self, console: Console):
        self.console = console
        self.voice = Voice(console)

    def opens(self, model: str, parameters: int, folder: Path) -> None:
        """What is about to happen."""
        self.voice.say(f"A real chat model of {count(parameters)} parameters ({Path(model).name}), on this machine.")
        self.voice.say(f"All that follows is computed now; its files go to {folder}.", "dim")

    def asks_the_base_model(self, command: str, answers: Rows, counts: Mapping[str, int]) -> None:
        """What the model knows of what will be taught, and of what must be kept."""
        self.voice.heading("Before: what the model knows")
        self.voice.command(command)
        documents = f"{counts['documents']} documents about a ferry that it has never read"
        for part, about, right in (("learning", documents, False), ("retention", "what it could always do", True)):
            own = [row for row in answers if row["part"] == part]
            self.voice.say(f"{count(len(own))} questions about {about}. For example:")
            for row in [row for row in own if row["after_correct"] == right][:_EXAMPLES]:
                self.voice.say(f"  {row['question']}")
                self.voice.said("", row["after"], right, "" if right else row["expected"][0])

    def reads(self, command: str, answers: Rows) -> None:
        """What it knows with the document before it."""
        self.voice.heading("What reading gives: the same questions, with the document before them")
        self.voice.command(command)
        if not answers:
            self.voice.say("None of the documents fits the context of this model.")
            return
        right = sum(bool(row["after_chosen"]) for row in answers)
        self.voice.say(f"{count(right)} of {count(len(answers))} right. Teaching can hardly do better than that.")

    def teaches(self, label: str, command: str) -> None:
        """The run begins."""
        self.voice.heading(f"Teaching it the documents: {label.lower()}")
        self.voice.command(command)

    def has_taught(self, run: Any) -> None:
        """The run is done."""
        self.voice.say(f"{run.steps} steps in {duration(run.seconds)}.")

    def compares(self, command: str, page: Mapping[str, Any]) -> None:
        """The two bars, some answers, and the verdict."""
        self.voice.heading("After: what it learned, and what it lost")
        self.voice.command(command)
        for bar in page["bars"]:
            self.voice.say(f"\n{bar['heading']}: {bar['about']}", "bold")
            for mark in bar["marks"]:
                self._draw(mark)
        for name, group in page["groups"].items():
            if group["answers"]:
                self.voice.say(f"\n{group['heading']}, for example:", "bold")
            for row in group["answers"][: 2 if name == "learned" else 1]:
                expected = "" if row["after_correct"] else row["expected"][0]
                self.voice.say(f"  {row['question']}")
                self.voice.said("before: ", row["before"], row["before_correct"])
                self.voice.said("after:  ", row["after"], row["after_correct"], expected)
        self.voice.heading("The verdict")
        self.voice.say(page["verdict"], "bold")

    def _draw(self, mark: Mapping[str, Any]) -> None:
        filled = round(mark["value"] * _WIDTH)
        drawn = ("█" * filled, mark["style"]), ("·" * (_WIDTH - filled), "dim")
        line = Text.assemble(f"  {mark['label']:<14}", *drawn, f" {mark['mean']} {mark['interval']}")
        self.console.print(line, soft_wrap=True)

    def ends(self, page: Path, seconds: float) -> None:
        """Where the page is."""
        self.voice.say("\nThe page, with twenty answers before and after, and the documents to read:")
        self.voice.say(page.resolve().as_uri(), "cyan")
        self.voice.say(f"{duration(seconds)} in all. Your own documents: afterword adapt MODEL DOCUMENTS -o runs/mine")
