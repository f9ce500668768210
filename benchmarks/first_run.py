"""Does `afterword adapt` with nothing set but a budget teach what the best of a grid teaches, and keep as much?

For each method: a grid of learning rates and numbers of passes, and the default (rate, passes and schedule chosen by
the run) with several seeds. Learning is the share of questions about the documents answered right, closed book, by
choice among four, and beside it the share whose written answer says it; kept is the mean share right over
multiple-choice tasks and over what the model writes itself: the fifty questions and instructions of the demo, which
lose what choices do not show. Every cell is a row of rows.jsonl: the same
command goes on where it was stopped, and several processes may share the work.

    python benchmarks/first_run.py MODEL --documents D.jsonl --questions Q.jsonl --keep TASK.jsonl … -o studies/NAME
    python benchmarks/first_run.py MODEL --documents D.jsonl --suite SUITE.jsonl -o studies/NAME
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

import afterword
from afterword.data import WindowSettings, read_document, special_tokens
from afterword.data.batching import Packing, micro_batches
from afterword.demo.ferry_lessons import load_kept, suite_items
from afterword.evaluation.checks import passes
from afterword.evaluation.choices import likelihoods
from afterword.evaluation.losses import VIEW
from afterword.evaluation.questions import build_prompt, end_of_turn, prompt_ids
from afterword.evaluation.right_answers import says
from afterword.evaluation.suites import find_suite
from afterword.models import blended, context_length, head_of, load_model, load_tokenizer, trained_states
from afterword.models.generation import generate, own_samples, token_ids
from afterword.objectives import Distillation, Prediction, forward_kl, hidden_losses
from afterword.types import Example, Segment

BRIEF = "Answer the question in as few words as possible.\nQuestion: {}"
RATES, PASSES, SEEDS = (2e-4, 6e-5, 6e-4, 2e-5), (6, 2), (0, 1, 2)
SAMPLES, SAMPLE_TOKENS = 32, 64
WRITTEN_TOKENS = 40


@dataclass(frozen=True)
class Asked:
    """A prompt in tokens, its candidates in tokens, and which of them is right."""

    prompt: list[int]
    candidates: list[list[int]]
    gold: int


@dataclass(frozen=True)
class Study:
    """What every cell is measured on, read once."""

    reference: Any
    tokenizer: Any
    questions: list[Asked]
    kept: dict[str, list[Asked]]
    golds: list[str]
    """Of the questions, in their order."""
    written: dict[str, list[tuple[list[int], Sequence[Mapping[str, Any]]]]]
    """What must be kept in writing, by skill: prompts in tokens, and the checks of their answers."""
    samples: list[Example]
    states: list[Any]
    sentences: list[Example]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def drawn(rows: Sequence[Any], count: int) -> list[Any]:
    """So many rows by seed 0, in their order."""
    chosen = sorted(np.random.default_rng(0).permutation(len(rows))[:count])
    return [rows[i] for i in chosen]


def read_study(args: argparse.Namespace) -> Study:
    """Questions, tasks, the reference's own samples, and sentences of the documents alone."""
    torch.set_grad_enabled(False)
    reference, tokenizer = load_model(args.model).eval(), load_tokenizer(args.model)
    documents = drawn(rows_of(args.documents), args.max_documents)
    asked, written = _of_suite(args, tokenizer) if args.suite else _of_questions(args, tokenizer, documents)
    questions, golds = [_asked_in_chat(tokenizer, row) for row in asked], [row["answer"] for row in asked]
    kept = {path.stem: [_asked_plain(tokenizer, row) for row in drawn(rows_of(path), args.items)] for path in args.keep}
    writer = load_model(args.model, dtype=torch.bfloat16).eval()
    texts = own_samples(writer, tokenizer, count=SAMPLES, new_tokens=SAMPLE_TOKENS)
    samples = [_example(i, sample.token_ids, 1) for i, sample in enumerate(texts)]
    with torch.autocast("cpu", torch.bfloat16):
        states, _, _ = sums_of(reference, samples)
    sentences = list(_sentences(reference, tokenizer, documents))
    return Study(reference, tokenizer, questions, kept, golds, written, samples, states, sentences)


def _of_questions(args: argparse.Namespace, tokenizer: Any, documents: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Questions about the documents; and what the demo asks must be kept."""
    named = {row["id"] for row in documents}
    about = [row for row in rows_of(args.questions) if row["document"] in named]
    asked = [{**row, "prompt": BRIEF.format(row["question"])} for row in drawn(about, args.max_questions)]
    return asked, {"written": [_to_write(tokenizer, item.prompt, item.checks) for item in suite_items([], load_kept())]}


def _of_suite(args: argparse.Namespace, tokenizer: Any) -> tuple[Any, Any]:
    """Its dev items: of learning those with choices, of retention all, in writing."""
    items = [item for item in find_suite(str(args.suite)).items if item.split == "dev"]
    learning = [item for item in items if item.part == "learning" and item.choices]
    asked = [
        {"prompt": item.prompt, "answer": item.answer, "choices": [item.answer, *item.choices]}
        for item in drawn(learning, args.max_questions)
    ]
    written: dict[str, list[Any]] = {}
    for item in drawn([item for item in items if item.part == "retention"], args.items):
        written.setdefault(item.skill, []).append(_to_write(tokenizer, item.prompt, item.checks))
    return asked, written


def _to_write(tokenizer: Any, prompt: str, checks: Sequence[Mapping[str, Any]]) -> tuple[list[int], Any]:
    return prompt_ids(tokenizer, build_prompt(tokenizer, prompt)), checks


def _asked_in_chat(tokenizer: Any, row: dict[str, Any]) -> Asked:
    prompt = prompt_ids(tokenizer, build_prompt(tokenizer, row["prompt"]))
    gold = row["choices"].index(row["answer"])
    return Asked(prompt, [token_ids(tokenizer, choice) for choice in row["choices"]], gold)


def _asked_plain(tokenizer: Any, row: dict[str, Any]) -> Asked:
    candidates = [token_ids(tokenizer, f" {choice}") for choice in row["choices"]]
    return Asked(token_ids(tokenizer, row["query"]), candidates, row["gold"])


def _example(unit: int, ids: Sequence[int], first: int) -> Example:
    array = np.array(ids, np.int64)
    positions = np.arange(first - 1, len(array) - 1)
    segment = Segment(array, positions, positions, array[positions + 1], np.ones(len(positions), np.float32))
    return Example(str(unit), unit, None, (segment,))


def _sentences(model: Any, tokenizer: Any, documents: list[dict[str, Any]]) -> Iterator[Example]:
    from afterword.types import Document, Window

    special = special_tokens(tokenizer, "auto", "document")
    reading = WindowSettings(max_length=context_length(model.config), language="en")
    for number, row in enumerate(documents):
        document = Document(id=row["id"], text=row["text"])
        for window in read_document(document, 0, tokenizer, special, reading).windows:
            assert isinstance(window, Window)
            if VIEW.skip_reason(window) is None:
                example = VIEW.build(window, special, np.random.default_rng((0, number)))
                yield Example(str(number), number, None, example.segments)


def chosen(model: Any, tokenizer: Any, asked: list[Asked]) -> list[bool]:
    """Whether the right candidate is the likeliest of each, by its log-probability per byte."""
    found = likelihoods(model, [(each.prompt, each.candidates) for each in asked], batch_tokens=8192)
    texts = [[tokenizer.decode(ids).strip() for ids in each.candidates] for each in asked]
    utf8_bytes = [np.array([max(1, len(text.encode())) for text in row]) for row in texts]
    per_byte = [row.logprobs_nats / count for row, count in zip(found, utf8_bytes, strict=True)]
    return [int(np.argmax(row)) == each.gold for row, each in zip(per_byte, asked, strict=True)]


def answers_of(model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[str]:
    """What a model writes to each prompt, to its own end of turn."""
    ends = end_of_turn(tokenizer)
    written = generate(model, tokenizer, prompts, max_new_tokens=WRITTEN_TOKENS, extra_eos_ids=ends)
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]


def sums_of(model: Any, examples: list[Example], reference: Any = None) -> tuple[list[Any], float, float]:
    """States of the model at every scored position, the mean loss, and the mean KL from the reference's states."""
    packing = Packing(2048, "padded", real_share=0.9)
    states, nll, kl, count = [], 0.0, 0.0, 0
    for number, batch in enumerate(
        micro_batches(sorted(examples, key=lambda e: len(e.segments[0].student_ids)), packing)
    ):
        here = (trained_states(model, batch.student), head_of(model))
        nll += float(hidden_losses(Prediction(), here, None, batch.target_ids).double().sum())
        if reference is not None:
            kl += float(
                hidden_losses(Distillation(forward_kl), here, reference[number], batch.target_ids).double().sum()
            )
        states.append(here)
        count += len(batch.target_ids)
    return states, nll / count, kl / count


def measured(study: Study, model: Any) -> dict[str, Any]:
    """What a model has learned and kept."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        learned = chosen(model, study.tokenizer, study.questions)
        kept = {name: chosen(model, study.tokenizer, asked) for name, asked in study.kept.items()}
        answers = answers_of(model, study.tokenizer, [each.prompt for each in study.questions])
        written = {
            skill: answers_of(model, study.tokenizer, [prompt for prompt, _ in items])
            for skill, items in study.written.items()
        }
        _, own_nll, drift = sums_of(model, study.samples, study.states)
        _, sentence_nll, _ = sums_of(model, study.sentences)
    told = [says(answer, gold) for answer, gold in zip(answers, study.golds, strict=True)]
    for skill, items in study.written.items():
        kept[skill] = [
            all(passes(answer, check) for check in checks)
            for answer, (_, checks) in zip(written[skill], items, strict=True)
        ]
    return {
        "choice_frac": float(np.mean(learned)),
        "right": [int(right) for right in learned],
        "said_frac": float(np.mean(told)),
        "said": [int(right) for right in told],
        "kept_frac": float(np.mean([np.mean(rows) for rows in kept.values()])),
        "kept": {name: float(np.mean(rows)) for name, rows in kept.items()},
        "kept_right": {name: [int(right) for right in rows] for name, rows in kept.items()},
        "drift_nats": drift,
        "own_nll_nats": own_nll,
        "sentence_nll_nats": sentence_nll,
        "measure_seconds": time.perf_counter() - started,
    }


def cells_of(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every cell: the base, the grid of each method, then the defaults."""
    yield {"arm": "base"}
    for rate in args.rates if "grid" in args.cells else ():
        for epochs in args.passes:
            for method in args.methods:
                yield {"arm": method, "learning_rate": rate, "num_train_epochs": epochs, "seed": 0}
    for seed in SEEDS if "defaults" in args.cells else ():
        for method in args.methods:
            yield {"arm": method, "default": True, "seed": seed}


def run_cell(study: Study, cell: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one cell. A cell of the grid is saved as it was trained."""
    if cell["arm"] == "base":
        return {**cell, **measured(study, study.reference)}
    folder, started = args.output / "cells" / _name(cell), time.perf_counter()
    settings = {name: cell[name] for name in ("learning_rate", "num_train_epochs", "seed") if name in cell}
    settings |= {"precision": args.precision, "max_documents": args.max_documents} | json.loads(args.settings)
    if not cell.get("default"):
        settings |= {"lr_scheduler_type": "linear", "warmup_steps": 0.05, "save_precision": "float32"}
    elif args.budget:
        settings |= {"forgetting_budget": args.budget}
    settings |= json.loads(args.mixture) if cell["arm"] in args.mixing else {}
    with torch.enable_grad():
        afterword.adapt(args.model, str(args.chosen), method=cell["arm"], output_dir=str(folder), **settings)
    seconds = time.perf_counter() - started
    trained = load_model(str(folder)).eval()
    row = {**cell, **measured(study, trained), "train_seconds": seconds}
    if args.shares and not cell.get("default"):
        row["way"] = [
            {"share": share, **measured(study, blended(study.reference, trained, share))} for share in args.shares
        ]
    if (folder / "budget.json").is_file():
        row["budget"] = json.loads((folder / "budget.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    return row


def _name(cell: dict[str, Any]) -> str:
    return "-".join(str(value) for value in cell.values())


def main() -> None:
    """Every cell that has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--documents", type=Path, required=True)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--questions", type=Path)
    asked.add_argument("--suite", type=Path, help="What is learned and what is kept, instead of questions.")
    parser.add_argument("--keep", type=Path, nargs="*", default=[])
    parser.add_argument("--methods", nargs="+", default=["finetune", "disc", "disc_mixcpt"])
    parser.add_argument("--mixing", nargs="*", default=["disc_mixcpt"], help="Methods that get the mixture.")
    parser.add_argument("--mixture", default="{}", help="JSON settings of general text, for methods that mix.")
    parser.add_argument("--settings", default="{}", help="JSON: more settings of every run.")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="Of the grid.")
    parser.add_argument("--passes", type=int, nargs="+", default=PASSES, help="Of the grid.")
    parser.add_argument("--max-documents", type=int, default=30)
    parser.add_argument("--max-questions", type=int, default=100)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=[], help="Of the way of a grid's cell, measured too."
    )
    parser.add_argument("--budget", help="Forgetting budget of the defaults; the product's own if not given.")
    parser.add_argument("--cells", nargs="+", choices=("grid", "defaults"), default=["grid", "defaults"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    args.chosen = args.output / "documents.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in drawn(rows_of(args.documents), args.max_documents)]
    args.chosen.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, study = args.output / "rows.jsonl", read_study(args)
    for cell in cells_of(args):
        try:
            with FileLock(args.output / f"{_name(cell)}.lock", timeout=0):
                there = [row for row in (rows_of(rows) if rows.exists() else []) if _name(cell) == row["cell"]]
                if there:
                    continue
                row = {"cell": _name(cell), **run_cell(study, cell, args)}
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                short = {name: row[name] for name in ("cell", "choice_frac", "said_frac", "kept_frac", "drift_nats")}
                print(json.dumps(short), flush=True)
        except Timeout:
            continue


if __name__ == "__main__":
    main()
