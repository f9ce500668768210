"""Two gloo processes measure what one measures, and align as one aligns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Forking
from safetensors.torch import load_file


@pytest.fixture
def launched(forking: Forking) -> Callable[..., str]:
    """`launched(2, "evaluate", …, cwd=folder)`: what the command says, run by so many processes."""

    def run(processes: int, *words: str | Path, cwd: Path) -> str:
        cache = {"AFTERWORD_CACHE": str(cwd / f"cache-{processes}")}
        return forking.run(cwd, "afterword", *words, processes=processes, environment=cache).all

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, pair: Any, tokenizer: Any, documents: Any) -> Path:
    """A folder with a model before and after, documents, questions, a suite, instructions and pairs."""
    folder = tmp_path_factory.mktemp("processes")
    for name, model in zip(("before", "after"), pair(), strict=True):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    questions = [{"question": f"Where is {n}?", "answers": ["Oslo"], "choices": ["Rome", "Bergen"]} for n in range(9)]
    items = [
        {"id": f"{part}-{n}", "part": part, "skill": part, "split": "test", "prompt": f"Where is {n}?"}
        | {"answer": "Oslo", "choices": ["Rome"], "checks": [{"kind": "contains", "value": "Oslo"}]}
        for part in ("learning", "retention")
        for n in range(5)
    ]
    instructions = [{"instruction": f"Where is {n}?", "output": f"In the {'old ' * n}town."} for n in range(7)]
    pairs = [
        {"prompt": f"Where is {n}?", "chosen": "In Oslo.", "rejected": f"I {'do ' * n}not know."} for n in range(6)
    ]
    rows = {"docs": documents, "questions": questions, "suite": items, "instructions": instructions, "pairs": pairs}
    for name, of in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of), encoding="utf-8")
    return folder


def scores(folder: Path) -> Any:
    """Everything in scores.json but when and where it was made."""
    found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return {name: found[name] for name in ("scores", "answers", "samples", "notes")}


MEASURED = "--reference before --documents docs.jsonl --general docs.jsonl --questions questions.jsonl --samples 6 "
MEASURED += "--suite suite.jsonl --sample-tokens 16 --answer-tokens 8 --micro-batch-tokens 128 --max-length 96"


def test_two_processes_measure_what_one_does(place: Path, launched: Callable[..., str]) -> None:
    for processes in (1, 2):
        said = launched(processes, "evaluate", "after", "-o", f"measured-{processes}", *MEASURED.split(), cwd=place)
        # Told once, by the main process.
        assert said.count("drift/own_samples, n = 6") == 1
    one, two = (scores(place / f"measured-{processes}") for processes in (1, 2))
    assert {score["task"] for score in one["scores"]} > {"learning/trained", "drift/general", "questions/closed_book"}
    assert len(one["answers"]) == 9 + 10
    assert one == two


ALIGNED = "--instructions instructions.jsonl --preferences pairs.jsonl --chat-template plain --instruction-count 6 "
ALIGNED += "--sft-batch-size 2 --dpo-batch-size 2 --sft-learning-rate 1e-3 --dpo-learning-rate 1e-4 --save-steps 2"


def test_two_processes_align_as_one_does(place: Path, launched: Callable[..., str]) -> None:
    for processes in (1, 2):
        launched(processes, "align", "after", "-o", f"aligned-{processes}", *ALIGNED.split(), cwd=place)
    one, two = (place / f"aligned-{processes}" for processes in (1, 2))
    assert (one / "selection.jsonl").read_bytes() == (two / "selection.jsonl").read_bytes()
    states = [json.loads((folder / "align.json").read_text(encoding="utf-8")) for folder in (one, two)]
    assert [states[0]["stages"][stage]["steps"] for stage in ("sft", "dpo")] == [3, 3]
    for stage in ("sft", "dpo"):
        alone, shared = (state["stages"][stage]["losses"] for state in states)
        assert shared == {step: pytest.approx(loss, rel=1e-4) for step, loss in alone.items()}
    for part in ("model.safetensors", "sft/model.safetensors"):
        before, (alone, shared) = (
            load_file(place / "after/model.safetensors"),
            (load_file(f / part) for f in (one, two)),
        )
        moved = max((alone[name] - before[name]).abs().max().item() for name in alone)
        apart = max((alone[name] - shared[name]).abs().max().item() for name in alone)
        assert apart < 1e-2 * moved, part


def test_a_last_step_that_cannot_be_shared_is_refused(place: Path, forking: Forking) -> None:
    words = ALIGNED.replace("--instruction-count 6 ", "").split()
    cache = {"AFTERWORD_CACHE": str(place / "cache")}
    started = forking.start(
        place, "afterword", "align", "after", "-o", "uneven", *words, processes=2, environment=cache
    )
    assert started.wait() == 2
    assert "instruction_count: of 7 samples the last step of 2 would not be whole" in started.said
    assert not (place / "uneven/align.json").exists()
