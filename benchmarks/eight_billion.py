"""Qwen3-8B on one card of 80 GB, counted before anyone pays for one: the tables of docs/EIGHT_BILLION.md.

    python benchmarks/eight_billion.py                  # needs 4 GB of memory and no GPU: about a minute
    python benchmarks/eight_billion.py --measure        # on such a card also trains, in every way that fits: minutes
    python benchmarks/eight_billion.py --measure --only "full, bf16, 8-bit moments, cached teacher, checkpointing"

Weights, gradients, moments and teacher are counted on a model without data (the meta device), with the functions that
the dry run counts with. Activations are what autograd keeps of one layer of the true shape, reading 256 tokens here,
times tokens and layers. Not counted: what the GPU's libraries take for themselves, and fragmentation: 2 to 4 GiB.
Measured (`--measure`): three steps of DiSC at all split points, random weights made on the card, one document a step
that fills the micro-batch on both sides; what the dry run says before them, the most that torch's allocator held in
them, seconds and tokens a second of the third, and MFU: multiply-adds by METHODS §1 and attention's own, over the
card's dense bfloat16 products. What checkpointing computes again is no part of them.
"""

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attempts import Missed, append_row, attempted
from counting import Meter, Read, attention_flops
from machine import chosen_device, described, peak_tflops, versions
from shapes import SHAPES, random_model
from texts import documents_of, rows_of, tokenizer
from torch import Tensor

from afterword import models
from afterword.comparison.costs import training_flops
from afterword.data.batching import Packing
from afterword.objectives.fused import LOGITS_WORKSPACE_MIB
from afterword.settings.adapt import read_settings
from afterword.training import AdaptationTrainer, quiet_libraries
from afterword.training.dry_run import largest_step, memory_of
from afterword.training.memory import Memory, bytes_of, moment_bytes
from afterword.training.optimizers import optimizer_of
from afterword.training.run import arguments_of, method_of
from afterword.training.teacher_choice import caching_of

SHAPE = "8b"
GIB, READ = 2**30, 256
STEPS, SENTENCE_TOKENS = 3, 22
"""That are trained, and that a sentence of benchmarks/texts.py has at most on average."""
CARD_GIB, RESERVE_GIB = 80.0, 4.0
"""What an "80 GB" H100 or A100 has, and what is left for the GPU's libraries and for fragmentation."""


def shaped(dtype: torch.dtype, *, adapter: bool, device: str, shape: str = SHAPE, **settings: Any) -> Any:
    """The model, with its adapter or without."""
    model = random_model(shape, dtype=dtype, device=device, **settings)
    with torch.device(device):
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


def layer_bytes(dtype: torch.dtype, *, adapter: bool, autocast: bool, shape: str = SHAPE) -> tuple[float, float]:
    """What one layer keeps for the backward pass: of every token, and whatever it reads (weights that were cast)."""
    # What the layer keeps does not depend on the vocabulary.
    model = shaped(dtype, adapter=adapter, device="cpu", shape=shape, num_hidden_layers=1, vocab_size=128).train()
    backbone: Any = models.backbone_of(model)
    found: list[int] = []
    for tokens in (READ, 2 * READ):
        states = torch.randn(1, tokens, SHAPES[shape]["hidden_size"], dtype=dtype, requires_grad=True)
        positions = backbone.rotary_emb(states, torch.arange(tokens)[None])
        half = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
        with counting(list(model.parameters())) as kept, half:
            # Held until it is counted: a freed storage's place would be given out again.
            out = backbone.layers[0](states, position_embeddings=positions, attention_mask=None)
        found.append(sum(kept.values()))
        del out
    each = (found[1] - found[0]) / READ
    return each, found[0] - each * READ


def counted(settings: dict[str, Any], tokens: int, layer: tuple[float, float], shape: str = SHAPE) -> Memory:
    """The fullest moment of a step whose micro-batch has so many tokens; `layer`: as layer_bytes counts."""
    adapter, layers = bool(settings.get("use_peft")), SHAPES[shape]["num_hidden_layers"]
    dtype = weights_dtype(settings)
    model = shaped(dtype, adapter=adapter, device="meta", shape=shape)
    trained, head = [p for p in model.parameters() if p.requires_grad], models.head_of(model).weight
    states, entering = settings.get("optimizer_states"), tokens * SHAPES[shape]["hidden_size"] * dtype.itemsize
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


def weights_dtype(settings: dict[str, Any]) -> torch.dtype:
    """Of the model; an adapter's own weights are float32."""
    return torch.bfloat16 if settings.get("use_peft") or settings["precision"] == "bf16" else torch.float32


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


class Peak(Meter):
    """Also the most that the GPU's allocator held in the steps, without what a teacher read before them.

    `note`: where every step is written when it ends, for who cannot wait for the last.
    """

    def __init__(self, device: Any, note: Path | None) -> None:
        super().__init__(device)
        self.note = note

    def tick(self) -> None:
        """From the first step on."""
        super().tick()
        if self.steps:
            row = {"table": "step", "seconds": self.ends[-1] - self.ends[-2], "gib": self.gib}
            append_row(self.note, row)
        elif torch.device(self.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    @property
    def gib(self) -> float | None:
        """At most; None on a CPU, where benchmarks/peak_memory.py measures."""
        return torch.cuda.max_memory_allocated() / GIB if torch.device(self.device).type == "cuda" else None


@dataclass(frozen=True)
class Trained:
    """What some steps of a way took."""

    estimated_gib: float
    """As the dry run says before."""
    gib: float | None
    seconds: float
    """Of the last step."""
    tokens_per_second: float
    """That the student read."""
    flops: float
    """Of a step: METHODS §1 and attention's own."""


def measured(
    settings: dict[str, Any], tokens: int, *, shape: str = SHAPE, device: str = "cuda", note: Path | None = None
) -> Trained:
    """Some steps of a way. `note`: where what is known is written as soon as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, given = Path(scratch), {"method": "disc", "strategy": "all", "max_steps": STEPS}
        given |= {"model_name_or_path": shape, "documents": ["random"], "output_dir": scratch, "learning_rate": 1e-6}
        given["trainer"] = {"save_strategy": "no"}
        asked = read_settings({**given, **settings})
        model = shaped(weights_dtype(settings), adapter=asked.use_peft, device=device, shape=shape)
        vocabulary, method, meter = models.causal_lm(model).config.vocab_size, method_of(asked), Peak(device, note)
        args = arguments_of(asked, method, folder)
        trainer = AdaptationTrainer(
            model,
            args,
            train_dataset=rows_of(documents_of(STEPS, vocabulary, tokens // SENTENCE_TOKENS)),
            processing_class=tokenizer(vocabulary),
            method=method,
            packing=Packing(tokens),
            caching=caching_of(asked, folder),
            callbacks=[meter],
            **optimizer_of(asked, model, args),
        )
        estimate = memory_of(trainer, asked.optimizer_states, largest_step(trainer)).total / GIB
        append_row(note, {"table": "estimate", "shape": shape, "estimated_gib": estimate})
        meter.listen(student=model)
        trainer.train()
    read, heads = meter.read("student"), trainer.state.log_history[0]
    positions = {name: heads[name] for name in ("trained_positions", "teacher_positions")}
    counts = {"student_tokens": round(read.tokens), "teacher_tokens": 0, **positions}
    flops = training_flops(models.size_of(model), **counts, frozen=asked.use_peft)
    flops += attention_flops(models.causal_lm(model).config, read, Read())
    return Trained(estimate, meter.gib, meter.seconds, read.tokens / meter.seconds, flops)


MEASURED = ("dry run", "measured", "seconds a step", "tokens a second", "MFU")


def measured_cells(settings: dict[str, Any], asked: Any, fits: bool) -> tuple[list[str], dict[str, Any]]:
    """For the table, and for a file; dashes where it would not fit, and words where it did not, or failed."""
    if not fits:
        return ["–"] * len(MEASURED), {"missed": "does not fit as counted"}
    how: dict[str, Any] = {"shape": asked.shape, "device": asked.device, "note": asked.json}
    found = attempted(partial(measured, settings, asked.tokens, **how))
    if isinstance(found, Missed):
        asked.failed |= found.failed
        return [found.why, *["–"] * (len(MEASURED) - 1)], {"missed": found.why}
    mfu = found.flops / found.seconds / (asked.peak_tflops * 1e12) if asked.peak_tflops else None
    cells = [f"{found.estimated_gib:.1f}", "–" if found.gib is None else f"{found.gib:.1f}", f"{found.seconds:.2f}"]
    cells += [f"{found.tokens_per_second:,.0f}", "–" if mfu is None else f"{100 * mfu:.1f} %"]
    return cells, {**asdict(found), "mfu": mfu}


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of a micro-batch")
    parser.add_argument("--measure", action="store_true", help="also train, on a GPU of 80 GB")
    parser.add_argument("--only", help='one way, as the table names it: "…, checkpointing" with gradient checkpointing')
    parser.add_argument("--shape", choices=SHAPES, default=SHAPE, help="a smaller one tries the command out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="that --measure trains on")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for MFU; that of its sheet if not given")
    parser.add_argument("--json", type=Path, help="also append a row for every way")
    asked = parser.parse_args()
    if asked.measure and asked.device == "cuda" and not torch.cuda.is_available():
        problem = f"trains on a GPU, and torch {torch.__version__} sees none here"
        parser.error(f"--measure: {problem}. Leave it out: the counted table needs none.")
    if asked.only and asked.only not in (named := list(ways())):
        parser.error(f"--only: {asked.only!r} is none of: {'; '.join(named)}.")
    if asked.measure:
        asked.peak_tflops = asked.peak_tflops or peak_tflops(chosen_device(asked.device))
    asked.failed = False
    return asked


def ways() -> dict[str, dict[str, Any]]:
    """Every way with gradient checkpointing and without."""
    both = ((False, ""), (True, ", checkpointing"))
    return {f"{name}{tail}": {**way, "gradient_checkpointing": on} for name, way in WAYS.items() for on, tail in both}


def main() -> None:
    """Print a row for every way, with gradient checkpointing and without."""
    asked = arguments()
    quiet_libraries()
    warnings.filterwarnings("ignore")
    columns = [*PARTS, "at most", "fits", *(MEASURED if asked.measure else [])]
    if asked.measure:
        print(f"{described(asked.device, torch.get_num_threads())}; {versions('torch', 'transformers', 'torchao')}")
    print(f"{asked.shape}, {asked.tokens:,} tokens in a micro-batch, GiB; the card has {CARD_GIB:.1f}\n")
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, way in ways().items():
        if asked.only not in (None, name):
            continue
        adapter, mixed = bool(way.get("use_peft")), way["precision"] == "bf16_mixed"
        layer = layer_bytes(weights_dtype(way), adapter=adapter, autocast=mixed, shape=asked.shape)
        memory = counted(way, asked.tokens, layer, asked.shape)
        fits = memory.total / GIB < CARD_GIB - RESERVE_GIB
        cells = [f"{getattr(memory, part) / GIB:.1f}" for part in PARTS]
        cells += [f"{memory.total / GIB:.1f}", "yes" if fits else "no"]
        row = {"table": "ways", "shape": asked.shape, "tokens": asked.tokens, "name": name}
        row["counted_gib"] = memory.total / GIB
        if asked.measure:
            found, in_file = measured_cells(way, asked, fits)
            cells, row = cells + found, row | in_file
        append_row(asked.json, row)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if asked.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
