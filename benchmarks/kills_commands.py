"""Kill every command again and again, give it again, and compare what it comes to with a run that was never killed.

    python benchmarks/kills.py --commands 300

Each is a SIGKILL at a random moment between the start and the end of the command: while documents are prepared, a
teacher is cached, a step is taken, a checkpoint, a result, a score, a page or a card is written. A command is forked
from this process, so that no time goes to imports; it is given again until it ends by itself, and may be killed again
on the way. Weights must then be the same bit for bit, and so must be scores, the steps in metrics.jsonl and the names
of all files.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

_AGAIN = 0.75
"""Share of the commands given again that are killed again."""
_LIMIT_SECONDS = 300.0
_PASSING = re.compile(r"\.lock$|\.fingerprint$|\.partial$|^\.|^checkpoint-")
"""Files that say nothing of a result: locks, names, what was begun, checkpoints."""
_TIMES = re.compile(
    r"seconds|created|time|per_second|command|environment|flops|memory|peak|path|folder|version|output_dir"
)


@dataclass(frozen=True)
class Form:
    """A command in one of its forms; OUT stands for the folder it writes, IN for what all read."""

    name: str
    words: tuple[str, ...]
    before: str = ""
    """The form whose result it starts from, as a copy in OUT (or beside it, where the words name RUN)."""


@dataclass
class Record:
    """All kills, by form, and every difference."""

    kills: Counter[str] = field(default_factory=Counter[str])
    completed: Counter[str] = field(default_factory=Counter[str])
    left: Counter[str] = field(default_factory=Counter[str])
    """What the killed process had left that tells where it was."""
    problems: list[str] = field(default_factory=list[str])


_ADAPT = "adapt IN/model IN/documents.jsonl -o OUT --max-steps 8 --save-steps 2 --learning-rate 1e-3"
_ADAPT += " --lr-scheduler-type cosine"
_GUIDED = "adapt IN/model IN/few.jsonl -o OUT --method finetune"
_ALIGN = "--instructions IN/chats.jsonl --preferences IN/pairs.jsonl --chat-template plain --sft-batch-size 2"
_ALIGN += " --dpo-batch-size 2"
_SUITE = "--suite IN/suite.jsonl --methods finetune,disc --learning-rates 1e-3 --adapt max_steps=2"
_SUITE += " --evaluate samples=0 --evaluate answer_tokens=2"
_EVALUATE = "--suite IN/suite.jsonl --questions IN/questions.jsonl --samples 4"
_BLEND = "--suite IN/suite.jsonl --lambda 0.5 --lambda 1 --evaluate samples=0"
FORMS = (
    Form("adapt disc", tuple(f"{_ADAPT} --method disc".split())),
    Form("adapt finetune", tuple(f"{_ADAPT} --method finetune".split())),
    Form("adapt LoRA merged", tuple(f"{_ADAPT} --method disc --use-peft --merge-adapter".split())),
    Form("adapt cached teacher", tuple(f"{_ADAPT} --method disc --teacher cached --teacher-cache OUT.teacher".split())),
    Form("adapt mixture", tuple(f"{_ADAPT} --method mixcpt --mixture more=IN/few.jsonl,tokens=0.3".split())),
    Form("adapt chosen settings", tuple(_GUIDED.split())),
    Form("align", tuple(f"align IN/model -o OUT {_ALIGN}".split())),
    Form("evaluate", tuple(f"evaluate OUT {_EVALUATE}".split()), "adapt disc"),
    Form("compare", tuple(f"compare IN/model IN/few.jsonl {_SUITE} -o OUT".split())),
    Form("blend", tuple(f"blend IN/model RUN {_BLEND} -o OUT".split()), "adapt disc"),
    Form("report", ("report", "OUT"), "evaluate"),
)


def run_commands(kills: int, seed: int, names: Sequence[str] = ()) -> int:
    """Kill so often in all; the number of problems. Prints a line a kill and the counts at the end."""
    chance, record, began = random.Random(seed), Record(), time.monotonic()
    forms = [form for form in FORMS if not names or form.name in names]
    with tempfile.TemporaryDirectory(prefix="afterword-kills-") as scratch:
        folder = Path(scratch)
        _inputs(folder / "in", seed)
        seconds = {form.name: _reference(form, folder) for form in FORMS}
        print("uninterrupted:", ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()), flush=True)
        while sum(record.kills.values()) < kills:
            # The form that was killed least often is next.
            form = min(forms, key=lambda form: (record.kills[form.name], chance.random()))
            _one(form, folder, seconds[form.name], chance, record)
    taken = time.monotonic() - began
    print(f"{sum(record.kills.values())} kills, {sum(record.completed.values())} completed in {taken:.0f} s")
    for form in forms:
        print(f"{form.name}: {record.kills[form.name]} kills, {record.completed[form.name]} completed")
    print("left by the killed:", ", ".join(f"{count} {what}" for what, count in record.left.most_common()))
    print("\n".join(record.problems) or "every completed command came to what it comes to without a kill")
    return len(record.problems)


def _one(form: Form, folder: Path, seconds: float, chance: random.Random, record: Record) -> None:
    """Kill a form, and give it again until it ends."""
    out = folder / "out"
    _clean(out)
    _begin(form, folder, out)
    first = True
    while True:
        wait = chance.uniform(0.02, seconds) if first or chance.random() < _AGAIN else math.inf
        first = False
        code, log = _run(form, folder, out, wait)
        if code == -signal.SIGKILL:
            record.kills[form.name] += 1
            record.left[_place(out)] += 1
            continue
        problems = [f"ended with {code}: {log[-800:]}"] if code else _differences(folder / _slug(form), out)
        problems += ["traceback"] if "Traceback" in log and not code else []
        record.problems += [f"{form.name}: {problem}" for problem in problems]
        record.completed[form.name] += 1
        for problem in problems:
            print(f"{form.name}: {problem}", flush=True)
        return


def _run(form: Form, folder: Path, out: Path, wait: float) -> tuple[int, str]:
    """Fork the command; its exit code and what it said. It is killed after so many seconds."""
    words = [
        word.replace("OUT", str(out)).replace("IN/", f"{folder / 'in'}/").replace("RUN", str(folder / "adapt-disc"))
        for word in form.words
    ]
    log = folder / "log"
    child = os.fork()
    if not child:
        be_the_command(words, log)
    until, limit = time.monotonic() + wait, time.monotonic() + _LIMIT_SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        if time.monotonic() > min(until, limit):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return (-signal.SIGKILL if wait < _LIMIT_SECONDS else 124), log.read_text(errors="replace")
        time.sleep(0.002)


def be_the_command(words: list[str], log: Path) -> None:
    """In the forked process: the command, and the end."""
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["afterword", *words]
        from afterword.cli import main

        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _reference(form: Form, folder: Path) -> float:
    """The form without a kill, in a folder of its own; how long it takes."""
    out, began = folder / _slug(form), time.monotonic()
    _begin(form, folder, out)
    code, log = _run(form, folder, out, math.inf)
    if code:
        raise SystemExit(f"{form.name} ended with {code}:\n{log[-3000:]}")
    return time.monotonic() - began


def _begin(form: Form, folder: Path, out: Path) -> None:
    if form.before and "RUN" not in form.words:
        shutil.copytree(folder / form.before.replace(" ", "-"), out)


def _clean(out: Path) -> None:
    for path in out.parent.glob(f"{out.name}*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _slug(form: Form) -> str:
    return form.name.replace(" ", "-")


def _place(out: Path) -> str:
    """Where a killed process was, by what it left."""
    names = [path.name for path in out.rglob("*")] if out.exists() else []
    for what, pattern in (
        ("half a checkpoint", r"checkpoint-\d+\.partial"),
        ("half a result", r"result\.partial"),
        ("half a small file", r"^\..*\.(partial|tmp)$"),
        ("a checkpoint and no result", r"^checkpoint-\d+$"),
        ("a result", r"^manifest\.json$"),
    ):
        if any(re.search(pattern, name) for name in names):
            return what
    return "the beginning of a run" if names else "nothing yet"


def _differences(reference: Path, out: Path) -> list[str]:
    """What differs between two folders that should say the same."""
    ours, theirs = _files(out), _files(reference)
    found = [f"lacks {name}" for name in sorted(theirs - ours)] + [f"has {name}" for name in sorted(ours - theirs)]
    for name in sorted(ours & theirs):
        if name.endswith(".safetensors"):
            mine, other = load_file(out / name), load_file(reference / name)
            same = mine.keys() == other.keys()
            same = same and all(mine[key].numpy().tobytes() == other[key].numpy().tobytes() for key in other)
            found += [] if same else [f"{name}: other weights"]
        elif name.rpartition("/")[2] == "metrics.jsonl":
            found += [] if _steps(out / name) == _steps(reference / name) else [f"{name}: other steps or losses"]
        elif name.rpartition("/")[2] in (
            "scores.json",
            "learned.json",
            "compare.json",
            "blend.json",
            "selection.jsonl",
        ):
            same = _said(out / name, out) == _said(reference / name, reference)
            found += [] if same else [f"{name}: other numbers"]
    return found


def _files(folder: Path) -> set[str]:
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {str(path) for path in found if not any(_PASSING.search(part) for part in path.parts)}


def _steps(path: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["step"], row["train/loss_nats"]) for row in rows if "train/loss_nats" in row]


def _said(path: Path, folder: Path) -> Any:
    """The numbers of a file, without what is another at every run."""
    text = path.read_text(encoding="utf-8").replace(str(folder), "OUT")
    return [_without_times(json.loads(line)) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(each) for name, each in value.items() if not _TIMES.search(name)}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def _inputs(folder: Path, seed: int) -> None:
    """A tiny model, documents, a suite, questions and general samples."""
    from kills import make_documents, make_model

    folder.mkdir()
    make_model(folder / "model", seed)
    lines = make_documents(folder / "documents.jsonl", seed).read_text(encoding="utf-8").splitlines()
    (folder / "few.jsonl").write_text("".join(f"{line}\n" for line in lines[:6]), encoding="utf-8")
    towns = [f"Town {number}." for number in range(8)]
    items = [
        {
            "id": f"i{i}",
            "part": ("learning", "retention")[i % 2],
            "skill": "towns",
            "split": ("dev", "test")[i // 2 % 2],
        }
        | {"prompt": f"Where is {i}?", "answer": town, "checks": [{"kind": "equals", "value": town}]}
        for i, town in enumerate(towns)
    ]
    _write(folder / "suite.jsonl", items)
    _write(folder / "questions.jsonl", [{"question": f"Where is {i}?", "answer": t} for i, t in enumerate(towns[:3])])
    asked = [{"role": "user", "content": "Where?"}]
    chats = [[*asked, {"role": "assistant", "content": town}] for town in towns]
    _write(folder / "chats.jsonl", [{"messages": chat} for chat in chats])
    pairs = [{"prompt": "Where?", "chosen": town, "rejected": "Nowhere."} for town in towns]
    _write(folder / "pairs.jsonl", pairs)


def _write(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare_process() -> None:
    """Everything that a command imports, before the first fork; and quiet libraries, offline."""
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="200", TOKENIZERS_PARALLELISM="false")
    import trl  # noqa: F401

    import afterword.runs  # noqa: F401
    from afterword import training

    training.quiet_libraries()
