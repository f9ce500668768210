"""Kill a run again and again, resume it every time, and compare what it comes to with a run that was never killed.

    python benchmarks/kills.py --kills 20
    python benchmarks/kills.py --commands 300   # every command in all its forms: kills_commands.py
    python benchmarks/kills.py --writing 20     # while the model writes: kills_writing.py
    python benchmarks/kills.py --rewriting 20   # while the student writes in the midst of training: kills_rewriting.py

Every kill is a SIGKILL at a random moment, and counts as "in a save" or "in a step" only by what it left on disk:
a staging folder that was not renamed, or a last step between two saves and no staging folder. Ends with exit
code 1 if any weight of any completed run differs from the reference by a single bit, or any loss does.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import load_file

PROVEN_SHARE = 0.4
"""Of the kills that must be proven to have been in a save, and the same of those in a step."""
LONGEST_SAVE_SECONDS = 0.03
"""A kill in a save comes at a random moment of so long after the staging folder appears."""
WAIT_SECONDS = 300.0
WORDS = ("Mara", "Oslo", "bakery", "bread", "six", "morning", "moved", "sells", "coffee", "river", "letter", "city")


@dataclass(frozen=True)
class Command:
    """The run that is killed: the same words every time, but for the folder."""

    model: Path
    documents: Path
    words: tuple[str, ...]

    def start(self, run: Path, log: Path) -> subprocess.Popen[bytes]:
        """`afterword adapt` in a process of its own."""
        words = [sys.executable, "-m", "afterword", "adapt", str(self.model), str(self.documents), "-o", str(run)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        with log.open("ab") as file:
            return subprocess.Popen([*words, *self.words], stdout=file, stderr=file, env=environment)


@dataclass(frozen=True)
class Kill:
    """One kill, and what it left on disk."""

    number: int
    run: str
    place: str
    step: int
    evidence: str


@dataclass
class Record:
    """All kills and all comparisons."""

    kills: list[Kill] = field(default_factory=list)
    compared: dict[str, list[str]] = field(default_factory=dict)
    """Differences of every completed run; none is what we want."""

    def places(self) -> Counter[str]:
        """How many kills were where."""
        return Counter(kill.place for kill in self.kills)

    def lacks(self, place: str, number: int) -> bool:
        """Whether more kills must be proven to have been there."""
        return self.places()[place] < round(PROVEN_SHARE * number)


def main(
    kills: Annotated[int, typer.Option(help="How often to kill.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the moments, and of the model and documents made here.")] = 0,
    steps: Annotated[int, typer.Option(help="Optimizer steps of a run.")] = 240,
    save_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 4,
    model: Annotated[Path | None, typer.Option(help="Model folder; a tiny random Llama if not given.")] = None,
    documents: Annotated[Path | None, typer.Option(help="Documents; made here if not given.")] = None,
    settings: Annotated[str, typer.Option(help="Further settings of the run, as on the command line.")] = "",
    commands: Annotated[int, typer.Option(help="Kill all commands so often instead.")] = 0,
    writing: Annotated[int, typer.Option(help="Kill a run so often while its model writes instead.")] = 0,
    rewriting: Annotated[int, typer.Option(help="The same while its student writes anew as it learns.")] = 0,
) -> None:
    """Kill, resume, compare."""
    if commands:
        from kills_commands import prepare_process, run_commands

        prepare_process()
        raise SystemExit(1 if run_commands(commands, seed) else 0)
    if writing:
        from kills_writing import run_writing

        raise SystemExit(1 if run_writing(writing, seed, str(model or "almanac-chat")) else 0)
    if rewriting:
        from kills_rewriting import run_rewriting

        raise SystemExit(1 if run_rewriting(rewriting, seed, str(model or "almanac-chat")) else 0)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="afterword-kills-") as scratch:
        folder = Path(scratch)
        words = [
            "--method",
            "disc",
            "--max-steps",
            str(steps),
            "--save-steps",
            str(save_steps),
            "--learning-rate",
            "1e-3",
        ]
        command = Command(
            model or make_model(folder / "model", seed),
            documents or make_documents(folder / "documents.jsonl", seed),
            (*words, "--lr-scheduler-type", "cosine", *settings.split()),
        )
        started = time.monotonic()
        reference = folder / "reference"
        finish(command, reference)
        print(f"reference: {steps} steps, saved every {save_steps}, {time.monotonic() - started:.0f} s", flush=True)
        record = kill_all(command, folder, kills, save_steps, chance)
        report(record, time.monotonic() - started)
    enough = not any(record.lacks(place, kills) for place in ("save", "step"))
    raise SystemExit(0 if enough and not any(record.compared.values()) else 1)


def kill_all(command: Command, folder: Path, kills: int, save_steps: int, chance: random.Random) -> Record:
    """Kill until there are enough kills, with enough of them proven; then finish the last run too."""
    record, runs = Record(), 1
    while len(record.kills) < 2 * kills and (
        len(record.kills) < kills or record.lacks("save", kills) or record.lacks("step", kills)
    ):
        run = folder / f"run-{runs}"
        wanted = chance.choice([place for place in ("save", "step") if record.lacks(place, kills)] or ["save", "step"])
        if kill_once(command, run, wanted, save_steps, chance):
            record.kills.append(evidence(run, len(record.kills) + 1, save_steps))
            print(line(record.kills[-1]), flush=True)
        else:
            record.compared[run.name] = differences(run, folder / "reference")
            shutil.rmtree(run)
            runs += 1
    run = folder / f"run-{runs}"
    if run.exists():
        finish(command, run)
        record.compared[run.name] = differences(run, folder / "reference")
    return record


def kill_once(command: Command, run: Path, wanted: str, save_steps: int, chance: random.Random) -> bool:
    """Start or resume the run and kill it after some steps; False if it ended before it was killed."""
    before = size(run / "metrics.jsonl")
    process = command.start(run, run.with_suffix(".log"))
    goes_on = chance.randint(2, 60)
    # What was there is cut back to the checkpoint before the first new row is written.
    alive = until(process, lambda: size(run / "metrics.jsonl") not in (0, before))
    first = last_step(run)
    alive = alive and until(process, lambda: last_step(run) >= first + goes_on)
    if wanted == "save":
        alive = alive and until(process, lambda: staging(run))
        time.sleep(chance.uniform(0, LONGEST_SAVE_SECONDS))
    else:
        alive = alive and until(process, lambda: last_step(run) % save_steps and not staging(run))
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{run.name} ended with exit code {code}:\n{run.with_suffix('.log').read_text()}")
    return code != 0


def until(process: subprocess.Popen[bytes], happened: Callable[[], object]) -> bool:
    """Poll about every half millisecond; False if the process ended first."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not happened():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            process.kill()
            raise SystemExit(f"nothing happened for {WAIT_SECONDS:.0f} s")
        time.sleep(0.0005)
    return True


def evidence(run: Path, number: int, save_steps: int) -> Kill:
    """Where a kill was, by what it left."""
    step, staged = last_step(run), staging(run)
    if staged:
        files = sorted(path.name for path in (run / staged[0]).iterdir())
        return Kill(number, run.name, "save", step, f"{staged[0]} with {len(files)} files")
    if (run / "result.partial").exists():
        return Kill(number, run.name, "result", step, "result.partial")
    if step % save_steps:
        return Kill(number, run.name, "step", step, f"no staging folder, {step % save_steps} past the last save")
    return Kill(number, run.name, "unproven", step, "at the border of a save")


def finish(command: Command, run: Path) -> None:
    """Run, or resume, to the end."""
    log = run.with_suffix(".log")
    if code := command.start(run, log).wait():
        raise SystemExit(f"{run.name} ended with exit code {code}:\n{log.read_text()}")


def differences(run: Path, reference: Path) -> list[str]:
    """What differs from the reference: tensors, bit by bit, and the losses of the steps."""
    found = []
    for file in sorted(reference.glob("*.safetensors")):
        ours, theirs = load_file(run / file.name), load_file(file)
        if ours.keys() != theirs.keys():
            found.append(f"{file.name}: other tensors")
            continue
        different = [n for n in theirs if ours[n].numpy().tobytes() != theirs[n].numpy().tobytes()]
        found += [f"{file.name}: {name}" for name in different]
    return found + ([] if losses(run) == losses(reference) else ["metrics.jsonl: other steps or losses"])


def losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every row."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [(row["step"], row["train/loss_nats"]) for row in rows]


def last_step(run: Path) -> int:
    """The step of the last whole row of metrics.jsonl; 0 without one."""
    path = run / "metrics.jsonl"
    if not size(path):
        return 0
    with path.open("rb") as file:
        file.seek(-min(size(path), 4096), os.SEEK_END)
        whole = file.read().split(b"\n")[:-1]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def staging(run: Path) -> list[str]:
    """Checkpoints that are just being written."""
    names = os.listdir(run) if run.is_dir() else []
    return [name for name in names if name.startswith("checkpoint-") and name.endswith(".partial")]


def size(path: Path) -> int:
    """In bytes; 0 for a file that is not there."""
    return path.stat().st_size if path.exists() else 0


def line(kill: Kill) -> str:
    """A row of the table."""
    return f"{kill.number:>4}  {kill.run:<8}{kill.place:<10}{kill.step:>5}  {kill.evidence}"


def report(record: Record, seconds: float) -> None:
    """The counts and the verdict."""
    counts = ", ".join(f"{count} {place}" for place, count in sorted(record.places().items()))
    print(f"{len(record.kills)} kills ({counts}) and {len(record.compared)} completed runs in {seconds:.0f} s")
    for run, different in record.compared.items():
        print(f"{run}: {'DIFFERS in ' + ', '.join(different) if different else 'bit-identical to the reference'}")


def make_documents(path: Path, seed: int) -> Path:
    """Thirty documents of three to nine sentences of made-up words."""
    chance = random.Random(seed)

    def sentence() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(4, 9))).capitalize() + "."

    texts = [" ".join(sentence() for _ in range(chance.randint(3, 9))) for _ in range(30)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def make_model(folder: Path, seed: int) -> Path:
    """A random Llama of two layers with a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = make_tokenizer(folder)
    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 1024}
    LlamaForCausalLM(LlamaConfig(vocab_size=tokens, **shape, **ends)).save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer with BOS and EOS; how many tokens it has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return len(vocabulary)


if __name__ == "__main__":
    typer.run(main)
