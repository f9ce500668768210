"""What a cell took: passes, documents, tokens, seconds, and FLOPs by the formula of METHODS §1.

The one rule: tokens and positions are those that the run counted in metrics.jsonl, over all its resumes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afterword.models import ModelSize
from afterword.storage.parsing import parse_json


def training_flops(
    size: ModelSize,
    *,
    student_tokens: int,
    teacher_tokens: int,
    trained_positions: int,
    teacher_positions: int,
    frozen: bool = False,
) -> float:
    """2 N and 2 H V for a token and position read, 4 N and 4 H V more for the student's backward (METHODS §1).

    Positions are the trained ones, where alone there are heads; the teacher has one where it reads. Under an
    adapter (`frozen`) the backward goes through the weights but not into them, which halves it. Attention's own
    products, the adapter and gradient checkpointing are left out.

    By hand, for N = 10, H = 2, V = 5: 100 student tokens 6000, 50 teacher tokens 1000, 20 positions 20 · (60 + 20).

    >>> counts = {"student_tokens": 100, "teacher_tokens": 50, "trained_positions": 20, "teacher_positions": 20}
    >>> training_flops(ModelSize(10, 2, 5), **counts)
    8600.0
    """
    head, backward = size.hidden * size.vocabulary, 2 if frozen else 4
    student = (2 + backward) * (size.backbone * student_tokens + head * trained_positions)
    teacher = 2 * (size.backbone * teacher_tokens + head * teacher_positions)
    return float(student + teacher)


def cost_of(run: Path, size: ModelSize, *, frozen: bool) -> dict[str, Any]:
    """The costs of a finished run: epochs (passes), steps, documents, tokens, FLOPs, seconds of its steps.

    Where an alignment followed, `align` holds its tokens, FLOPs and seconds; both are in the run's totals of FLOPs
    and seconds. `teacher_read_once`: what a cached teacher read before the first step, which is not in the totals, as
    all runs that read the same share it.
    """
    rows = [parse_json(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if "train/loss_nats" in row]
    tokens = {name: _total(steps, f"data/{name}") for name in ("student_tokens", "teacher_tokens")}
    positions = {name: _total(steps, f"data/{name}") for name in ("trained_positions", "teacher_positions")}
    peaks = [row["memory/peak_gib"] for row in steps if "memory/peak_gib" in row]
    second = _alignment_cost(run / "aligned" / "align.json", size, frozen=frozen)
    return {
        "epochs": steps[-1]["epoch"],
        "steps": len(steps),
        "documents": _total(steps, "data/documents"),
        **tokens,
        "flops": training_flops(size, **tokens, **positions, frozen=frozen) + second.get("flops", 0.0),
        "train_seconds": sum(map(_seconds, steps)) + second.get("seconds", 0.0),
        "peak_gib": max(peaks, default=None),
        **({"align": second} if second else {}),
        **_read_once(run / "data.json", size),
    }


def _read_once(data: Path, size: ModelSize) -> dict[str, Any]:
    once = parse_json(data.read_text(encoding="utf-8")).get("teacher_read_once") if data.is_file() else None
    if not once:
        return {}
    read = once["tokens"]
    flops = training_flops(size, student_tokens=0, teacher_tokens=read, trained_positions=0, teacher_positions=0)
    return {"teacher_read_once": {"tokens": once["tokens"], "flops": flops}}


def _alignment_cost(state: Path, size: ModelSize, *, frozen: bool) -> dict[str, Any]:
    """Of the alignment with this align.json, nothing without one. Its heads are at every position that it reads."""
    if not state.is_file():
        return {}
    stages = parse_json(state.read_text(encoding="utf-8"))["stages"]
    tokens = {name: stage["tokens"] for name, stage in stages.items()}
    # DPO's reference reads what its policy reads.
    policy, reference = sum(tokens.values()), tokens.get("dpo", 0)
    flops = training_flops(
        size,
        student_tokens=policy,
        teacher_tokens=reference,
        trained_positions=policy,
        teacher_positions=reference,
        frozen=frozen,
    )
    return {"tokens": tokens, "flops": flops, "seconds": sum(stage["seconds"] for stage in stages.values())}


def _total(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(row.get(name, 0) for row in rows)


def _seconds(row: Mapping[str, Any]) -> float:
    tokens = row.get("data/student_tokens", 0) + row.get("data/teacher_tokens", 0)
    return tokens / row["speed/tokens_per_second"] if row.get("speed/tokens_per_second") else 0.0
