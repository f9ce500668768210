"""An epoch of the same documents, side by side: TRL's trainers at their best settings, our methods, the authors' loop.

    pip install trl==1.16.0
    python benchmarks/epoch.py --threads 2                             # CPU, the 30m shape: about 40 minutes
    python benchmarks/epoch.py --only "trl;finetune;disc" --rounds 1   # "trl" stands for all of TRL's SFT
    python benchmarks/epoch.py --device cuda --shape 0.6b --precision mixed --per-step 32 --micro-batch-tokens 8192 \
        --peak-tflops 989
    python benchmarks/epoch.py --device cuda --shape 8b --precision bfloat16 --gradient-checkpointing \
        --micro-batch-tokens 8192 --peak-tflops 989

Random weights in Qwen3's shapes (benchmarks/shapes.py); documents of 25 sentences, every one read once, the same
number in every optimizer step for all. Tokens are counted from the batches that reach each model, without padding;
documents of more or fewer tokens than the others' (2 %) stop the run. Seconds are the median over steps after the first
two; contenders run one after another, `--rounds` times in turn, and the best median counts. "counted" is the ratio of
multiply-adds by METHODS §1, heads included, attention left out. "limit" is what the counted multiply-adds, attention's
own included, take at the speed of one large product of this machine, and AdamW's reading and writing at the speed of
a copy, both measured in the same run. Where TRL has several ways of the same (how rows are packed, how many are read
at a time), the fastest of the run counts, though `wrapped` lets documents in a row read each other. What a cached
teacher reads once before the first step is in no step. Who is not installed, does not fit or fails is named below.
"""

import argparse
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attempts import Missed, append_row, attempted
from counting import Meter
from machine import chosen_device, copied_bytes, described, peak_tflops, product_flops, versions
from peers import authors, gkd, sdft, sft
from race import PRECISIONS, Contender, Measured, Race, fastest, measured
from shapes import SHAPES, config_of
from texts import SENTENCES, documents_of, rows_of

from afterword import models
from afterword.data.batching import Packing
from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, quiet_libraries, training_arguments
from afterword.training.teacher_caches import Caching

TOLERANCE = 0.02
"""By which the tokens of two contenders' documents may differ."""


def ours(method: str, *, cached: bool = False, **settings: Any) -> Contender:
    """One of our methods."""
    declared = METHODS[method].configured(**settings)

    def run(race: Race, folder: Path) -> Measured:
        """Some steps of it."""
        student, meter, heads = race.student(), Meter(race.device), list[tuple[int, int]]()

        class Noting(AdaptationTrainer):
            def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
                """Keep at how many positions there were heads."""
                if "loss" in logs:
                    heads.append((self.step_counts["trained_positions"], self.step_counts["teacher_positions"]))
                super().log(logs, start_time)

        tokens = race.micro_batch_tokens
        # A teacher of another precision is another model; otherwise the trainer makes its own.
        other = race.precision == "mixed" and declared.needs_teacher(general=())
        trainer = Noting(
            student,
            training_arguments(declared, output_dir=str(folder), **race.arguments()),
            train_dataset=rows_of(race.documents),
            processing_class=race.words,
            method=declared,
            teacher=models.freeze(race.twin(student)) if other else None,
            documents_per_step=race.per_step,
            packing=Packing(tokens, example_tokens=max(tokens, *race.lengths)),
            callbacks=[meter],
            caching=Caching(folder=folder / "cache") if cached else None,
        )
        meter.listen(student=student)
        # Until it is cached, the teacher is the student itself, unless another was given.
        if (taught := getattr(trainer.teacher, "model", student)) is not student:
            meter.listen(teacher=taught)
        trainer.train()
        positions = [sum(side) / race.steps for side in zip(*heads, strict=True)]
        return measured(meter, student, (positions[0], positions[1]))

    return run


SFT: dict[str, Contender] = {
    "trl, padded": sft("padded", "step"),
    "trl, bfd": sft("bfd", "micro"),
    "trl, bfd, one by one": sft("bfd", "one"),
    "trl, bfd, whole step": sft("bfd", "step"),
    "trl, wrapped": sft("wrapped", "micro"),
    "trl, wrapped, whole step": sft("wrapped", "step"),
}
ON_GPU: dict[str, Contender] = {"trl, bfd, liger": sft("bfd", "micro", use_liger_kernel=True)}
"""Liger's kernels are Triton's."""
SDFT: dict[str, Contender] = {"trl sdft": sdft("micro"), "trl sdft, whole step": sdft("step")}
GKD: dict[str, Contender] = {"trl gkd": gkd("micro"), "trl gkd, whole step": gkd("step")}
CONTENDERS: dict[str, Contender] = {
    **SFT,
    "finetune": ours("finetune"),
    "disc": ours("disc"),
    "disc, cached": ours("disc", cached=True),
    "disc, all": ours("disc", strategy="all"),
    "authors": authors,
    **SDFT,
    "cpt": ours("cpt"),
    "mixcpt": ours("mixcpt"),
    "mixcpt, cached": ours("mixcpt", cached=True),
    **GKD,
}
FASTEST = {"TRL SFT": [*SFT, *ON_GPU], "TRL SDFT": [*SDFT], "TRL GKD": [*GKD]}
"""Several ways of the same: the fastest of a run counts."""
PAIRS = (
    ("finetune", "TRL SFT"),
    ("cpt", "TRL SFT"),
    ("disc", "TRL SFT"),
    ("disc", "authors"),
    ("disc", "TRL SDFT"),
    ("disc, cached", "TRL SFT"),
    ("disc, all", "TRL SFT"),
    ("mixcpt", "cpt"),
    ("mixcpt, cached", "cpt"),
    ("mixcpt", "TRL GKD"),
)
"""Whose step is held against whose."""


def named(only: str, there: Sequence[str]) -> list[str]:
    """The contenders that were asked for; all if none was. Ends with a sentence where there is none of a name."""
    asked = [name.strip() for name in only.split(";") if name.strip()]
    if unknown := [name for name in asked if name not in (*there, "trl")]:
        raise SystemExit(f"--only: {unknown[0]!r} is none of: trl; {'; '.join(there)}.")
    return [name for name in there if name in asked or not asked or ("trl" in asked and name.startswith("trl, "))]


def race_once(name: str, contender: Contender, race: Race) -> Measured | Missed:
    """What a contender took, or why nothing is known of it."""
    folder = Path(tempfile.mkdtemp(prefix="afterword-epoch-"))
    found = attempted(partial(contender, race, folder))
    shutil.rmtree(folder)
    if isinstance(found, Missed):
        return found
    off = found.document_tokens / race.step_tokens - 1
    assert abs(off) < TOLERANCE, f"{name}: {found.document_tokens:.0f} tokens of documents, not {race.step_tokens:.0f}"
    return found


def row_of(name: str, found: Measured | Missed, race: Race, peak: float | None) -> dict[str, Any]:
    """What is kept of a contender in a file."""
    row: dict[str, Any] = {"table": "steps", "shape": race.shape, "precision": race.precision, "name": name}
    if isinstance(found, Missed):
        return row | {"missed": found.why}
    flops = found.flops + found.attention_flops
    row |= {"seconds": found.seconds, "tokens": found.document_tokens, "flops": found.flops}
    row |= {"tokens_per_second": found.document_tokens / found.seconds, "flops_with_attention": flops}
    return row | ({"mfu": flops / found.seconds / (peak * 1e12)} if peak else {})


def show(found: dict[str, Measured], speeds: tuple[float, float], peak_tflops: float | None) -> None:
    """The table of steps."""
    columns = ["seconds a step", "limit, s", "measured / limit", "documents' tokens a second"]
    columns += ["student tokens", "teacher tokens", "TFLOP counted"]
    columns += ["MFU"] if peak_tflops else []
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, each in found.items():
        limit = each.limit_seconds(*speeds)
        cells = [f"{each.seconds:.3g}", f"{limit:.3g}", f"{each.seconds / limit:.2f}"]
        cells += [f"{each.document_tokens / each.seconds:,.0f}"]
        cells += [f"{side.tokens:,.0f}" for side in (each.student, each.teacher)] + [f"{each.flops / 1e12:.3g}"]
        if peak_tflops:
            cells.append(f"{100 * (each.flops + each.attention_flops) / each.seconds / (peak_tflops * 1e12):.1f} %")
        print(f"| {name} | {' | '.join(cells)} |")


def show_ratios(found: dict[str, Measured]) -> None:
    """The table of ratios, of those that were measured."""
    print("\n| a step of | beside | time | counted | time / counted |\n|---|---|---|---|---|")
    for name, other in PAIRS:
        beside = fastest(found, FASTEST.get(other, [other]))
        if name in found and beside:
            ratio, counted = found[name].seconds / found[beside].seconds, found[name].flops / found[beside].flops
            print(f"| {name} | {beside} | {ratio:.2f} | {counted:.2f} | {ratio / counted:.2f} |")


def main() -> None:
    """Measure, and print the table."""
    asked = arguments()
    torch.set_num_threads(asked.threads)
    quiet_libraries()
    warnings.filterwarnings("ignore")
    documents = documents_of(asked.per_step * asked.steps, config_of(asked.shape).vocab_size, asked.sentences)
    settings = ("steps", "per_step", "micro_batch_tokens", "shape", "precision", "attention", "gradient_checkpointing")
    race = Race(documents, device=chosen_device(asked.device), **{name: getattr(asked, name) for name in settings})
    there = CONTENDERS | (ON_GPU if race.device.type == "cuda" else {})
    names, best, speeds = named(asked.only, list(there)), dict[str, Measured](), (0.0, 0.0)
    peak, missed = asked.peak_tflops or peak_tflops(race.device), dict[str, Missed]()
    for _ in range(asked.rounds):
        now = product_flops(race.device, race.product_dtype), copied_bytes(race.device)
        speeds = max(speeds[0], now[0]), max(speeds[1], now[1])
        for name in names:
            found = race_once(name, there[name], race)
            append_row(asked.json, row_of(name, found, race, peak))
            if isinstance(found, Missed):
                missed[name] = found
                print(f"{name}: {found.why}", file=sys.stderr)
                continue
            print(f"{name}: {found.seconds:.3g} s a step", file=sys.stderr)
            if name not in best or found.seconds < best[name].seconds:
                best[name] = found
    print(f"\n{described(race.device, asked.threads)}; {versions('torch', 'transformers', 'trl', 'liger-kernel')}")
    print(
        f"{asked.shape}, {asked.precision}; {asked.per_step} documents of {race.step_tokens:,.0f} tokens in all a step,"
    )
    print(f"{asked.steps} steps, about {asked.micro_batch_tokens:,} tokens at a time, best of {asked.rounds} rounds")
    print(f"one large product: {speeds[0] / 1e9:,.0f} GFLOP/s; a copy: {speeds[1] / 1e9:.1f} GB/s")
    show(best, speeds, peak)
    show_ratios(best)
    for name, each in missed.items():
        print(f"\n{name}: {each.why}.")
    if any(each.failed for each in missed.values()):
        raise SystemExit(1)


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--per-step", type=int, default=8, help="documents in an optimizer step")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="of a document")
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="names, between semicolons; all if none is given")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    parser.add_argument("--shape", choices=SHAPES, default="30m")
    parser.add_argument("--precision", "--dtype", choices=PRECISIONS, default=PRECISIONS[0])
    parser.add_argument("--attention", help="attn_implementation of every model, as transformers names it")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for MFU; that of its sheet if not given")
    parser.add_argument("--json", type=Path, help="also append a row for every contender and round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
