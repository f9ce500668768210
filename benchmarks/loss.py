"""The loss alone: dense logits, TRL's chunked divergence, Liger's fused JSD, ours. Accuracy, time, memory, limit.

    pip install trl==1.16.0; pip install liger-kernel==0.8.5 --no-deps
    python benchmarks/loss.py --threads 2                       # all tables: about an hour on two cores
    python benchmarks/loss.py --vocabulary 32000 --positions 256 --tables speed
    python benchmarks/loss.py --device cuda --positions 256 2048 16384 --compiled

speed: forward KL with its backward, random hidden states; every implementation is run in turn within one process,
`--repeats` times, and the fastest run counts: by events on a GPU, by the clock elsewhere. "half": half of the positions
are not trained; ours is given the others. Memory is what the resident set grew by at most (Linux; on a GPU what its
allocator held at most). "ours, compiled" (`--compiled`) has torch.compile do what is done with logits. Who is not
installed, does not fit or fails is named in its place, and the others go on. A frozen head is one
tensor for student and teacher, as under LoRA; beside a trained one the teacher has its own. GFLOP counts the logits of
both sides and the gradients on states and on a trained head, of trained positions; MB every input read once and every
gradient written once, with logits that never leave the processor. "limit" is the longer of both, at the speed of one
large product in that precision and of a large copy, measured in the same run.
errors: of the gradients on hidden states and on the head, and of the loss, against float64, at KLs from 0.5 to 0.0005
nats. divergences: the same of every objective of ours. Nothing is asserted.
"""

import argparse
import ctypes
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from attempts import Missed, append_row, attempted
from machine import chosen_device, copied_bytes, described, product_flops, status_mib, timed, versions
from torch import Tensor
from torch.nn import functional

from afterword.objectives import (
    Distillation,
    Head,
    Objective,
    Prediction,
    PredictionNear,
    SelfDistillation,
    closed_forms,
    jsd,
    reverse_kl,
    total,
    weighted_sum,
)

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Student states, student head, teacher states, teacher head, weights → Σ weight · loss."""
Sides = tuple[Tensor, Tensor, Tensor, Tensor]
"""The same, without the weights."""
KLS = (5e-1, 5e-2, 5e-3, 5e-4)
"""Nats between student and teacher, about."""
BLOCK = 16_384
"""Of the vocabulary that is float64 at a time."""


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


def ours(objective: Objective) -> Loss:
    """objectives/fused.py, of the positions that are trained."""

    def loss(student: Tensor, head: Tensor, teacher: Tensor, teacher_head: Tensor, weights: Tensor) -> Tensor:
        """As it is called in training."""
        rows = weights.nonzero().squeeze(-1)
        sides = (student[rows], Head(head)), (teacher[rows], Head(teacher_head))
        ids = torch.zeros(len(rows), dtype=torch.int64, device=student.device)
        return weighted_sum(objective, *sides, ids, weights[rows])[0]

    return loss


def compiled(loss: Loss) -> Loss:
    """A loss of ours, whose passes over logits between its products torch.compile has made into fewer."""

    def run(*given: Tensor) -> Tensor:
        """Every chunk through the compiled function."""
        plain, closed_forms._of_rows = closed_forms._of_rows, _compiled_rows()
        try:
            return loss(*given)
        finally:
            closed_forms._of_rows = plain

    return run


@cache
def _compiled_rows() -> Any:
    """closed_forms._of_rows, compiled; a compiler returns tensors, from which its record is made again."""
    plain = closed_forms._of_rows

    @torch.compile
    def tensors(*given: Any) -> tuple[Any, ...]:
        """The fields of the record."""
        found = plain(*given)
        return {**found.parts}, found.gradient, found.far

    return lambda *given: closed_forms.Found(*tensors(*given))


LOSSES: dict[str, Loss] = {"dense": dense, "liger": liger, "trl": trl, "ours": ours(Distillation())}
COMPILED: dict[str, Loss] = {"ours, compiled": compiled(LOSSES["ours"])}
"""With `--compiled`."""
DIVERGENCES: dict[str, Objective] = {
    "forward KL": Distillation(),
    "forward KL, τ = 2": Distillation(temperature=2.0),
    "reverse KL": Distillation(reverse_kl),
    "JSD": Distillation(jsd),
    "cross-entropy": Prediction(),
    "cross-entropy + 0.1 KL": PredictionNear(),
    "half cross-entropy, half KL": SelfDistillation(swap=False),
    "half cross-entropy, half logit swap": SelfDistillation(),
    "logit swap": SelfDistillation(alpha=0.0),
}
"""What the methods move by; the gold token is the first of the vocabulary."""


@dataclass(frozen=True)
class Given:
    """Random states of student and teacher and a head of theirs."""

    student: Tensor  # [N, H]
    head: Tensor  # [V, H]
    teacher: Tensor  # [N, H]

    def sides(self, trained: bool) -> Sides:
        """What a loss is given. Beside a trained head the teacher has its own, which is equal."""
        head = self.head.detach().requires_grad_(trained)
        return self.student.detach().requires_grad_(), head, self.teacher, self.head.clone() if trained else head


def inputs(args: Any, dtype: torch.dtype, kl: float) -> Given:
    """States that are apart by about `kl` nats."""
    # Drawn where they are used: a head of this size takes a processor seconds.
    generator = torch.Generator(args.device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=args.device)

    head = (draw(args.vocabulary, args.hidden) * (2.5 / args.hidden**0.5)).to(dtype)
    student = draw(args.positions, args.hidden)
    teacher = (student + draw(args.positions, args.hidden) * (kl**0.5 / 1.7)).to(dtype)
    return Given(student.to(dtype), head, teacher)


# ---- time and memory


def measured(loss: Loss, sides: Sides, weights: Tensor, repeats: int) -> dict[str, float]:
    """Fastest wall and CPU seconds of forward and backward, and the most MiB that were added."""
    student, head = sides[:2]
    seconds, cpu = [], []

    def once() -> None:
        """Forward and backward."""
        student.grad, head.grad = None, None
        loss(*sides, weights).backward()

    peak = _added_mib(once, student.device)
    for _ in range(repeats):
        cpu_started = time.process_time()
        seconds.append(timed(once, student.device))
        cpu.append(time.process_time() - cpu_started)
    return {"seconds": min(seconds), "cpu_seconds": min(cpu), "mib": peak}


def _added_mib(run: Callable[[], None], device: torch.device) -> float:
    """MiB by which memory grew at most. On a CPU every tensor gets pages of its own meanwhile, given back at once."""
    if device.type == "cuda":
        run()  # What is compiled, and the workspaces of libraries, are made in the first run.
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() / 2**20
        run()
        return torch.cuda.max_memory_allocated() / 2**20 - held
    libc, threshold = ctypes.CDLL("libc.so.6"), -3
    libc.mallopt(threshold, 2**16)
    run()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    held = status_mib("VmRSS")
    run()
    peak = status_mib("VmHWM")
    libc.mallopt(threshold, 2**30)
    return peak - held


def least(vocabulary: int, hidden: int, positions: int, itemsize: int, trained_head: bool) -> tuple[float, float]:
    """FLOPs and bytes that forward and backward cannot do without.

    By hand, V = 10, H = 2, N = 3 in float32: a product is 120 FLOPs; a frozen head takes three of them, and reads 80
    bytes of head and 48 of states and writes 24; a trained one takes four, and reads and writes a head more.

    >>> least(10, 2, 3, 4, False), least(10, 2, 3, 4, True)
    ((360.0, 152.0), (480.0, 312.0))
    """
    product, head, states = 2.0 * positions * vocabulary * hidden, vocabulary * hidden, positions * hidden
    moved = (3 * head if trained_head else head) + 3 * states
    return product * (4 if trained_head else 3), float(moved * itemsize)


def speed(args: Any) -> None:
    """The table of times and memory."""
    print(
        f"\nV = {args.vocabulary:,}, H = {args.hidden:,}, N = {args.positions:,}; seconds (CPU seconds) / MiB added\n"
    )
    columns = [*args.losses, "ours / trl", "ours / dense", "GFLOP", "MB", "limit, s", "ours / limit"]
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    halves = (False, True) if args.half else (False,)
    for dtype, trained, half in itertools.product(args.dtypes, (False, True), halves):
        kind, positions = getattr(torch, dtype), args.positions // 2 if half else args.positions
        given = inputs(args, kind, 0.05)
        weights = torch.ones(args.positions, device=args.device)
        weights[positions:] = 0.0
        found = {}
        for name, loss in args.losses.items():
            found[name] = attempted(partial(_measured_anew, loss, given, trained, weights, args.repeats))
        flops, moved = least(args.vocabulary, args.hidden, positions, kind.itemsize, trained)
        limit = max(flops / args.product_flops[dtype], moved / args.copied_bytes)
        cells = [*map(_cell, found.values()), *(_ratio(found["ours"], found[name]) for name in ("trl", "dense"))]
        own = found["ours"]
        over = "–" if isinstance(own, Missed) else f"{own['seconds'] / limit:.1f}"
        cells += [f"{flops / 1e9:.3g}", f"{moved / 1e6:.3g}", f"{limit:.3g}", over]
        name = f"{dtype}, {'trained' if trained else 'frozen'} head{', half' if half else ''}"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        row = {"table": "speed", "vocabulary": args.vocabulary, "positions": args.positions, "case": name}
        row |= {"limit_seconds": limit, "gflop": flops / 1e9, "megabytes": moved / 1e6}
        append_row(args.json, row | {name: _json(each) for name, each in found.items()})
        note_failures(args, found)


def _measured_anew(loss: Loss, given: Given, trained: bool, weights: Tensor, repeats: int) -> dict[str, float]:
    """With tensors of its own, which are gone where it fails."""
    return measured(loss, given.sides(trained), weights, repeats)


def _cell(found: dict[str, float] | Missed) -> str:
    if isinstance(found, Missed):
        return found.why.replace("|", "/")
    return f"{found['seconds']:.3g} ({found['cpu_seconds']:.3g}) / {found['mib']:.0f}"


def _ratio(own: dict[str, float] | Missed, other: dict[str, float] | Missed) -> str:
    if isinstance(own, Missed) or isinstance(other, Missed):
        return "–"
    return f"{own['seconds'] / other['seconds']:.2f}"


def _json(found: Any) -> Any:
    return {"missed": found.why} if isinstance(found, Missed) else found


def note_failures(args: Any, found: dict[str, Any]) -> None:
    """Which contenders failed, for the exit status."""
    args.failures.update(name for name, each in found.items() if isinstance(each, Missed) and each.failed)


# ---- errors


@dataclass(frozen=True)
class Exact:
    """What float64 says of an objective: the definition on dense logits, and autograd through them."""

    value: float
    on_logits: Tensor  # [N, V]
    on_states: Tensor  # [N, H]
    states: Tensor  # [N, H], for the gradient on the head

    @classmethod
    def of(cls, objective: Objective, given: Given, logits: tuple[Tensor, Tensor]) -> "Exact":
        """The logits are the student's and the teacher's, as `exact_logits` makes them."""
        student = logits[0].detach().requires_grad_()
        ids = torch.zeros(len(student), dtype=torch.int64, device=student.device)
        value = total(objective, objective.parts(student, logits[1], ids)).sum()
        (on_logits,) = torch.autograd.grad(value, student)
        blocks = zip(on_logits.split(BLOCK, dim=1), given.head.split(BLOCK), strict=True)
        on_states = torch.stack([gradient @ block.double() for gradient, block in blocks]).sum(0)
        return cls(float(value.detach()), on_logits, on_states, given.student.double())

    def errors(self, loss: Loss, given: Given, *, trained: bool) -> list[float]:
        """Relative, of a loss: of its gradient on the states, on the head if it is trained, and of its value."""
        sides = given.sides(trained)
        student, head = sides[:2]
        value = loss(*sides, torch.ones(len(student), device=student.device))
        value.backward()
        found = [float((_gradient(student).double() - self.on_states).norm() / self.on_states.norm())]
        if trained:
            found.append(self._error_on_head(_gradient(head)))
        return [*found, abs(float(value.detach()) - self.value) / abs(self.value)]

    def _error_on_head(self, gradient: Tensor) -> float:
        off = norm = 0.0
        for mine, on_logits in zip(gradient.split(BLOCK), self.on_logits.split(BLOCK, dim=1), strict=True):
            wanted = on_logits.T @ self.states
            off += float((mine.double() - wanted).square().sum())
            norm += float(wanted.square().sum())
        return (off / norm) ** 0.5


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None, "backward was run"
    return tensor.grad


def exact_logits(given: Given) -> tuple[Tensor, Tensor]:
    """[N, V] in float64, of the student and of the teacher; the head is raised a block at a time."""
    both = torch.cat([given.student, given.teacher]).double()
    return torch.cat([both @ block.double().T for block in given.head.split(BLOCK)], -1).chunk(2)  # pyright: ignore


def errors(args: Any) -> None:
    """Of every implementation, forward KL, by precision and head."""
    for dtype in args.dtypes:
        rows = {(name, trained): list[list[float] | Missed]() for trained in (False, True) for name in args.losses}
        for kl in args.kls:
            given = inputs(args, getattr(torch, dtype), kl)
            exact = Exact.of(Distillation(), given, exact_logits(given))
            for (name, trained), row in rows.items():
                row.append(attempted(partial(exact.errors, args.losses[name], given, trained=trained)))
                note_failures(args, {name: row[-1]})
        _show_errors(args, f"V = {args.vocabulary:,}, {dtype}, forward KL", rows)
        for (name, trained), row in rows.items():
            case = {"table": "errors", "vocabulary": args.vocabulary, "dtype": dtype, "name": name, "trained": trained}
            append_row(args.json, case | {"kls": args.kls, "errors": [_json(each) for each in row]})


def divergences(args: Any) -> None:
    """Of ours, every divergence."""
    for dtype in args.dtypes:
        rows = {(name, trained): list[list[float] | Missed]() for trained in (False, True) for name in DIVERGENCES}
        for kl in args.kls:
            given = inputs(args, getattr(torch, dtype), kl)
            logits = exact_logits(given)
            for name, objective in DIVERGENCES.items():
                exact = Exact.of(objective, given, logits)
                for trained in (False, True):
                    rows[name, trained].append(exact.errors(ours(objective), given, trained=trained))
        _show_errors(args, f"V = {args.vocabulary:,}, {dtype}, ours", rows)


def _show_errors(args: Any, title: str, rows: dict[tuple[str, bool], list[list[float] | Missed]]) -> None:
    what = "errors in % of the gradient on states / on a trained head / of the loss"
    print(f"\n{title}: {what}, at a forward KL of about so many nats\n")
    print(f"| | {' | '.join(f'{kl:g}' for kl in args.kls)} |\n|---|{'---|' * len(args.kls)}")
    for (name, trained), found in rows.items():
        cells = (
            _cell(cell) if isinstance(cell, Missed) else " / ".join(f"{100 * error:.2g}" for error in cell)
            for cell in found
        )
        print(f"| {name}, {'trained' if trained else 'frozen'} head | {' | '.join(cells)} |", flush=True)


TABLES: dict[str, Callable[[Any], None]] = {"errors": errors, "divergences": divergences, "speed": speed}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES), help="which, between commas")
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[32_000, 151_936])
    parser.add_argument("--positions", type=int, nargs="*", default=[256, 2048])
    parser.add_argument("--error-positions", type=int, default=64, help="that errors are taken over")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--dtypes", nargs="*", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    parser.add_argument("--kls", type=float, nargs="*", default=list(KLS), help="nats at which errors are taken")
    parser.add_argument("--no-half", dest="half", action="store_false", help="speed of whole batches alone")
    parser.add_argument("--compiled", action="store_true", help="also ours with what is done with logits compiled")
    parser.add_argument("--json", type=Path, help="also append a row for every case of speed and errors")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.device, asked.failures = chosen_device(asked.device), set()
    asked.losses = LOSSES | (COMPILED if asked.compiled else {})
    asked.product_flops = {name: product_flops(asked.device, getattr(torch, name)) for name in asked.dtypes}
    asked.copied_bytes = copied_bytes(asked.device)
    print(f"{described(asked.device, asked.threads)}; {versions('torch', 'trl', 'liger-kernel')}")
    products = ", ".join(f"{flops / 1e9:,.0f} GFLOP/s in {name}" for name, flops in asked.product_flops.items())
    print(f"one large product: {products}; a copy: {asked.copied_bytes / 1e9:.1f} GB/s")
    for vocabulary, name in itertools.product(asked.vocabulary, asked.tables.split(",")):
        for positions in asked.positions if name == "speed" else [asked.error_positions]:
            TABLES[name](argparse.Namespace(**{**vars(asked), "vocabulary": vocabulary, "positions": positions}))
    if asked.failures:
        raise SystemExit(f"failed: {', '.join(sorted(asked.failures))}")


if __name__ == "__main__":
    main()
