"""In which precision `evaluate` computes: what rounding every product adds to a score, and what it saves.

    python benchmarks/evaluation_precision.py MODEL DOCUMENTS --count 8

The weights are those that are stored. Every document's loss is computed with float32 products; under bfloat16 autocast;
and with weights and products in bfloat16, as most servers do. Differences are over documents.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from afterword import models
from afterword.corpus import read_corpus
from afterword.training import quiet_libraries


@torch.inference_mode()
def losses_of(model: Any, texts: list[torch.Tensor], *, autocast: bool) -> tuple[list[float], float]:
    """Mean loss of every text in nats, and the seconds of all."""
    began, found = time.perf_counter(), []
    for ids in texts:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
        found.append(float(torch.nn.functional.cross_entropy(logits, ids[1:])))
    return found, time.perf_counter() - began


def main() -> None:
    """A line for every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("documents", nargs="+")
    parser.add_argument("--count", type=int, default=8)
    asked = parser.parse_args()
    quiet_libraries()
    tokenizer = models.load_tokenizer(asked.model)
    with tempfile.TemporaryDirectory() as scratch:
        read = read_corpus(asked.documents, cache_dir=Path(scratch))
        documents = [document.text for document in list(read)[: asked.count]]
    texts = [torch.tensor(tokenizer(text).input_ids[:512]) for text in documents]
    ways = {"float32": (torch.float32, False), "bfloat16 autocast": (torch.float32, True)}
    ways |= {"all in bfloat16": (torch.bfloat16, False)}
    print(f"{len(texts)} documents, {sum(map(len, texts))} tokens, {torch.get_num_threads()} threads")
    print("| products | mean loss, nats | mean difference | its deviation | seconds |\n|---|--:|--:|--:|--:|")
    exact = list[float]()
    for name, (dtype, autocast) in ways.items():
        model = models.load_model(asked.model, dtype=dtype).eval()
        losses_of(model, texts[:1], autocast=autocast)
        found, seconds = losses_of(model, texts, autocast=autocast)
        exact = exact or found
        apart = [a - b for a, b in zip(found, exact, strict=True)]
        print(f"| {name} | {mean(found):.5f} | {mean(apart):+.5f} | {stdev(apart):.5f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
