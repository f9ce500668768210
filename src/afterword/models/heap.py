"""Memory of this process: what is freed on a CPU stays with it, for what is allocated next; and freeing it by hand.

By default the C library gives every large block back to the system at once and asks for it again, page by page: a
tenth of a training step of a small model (docs/LOG.md). The one rule: what a person set of the heap is left alone.
"""

import ctypes
import gc
import os
from functools import cache

import torch

from afterword.distributed import device_type

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Numbers of glibc's settings, in its malloc.h."""
_MIB = 2**20
_ALWAYS = 2**31 - 1
"""The largest value that a setting takes."""


@cache
def keep_freed_memory() -> None:
    """Once a process, where it computes on a CPU and the C library is glibc; elsewhere nothing is done."""
    set_by_hand = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if set_by_hand or device_type() != "cpu" or not _is_glibc():
        return
    heap = ctypes.CDLL(None)
    # Larger blocks go back to the system: what would be wasted of them is much, and their time is spent in products.
    heap.mallopt(_MMAP_THRESHOLD, 256 * _MIB)
    heap.mallopt(_TRIM_THRESHOLD, _ALWAYS)
    heap.mallopt(_TOP_PAD, 256 * _MIB)


def free_memory() -> None:
    """Give up what nobody refers to any more, a model say: on a GPU the next one needs its memory."""
    gc.collect()
    if device_type() == "cuda":
        torch.cuda.empty_cache()


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
