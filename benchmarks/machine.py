"""What the machine can do, measured in the run that is held against it, and which versions of whom take part."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

PINNED = {"trl": "1.16.0", "liger-kernel": "0.8.5"}
"""The peers whose numbers are recorded: `pip install trl==1.16.0`, `pip install liger-kernel==0.8.5 --no-deps`."""
_MIB = 2**20


def versions(*names: str) -> str:
    """Which version of each package is installed; beside it the one of the recorded numbers, where that is another."""
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
    pinned = PINNED.get(name, found)
    return found if found == pinned else f"{found} (recorded: {pinned})"


def described(device: Any, threads: int) -> str:
    """The device in words."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{next(iter(named), platform.processor() or platform.machine())}, {threads} threads"


def chosen_device(name: str | None) -> Any:
    """The device of this name; a GPU where there is one, if none is named. Ends with a sentence where it is missing."""
    import torch

    chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"--device: {name} was asked for, and torch {torch.__version__} sees no GPU. Use cpu.")
    return chosen


def wait_for(device: Any) -> None:
    """Until everything that was asked of a GPU is done; a CPU has done it."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: Any = "cpu") -> float:
    """Seconds of work: on a GPU between two events on its stream, elsewhere by the wall clock."""
    import torch

    if torch.device(device).type != "cuda":
        with clock(device) as seconds:
            work()
        return seconds[0]
    begins, ends = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begins.record()
    work()
    ends.record()
    ends.synchronize()
    return begins.elapsed_time(ends) / 1000


@contextmanager
def clock(device: Any = "cpu") -> Iterator[list[float]]:
    """The seconds that passed, once it is left."""
    wait_for(device)
    seconds, began = list[float](), time.perf_counter()
    yield seconds
    wait_for(device)
    seconds.append(time.perf_counter() - began)


DENSE_TFLOPS = {"H100": 989.0, "H200": 989.0, "GH200": 989.0, "B200": 2250.0, "A100": 312.0, "L40S": 362.0}
"""In bfloat16, without sparsity, by the makers' sheets (SXM where there are several)."""


def peak_tflops(device: Any) -> float | None:
    """What a card's sheet says of its products in bfloat16; None for a CPU or a card that is not listed."""
    words = set(described(device, 0).replace("-", " ").split())
    return next((value for name, value in DENSE_TFLOPS.items() if name in words), None)


def product_flops(device: Any = "cpu", dtype: Any = None, repeats: int = 8) -> float:
    """FLOPs a second of a large matrix product, the best of some."""
    import torch

    side = 8192 if torch.device(device).type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype or torch.float32) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: a @ b, device, repeats)


def copied_bytes(device: Any = "cpu", repeats: int = 8) -> float:
    """Bytes a second that a large copy reads and writes, the best of some."""
    import torch

    source = torch.zeros(256 * _MIB, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source), device, repeats)


def _fastest(work: Callable[[], Any], device: Any, repeats: int) -> float:
    """Seconds."""
    return min(timed(work, device) for _ in range(repeats))


def adamw_bytes(parameters: Any) -> int:
    """What a step of AdamW reads (weight, gradient, two moments) and writes (weight, two moments), at least."""
    return sum(7 * each.numel() * each.element_size() for each in parameters if each.requires_grad)


def status_mib(name: str) -> float:
    """Memory of this process in MiB: VmRSS is now, VmHWM at most, RssAnon now without mapped files. Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
