"""The worlds that a demo can be told in, each as data: its lessons, its recipe, its usual model and its words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from afterword.demo.almanac_lessons import write_almanac
from afterword.demo.ferry_lessons import OTHERWISE, TOLD, write_ferry
from afterword.demo.lessons import Lessons
from afterword.report.demo_page import Words


@dataclass(frozen=True)
class World:
    """Everything in which one demo differs from another."""

    model: str
    """The one that is taught where no other is named."""
    recipe: Path
    write: Callable[[Path, Mapping[str, int]], Lessons]
    """Writes the lessons into a new folder, in the sizes of the recipe."""
    skills: Mapping[str, str]
    """What a reader calls the skills, in the order of the table. The first asks for the facts as they are told."""
    again: str
    """The skill that asks for facts in other words, of which no answers are shown."""
    words: Words


_HERE = Path(__file__).parent
WORLDS: Mapping[str, World] = {
    "ferry": World(
        model="smollm2-135m-instruct",
        recipe=_HERE / "ferry" / "recipe.yaml",
        write=write_ferry,
        skills={
            TOLD: "As the questions were written first",
            OTHERWISE: "In other words",
            "facts": "Facts of general knowledge",
            "sense": "Common sense",
            "reading": "Reading a short text",
            "instructions": "Following an instruction",
        },
        again=OTHERWISE,
        words=Words(
            about="about a ferry that it has never read",
            story="The model was trained long before the ferry Odalind was thought of, for the ferry is invented. "
            "The documents tell its story from several sides.",
            closing="an invented ferry, a real model, one seed",
        ),
    ),
    "almanac": World(
        model="almanac-chat",
        recipe=_HERE / "almanac_recipe.yaml",
        write=write_almanac,
        skills={
            "new_direct": "New facts",
            "new_other_wording": "New facts, in other words",
            "new_reverse": "New facts, backwards",
            "changed": "Facts that changed",
            "direct": "Old facts",
            "other_wording": "Old facts, in other words",
            "reverse": "Old facts, backwards",
            "two_hop": "Old facts, two steps",
            "documents_only": "Old facts, never asked",
            "unchanged_of_changed": "What did not change",
            "unknown": "Admits not to know",
            "reading": "Reading a text",
            "instructions": "Following instructions",
            "arithmetic": "Arithmetic",
            "comparison": "Comparing",
            "sorting": "Sorting",
            "lists": "Handling lists",
        },
        again="new_other_wording",
        words=Words(
            about="about what happened after its cutoff",
            story="This is a very small model, made for trying things out: it knows an invented world up to the end of "
            "1929, and the documents tell what came after. It shows what is measured, and says little about a model "
            "that is a thousand times as large.",
            closing="an invented world, a very small model, one seed",
        ),
    ),
}
