"""What the embedded models can do: their scores, the bars that the chat model is held to, and their model cards.

The one rule: every figure on a card is measured by the same command that a user has, on test items alone.
"""

import hashlib
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from afterword.almanac.after import CHOOSING, YEARS, Part, build_part
from afterword.almanac.files import suite_lines
from afterword.almanac.reading import read_question, told_in
from afterword.almanac.suite import build_suite, halves_of, item_of
from afterword.almanac.world import World, build_world
from afterword.almanac.writing import write_document
from afterword.evaluation import evaluate
from afterword.evaluation.intervals import estimate
from afterword.evaluation.suites import Suite
from afterword.types import Estimate


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean over items of some skills, and what the chat model's has to reach."""

    name: str
    skills: tuple[str, ...]
    bound: float
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a share of right answers is good enough; for what cannot be known yet, low enough."""
        return value <= self.bound if self.at_most else value >= self.bound


BARS = (
    Bar("old facts, asked in training", ("direct", "other_wording", "reverse", "two_hop"), 0.95),
    Bar("old facts, in documents only", ("documents_only",), 0.85),
    Bar("reading", ("reading",), 0.95),
    Bar("instructions", ("instructions",), 0.95),
    Bar("reasoning", ("arithmetic", "comparison", "sorting", "lists"), 0.90),
    Bar("unknown", ("unknown",), 0.95),
    Bar("new facts", ("new_direct", "new_other_wording", "new_reverse", "new_two_hop"), 0.03, at_most=True),
    Bar("changed facts", ("changed",), 0.03, at_most=True),
    Bar("new facts with their document", ("with_document",), 0.90),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a card's table."""

    name: str
    skills: tuple[str, ...]
    n: int
    share: Estimate
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a card reports of a model."""

    lines: list[Line]
    """Shares of right answers: what the bars are about, then each skill alone."""
    bits_per_byte: Estimate
    """Loss on everyday prose and documents about strangers."""


def measure(folder: Path) -> Measured:
    """Ask a model all test items, and read it the general texts."""
    with tempfile.TemporaryDirectory(prefix="almanac-card-") as scratch:
        path = Path(scratch) / "suite.jsonl"
        path.write_text(suite_lines(card_items()), encoding="utf-8")
        found = evaluate(folder, suite=str(path), split="test", samples=0, output_dir=scratch)
    units = {item.id: item.unit or item.id for item in card_items().items}
    right: dict[str, list[tuple[float, str]]] = {}
    for row in found.answers:
        right.setdefault(row["skill"], []).append((float(row["after_correct"]), units[row["id"]]))
    barred = [Line(bar.name, bar.skills, *_share(right, bar.skills), bar) for bar in BARS]
    alone = [Line(skill, (skill,), *_share(right, (skill,))) for skill in right]
    bits = next(score.after for score in found.scores if score.metric == "bits_per_byte")
    assert bits is not None, "a model alone has its value after"
    return Measured(barred + alone, bits)


def card_items() -> Suite:
    """What the models are asked for their cards."""
    world = build_world()
    part = build_part(world, CHOOSING)
    texts = {s.name: write_document(s, random.Random(f"card {s.name}"), YEARS).text for s in part.subjects}
    return card_suite(world, part, texts)


def card_suite(world: World, part: Part, texts: Mapping[str, str], scale: float = 4.0) -> Suite:
    """The suite, and new facts asked with a document that tells them.

    `texts` gives a document by the name of the new entity that it is about.
    """
    rng, halves = random.Random("with document"), halves_of(part)
    asked = [
        item_of("learning", "with_document", read_question(world, fact, texts[subject.name], rng), halves[subject.name])
        for subject in part.subjects
        for fact in told_in(texts[subject.name], subject)
    ]
    suite = build_suite(world, part, scale)
    return replace(suite, items=(*suite.items, *asked))


def _share(right: Mapping[str, Sequence[tuple[float, str]]], skills: tuple[str, ...]) -> tuple[int, Estimate]:
    """How many answers, and the share that is right, with its interval over what they are about."""
    values, units = zip(*(row for skill in skills for row in right[skill]), strict=True)
    return len(values), estimate(values, units=units)


def write_card(folder: Path, measured: Measured, training: Mapping[str, Any]) -> None:
    """README.md and scores.json of a model's folder."""
    weights = folder / "model.safetensors"
    facts = {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "bytes": weights.stat().st_size}
    loader = jinja2.PackageLoader("almanac_build", ".")
    template = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template("card.md.j2")
    card = template.render(name=f"almanac-{folder.name}", measured=measured, training=training, **facts)
    (folder / "README.md").write_text(card, encoding="utf-8")
    scores = {**facts, "training": training, "bits_per_byte": asdict(measured.bits_per_byte)}
    scores["scores"] = [asdict(line) for line in measured.lines]
    (folder / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
