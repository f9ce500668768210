"""The parts of benchmarks/on_a_gpu.sh, one after another: each with its own time, files and line in a closing table.

    benchmarks/on_a_gpu.sh OUT

(a) the tests that need a GPU; (b) the loss alone; (c) a step of training beside TRL and the authors' loop, and packed
texts beside the same alone; (d) Qwen3-8B as docs/EIGHT_BILLION.md plans it; (e) writing; (f) several processes beside
one. A part that fails or takes too
long does not stop the others, and what it had found by then counts. OUT/X.json is what was found, OUT/X.log what was
said, OUT/table.md the table. Exit status: 0 if every part ran to its end or had nothing to do here, 1 if not.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ON_A_CARD.md"
BEGIN, END = "<!-- benchmarks/on_a_gpu.sh --fill: from here -->", "<!-- to here -->"
SECONDS = 115.0
"""Of a part: two minutes with what is around it."""
GRACE_SECONDS = 5.0
"""Between asking what runs too long to end, and ending it."""
WAY = "full, bf16, 8-bit moments, cached teacher, checkpointing"
"""Of docs/EIGHT_BILLION.md."""
GOAL_GIB, GOAL_MFU = 80.0, 0.45
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Command:
    """A program of a part. `until`: the share of the part's time that is gone when it has to be done."""

    words: tuple[str, ...]
    until: float = 1.0


@dataclass(frozen=True)
class Part:
    """What is run, and what a reader is told of what it wrote down."""

    name: str
    what: str
    commands: tuple[Command, ...]
    told: Callable[[Rows, Path], list[str]]


@dataclass(frozen=True)
class Result:
    """A line of the table."""

    part: str
    what: str
    status: str
    """ok, failed, timed out, or skipped: there was nothing to do here."""
    seconds: float
    found: list[str]
    commands: list[str]
    rows: Rows


# ---- what is run


def parts(out: Path, device: str, tiny: bool) -> list[Part]:
    """In their order."""
    on = ("--device", device)

    def script(name: str, letter: str, *words: str, until: float = 1.0) -> Command:
        """One of benchmarks/, which writes down what it finds as it finds it."""
        place = ("--json", str(_rows_file(out, letter)))
        return Command((sys.executable, str(ROOT / "benchmarks" / name), *on, *place, *words), until)

    tests = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8"))
    pytest = ("-m", "pytest", "-m", "gpu", "-rfE", "-p", "no:cacheprovider", f"--junitxml={_junit_file(out)}")
    # On a card most of their time is what processors need to compile.
    pytest += ("-n", "4") if device == "cuda" and find_spec("xdist") else ()
    loss = ("--tables", "errors,speed", "--kls", "5e-4", "--no-half")
    bf16, large = (*loss, "--dtypes", "bfloat16", "--compiled"), ("--vocabulary", "151936")
    epoch = ("--rounds", "1", "--steps", "3")
    eight = ("--measure", "--only", WAY)
    if tiny:
        few = ("--vocabulary", "500", "--hidden", "32", "--repeats", "1", "--positions", "16", "--error-positions")
        losses = (script("loss.py", "b", *bf16, *few, "16"),)
        small = ("--shape", "tiny", "--per-step", "2", "--sentences", "6", "--micro-batch-tokens", "128")
        only = ("--only", "trl, bfd, whole step;finetune;mixcpt;disc;authors")
        steps = (
            script("epoch.py", "c", *epoch, *small, *only, until=0.7),
            script("attention.py", "c", "--shape", "tiny", "--tokens", "200", "--repeats", "1"),
        )
        eight = (*eight, "--shape", "tiny", "--tokens", "256")
        writing = ("--shapes", "tiny", "--rows", "1", "4", "--prompt-tokens", "8", "--new-tokens", "4")
        several = ("--steps", "2", "--items", "8")
    else:
        losses = (
            script("loss.py", "b", *bf16, *large, "--positions", "2048", "16384", until=0.75),
            script("loss.py", "b", *loss, *large, "--dtypes", "float32", "--positions", "2048"),
        )
        whole = ("--shape", "0.6b", "--precision", "mixed", "--per-step", "16", "--micro-batch-tokens", "8192")
        only = ("--only", "trl, bfd;trl, bfd, whole step;trl, bfd, liger;finetune;mixcpt;disc;authors")
        steps = (script("epoch.py", "c", *epoch, *whole, *only, until=0.7), script("attention.py", "c"))
        writing, several = ("--new-tokens", "64"), ()
    return [
        Part("a", "tests that need a GPU", (Command((sys.executable, *pytest, *tests)),), told_of_tests),
        Part("b", "the loss alone", losses, told_of_loss),
        Part("c", "a step of training", steps, told_of_steps),
        Part("d", "Qwen3-8B, all weights", (script("eight_billion.py", "d", *eight),), told_of_eight),
        Part("e", "writing", (script("generation.py", "e", *writing),), told_of_writing),
        Part("f", "several processes", (script("several_gpus.py", "f", *several),), told_of_processes),
    ]


def _rows_file(out: Path, letter: str) -> Path:
    return out / f"{letter}.rows"


def _junit_file(out: Path) -> Path:
    return out / "a.xml"


# ---- what is told of it


def told_of_tests(_: Rows, out: Path) -> list[str]:
    """Counts, and the names of the first that failed; from the log where the tests did not come to their end."""
    if not _junit_file(out).is_file():
        log = (out / "a.log").read_text("utf-8", errors="replace")
        failed = re.findall(r"^FAILED (\S+)", log, re.MULTILINE)[:3]
        return [f"not at their end; failed: {', '.join(failed) or 'none named'}"]
    cases = list(ElementTree.parse(_junit_file(out)).iter("testcase"))
    kinds = {"failed": ("failure", "error"), "skipped": ("skipped",)}
    found = {kind: [c for c in cases if any(c.find(tag) is not None for tag in tags)] for kind, tags in kinds.items()}
    passed = len(cases) - sum(map(len, found.values()))
    told = [f"{passed} passed, {len(found['failed'])} failed, {len(found['skipped'])} skipped"]
    if cases and len(found["skipped"]) == len(cases):
        told = [f"all {len(cases)} skipped: there is no GPU here"]
    return told + [f"first to fail: {case.get('name')}" for case in found["failed"][:3]]


def told_of_loss(rows: Rows, _: Path) -> list[str]:
    """Milliseconds and MiB at every size, and errors of the gradient on states."""
    told = list[str]()
    for row in (row for row in rows if row["table"] == "speed"):
        named = {name: each for name, each in row.items() if isinstance(each, dict)}
        cells = [f"{name} {_of_loss(each)}" for name, each in named.items()]
        told.append(f"N = {row['positions']:,}, {row['case']}, ms / MiB: {'; '.join(cells)}")
    errors = [row for row in rows if row["table"] == "errors"]
    for dtype, trained in dict.fromkeys((row["dtype"], row["trained"]) for row in errors):
        these = [row for row in errors if (row["dtype"], row["trained"]) == (dtype, trained)]
        cells = [f"{row['name']} {_of_errors(row['errors'][-1])}" for row in these]
        head = "on states / on a trained head" if trained else "on states"
        told.append(f"gradient off, {dtype}, KL {these[0]['kls'][-1]:g}, {head}: {'; '.join(cells)}")
    return told


def _of_loss(found: dict[str, Any]) -> str:
    return found.get("missed") or f"{1000 * found['seconds']:.3g} / {found['mib']:.0f}"


def _of_errors(found: Any) -> str:
    # The last is that of the loss itself.
    return found["missed"] if isinstance(found, dict) else " / ".join(f"{100 * error:.2g} %" for error in found[:-1])


def told_of_steps(rows: Rows, _: Path) -> list[str]:
    """Tokens a second and MFU, ratios beside the counted ones, and packed beside alone."""
    steps = {row["name"]: row for row in rows if row["table"] == "steps"}
    done = {name: row for name, row in steps.items() if "missed" not in row}
    told = [f"{name}: {row['missed']}" if "missed" in row else f"{name}: {_speed(row)}" for name, row in steps.items()]
    stock = min((name for name in done if name.startswith("trl")), key=lambda name: done[name]["seconds"], default="")
    for name, other in (("finetune", stock), ("mixcpt", stock), ("disc", stock), ("disc", "authors")):
        if name in done and other in done:
            time_, counted = (done[name][what] / done[other][what] for what in ("seconds", "flops"))
            told.append(f"{name} / {other}: {time_:.2f} of the time, counted {counted:.2f}")
    for row in (row for row in rows if row["table"] == "attention"):
        told.append(f"packed beside alone, {row['kernel']}: {row.get('missed') or _apart(row)}")
    return told


def _speed(row: dict[str, Any]) -> str:
    mfu = f", MFU {100 * row['mfu']:.0f} %" if row.get("mfu") else ""
    return f"{row['tokens_per_second']:,.0f} tokens a second{mfu}"


def _apart(row: dict[str, Any]) -> str:
    gradient = "no backward here" if row["gradient"] is None else f"gradient {row['gradient']:.1g}"
    return f"states {row['states']:.1g}, {gradient}, {1000 * row['seconds']:.3g} ms"


def told_of_eight(rows: Rows, _: Path) -> list[str]:
    """Memory beside the estimate, speed, and whether the goals are met."""
    told = list[str]()
    for row in rows:
        if row["table"] == "estimate":
            told.append(f"dry run, {row['shape']}: {row['estimated_gib']:.3g} GiB")
        elif row["table"] == "step":
            held = "" if row["gib"] is None else f", {row['gib']:.1f} GiB at most so far"
            told.append(f"a step: {row['seconds']:.2f} s{held}")
        elif "missed" in row:
            told.append(row["missed"])
        else:
            told.append(f"counted {row['counted_gib']:.3g} GiB")
            if row["gib"] is not None:
                told.append(f"held {row['gib']:.1f} GiB ({_goal(row['gib'] <= GOAL_GIB, f'at most {GOAL_GIB:g}')})")
            told.append(f"{row['tokens_per_second']:,.0f} tokens a second, {row['seconds']:.2f} s a step")
            if row["mfu"] is not None:
                told.append(f"MFU {100 * row['mfu']:.1f} % ({_goal(row['mfu'] >= GOAL_MFU, f'{100 * GOAL_MFU:g} %')})")
    return told


def _goal(met: bool, goal: str) -> str:
    return f"goal {goal}: {'met' if met else 'missed'}"


def told_of_writing(rows: Rows, _: Path) -> list[str]:
    """Tokens a second, by model and texts at a time."""
    told = list[str]()
    for row in rows:
        where = f"{row['shape']}, {row['rows']} at a time" if "rows" in row else row["shape"]
        told.append(f"{where}: {row['missed'] if 'missed' in row else _speed(row)}")
    return told


def told_of_processes(rows: Rows, _: Path) -> list[str]:
    """Seconds of each, and how far it is from one process."""
    return [row["missed"] if "missed" in row else f"{row['name']}: {_of_processes(row)}" for row in rows]


def _of_processes(row: dict[str, Any]) -> str:
    seconds = f"adapt {row['adapt_seconds']:.0f} s, evaluate {row['evaluate_seconds']:.0f} s"
    return f"{seconds}; losses {row['losses_apart']:.1g} apart, scores {row['scores_apart']:.3f}"


# ---- running


def run_part(part: Part, out: Path, seconds: float) -> Result:
    """Its commands one after another, in its time; what they wrote down is kept whatever becomes of them."""
    began, status = time.monotonic(), "ok"
    rows_file = _rows_file(out, part.name)
    _forget(rows_file, _junit_file(out))
    with (out / f"{part.name}.log").open("wb") as log:
        for command in part.commands:
            log.write(f"$ {' '.join(command.words)}\n".encode())
            log.flush()
            code = run(command.words, log, command.until * seconds - (time.monotonic() - began))
            if code is None:
                status = "timed out"
            elif code != 0 and status == "ok":
                status = "failed"
    took = time.monotonic() - began
    lines = rows_file.read_text("utf-8").splitlines() if rows_file.is_file() else []
    rows = [json.loads(line) for line in lines]
    found = part.told(rows, out)
    if status == "ok" and found and "skipped: there is no GPU" in found[0]:
        status = "skipped"
    if status == "failed" and not found:
        found = [f"nothing; see {part.name}.log"]
    _forget(rows_file, _junit_file(out))
    commands = [" ".join(command.words) for command in part.commands]
    result = Result(part.name, part.what, status, took, found, commands, rows)
    (out / f"{part.name}.json").write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    return result


def _forget(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def run(words: Sequence[str], log: Any, seconds: float) -> int | None:
    """The exit status of a command; None if its time was up, when it is ended with all that it started."""
    process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Also what it left running when it came to its end, or when this program is interrupted.
        for signalled, wait in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signalled)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=wait)


def described_machine(device: str | None) -> tuple[str, str]:
    """The kind of device, and a line about machine and versions; by a process of its own, which holds no memory."""
    code = (
        "import torch, machine; d = machine.chosen_device({!r}); print(d.type); "
        "print(machine.described(d, torch.get_num_threads()) + '; ' + machine.versions({}))"
    )
    names = ("torch", "transformers", "accelerate", "trl", "liger-kernel", "flash-attn", "torchao")
    command = [sys.executable, "-c", code.format(device, ", ".join(map(repr, names)))]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    kind, line = done.stdout.strip().splitlines()[-2:]
    return kind, line


def table(results: Sequence[Result], machine: str, seconds: float) -> str:
    """In Markdown."""
    head = [f"{machine}; {seconds:.0f} s in all.", "", "| part | | status | seconds | found |", "|---|---|---|--:|---|"]
    cells = ([r.part, r.what, r.status, f"{r.seconds:.0f}", _in_cell(r.found)] for r in results)
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


def _in_cell(found: Sequence[str]) -> str:
    return "<br>".join(line.replace("|", "/") for line in found) or "–"


def filled(page: str, made: str) -> str:
    """The page with the table between its marks."""
    assert page.count(BEGIN) == page.count(END) == 1, "the page has one place for the table"
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n{END}{rest.split(END)[1]}"


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for what is found; made if it is not there")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, if not given")
    parser.add_argument("--tiny", action="store_true", help="the smallest shapes: whether it runs, not how fast")
    parser.add_argument("--only", action="append", choices=tuple("abcdef"), help="a part; may be repeated")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each part (%(default)g)")
    parser.add_argument("--fill", action="store_true", help=f"also put the table into {PAGE.relative_to(ROOT)}")
    asked = parser.parse_args()
    if asked.seconds <= 0:
        parser.error(f"--seconds: {asked.seconds:g} is no time. Give more than 0.")
    if asked.out.exists() and not asked.out.is_dir():
        parser.error(f"OUT: {str(asked.out)!r} is a file. Give a folder.")
    return asked


def main() -> int:
    """Run them, and print the table."""
    asked = arguments()
    device, machine = described_machine(asked.device)
    if device == "cpu" and not asked.tiny:
        raise SystemExit("There is no GPU here, and these shapes are for one. Give --device cpu --tiny to try it out.")
    out, began, results = asked.out.resolve(), time.monotonic(), list[Result]()
    out.mkdir(parents=True, exist_ok=True)
    for part in parts(out, device, asked.tiny):
        if asked.only and part.name not in asked.only:
            continue
        print(f"({part.name}) {part.what} …", file=sys.stderr, flush=True)
        results.append(run_part(part, out, asked.seconds))
        made = table(results, machine, time.monotonic() - began)
        (out / "table.md").write_text(made, "utf-8")
    print(made)
    if asked.fill:
        PAGE.write_text(filled(PAGE.read_text("utf-8"), made), "utf-8")
    return 0 if all(result.status in ("ok", "skipped") for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
