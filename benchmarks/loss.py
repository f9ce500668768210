"""The loss alone: dense logits, TRL's chunked divergence, Liger's fused JSD, ours. Time, memory, gradient error.

    pip install liger-kernel==0.8.5 --no-deps
    python benchmarks/loss.py --threads 2                       # the whole table: about ten minutes
    python benchmarks/loss.py --vocabulary 32000 --positions 256

Forward KL with its backward, random hidden states; every implementation is run in turn within one process, `--repeats`
times, and the fastest run counts. "half": half of the positions are not trained; ours is given the others. Memory is
what the resident set grew by at most (Linux; on a GPU what its allocator held at most). A frozen head is one tensor
for student and teacher, as under LoRA; beside a trained one the teacher has its own. Errors are those of the gradient
on hidden states and of the loss against float64, at KLs from 0.5 to 0.0005 nats. Ratios are to TRL and to dense
logits; nothing is asserted.
"""

import argparse
import ctypes
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from afterword.objectives import Distillation, Head, weighted_sum

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Student states, student head, teacher states, teacher head, weights → Σ weight · KL(teacher ‖ student)."""


def dense(student: Tensor, head: Tensor, teacher: Tensor, teacher_head: Tensor, weights: Tensor) -> Tensor:
    """What stock models return: logits in the precision of the model, softmax in float32."""
    log_s = functional.linear(student, head).float().log_softmax(-1)
    with torch.no_grad():
        log_p = functional.linear(teacher, teacher_head).float().log_softmax(-1)
    return (weights * (log_p.exp() * (log_p - log_s)).sum(-1)).sum()


def trl(student: Tensor, head: Tensor, teacher: Tensor, teacher_head: Tensor, weights: Tensor) -> Tensor:
    """trl.kernels.chunked_divergence."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    losses, _ = ChunkedDivergenceFunction.apply(student, head, None, teacher, teacher_head, None, 0.0)
    return (weights * losses).sum()


def liger(student: Tensor, head: Tensor, teacher: Tensor, teacher_head: Tensor, weights: Tensor) -> Tensor:
    """Liger's chunked JSD at β = 0; it divides by the number of positions that count."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=student.is_cuda)
    labels = torch.where(weights > 0, 0, -100)
    return loss(student, head, teacher, teacher_head, labels) * (weights > 0).sum()


def ours(student: Tensor, head: Tensor, teacher: Tensor, teacher_head: Tensor, weights: Tensor) -> Tensor:
    """objectives/fused.py, of the positions that are trained."""
    rows = weights.nonzero().squeeze(-1)
    sides = (student[rows], Head(head)), (teacher[rows], Head(teacher_head))
    ids = torch.zeros(len(rows), dtype=torch.int64, device=student.device)
    return weighted_sum(Distillation(), *sides, ids, weights[rows])[0]


LOSSES: dict[str, Loss] = {"dense": dense, "liger": liger, "trl": trl, "ours": ours}


def inputs(args: Any, dtype: torch.dtype, kl: float, trained_head: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Student states, head, teacher states, apart by about `kl` nats."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(args.device)

    head = (draw(args.vocabulary, args.hidden) * (2.5 / args.hidden**0.5)).to(dtype).requires_grad_(trained_head)
    student = draw(args.positions, args.hidden)
    teacher = (student + draw(args.positions, args.hidden) * (kl**0.5 / 1.7)).to(dtype)
    return student.to(dtype).requires_grad_(), head, teacher


def measured(loss: Loss, given: tuple[Tensor, Tensor, Tensor], weights: Tensor, repeats: int) -> dict[str, float]:
    """Fastest wall and CPU seconds of forward and backward, and the most MiB that were added."""
    student, head, teacher = given
    teacher_head = head.detach().clone() if head.requires_grad else head
    seconds, cpu = [], []

    def once() -> None:
        """Forward and backward."""
        student.grad, head.grad = None, None
        loss(student, head, teacher, teacher_head, weights).backward()
        if student.is_cuda:
            torch.cuda.synchronize()

    peak = _added_mib(once, student.device)
    for _ in range(repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        once()
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_started)
    return {"seconds": min(seconds), "cpu_seconds": min(cpu), "mib": peak}


def error_of(loss: Loss, given: tuple[Tensor, Tensor, Tensor], rows: int = 16) -> tuple[float, float, float]:
    """Of the first rows: relative errors against float64 of the gradient on hidden states and of the loss; and the KL
    in nats."""
    student, head, teacher = (each.detach()[:rows] if i != 1 else each for i, each in enumerate(given))
    student.requires_grad_()
    weights = torch.ones(len(student), device=student.device)
    value = loss(student, head, teacher, head.detach(), weights)
    (mine,) = torch.autograd.grad(value, student)
    exact = student.detach().double().requires_grad_()
    log_s = torch.cat([exact @ part.double().T for part in head.detach().split(16384)], -1).log_softmax(-1)
    log_p = torch.cat([teacher.double() @ part.double().T for part in head.detach().split(16384)], -1).log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_s)).sum(-1)
    (wanted,) = torch.autograd.grad(kl.sum(), exact)
    off = abs(float(value.detach().double() - kl.detach().sum())) / float(kl.detach().sum())
    return float((mine.double() - wanted).norm() / wanted.norm()), off, float(kl.detach().mean())


def _added_mib(run: Callable[[], None], device: torch.device) -> float:
    """MiB by which memory grew at most. On a CPU every tensor gets pages of its own meanwhile, given back at once."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() / 2**20
        run()
        return torch.cuda.max_memory_allocated() / 2**20 - held
    libc, threshold = ctypes.CDLL("libc.so.6"), -3
    libc.mallopt(threshold, 2**16)
    run()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    held = _status("VmRSS")
    run()
    peak = _status("VmHWM")
    libc.mallopt(threshold, 2**30)
    return peak - held


def _status(name: str) -> float:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(name))
    return int(line.split()[1]) / 1024


def speed(args: Any) -> None:
    """The table of times and memory."""
    print(
        f"\nV = {args.vocabulary:,}, H = {args.hidden:,}, N = {args.positions:,}; seconds (CPU seconds) / MiB added\n"
    )
    print(f"| | {' | '.join(LOSSES)} | ours / trl | ours / dense |\n|---|{'---|' * len(LOSSES)}---|---|")
    floor = 2 * args.positions * args.vocabulary * args.hidden / 1e9
    for dtype, trained, half in itertools.product(args.dtypes, (False, True), (False, True)):
        given = inputs(args, getattr(torch, dtype), 0.05, trained)
        weights = torch.ones(args.positions, device=args.device)
        weights[: args.positions // 2] = 0.0 if half else 1.0
        found = {name: measured(loss, given, weights, args.repeats) for name, loss in LOSSES.items()}
        cells = [f"{f['seconds']:.3f} ({f['cpu_seconds']:.3f}) / {f['mib']:.0f}" for f in found.values()]
        ratios = [found["ours"]["seconds"] / found[name]["seconds"] for name in ("trl", "dense")]
        name = f"{dtype}, {'trained' if trained else 'frozen'} head{', half' if half else ''}"
        print(f"| {name} | {' | '.join(cells)} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)
        least = floor * (4 if trained else 3) * (0.5 if half else 1.0)
        row = {"vocabulary": args.vocabulary, "positions": args.positions, "case": name, "gflop": least, **found}
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def errors(args: Any) -> None:
    """The table of gradient errors, bfloat16 hidden states and head."""
    kls = (5e-1, 5e-2, 5e-3, 5e-4)
    print(f"\nV = {args.vocabulary:,}, bfloat16: errors of gradient / loss in % at a KL of about so many nats\n")
    print(f"| | {' | '.join(f'{kl:g}' for kl in kls)} |\n|---|{'---|' * len(kls)}")
    for name, loss in LOSSES.items():
        found = [error_of(loss, inputs(args, torch.bfloat16, kl, False))[:2] for kl in kls]
        cells = (f"{100 * gradient:.2g} / {100 * value:.2g}" for gradient, value in found)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[32_000, 151_936])
    parser.add_argument("--positions", type=int, nargs="*", default=[256, 2048])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also append a row for every case")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{asked.device.type}, {asked.threads} threads, torch {torch.__version__}")
    for vocabulary in asked.vocabulary:
        errors(argparse.Namespace(**{**vars(asked), "vocabulary": vocabulary, "positions": 16}))
        for positions in asked.positions:
            speed(argparse.Namespace(**{**vars(asked), "vocabulary": vocabulary, "positions": positions}))


if __name__ == "__main__":
    main()
