"""Freed memory stays with a process that computes on a CPU, unless a person set the heap."""

import os
import sys

import pytest
from commands import run_python

CODE = """
import torch
from afterword.models.heap import keep_freed_memory
import resource

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if {called}:
    keep_freed_memory()
faults()
for _ in range(16):
    torch.empty(8 << 20).fill_(1.0)
before = faults()
for _ in range(4):
    torch.empty(8 << 20).fill_(1.0)
print(faults() - before)
"""


def faults(called: bool, **environment: str) -> int:
    """Pages that four blocks of 32 MiB ask the system for after others were freed."""
    unset = {name: None for name in os.environ if name.startswith(("MALLOC", "GLIBC"))}
    return int(run_python("-c", CODE.format(called=called), environment={**unset, **environment}).out.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_was_freed_is_used_again():
    torch = pytest.importorskip("torch")
    if torch.accelerator.is_available():
        pytest.skip("an accelerator: nothing is set")
    kept, plain = faults(called=True), faults(called=False)
    assert kept < 100
    assert plain > 1000, "what this test is about is there"
    assert faults(called=True, MALLOC_MMAP_THRESHOLD_="131072") > 1000, "set by a person"
