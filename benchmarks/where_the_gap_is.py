"""Of what a method minimises, how much is about the facts? By token, of DiSC KL(teacher, who has read the document
so far ‖ student, who reads the sentence alone), of fine-tuning the cross-entropy in the document.

afterword almanac runs/almanac/part0 --people 8 --changes 2
afterword adapt almanac-chat runs/almanac/part0/documents.jsonl -o runs/gap --method disc --strategy all \
    --learning-rate 1e-4 --num-train-epochs 4 --documents-per-step 4 --max-length 512
python benchmarks/where_the_gap_is.py runs/almanac/part0 runs/gap
Every sentence but the first of each document, τ = 1. A token is of a fact where it is in the value of one (new or
changed) about whoever the document names. The KL of every run is to the model as it was, with the document.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from what_the_teacher_knows import facts_of, found

from afterword.corpus import read_corpus
from afterword.data import SplitContext, WindowSettings, read_document, special_tokens
from afterword.models import load_model, load_tokenizer


class Position(NamedTuple):
    """A trained position."""

    kind: str
    nats: tuple[float, ...]
    """The base's cross-entropy in the document, then the KL of every student."""


@torch.inference_mode()
def logprobs(model: Any, ids: np.ndarray, positions: np.ndarray) -> torch.Tensor:
    """[positions, V] float32."""
    return model(torch.from_numpy(ids)[None]).logits[0, torch.from_numpy(positions)].float().log_softmax(-1)


def positions_of(
    document: Any, facts: list[tuple[str, str, str]], teacher: Any, students: list[Any], tokenizer: Any
) -> Iterator[Position]:
    """Every trained position of a document, with what it is about."""
    special = special_tokens(tokenizer, "auto", "document")
    about = [(value, kind) for subject, value, kind in facts if subject in document.text]
    for window in read_document(document, 0, tokenizer, special, WindowSettings(max_length=512)).windows:
        example = SplitContext(strategy="all").build(window, special, np.random.default_rng(0))
        for segment in example.segments:
            taught = logprobs(teacher, example.teacher_ids, segment.teacher_positions)
            alone = [logprobs(student, segment.student_ids, segment.student_positions) for student in students]
            gold = -taught.gather(1, torch.from_numpy(segment.target_ids)[:, None])[:, 0]
            nats = torch.stack([gold, *((taught.exp() * (taught - each)).sum(-1) for each in alone)], dim=1)
            kinds = kinds_of(segment.target_ids.tolist(), about, tokenizer)
            yield from (Position(kind, tuple(row)) for kind, row in zip(kinds, nats.tolist(), strict=True))


def kinds_of(targets: list[int], about: list[tuple[str, str]], tokenizer: Any) -> list[str]:
    """What every token is about: a kind of fact whose value it is in, or `everything else`."""
    kinds = ["everything else"] * len(targets)
    for value, kind in about:
        place = found(tokenizer(f" {value}", add_special_tokens=False).input_ids, targets)
        if place is not None:
            kinds[place] = ["new facts" if kind == "new" else "changed facts"] * len(kinds[place])
    return kinds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=Path, help="folder that afterword almanac wrote")
    parser.add_argument("runs", nargs="*", help="adapted models")
    parser.add_argument("--model", default="almanac-chat")
    parser.add_argument("--documents", type=int, default=64, help="only the first so many")
    asked = parser.parse_args()
    if not (asked.part / "facts.jsonl").is_file():
        parser.error(f"part: {str(asked.part)!r} has no facts.jsonl. Give a folder that `afterword almanac` wrote.")
    base, tokenizer = load_model(asked.model).eval(), load_tokenizer(asked.model)
    students = [base, *(load_model(run).eval() for run in asked.runs)]
    facts, rows = facts_of(asked.part), list[Position]()
    with TemporaryDirectory() as scratch:
        corpus = read_corpus(str(asked.part / "documents.jsonl"), cache_dir=Path(scratch))
        for document, _ in zip(corpus, range(asked.documents), strict=False):
            rows += positions_of(document, facts, base, students, tokenizer)
    read = min(asked.documents, len(corpus))
    print(f"{len(rows)} trained positions of {read} documents; nats a token, and the share of the sum")
    total = np.array([row.nats for row in rows]).sum(0)
    named = ["cross-entropy before", "KL before", *(f"KL {run}" for run in asked.runs)]
    print(f"| tokens | share | {' | '.join(named)} |")
    print(f"|---|--:|{'---|' * len(total)}")
    for kind in ("new facts", "changed facts", "everything else"):
        some = np.array([row.nats for row in rows if row.kind == kind]).reshape(-1, len(total))
        cells = [
            f"{mean:.3f} ({100 * part:.0f} %)" for mean, part in zip(some.mean(0), some.sum(0) / total, strict=True)
        ]
        print(f"| {kind} | {100 * len(some) / len(rows):.0f} % | {' | '.join(cells)} |")
    print(f"| all | 100 % | {' | '.join(f'{mean:.3f}' for mean in total / len(rows))} |")


if __name__ == "__main__":
    main()
