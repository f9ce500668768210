"""What a training step holds at most, part by part: counted where it can be, measured where it must be.

Weights, gradients and moments follow from shapes. What forward and backward add to them (activations, logits, what is
passed from layer to layer) is measured on a real step: by the allocator of a GPU; on the CPU by what the process has in
memory, because the C library keeps much of what tensors give back, or where no one tells, by watching every tensor.
"""

import contextlib
import ctypes
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afterword import models

_PIECE, _PIECE_BYTES = 2**18, 160
"""Values of a weight that training/small_adamw.py updates at a time, and bytes of intermediate results for each."""
_RESET = Path("/proc/self/clear_refs")
"""Linux: forgets the most that the process had in memory when a 5 is written to it."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the fullest moment of a step."""

    weights: int
    teacher: int
    gradients: int
    moments: int
    """AdamW's two."""
    kept: int
    """The start that `l2sp` pulls to, the average of `ema`, and that of a teacher that follows."""
    passing: int
    """Forward and backward: activations, logits and gradients on them, above the gradients on weights."""
    updating: int
    """The optimizer's intermediate results; on the CPU also what the C library does not give back of activations."""

    @property
    def total(self) -> int:
        """All of it; forward and backward take turns with the optimizer's step."""
        held = self.weights + self.teacher + self.gradients + self.moments + self.kept
        return held + max(self.passing, self.updating)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of the storages behind these tensors, each counted once; of a quantised tensor, what it is made of."""
    sizes: dict[int, int] = {}
    for tensor in (part for whole in tensors for part in _plain(whole)):
        storage = tensor.untyped_storage()
        # Not by its address: on the meta device there is none.
        sizes[storage._cdata] = storage.nbytes()  # pyright: ignore[reportPrivateUsage]  (nothing public tells two apart)
    return sum(sizes.values())


def moment_bytes(weight: Tensor, states: str | None) -> int:
    """Of AdamW's two moments of a weight, by `optimizer_states`. None: in the weight's own precision."""
    values = weight.numel()
    if states == "8bit" and values >= 4096 and values % 256 == 0:
        # A byte a value, a float32 scale for 256 of them, and the 256 float32 values that a byte stands for.
        return 2 * (values + 4 * (values // 256) + 4 * 256)
    return 2 * values * (weight.element_size() if states is None else 4)


def updating_bytes(weights: list[Tensor], states: str | None) -> int:
    """What AdamW's step adds for its intermediate results.

    torch takes a root of the second moments: on a GPU of all weights at once, on the CPU of one after the other, with
    a quotient. torchao's are fused on a GPU, and those of a piece of a weight on the CPU.
    """
    moments = [moment_bytes(weight, states) // 2 for weight in weights]
    if states is None:
        return sum(moments) if weights[0].is_cuda else 2 * max(moments)
    return 0 if weights[0].is_cuda else _PIECE_BYTES * min(_PIECE, max(weight.numel() for weight in weights))


def peak_bytes(device: torch.device, work: Callable[[], None]) -> tuple[int, int]:
    """The most bytes that `work` has when it is done a second time, and those that are left: above those before.

    From the first time on libraries keep what they need for themselves.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    with contextlib.suppress(OSError):
        return _resident_peak(work)
    with _Watching() as watching:
        work()
        watching.peak = watching.held
        work()
    return watching.peak, watching.held


def _resident_peak(work: Callable[[], None]) -> tuple[int, int]:
    """The same of all that the process has in memory. OSError where the system does not tell."""
    _RESET.write_text("5", encoding="ascii")
    gc.collect()
    with contextlib.suppress(AttributeError):
        # Of glibc: give back what loading a model has left, or work would be done in it.
        ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    work()
    _RESET.write_text("5", encoding="ascii")
    work()
    return max(0, _resident("VmHWM") - before), max(0, _resident("VmRSS") - before)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


class _Watching(TorchDispatchMode):
    """Counts the storages of all tensors that operations return, from when they are made until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  (torch gives it no types)
        self.held = self.peak = 0
        self.seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, and what it made noted."""
        given = self._storages((args, kwargs))
        known = {id(storage) for storage in given}
        out = func(*args, **(kwargs or {}))
        for storage in self._storages(out):
            # A view, or a tensor that was there before.
            if id(storage) not in known and storage not in self.seen:
                self._note(storage)
        return out

    def _note(self, storage: Any) -> None:
        size = storage.nbytes()
        self.seen[storage] = size
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.held -= size

    def _storages(self, values: Any) -> list[Any]:
        return [each.untyped_storage() for each in tree_leaves(values) if isinstance(each, Tensor)]


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    if hasattr(tensor, "__tensor_flatten__"):
        flattened: Any = tensor
        names: list[str] = flattened.__tensor_flatten__()[0]
        yield from (part for name in names for part in _plain(getattr(tensor, name)))
    else:
        yield tensor.detach()
        yield from models.scales_of(tensor)
