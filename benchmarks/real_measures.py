"""What a real model has learned and kept, as studies on real documents measure it: read once, asked of every cell.

Learning is the share of questions about the documents answered right, closed book, by choice among four, and beside
it the share whose written answer says it. With `--quiz` the same is asked by a second set of questions, a suite of
`afterword quiz`: its test half. Kept are choices of other subjects, and what the model writes itself, which loses what
choices do not show: the fifty questions and instructions of the demo, and, as a share of its own, the 260 of the suite
`everyday`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afterword.data import WindowSettings, read_document, special_tokens
from afterword.data.batching import Packing, micro_batches
from afterword.demo.ferry_lessons import load_kept, suite_items
from afterword.evaluation.checks import passes
from afterword.evaluation.choices import likelihoods
from afterword.evaluation.everyday_suite import everyday_suite
from afterword.evaluation.losses import VIEW
from afterword.evaluation.questions import build_prompt, end_of_turn, prompt_ids
from afterword.evaluation.right_answers import says
from afterword.evaluation.suites import Item, find_suite
from afterword.models import context_length, head_of, load_model, load_tokenizer, trained_states
from afterword.models.generation import generate, token_ids
from afterword.models.kept_samples import kept_own_samples
from afterword.objectives import Distillation, Prediction, forward_kl, hidden_losses
from afterword.types import Example, Segment

BRIEF = "Answer the question in as few words as possible.\nQuestion: {}"
SAMPLES, SAMPLE_TOKENS = 32, 64
WRITTEN_TOKENS = 40


@dataclass(frozen=True)
class Asked:
    """A prompt in tokens, its candidates in tokens, and which of them is right."""

    prompt: list[int]
    candidates: list[list[int]]
    gold: int


@dataclass(frozen=True)
class Quiz:
    """A second set of questions, of a quiz: each with its prompt, wrong choices, checks and unit."""

    items: list[Item]
    asked: list[Asked]
    """In the order of the items."""


@dataclass(frozen=True)
class Study:
    """What every cell is measured on, read once."""

    reference: Any
    tokenizer: Any
    questions: list[Asked]
    kept: dict[str, list[Asked]]
    continued: dict[str, list[tuple[list[int], list[int]]]]
    """Texts whose last word is asked for: text and word in tokens."""
    golds: list[str]
    """Of the questions, in their order."""
    written: dict[str, list[tuple[list[int], Sequence[Mapping[str, Any]]]]]
    """What must be kept in writing, by skill: prompts in tokens, and the checks of their answers."""
    everyday: dict[str, list[tuple[list[int], Sequence[Mapping[str, Any]]]]]
    """The suite `everyday`, by skill, likewise."""
    samples: list[Example]
    states: list[Any]
    replies: list[Example]
    """What the reference answers to the dev half of the suite `everyday`, scored on its answers."""
    reply_states: list[Any]
    sentences: list[Example]
    quiz: Quiz | None = None


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
    quiz = read_quiz(args.quiz, tokenizer, [row["id"] for row in documents]) if args.quiz else None
    questions, golds = [_asked_in_chat(tokenizer, row) for row in asked], [row["answer"] for row in asked]
    tasks = {path.stem: drawn(rows_of(path), args.items) for path in args.keep}
    by_choice = {name: rows for name, rows in tasks.items() if "choices" in rows[0]}
    kept = {name: [_asked_plain(tokenizer, row) for row in rows] for name, rows in by_choice.items()}
    continued = {name: [_last_word(tokenizer, row) for row in tasks[name]] for name in tasks if name not in kept}
    everyday: dict[str, list[Any]] = {}
    asked_every_day = everyday_suite().items
    for item in asked_every_day:
        everyday.setdefault(item.skill, []).append(_to_write(tokenizer, item.prompt, item.checks))
    writer = load_model(args.model, dtype=torch.bfloat16).eval()
    texts = kept_own_samples(writer, tokenizer, count=SAMPLES, new_tokens=SAMPLE_TOKENS, seed=0)
    samples = [_example(i, sample.token_ids, 1) for i, sample in enumerate(texts)]
    with torch.autocast("cpu", torch.bfloat16):
        states, _, _ = sums_of(reference, samples)
        replies = _replies(reference, tokenizer, [item.prompt for item in asked_every_day if item.split == "dev"])
        reply_states, _, _ = sums_of(reference, replies)
    return Study(
        reference=reference,
        tokenizer=tokenizer,
        questions=questions,
        kept=kept,
        continued=continued,
        golds=golds,
        written=written,
        everyday=everyday,
        samples=samples,
        states=states,
        replies=replies,
        reply_states=reply_states,
        sentences=list(_sentences(reference, tokenizer, documents)),
        quiz=quiz,
    )


def read_quiz(path: Path, tokenizer: Any, documents: Sequence[str]) -> Quiz:
    """The test half of a quiz, of these documents: what was chosen by its dev half is measured apart from it.

    What has no wrong choices is left out, so that choice and answer are of the same questions, and so is what is asked
    of other documents; both are counted on the error output.
    """
    test = [item for item in find_suite(str(path)).items if item.split == "test" and item.part == "learning"]
    of_these = [item for item in test if any((item.unit or "").startswith(f"{each}: ") for each in documents)]
    items = [item for item in of_these if item.choices]
    others, bare = len(test) - len(of_these), len(of_these) - len(items)
    if others or bare:
        told = f"{others} of other documents and {bare} without wrong choices are left out"
        print(f"{path}: {len(items)} questions of its test half are asked; {told}.", file=sys.stderr)
    if not items:
        raise SystemExit(f"{path}: its test half has no question with choices about the documents.")
    return Quiz(items, [_asked_in_chat(tokenizer, row_of(item)) for item in items])


def row_of(item: Item) -> dict[str, Any]:
    """An item of a suite that has choices, as a question."""
    return {"prompt": item.prompt, "answer": item.answer, "choices": [item.answer, *item.choices]}


def quiz_measured(quiz: Quiz, model: Any, tokenizer: Any) -> dict[str, Any]:
    """What a model knows by a quiz, as fields of a row: said is what passes every check of its question."""
    right = chosen(model, tokenizer, quiz.asked)
    answers = answers_of(model, tokenizer, [each.prompt for each in quiz.asked])
    said = [_passes_all(answer, item.checks) for answer, item in zip(answers, quiz.items, strict=True)]
    return {
        "quiz_choice_frac": float(np.mean(right)),
        "quiz_right": [int(each) for each in right],
        "quiz_said_frac": float(np.mean(said)),
        "quiz_said": [int(each) for each in said],
        "quiz_answers": answers,
        "quiz_units": [item.unit for item in quiz.items],
    }


def _passes_all(answer: str, checks: Sequence[Mapping[str, Any]]) -> bool:
    return all(passes(answer, check) for check in checks)


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
    asked = [row_of(item) for item in drawn(learning, args.max_questions)]
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


def _last_word(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    return token_ids(tokenizer, row["context"]), token_ids(tokenizer, row["continuation"])


def _example(unit: int, ids: Sequence[int], first: int) -> Example:
    array = np.array(ids, np.int64)
    positions = np.arange(first - 1, len(array) - 1)
    segment = Segment(array, positions, positions, array[positions + 1], np.ones(len(positions), np.float32))
    return Example(str(unit), unit, None, (segment,))


def _replies(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[Example]:
    """What a model answers to each question, to its own end of turn, scored where it answers."""
    prompts = [prompt_ids(tokenizer, build_prompt(tokenizer, question)) for question in questions]
    written = generate(model, tokenizer, prompts, max_new_tokens=WRITTEN_TOKENS, extra_eos_ids=end_of_turn(tokenizer))
    pairs = enumerate(zip(prompts, written, strict=True))
    return [_example(place, [*prompt, *ids], len(prompt)) for place, (prompt, ids) in pairs if ids]


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


def continued_right(model: Any, tokenizer: Any, asked: list[tuple[list[int], list[int]]]) -> list[bool]:
    """Whether the likeliest tokens, one after another, are the word that was asked for."""
    longest = max(len(word) for _, word in asked)
    written = generate(model, tokenizer, [text for text, _ in asked], max_new_tokens=longest)
    return [list(ids[: len(word)]) == word for ids, (_, word) in zip(written, asked, strict=True)]


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


def _answered(model: Any, study: Study, items: Sequence[tuple[list[int], Any]]) -> list[str]:
    return answers_of(model, study.tokenizer, [prompt for prompt, _ in items])


def _right(answers: Sequence[str], items: Sequence[tuple[Any, Sequence[Mapping[str, Any]]]]) -> list[int]:
    """Which answers pass all their checks."""
    pairs = zip(answers, items, strict=True)
    return [int(_passes_all(answer, checks)) for answer, (_, checks) in pairs]


def measured(study: Study, model: Any) -> dict[str, Any]:
    """What a model has learned and kept."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        learned = chosen(model, study.tokenizer, study.questions)
        kept = {name: chosen(model, study.tokenizer, asked) for name, asked in study.kept.items()}
        kept |= {name: continued_right(model, study.tokenizer, asked) for name, asked in study.continued.items()}
        answers = answers_of(model, study.tokenizer, [each.prompt for each in study.questions])
        written = {skill: _answered(model, study, items) for skill, items in study.written.items()}
        everyday = {skill: _answered(model, study, items) for skill, items in study.everyday.items()}
        _, own_nll, drift = sums_of(model, study.samples, study.states)
        _, _, everyday_drift = sums_of(model, study.replies, study.reply_states)
        _, sentence_nll, _ = sums_of(model, study.sentences)
        by_quiz = quiz_measured(study.quiz, model, study.tokenizer) if study.quiz else {}
    told = [says(answer, gold) for answer, gold in zip(answers, study.golds, strict=True)]
    kept |= {skill: _right(written[skill], items) for skill, items in study.written.items()}
    everyday_right = {skill: _right(everyday[skill], items) for skill, items in study.everyday.items()}
    return {
        "choice_frac": float(np.mean(learned)),
        "right": [int(right) for right in learned],
        "said_frac": float(np.mean(told)),
        "said": [int(right) for right in told],
        "answers": answers,
        **by_quiz,
        "written": written,
        "kept_frac": float(np.mean([np.mean(rows) for rows in kept.values()])),
        "tasks_frac": float(np.mean([np.mean(rows) for name, rows in kept.items() if name not in study.written])),
        "kept": {name: float(np.mean(rows)) for name, rows in kept.items()},
        "kept_right": {name: [int(right) for right in rows] for name, rows in kept.items()},
        "everyday_frac": float(np.mean([right for rows in everyday_right.values() for right in rows])),
        "everyday_right": everyday_right,
        "drift_nats": drift,
        "everyday_drift_nats": everyday_drift,
        "own_nll_nats": own_nll,
        "sentence_nll_nats": sentence_nll,
        "measure_seconds": time.perf_counter() - started,
    }
