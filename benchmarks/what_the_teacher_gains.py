"""Can DiSC teach the answers of questions? How surely a model tells an answer in its document: in the sentence alone,
as the student reads it, and with what stands before it, as the teacher does.

The student can learn of an answer what the teacher is surer of. Answers that do not stand in the text word for word
are counted and left out. Intervals are over documents.

    python benchmarks/what_the_teacher_gains.py MODEL --documents D.jsonl --questions Q.jsonl
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterword.corpus.sentences import split_sentences
from afterword.evaluation.intervals import estimate
from afterword.models import load_model, load_tokenizer


@dataclass(frozen=True)
class Told:
    """The first time that an answer is told in its document."""

    document: str
    first_sentence: bool
    """Whether it is in the one sentence that DiSC never trains."""
    alone_nats: float
    after_document_nats: float


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


@torch.inference_mode()
def nats(model: Any, tokenizer: Any, before: str, text: str, span: tuple[int, int]) -> float:
    """Mean cross-entropy of the tokens of `text` that overlap the span, with `before` read first."""
    read = tokenizer(before + text, return_offsets_mapping=True, add_special_tokens=False)
    start, end = (len(before) + place for place in span)
    # The first token is predicted from nothing.
    places = [i for i, (a, b) in enumerate(read["offset_mapping"]) if a < end and b > start and i > 0]
    logits = model(torch.tensor([read["input_ids"]])).logits[0].float().log_softmax(-1)
    return -float(np.mean([float(logits[i - 1, read["input_ids"][i]]) for i in places]))


def told(model: Any, tokenizer: Any, document: dict[str, Any], answer: str) -> Told | None:
    """None where the answer does not stand in the text."""
    text = document["text"]
    place = text.find(answer)
    if place < 0:
        return None
    start, end = next(span for span in split_sentences(text) if span[0] <= place < span[1])
    end = max(end, place + len(answer))
    span = (place - start, place - start + len(answer))
    alone, after = (nats(model, tokenizer, before, text[start:end], span) for before in ("", text[:start]))
    return Told(document["id"], not text[:start].strip(), alone, after)


def all_told(args: argparse.Namespace) -> Iterator[Told | None]:
    """For every question."""
    model, tokenizer = load_model(args.model, dtype=torch.float32).eval(), load_tokenizer(args.model)
    documents = {row["id"]: row for row in rows_of(args.documents)}
    for row in rows_of(args.questions)[: args.max_questions]:
        yield told(model, tokenizer, documents[row["document"]], row["answer"])


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--max-questions", type=int, default=None)
    args = parser.parse_args()
    found = list(all_told(args))
    there = [each for each in found if each is not None]
    trained = [each for each in there if not each.first_sentence]
    print(f"questions {len(found)}; answers in the text {len(there)}; in its first sentence, never trained: ", end="")
    print(f"{len(there) - len(trained)}")
    gain = np.array([each.alone_nats - each.after_document_nats for each in trained])
    low, high = estimate(gain, units=[each.document for each in trained]).interval_95 or (np.nan, np.nan)
    print(f"answers that can be trained: {len(trained)}, in {len({each.document for each in trained})} documents")
    print(f"  alone {np.mean([e.alone_nats for e in trained]):.2f} nats a token, ", end="")
    print(f"after the document {np.mean([e.after_document_nats for e in trained]):.2f}; ", end="")
    print(f"the teacher gains {gain.mean():.2f} [{low:.2f}, {high:.2f}]")
    print(f"  answers of which it gains over 1 nat a token: {int((gain > 1).sum())}")


if __name__ == "__main__":
    main()
