"""What can a sentence of DiSC teach? How surely the model names a new fact's value, alone and with what went before.

A sentence teaches a fact only where the teacher, who has read what stands before it, is surer of the value than the
student, who has not; and the student can bind it to its entity only where the sentence names that entity.

afterword almanac runs/almanac/part0 --part 0 --people 8 --changes 2
python benchmarks/what_the_teacher_knows.py runs/almanac/part0
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from afterword.corpus import read_corpus
from afterword.data import SplitContext, WindowSettings, read_document, special_tokens
from afterword.models import load_model, load_tokenizer


class Mention(NamedTuple):
    """One value of a new or changed fact in one sentence of one document."""

    kind: str
    """`new`, or the relation of a fact that changed: the model knows another value from before."""
    told_before: bool
    named: bool
    alone_nats: float
    after_document_nats: float


def facts_of(folder: Path) -> list[tuple[str, str, str]]:
    """(subject, value, kind) of everything that is new."""
    rows = [json.loads(line) for line in (folder / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = [(row.get("new", row), f"changed {row['new']['relation']}" if "new" in row else "new") for row in rows]
    return [(fact["subject"], fact["value"], kind) for fact, kind in facts]


def mentions(document: Any, facts: list[tuple[str, str, str]], model: Any, tokenizer: Any) -> Iterator[Mention]:
    """Of the facts about whoever the document names, those whose value stands in a sentence after the first."""
    special = special_tokens(tokenizer, "auto", "document")
    about = [fact for fact in facts if fact[0] in document.text]
    for window in read_document(document, 0, tokenizer, special, WindowSettings(max_length=512)).windows:
        example = SplitContext(strategy="all").build(window, special, np.random.default_rng(0))
        taught = losses(model, example.teacher_ids)
        for segment in example.segments:
            alone, first = losses(model, segment.student_ids), int(segment.teacher_positions[0])
            sentence = tokenizer.decode(segment.student_ids, skip_special_tokens=True)
            so_far = tokenizer.decode(example.teacher_ids[: first + 1], skip_special_tokens=True)
            for subject, value, kind in about:
                place = found(tokenizer(f" {value}", add_special_tokens=False).input_ids, segment.target_ids.tolist())
                if place is not None:
                    spots = segment.student_positions[place], segment.teacher_positions[place]
                    nats = [float(side[spot].mean()) for side, spot in zip((alone, taught), spots, strict=True)]
                    yield Mention(kind, value in so_far, subject in sentence, *nats)


@torch.inference_mode()
def losses(model: Any, ids: np.ndarray) -> np.ndarray:
    """−log p of the token after each position, nats."""
    row = torch.from_numpy(ids)[None]
    logprobs = model(row).logits[0, :-1].float().log_softmax(-1)
    return -logprobs.gather(1, row[0, 1:, None])[:, 0].numpy()


def found(part: list[int], whole: list[int]) -> slice | None:
    """Where a run of tokens stands in another."""
    starts = (i for i in range(len(whole) - len(part) + 1) if whole[i : i + len(part)] == part)
    return next((slice(i, i + len(part)) for i in starts), None)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=Path, help="folder that afterword almanac wrote")
    parser.add_argument("--model", default="almanac-chat")
    parser.add_argument("--documents", type=int, default=None, help="only the first so many")
    asked = parser.parse_args()
    model, tokenizer = load_model(asked.model).eval(), load_tokenizer(asked.model)
    facts, rows = facts_of(asked.part), []
    with TemporaryDirectory() as scratch:
        corpus = read_corpus(str(asked.part / "documents.jsonl"), cache_dir=Path(scratch))
        for number, document in enumerate(corpus):
            if asked.documents is None or number < asked.documents:
                rows += mentions(document, facts, model, tokenizer)
    each = len(rows) / len(set(facts))
    print(f"{len(rows)} mentions of values in {len(corpus)} documents, {each:.1f} for each new fact")
    print("| fact | told before | entity named | mentions | share | alone, nats a token | after the document | gain |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for kind, told, named in itertools.product(dict.fromkeys(row.kind for row in rows), (True, False), (True, False)):
        some = [row for row in rows if row[:3] == (kind, told, named)]
        if some:
            alone, after = (np.mean([row[i] for row in some]) for i in (3, 4))
            words = [kind, *("yes" if flag else "no" for flag in (told, named))]
            share = f"{100 * len(some) / len(rows):.0f} %"
            print(f"| {' | '.join(words)} | {len(some)} | {share} | {alone:.2f} | {after:.2f} | {alone - after:.2f} |")


if __name__ == "__main__":
    main()
