"""Tokens a second that Afterword writes (evaluation/generation.py), by model and by how many texts at a time.

    python benchmarks/generation.py                                   # a GPU: the 0.6b and the 8b shape
    python benchmarks/generation.py --device cpu --shapes tiny --rows 1 4 --prompt-tokens 8 --new-tokens 4

Random weights in bfloat16 (float32 on a CPU), greedy; every text goes on for exactly `--new-tokens`. A first batch is
written before the clock starts. "limit" is what reading the weights once for every token of a row takes at the speed
of a large copy, measured in the same run: what is written at a time shares it.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attempts import Missed, append_row, attempted
from machine import chosen_device, copied_bytes, described, timed, versions
from shapes import SHAPES, random_model
from texts import tokenizer

from afterword.models.generation import generate
from afterword.training import quiet_libraries

_WARM_TOKENS = 2


def written(model: Any, words: Any, rows: int, asked: Any) -> dict[str, float]:
    """Tokens a second of so many texts at a time."""
    prompts = torch.randint(1000, (rows, asked.prompt_tokens), generator=torch.Generator().manual_seed(rows)).tolist()
    together = rows * (asked.prompt_tokens + asked.new_tokens)

    def write(tokens: int) -> list[list[int]]:
        """All of them in one batch, none ending before its time."""
        return generate(model, words, prompts, max_new_tokens=tokens, min_new_tokens=tokens, batch_tokens=together)

    write(min(_WARM_TOKENS, asked.new_tokens))
    counts = list[int]()
    seconds = timed(lambda: counts.extend(map(len, write(asked.new_tokens))), asked.device)
    assert counts == [asked.new_tokens] * rows, "nothing ends before its time"
    return {"tokens": sum(counts), "seconds": seconds, "tokens_per_second": sum(counts) / seconds}


def of_shape(shape: str, asked: Any) -> bool:
    """The lines of a model; whether any of them failed."""
    made = attempted(partial(random_model, shape, dtype=asked.dtype, device=asked.device))
    if isinstance(made, Missed):
        append_row(asked.json, {"table": "generation", "shape": shape, "missed": made.why})
        print(f"| {shape} | {made.why} | – | – | – |", flush=True)
        return made.failed
    model, words, failed = made.eval(), tokenizer(made.config.vocab_size), False
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    for rows in asked.rows:
        row: dict[str, Any] = {"table": "generation", "shape": shape, "rows": rows}
        found = attempted(partial(written, model, words, rows, asked))
        if isinstance(found, Missed):
            failed |= found.failed
            append_row(asked.json, row | {"missed": found.why})
            print(f"| {shape} | {rows} | {found.why} | – | – |", flush=True)
            continue
        limit = rows * asked.copied_bytes / weights
        append_row(asked.json, row | found | {"limit_tokens_per_second": limit})
        print(
            f"| {shape} | {rows} | {found['seconds']:.3g} | {found['tokens_per_second']:,.0f} | {limit:,.0f} |",
            flush=True,
        )
    return failed


def main() -> None:
    """A line for every model and number of texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["0.6b", "8b"])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 32, 256], help="texts at a time")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    parser.add_argument("--json", type=Path, help="also append a row for every line")
    asked = parser.parse_args()
    quiet_libraries()
    warnings.filterwarnings("ignore")
    asked.device = chosen_device(asked.device)
    asked.dtype = torch.bfloat16 if asked.device.type == "cuda" else torch.float32
    # A copy reads and writes; weights are only read.
    asked.copied_bytes = copied_bytes(asked.device)
    print(f"{described(asked.device, torch.get_num_threads())}; {versions('torch', 'transformers')}")
    print(f"prompts of {asked.prompt_tokens} tokens, {asked.new_tokens} new ones each, greedy\n")
    print("| | texts at a time | seconds | tokens a second | limit |\n|---|--:|--:|--:|--:|")
    failed = [of_shape(shape, asked) for shape in asked.shapes]
    if any(failed):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
