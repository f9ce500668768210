"""Qwen3-8B on one card of 80 GB, counted before anyone pays for one: the tables of docs/EIGHT_BILLION.md.

    python benchmarks/eight_billion.py                  # needs 4 GB of memory and no GPU: about a minute

Weights, gradients, moments and teacher are counted on a model without data (the meta device), with the functions that
the dry run counts with. Activations are what autograd keeps of one layer of the true shape, reading 256 tokens here,
times tokens and layers. Not counted: what the GPU's libraries take for themselves, and fragmentation: 2 to 4 GiB.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from afterword import models
from afterword.objectives.fused import LOGITS_WORKSPACE_MIB
from afterword.training.memory import Memory, bytes_of, moment_bytes

SHAPE: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": False,
}
GIB, READ = 2**30, 256
CARD_GIB, RESERVE_GIB = 80.0, 4.0
"""What an "80 GB" H100 or A100 has, and what is left for the GPU's libraries and for fragmentation."""


def shaped(dtype: torch.dtype, *, adapter: bool, layers: int, device: str) -> Any:
    """The model of so many layers, with its adapter or without. With one layer, its vocabulary does not matter."""
    small = {"vocab_size": 128} if layers == 1 else {}
    config = Qwen3Config(**{**SHAPE, "num_hidden_layers": layers, **small})
    with torch.device(device):
        model: Any = Qwen3ForCausalLM(config)
        model = model.to(dtype)
        return models.with_lora(model, models.LoraSettings(), seed=0) if adapter else model


@contextmanager
def counting(weights: list[Tensor]) -> Iterator[dict[int, int]]:
    """Bytes of what autograd keeps for the backward pass, by storage; weights are not counted again."""
    known, kept = {weight.untyped_storage()._cdata for weight in weights}, {}

    def keep(tensor: Tensor) -> Tensor:
        """Note the storage; views of one count once."""
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def layer_bytes(dtype: torch.dtype, *, adapter: bool, autocast: bool) -> tuple[float, float]:
    """What one layer keeps for the backward pass: of every token, and whatever it reads (weights that were cast)."""
    model = shaped(dtype, adapter=adapter, layers=1, device="cpu").train()
    backbone: Any = models.backbone_of(model)
    found: list[int] = []
    for tokens in (READ, 2 * READ):
        states = torch.randn(1, tokens, SHAPE["hidden_size"], dtype=dtype, requires_grad=True)
        positions = backbone.rotary_emb(states, torch.arange(tokens)[None])
        half = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
        with counting(list(model.parameters())) as kept, half:
            # Held until it is counted: a freed storage's place would be given out again.
            out = backbone.layers[0](states, position_embeddings=positions, attention_mask=None)
        found.append(sum(kept.values()))
        del out
    each = (found[1] - found[0]) / READ
    return each, found[0] - each * READ


def counted(settings: dict[str, Any], tokens: int, layer: tuple[float, float]) -> Memory:
    """The fullest moment of a step whose micro-batch has so many tokens; `layer`: as layer_bytes counts."""
    adapter, layers = bool(settings.get("use_peft")), SHAPE["num_hidden_layers"]
    dtype = torch.bfloat16 if adapter or settings["precision"] == "bf16" else torch.float32
    model = shaped(dtype, adapter=adapter, layers=layers, device="meta")
    trained, head = [p for p in model.parameters() if p.requires_grad], models.head_of(model).weight
    states, entering = settings.get("optimizer_states"), tokens * SHAPE["hidden_size"] * dtype.itemsize
    moments = sum(moment_bytes(p, states) for p in trained)
    checkpointing = settings["gradient_checkpointing"]
    whole = layer[0] * tokens + layer[1]
    activations = layers * entering + whole if checkpointing else layers * whole
    # Chunks of logits, gradients on hidden states before and after the last norm, and that on a head that is trained.
    logits = LOGITS_WORKSPACE_MIB * 2**20 + 2 * entering + (0 if adapter else 4 * head.numel())
    return Memory(
        weights=bytes_of(model.parameters()),
        teacher=0 if adapter else teacher_bytes(model, head, settings.get("teacher") == "cached"),
        gradients=bytes_of(trained),
        moments=moments,
        kept=0,
        passing=int(activations + logits),
        # torch's AdamW takes roots of all second moments at once; torchao's is one kernel for a weight.
        updating=moments // 2 if states is None else 0,
    )


def teacher_bytes(model: Any, head: Tensor, cached: bool) -> int:
    """A copy in bfloat16, or of a cached one the head."""
    return 2 * (head.numel() if cached else sum(p.numel() for p in model.parameters()))


WAYS: dict[str, dict[str, Any]] = {
    "full, bf16, 8-bit moments, cached teacher": {"precision": "bf16", "optimizer_states": "8bit", "teacher": "cached"},
    "full, bf16, float32 moments, cached teacher": {
        "precision": "bf16",
        "optimizer_states": "float32",
        "teacher": "cached",
    },
    "LoRA, adapter off": {"precision": "bf16_mixed", "use_peft": True},
    "full, float32 master weights": {"precision": "bf16_mixed"},
}
PARTS = ("weights", "teacher", "gradients", "moments", "passing", "updating")


def main() -> None:
    """Print a row for every way, with gradient checkpointing and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of a micro-batch")
    asked = parser.parse_args()
    print(f"Qwen3-8B, {asked.tokens:,} tokens in a micro-batch, GiB; the card has {CARD_GIB:.1f}\n")
    print(f"| | {' | '.join(PARTS)} | at most | fits |\n|---|{'---|' * (len(PARTS) + 2)}")
    for name, settings in WAYS.items():
        adapter, mixed = bool(settings.get("use_peft")), settings["precision"] == "bf16_mixed"
        dtype = torch.bfloat16 if adapter or not mixed else torch.float32
        layer = layer_bytes(dtype, adapter=adapter, autocast=mixed)
        for checkpointing in (False, True):
            memory = counted({**settings, "gradient_checkpointing": checkpointing}, asked.tokens, layer)
            cells = [f"{getattr(memory, part) / GIB:.1f}" for part in PARTS]
            fits = "yes" if memory.total / GIB < CARD_GIB - RESERVE_GIB else "no"
            label = f"{name}{', checkpointing' if checkpointing else ''}"
            print(f"| {label} | {' | '.join(cells)} | {memory.total / GIB:.1f} | {fits} |", flush=True)


if __name__ == "__main__":
    main()
