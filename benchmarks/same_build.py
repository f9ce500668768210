"""Is a build of the embedded base model the same file again? The first steps of it, on one machine.

    python benchmarks/same_build.py --steps 60

Four builds in processes of their own: on all cores, the same again, the same killed half-way and resumed, and on one
thread. Printed are the SHA-256 of the weights and how far they are from the first, at most and relative to its norm.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parents[1]
"""Where `almanac_build` lies."""
BUILD = """
import sys, torch
from pathlib import Path
from almanac_build import stages
folder, threads, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
stages._COMMON["save_steps"] = steps // 2
stages.build_base(folder / "scratch", folder / "models", steps=steps)
"""


def built(folder: Path, threads: int, steps: int, *, killed: bool = False) -> Path:
    """The weights of a build; `killed`: with SIGKILL at its first checkpoint, and begun again."""
    command = [sys.executable, "-c", BUILD, str(folder), str(threads), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    how = {"env": environment, "cwd": REPOSITORY, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if killed:
        first = subprocess.Popen(command, **how)  # pyright: ignore
        state = folder / "scratch" / "base" / f"checkpoint-{steps // 2}" / "trainer_state.json"
        while not state.exists():
            assert first.poll() is None, "the build ended before its checkpoint was there"
            time.sleep(0.05)
        time.sleep(1)  # What follows the state is written.
        first.kill()
        first.wait()
        assert not (folder / "models").exists()
    subprocess.run(command, check=True, **how)  # pyright: ignore
    return folder / "models" / "base" / "model.safetensors"


def vector(weights: Path) -> torch.Tensor:
    """All weights in one row."""
    return torch.cat([value.double().flatten() for _, value in sorted(load_file(weights).items())])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    asked, cores = parser.parse_args(), os.cpu_count() or 1
    builds = {f"{cores} threads": (cores, False), "again": (cores, False), "killed and resumed": (cores, True)}
    with tempfile.TemporaryDirectory(prefix="afterword-build-") as scratch:
        first = None
        print(f"{asked.steps} steps\n\n| build | SHA-256 | farthest weight | relative distance |\n|---|---|---|---|")
        for name, (threads, killed) in {**builds, "1 thread": (1, False)}.items():
            weights = built(Path(scratch) / name.replace(" ", "-"), threads, asked.steps, killed=killed)
            row = vector(weights)
            first = row if first is None else first
            apart = (row - first).abs().max().item(), ((row - first).norm() / first.norm()).item()
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
            print(f"| {name} | {digest} | {apart[0]:.2g} | {apart[1]:.2g} |", flush=True)


if __name__ == "__main__":
    main()
