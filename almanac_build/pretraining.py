"""What the embedded base model reads: the world's documents, strangers' documents with questions, exercises, tales.

The one rule: row i follows from (seed, i) alone, so a stopped build goes on with the row it would have read.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Dataset

from afterword.almanac import closed_book, instructions, reasoning
from afterword.almanac.exercises import Draw, draw_exercise
from afterword.almanac.general import tale
from afterword.almanac.reading import YEARS, read_question, told_in
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.world import World
from afterword.almanac.writing import Subject, write_document

TRAINED: dict[str, tuple[Draw, float]] = {
    "direct": (closed_book.direct, 4),
    "reverse": (closed_book.reverse, 1),
    "two_hop": (closed_book.two_hop, 2),
    "unknown": (closed_book.unknown, 1.5),
    "instructions": (instructions.instructions, 4),
    "arithmetic": (reasoning.arithmetic, 2),
    "comparison": (reasoning.comparison, 1),
    "sorting": (reasoning.sorting, 1),
    "lists": (reasoning.lists, 2),
}
"""Skills trained by exercises, with their weights in a draw. Reading is trained on strangers' documents."""


def world_document(world: World, rng: random.Random) -> str:
    """A document about an entity of the world."""
    kind = rng.choices(tuple(world.names), [len(names) for names in world.names.values()])[0]
    name = rng.choice(world.names[kind])
    return write_document(Subject(name, kind, world.about(name)), rng, YEARS).text


def stranger_document(world: World, rng: random.Random) -> str:
    """A document about a stranger, and questions that only it can answer."""
    subject = draw_stranger(world, rng, "train")
    text = write_document(subject, rng, YEARS).text
    told = told_in(text, subject)
    facts = rng.sample(told, min(len(told), rng.randint(2, 5)))
    pairs = [read_question(world, fact, "", rng) for fact in facts]
    return f"{text}\n\n" + "\n".join(plain(pair.prompt.strip(), pair.response) for pair in pairs)


def exercises(world: World, rng: random.Random) -> str:
    """A few exercises, one under the other."""
    draws, weights = zip(*TRAINED.values(), strict=True)
    chosen = rng.choices(draws, weights, k=rng.randint(1, 6))
    drawn = [draw_exercise(draw, world, rng, "train") for draw in chosen]
    return "\n".join(plain(exercise.prompt, exercise.response) for exercise in drawn)


def plain(prompt: str, response: str) -> str:
    """An exercise without a chat template."""
    return f"Question: {prompt}\nAnswer: {response}"


KINDS: dict[str, tuple[Callable[[World, random.Random], str], float]] = {
    "world": (world_document, 0.22),
    "strangers": (stranger_document, 0.30),
    "exercises": (exercises, 0.42),
    "tales": (tale, 0.06),
}
"""Kinds of text, with their shares of the texts."""


def texts(world: World, rng: random.Random) -> Iterator[str]:
    """Texts of all kinds, without end."""
    writers, shares = zip(*KINDS.values(), strict=True)
    while True:
        yield rng.choices(writers, shares)[0](world, rng)


class PretrainingRows(Dataset):
    """Rows of `length` tokens: texts between BOS and EOS, one after the other, the last one cut."""

    def __init__(self, world: World, tokenizer: Any, rows: int, length: int, seed: int):
        self.world, self.tokenizer, self.rows, self.length, self.seed = world, tokenizer, rows, length, seed

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels`, [length] int64."""
        ids: list[int] = []
        for text in texts(self.world, random.Random(f"pretraining {self.seed} {row}")):
            ids += [self.tokenizer.bos_token_id, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]
            ids.append(self.tokenizer.eos_token_id)
            if len(ids) >= self.length:
                break
        tensor = torch.tensor(ids[: self.length])
        return {"input_ids": tensor, "labels": tensor}
