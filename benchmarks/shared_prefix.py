"""Tokens, FLOPs and time of a teacher that reads a document once for all its answers, against one forward for each.

    python benchmarks/shared_prefix.py smollm2-135m-instruct documents.jsonl

Ten documents with five answers each: all ways in one run, in turn, and their hidden states compared. FLOPs are
2 · parameters of the layers for every token, padding included, and the products of attention.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from afterword.corpus import read_corpus
from afterword.data.batching import Packing, teacher_views
from afterword.models import backbone_of, continues_cleanly, load_model, load_tokenizer, only_reading, trained_states
from afterword.types import Example, InputRows, Segment, SharedRows

DOCUMENTS, ANSWERS = 10, 5
TOLERANCE = 1e-4
"""Of the norm of the states, in float32."""


def examples(tokenizer, given: argparse.Namespace) -> list[Example]:
    """Documents as beginnings, and pieces of other ones as answers: what they say does not matter to their cost."""
    texts = [
        document.text for document in itertools.islice(read_corpus(given.documents, cache_dir=given.folder), DOCUMENTS)
    ]
    ids = [np.array(tokenizer(text, add_special_tokens=False).input_ids[: given.tokens], np.int64) for text in texts]
    answers, nothing = (
        np.resize(np.concatenate(ids[::-1]), DOCUMENTS * ANSWERS * given.answer_tokens),
        np.zeros(0, np.int64),
    )
    rows = answers.reshape(len(ids), ANSWERS, -1)
    asked = [np.arange(len(each) - 1, len(each) - 1 + rows.shape[2]) for each in ids]
    return [
        Example(
            str(i), 0, ids[i], tuple(Segment(nothing, nothing, asked[i], nothing, nothing, None, a) for a in rows[i])
        )
        for i in range(len(ids))
    ]


def flops(model, views: list[InputRows | SharedRows]) -> float:
    """Of the layers, forward."""
    layers = sum(p.numel() for name, p in backbone_of(model).named_parameters() if "embed" not in name)
    config, total = model.config, 0.0
    width = 4 * config.num_hidden_layers * config.hidden_size  # Of a pair of tokens: scores and mixed values.
    for view in views:
        total += 2 * layers * (view.tokens + view.padding)
        if isinstance(view, InputRows):
            total += width * view.input_ids.numel() ** 2
        else:
            (begins, long), (rows, own) = view.beginning_ids.shape, view.input_ids.shape
            total += width * (begins * long**2 + rows * own * (long + own))
    return total


def main() -> None:
    """Measure, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("documents")
    parser.add_argument("--folder", type=Path, default=Path("runs/shared-prefix"))
    parser.add_argument("--tokens", type=int, default=400, help="of a document, at most")
    parser.add_argument("--answer-tokens", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    model, tokenizer = load_model(given.model, dtype=torch.float32), load_tokenizer(given.model)
    assert continues_cleanly(model), "this model cannot go on from what it has read"
    # One text a forward, as a loop reads; a document and its answers are one view of the other.
    read, budget = examples(tokenizer, given), given.tokens + ANSWERS * given.answer_tokens
    ways = {
        "a forward each": teacher_views(read, Packing(1)),
        "packed, each whole": teacher_views(read, Packing(budget)),
        "the document once": [
            v for each in read for v in teacher_views([each], Packing(budget, shares_beginnings=True))
        ],
    }
    states, seconds = {}, {name: [] for name in ways}
    with only_reading(model):
        for _ in range(given.turns):
            for name, views in ways.items():
                started = time.perf_counter()
                states[name] = trained_states(model, *views)
                seconds[name].append(time.perf_counter() - started)
    first, plain = next(iter(ways)), next(iter(states.values()))
    print(f"{given.model}: {len(read)} documents, {ANSWERS} answers each; {torch.get_num_threads()} threads, float32")
    print(f"{'':20}{'tokens':>8}{'TFLOPs':>8}{'seconds':>9}{'of one each':>13}{'error':>10}")
    for name, views in ways.items():
        error = float((states[name] - plain).norm() / plain.norm())
        assert error < TOLERANCE, f"{name}: hidden states differ by {error:.1e}"
        took = statistics.median(seconds[name])
        tokens, work = sum(view.tokens for view in views), flops(model, list(views)) / 1e12
        share = took / statistics.median(seconds[first])
        print(f"{name:20}{tokens:>8,}{work:>8.2f}{took:>9.2f}{share:>12.0%} {error:>9.1e}")


if __name__ == "__main__":
    main()
