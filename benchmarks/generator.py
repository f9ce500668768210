"""What writes before training, beside a plain loop over model.generate, and beside vLLM where it is installed.

    python benchmarks/generator.py MODEL DOCUMENTS --documents 10 --new-tokens 100

Five prompts about each document, drawn at temperature 0.7 up to their end or so many new tokens. Rates are by the time
of the processor, of all threads and processes together: what else the machine does counts less. The start of vLLM is
not counted; what it needs in the environment is in docs/guides/writing.md.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import GenerationConfig

from afterword import models
from afterword.corpus import read_corpus
from afterword.models.generation import end_of_turn, ends_of
from afterword.training import quiet_libraries
from afterword.types import Request, Sampling
from afterword.writing import LocalGenerator, load_to_write
from afterword.writing.replies import prompt_tokens
from afterword.writing.vllm_engine import VllmGenerator

PROMPTS = (
    "Tell this in your own words.",
    "Summarise this in two sentences.",
    "Ask a question about this.",
    "What follows from this?",
    "Tell this to a child.",
)


def by_generator(model: Any, tokenizer: Any, requests: Sequence[Request], *, shares: bool) -> int:
    """New tokens of all requests, by the generator."""
    generator, new = LocalGenerator(model, tokenizer, shares=shares), 0
    for batch in generator.batches(requests):
        for part in generator.write([requests[i] for i in batch], lambda _: None):
            new += sum(tokens for _, tokens in part.values())
    return new


@torch.inference_mode()
def by_loop(model: Any, tokenizer: Any, requests: Sequence[Request]) -> int:
    """The same one after the other, as model.generate does it by itself."""
    new, ends = 0, sorted(ends_of(model, tokenizer, end_of_turn(tokenizer)))
    model.generation_config = GenerationConfig()
    for request in requests:
        ids = torch.tensor([prompt_tokens(tokenizer, request)], device=model.device)
        sampling = request.sampling
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )
        found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        new += found.shape[1] - ids.shape[1]
    return new


def started_vllm(name: str, tokenizer: Any) -> VllmGenerator:
    """vLLM with its engine begun: the time of its start is not counted."""
    generator = VllmGenerator(name, tokenizer)
    by_vllm(generator, [Request(text="Once upon a time", sampling=Sampling(max_new_tokens=4))])
    return generator


def by_vllm(generator: VllmGenerator, requests: Sequence[Request]) -> int:
    """The same by vLLM."""
    new = 0
    for batch in generator.batches(requests):
        for part in generator.write([requests[i] for i in batch], lambda _: None):
            new += sum(tokens for _, tokens in part.values())
    return new


def processor_seconds() -> float:
    """Of this process and of those that it began: vLLM computes in one of its own."""
    here = psutil.Process()
    times = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def told(way: str, write: Callable[[Sequence[Request]], int], requests: Sequence[Request], loop: float) -> float:
    """New tokens a second of the processor, in a row of the table; `loop`: those of the first way, 0 where it is it."""
    began, used = time.perf_counter(), processor_seconds()
    new = write(requests)
    seconds, processor = time.perf_counter() - began, processor_seconds() - used
    rate = new / processor
    print(f"| {way} | {new} | {seconds:.0f} | {processor:.0f} | {rate:.1f} | {rate / (loop or rate):.1f} |", flush=True)
    return rate


def main() -> None:
    """A line for every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source", nargs="+", metavar="DOCUMENTS")
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=100)
    parser.add_argument(
        "--loop-every", type=int, default=1, help="The loop writes every so manieth: its rate is the same."
    )
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto", help="vLLM takes auto.")
    asked = parser.parse_args()
    quiet_libraries()
    tokenizer = models.load_tokenizer(asked.model)
    model = load_to_write(asked.model, asked.precision)
    with tempfile.TemporaryDirectory() as scratch:
        read = read_corpus(asked.source, cache_dir=Path(scratch))
        texts = [document.text for document in list(read)[: asked.documents]]
    sampling = Sampling(max_new_tokens=asked.new_tokens, temperature=0.7, top_p=0.95)
    requests = [
        Request(turns=(("user", f"{text}\n\n{prompt}"),), sampling=sampling) for text in texts for prompt in PROMPTS
    ]
    ways: dict[str, Callable[[Sequence[Request]], int]] = {
        "model.generate, one after the other": lambda some: by_loop(model, tokenizer, some[:: asked.loop_every]),
        "the generator, every prompt read whole": lambda some: by_generator(model, tokenizer, some, shares=False),
        "the generator": lambda some: by_generator(model, tokenizer, some, shares=True),
    }
    prompt_count = sum(len(prompt_tokens(tokenizer, request)) for request in requests)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    print(
        f"{len(requests)} prompts, {prompt_count} tokens; at most {asked.new_tokens} new ones each; {dtype}", flush=True
    )
    print("| way | new tokens | seconds | of the processor | new tokens a second | times the loop |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    loop = 0.0
    for way, write in ways.items():
        rate = told(way, write, requests, loop)
        loop = loop or rate
    if importlib.util.find_spec("vllm"):
        vllm = started_vllm(asked.model, tokenizer)
        told("vLLM", lambda some: by_vllm(vllm, some), requests, loop)
        vllm.close()
    else:
        print("vLLM is not installed here.")


if __name__ == "__main__":
    main()
