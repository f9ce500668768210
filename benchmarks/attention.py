"""Packed texts beside the same texts alone, by kernel of attention: how far apart they are, and how long a row takes.

    python benchmarks/attention.py                                    # a GPU: the 0.6b shape, 8,192 tokens in a row
    python benchmarks/attention.py --device cpu --shape tiny --tokens 256

A row of texts of unequal lengths, each with positions from 0 on, as training packs them; then each text in a row of its
own, of another length every time. "states" is the relative distance of the last hidden states of both, "gradient" that
of the gradient on all weights of the backbone under one random direction; "from sdpa" how far the packed states are
from those that sdpa gives. In bfloat16 the same arithmetic in another order is about a hundredth away; texts that read
each other are 0.06 and more. Seconds: forward and backward of the packed row, the fastest of `--repeats`. On a CPU
flex attention has no backward, and only what has one is held against it. A kernel that is not installed is named.
"""

import argparse
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attempts import Missed, append_row, attempted
from machine import chosen_device, described, timed, versions
from shapes import SHAPES, random_model
from torch import Tensor

from afterword import models
from afterword.training import quiet_libraries

KERNELS = ("sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""As transformers names them."""
SHARES = (0.37, 0.05, 0.23, 0.02, 0.21, 0.12)
"""Of a row, by its texts."""


@dataclass(frozen=True)
class Found:
    """Of a kernel."""

    states: float
    gradient: float | None
    from_sdpa: float
    seconds: float
    packed: Tensor
    """Hidden states [T, H], for the next ones to be held against."""


def lengths_of(tokens: int) -> list[int]:
    """Tokens of the texts of a row of about so many."""
    return [max(2, round(share * tokens)) for share in SHARES]


def states_of(model: Any, texts: list[Tensor]) -> Tensor:
    """Hidden states [T, H] of texts in one row."""
    positions = torch.cat([torch.arange(len(text), device=text.device) for text in texts])
    inputs = {"input_ids": torch.cat(texts)[None], "position_ids": positions[None], "use_cache": False}
    return models.backbone_of(model)(**inputs).last_hidden_state[0]


def gradient_of(model: Any, states: Tensor, direction: Tensor) -> None:
    """Adds the gradient of Σ states · direction to the weights'."""
    (states.float() * direction).sum().backward()


def taken(model: Any) -> Tensor:
    """The gradient on all weights of the backbone in one, which are without one from then on."""
    weights = [p for p in models.backbone_of(model).parameters() if p.grad is not None]
    found = torch.cat([p.grad.float().flatten() for p in weights if p.grad is not None])
    model.zero_grad()
    return found


def apart(a: Tensor, b: Tensor) -> float:
    """The relative distance of two tensors."""
    return float((a.float() - b.float()).norm() / b.float().norm())


def of_kernel(kernel: str, asked: Any, reference: Tensor | None) -> Found:
    """Packed and alone. `reference`: packed states of another kernel."""
    model = random_model(asked.shape, dtype=asked.dtype, device=asked.device, attention=kernel)
    backward = asked.device.type == "cuda" or "flex" not in kernel
    model.train(backward)
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(1000, (n,), generator=generator).to(asked.device) for n in lengths_of(asked.tokens)]
    sizes = [len(text) for text in texts]
    shape = (sum(sizes), model.config.hidden_size)
    direction = torch.randn(*shape, generator=generator).to(asked.device)
    gradients = list[Tensor]()
    with torch.set_grad_enabled(backward):
        packed = states_of(model, texts)
        if backward:
            gradient_of(model, packed, direction)
            gradients.append(taken(model))
        alone = list[Tensor]()
        for text, part in zip(texts, direction.split(sizes), strict=True):
            alone.append(states_of(model, [text]))
            if backward:
                gradient_of(model, alone[-1], part)
                alone[-1] = alone[-1].detach()
        if backward:
            gradients.append(taken(model))
        seconds = min(
            timed(partial(_once, model, texts, direction, backward), asked.device) for _ in range(asked.repeats)
        )
    packed = packed.detach()
    beside = packed if reference is None else reference
    differ = apart(*gradients) if backward else None
    return Found(apart(packed, torch.cat(alone)), differ, apart(packed, beside), seconds, packed)


def _once(model: Any, texts: list[Tensor], direction: Tensor, backward: bool) -> None:
    states = states_of(model, texts)
    if backward:
        gradient_of(model, states, direction)
        model.zero_grad()


def main() -> None:
    """A line for every kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.6b")
    parser.add_argument("--tokens", type=int, default=8192, help="in the packed row, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kernels", nargs="*", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    parser.add_argument("--json", type=Path, help="also append a row for every kernel")
    asked = parser.parse_args()
    quiet_libraries()
    warnings.filterwarnings("ignore")
    asked.device = chosen_device(asked.device)
    asked.dtype = torch.bfloat16 if asked.device.type == "cuda" else torch.float32
    print(f"{described(asked.device, torch.get_num_threads())}; {versions('torch', 'transformers', 'flash-attn')}")
    print(f"{asked.shape}, {asked.dtype}, texts of {lengths_of(asked.tokens)} tokens\n")
    print("| | states | gradient | from sdpa | seconds |\n|---|--:|--:|--:|--:|")
    reference, failed = None, False
    for kernel in asked.kernels:
        found = attempted(partial(of_kernel, kernel, asked, reference))
        row: dict[str, Any] = {"table": "attention", "kernel": kernel}
        if isinstance(found, Missed):
            failed |= found.failed
            append_row(asked.json, row | {"missed": found.why})
            print(f"| {kernel} | {found.why} | – | – | – |", flush=True)
            continue
        reference = found.packed if kernel == "sdpa" else reference
        numbers = {name: value for name, value in asdict(found).items() if name != "packed"}
        append_row(asked.json, row | numbers)
        cells = ["–" if value is None else f"{value:.2g}" for value in numbers.values()]
        print(f"| {kernel} | {' | '.join(cells)} |", flush=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
