"""Freed memory stays with a process that computes on a CPU, unless a person set the heap."""

import json
import os
import sys

import pytest
from commands import run_python

CODE = """
import json, os, sys
import torch
from afterword.models.heap import keep_freed_memory
import resource

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for called, environment in json.loads(sys.argv[1]):
    # The heap of a process is set once.
    if os.fork():
        os.wait()
        continue
    os.environ.update(environment)
    if called:
        keep_freed_memory()
    for _ in range(16):
        torch.empty(8 << 20).fill_(1.0)
    before = faults()
    for _ in range(4):
        torch.empty(8 << 20).fill_(1.0)
    print(faults() - before, flush=True)
    os._exit(0)
"""


def faults(*cases: tuple[bool, dict[str, str]]) -> list[int]:
    """Pages that four blocks of 32 MiB ask the system for after others were freed: of each case, called or not."""
    unset = {name: None for name in os.environ if name.startswith(("MALLOC", "GLIBC"))}
    return [int(line) for line in run_python("-c", CODE, json.dumps(cases), environment=unset).out.splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_was_freed_is_used_again():
    torch = pytest.importorskip("torch")
    if torch.accelerator.is_available():
        pytest.skip("an accelerator: nothing is set")
    kept, plain, by_hand = faults((True, {}), (False, {}), (True, {"MALLOC_MMAP_THRESHOLD_": "131072"}))
    assert kept < 100
    assert plain > 1000, "what this test is about is there"
    assert by_hand > 1000, "set by a person"
