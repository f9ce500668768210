"""Where the processor time of a step of a real model goes, beside what is counted, and what two choices save of it.

    OMP_NUM_THREADS=1 python benchmarks/step_on_cpu.py smollm2-135m-instruct DOCUMENTS

Under bf16 autocast, as `adapt` has it, on one thread. One text, documents joined until it has `--tokens`, is read in
every step. Steps take turns: attention in bfloat16 and the head's gradients of float32 factors ("before"), then
attention in float32 and the head's gradients of bfloat16 factors ("after", what `adapt` does); medians of the thread's
processor seconds, so that others on the machine count little. Then steps of both with every operation of torch timed,
by kind. "limit": the counted products at the speed of a plain bfloat16 product of a layer's shape, logits at that of a
float32 one, measured in the same process.
"""

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from counting import Meter, attention_flops
from machine import described
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from afterword import models
from afterword.corpus import CorpusOptions, read_corpus
from afterword.methods import METHODS
from afterword.models import mixed_products
from afterword.training import AdaptationTrainer, quiet_libraries, trainer, training_arguments

VARIANTS = ("before", "after")
WARM = 2
"""Steps of each variant that are not counted: memory is taken in the first ones."""
TIMED = 2
"""Steps of each variant with every operation timed."""
KINDS = (
    "linear layers",
    "logits",
    "head's gradients",
    "loss and its casts",
    "attention",
    "AdamW",
    "clipping",
    "casts",
    "the rest",
)


class Operations(TorchDispatchMode):
    """Processor seconds of every operation, by kind."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.seconds: dict[str, float] = defaultdict(float)
        self.in_loss = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, its time counted."""
        began = time.thread_time()
        result = func(*args, **(kwargs or {}))
        self.seconds[self.kind(str(func), args)] += time.thread_time() - began
        return result

    def kind(self, name: str, args: Sequence[Any]) -> str:
        """Of one operation."""
        product = name.split(".")[1] in ("mm", "addmm", "addmm_")
        if self.in_loss and product:
            return "logits" if args[-1].shape[1] == self.vocabulary else "head's gradients"
        if self.in_loss:
            return "loss and its casts"
        named = {"scaled_dot": "attention", "adamw": "AdamW", "_foreach": "clipping", "_to_copy": "casts"}
        return "linear layers" if product else next((kind for part, kind in named.items() if part in name), "the rest")


class Turns(TrainerCallback):
    """Variants in turn, and the processor seconds of each of their steps."""

    def __init__(self, steps: int, vocabulary: int) -> None:
        self.steps, self.variant, self.began = steps, VARIANTS[0], 0.0
        self.seconds = {variant: list[float]() for variant in VARIANTS}
        self.operations = {variant: Operations(vocabulary) for variant in VARIANTS}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The next variant."""
        self.variant = VARIANTS[state.global_step % 2]
        if self.is_timed(state.global_step):
            self.operations[self.variant].__enter__()
        self.began = time.thread_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop counting."""
        if self.is_timed(state.global_step - 1):
            self.operations[self.variant].__exit__(None, None, None)
        else:
            self.seconds[self.variant].append(time.thread_time() - self.began)

    def is_timed(self, step: int) -> bool:
        """Whether operations are timed in it: in the last ones."""
        return step >= 2 * (WARM + self.steps)

    def median(self, variant: str) -> float:
        """Of the steps that count."""
        return median(self.seconds[variant][WARM:])

    def weighted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The loss, as the variant has it."""

        @wraps(function)
        def of_variant(*args: Any, **how: Any) -> Any:
            """The same."""
            operations = self.operations[self.variant]
            operations.in_loss = True
            result = function(*args, **{**how, "rounds_gradients": self.variant == "after"})
            operations.in_loss = False
            return result

        return of_variant


def text_of(path: str, tokenizer: Any, tokens: int) -> str:
    """Documents joined until there are so many tokens."""
    with tempfile.TemporaryDirectory() as folder:
        texts = [d.text for d in read_corpus(path, cache_dir=Path(folder), options=CorpusOptions())]
    joined = ""
    for text in islice(cycle(texts), 10_000):
        if len(tokenizer(joined).input_ids) >= tokens:
            break
        joined += text + "\n\n"
    return joined


def trained(asked: argparse.Namespace, method: str) -> tuple[Turns, Meter, AdaptationTrainer, dict[str, float]]:
    """A short training, its variants in turn, and what a step read."""
    model = models.load_model(asked.model)
    turns, meter, declared = Turns(asked.steps, model.config.vocab_size), Meter(), METHODS[method]
    tokenizer, count = models.load_tokenizer(asked.model), 2 * (WARM + asked.steps + TIMED)
    text = text_of(asked.documents, tokenizer, asked.tokens)
    mixed_products.raises_attention = lambda _: turns.variant == "after"  # pyright: ignore[reportAttributeAccessIssue]
    given, trainer.weighted_sum = trainer.weighted_sum, turns.weighted(trainer.weighted_sum)
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"max_steps": count, "save_strategy": "no", "use_cpu": True, "bf16": True}
        made = AdaptationTrainer(
            model,
            training_arguments(declared, output_dir=folder, **how),
            train_dataset=[{"text": text} for _ in range(count)],
            processing_class=tokenizer,
            method=declared,
            packing=models.packing_for(model, longest=2048),
            callbacks=[turns, meter],
        )
        sides = {"student": model} | ({"teacher": made.teacher.model} if made.teacher else {})  # pyright: ignore
        meter.listen(**sides)
        read, step = dict[str, float](), made.training_step

        def one(*args: Any, **how: Any) -> Any:
            """A step, and what it read: the same in every one."""
            result = step(*args, **how)
            read.update(made.step_counts)
            return result

        made.training_step = one  # pyright: ignore[reportAttributeAccessIssue]
        made.train()
    trainer.weighted_sum = given
    return turns, meter, made, read


def limits(made: AdaptationTrainer, meter: Meter, read: dict[str, float]) -> dict[str, float]:
    """Seconds that every kind takes at least."""
    size, config = models.size_of(made.model), made.model.config
    half = product_speed(size.hidden, config.intermediate_size, int(read["student_tokens"]), torch.bfloat16)
    single = product_speed(size.hidden, config.intermediate_size, int(read["student_tokens"]), torch.float32)
    print(f"a product of a layer's shape: bfloat16 {half / 1e9:.0f}, float32 {single / 1e9:.0f} GFLOP/s")
    head, tokens = 2 * size.hidden * size.vocabulary, 3 * read["student_tokens"] + read["teacher_tokens"]
    return {
        "linear layers": 2 * size.backbone * tokens / half,
        "logits": head * (read["trained_positions"] + read["teacher_positions"]) / single,
        "head's gradients": 2 * head * read["trained_positions"] / half,
        "attention": attention_flops(config, meter.read("student"), meter.read("teacher")) / half,
    }


def product_speed(hidden: int, inner: int, rows: int, dtype: torch.dtype) -> float:
    """FLOPs a second of a layer's product."""
    states, weight = torch.randn(rows, hidden, dtype=dtype), torch.randn(hidden, inner, dtype=dtype)
    return 2 * rows * hidden * inner / fastest(lambda: states @ weight)


def fastest(work: Callable[[], Any], repeats: int = 20) -> float:
    """Processor seconds of the thread, the best of some."""
    seconds: list[float] = []
    for _ in range(repeats):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return min(seconds)


def print_attention(config: Any) -> None:
    """Attention alone, forward and backward, in both precisions: milliseconds by the length of a text."""
    print("\n| attention of one layer, tokens | bfloat16, ms | float32, ms | float32 / bfloat16 |\n|--:|--:|--:|--:|")
    for tokens in (120, 180, 600):
        found: list[float] = []
        for dtype in (torch.bfloat16, torch.float32):
            heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
            query, key, value = (
                torch.randn(1, n, tokens, config.head_dim, dtype=dtype, requires_grad=True) for n in heads
            )

            def both(q: torch.Tensor = query, k: torch.Tensor = key, v: torch.Tensor = value) -> None:
                """Forward and backward."""
                scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).sum().backward()

            found.append(1000 * fastest(both, repeats=6))
        print(f"| {tokens} | {found[0]:.2f} | {found[1]:.2f} | {found[1] / found[0]:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("documents")
    parser.add_argument("--methods", default="finetune,disc")
    parser.add_argument("--tokens", type=int, default=170, help="of the text of a step, at least")
    parser.add_argument("--steps", type=int, default=5, help="of each variant that count")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    warnings.filterwarnings("ignore")
    print(described("cpu", 1))
    print_attention(models.load_config(asked.model))
    for method in asked.methods.split(","):
        turns, meter, made, read = trained(asked, method)
        print(f"\n{method}, a step of { ({name: round(count) for name, count in read.items()}) }")
        least = limits(made, meter, read)
        whole = {variant: turns.median(variant) for variant in VARIANTS}
        print(f"\n| {method} | before, s | after, s | after / before | limit, s |\n|---|--:|--:|--:|--:|")
        for kind in KINDS:
            before, after = (turns.operations[variant].seconds[kind] / TIMED for variant in VARIANTS)
            limit = f"{least[kind]:.3f}" if kind in least else "–"
            print(f"| {kind} | {before:.3f} | {after:.3f} | {after / max(before, 1e-9):.2f} | {limit} |")
        ratio, all_limits = whole["after"] / whole["before"], sum(least.values())
        row = f"{whole['before']:.2f} | {whole['after']:.2f} | {ratio:.2f} | {all_limits:.2f}"
        print(f"| **a step**, untouched, median of {asked.steps} | {row} |", flush=True)


if __name__ == "__main__":
    main()
