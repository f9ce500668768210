"""What preparing and training cost as documents become more, longer, and are split at more points. Random weights.

    python benchmarks/scaling.py                      # all four tables: a quarter of an hour on two cores
    python benchmarks/scaling.py --quick              # the same with small sizes: minutes
    python benchmarks/scaling.py --tables preparation --threads 2

Documents are of random words in a small BPE's vocabulary; the model is Qwen3-shaped. Every row is a process of its
own, and batches are filled as `afterword adapt` fills them. Memory is private memory (RssAnon, every 10 ms; on a GPU
what its allocator held) less what it was before: mapped files are not counted, the system takes them back when it
needs to. "limit" is what the counted multiply-adds (METHODS §1, and attention's own) take at the speed of one large
matrix product here; preparing is held against the bytes that it must read and write.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from machine import clock, product_flops, status_mib
from shapes import SHAPES, random_model

VOCABULARY, TOKENS_A_SENTENCE, CONTEXT = 8_000, 30, 2**15
COUNTS, FEW = (1_000, 3_000, 10_000, 30_000, 100_000), (1_000, 3_000)
LENGTHS, SHORT = (100, 300, 1_000, 3_000, 10_000, 30_000), (100, 1_000)
TARGETS, TWO = (1, 2, 5, 10, 20, "all"), (1, "all")


def words(count: int) -> list[str]:
    """Different words of syllables, always the same."""
    import numpy as np

    rng = np.random.default_rng(1)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "us")]
    return list({"".join(rng.choice(syllables, rng.integers(1, 5))): None for _ in range(count)})


def documents(count: int, sentences: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Texts of random words, frequent ones first; a capital and a full stop make a sentence."""
    import numpy as np

    known, rng = np.array(words(20_000)), np.random.default_rng(seed)
    for number in range(count):
        drawn = known[(len(known) ** rng.random((sentences, 16))).astype(int) - 1]
        yield {"id": str(number), "text": " ".join(" ".join(row).capitalize() + "." for row in drawn)}


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of the documents' words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()  # pyright: ignore
    special, alphabet = ["</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator((row["text"] for row in documents(1_000, 20)), trainer)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(folder)


# ---- what is measured, in a process of its own


class Memory:
    """The most private memory of this process while it is watched, over what there was before, in MiB."""

    def __enter__(self) -> "Memory":
        self.before = self.most = status_mib("RssAnon")
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    @property
    def mib(self) -> float:
        """The most there was of it."""
        return self.most - self.before

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self.most = max(self.most, status_mib("RssAnon"))


def measured(case: dict[str, Any], scratch: Path) -> dict[str, float]:
    """Gather and prepare documents; train some steps on them if any are asked for."""
    from transformers import AutoTokenizer

    from afterword.corpus import read_corpus
    from afterword.data import WindowSettings, prepare, special_tokens
    from afterword.methods import METHODS
    from afterword.training import quiet_libraries

    quiet_libraries()
    tokenizer, file = AutoTokenizer.from_pretrained(case["tokenizer"]), scratch / "documents.jsonl"
    with file.open("w") as lines:
        for row in documents(case["documents"], case["sentences"]):
            lines.write(json.dumps(row) + "\n")
    method = METHODS[case.get("method", "disc")].configured(**case.get("settings", {}))
    special = special_tokens(tokenizer, method.view.bos, method.view.join)
    given = (tokenizer, special, WindowSettings(max_length=case.get("max_length", CONTEXT)), method.view)
    # What is made once, of the libraries' own, is not the documents'.
    warm = read_corpus(list(documents(50, 10, seed=1)), cache_dir=scratch / "warm")
    prepare(warm, *given, scratch / "warm" / "windows.arrow")
    with Memory() as gathering, clock() as seconds:
        corpus = read_corpus(str(file), cache_dir=scratch)
    found = {"gathering_mib": gathering.mib, "gathering_seconds": seconds[0]}
    with Memory() as preparing, clock() as seconds:
        windows = prepare(corpus, *given, scratch / "windows.arrow")
    found |= {"preparing_mib": preparing.mib, "preparing_seconds": seconds[0], "tokens": windows.counts.tokens}
    found |= {"bytes": corpus.path.stat().st_size + windows.path.stat().st_size}
    return found | (trained(case, method, windows, tokenizer, scratch) if case.get("steps") else {})


def trained(case: dict[str, Any], method: Any, windows: Any, tokenizer: Any, scratch: Path) -> dict[str, float]:
    """Train on the windows; the first two steps are not timed."""
    import torch

    from afterword.comparison.costs import training_flops
    from afterword.data.batching import Packing
    from afterword.models import default_tokens, size_of
    from afterword.training import AdaptationTrainer, training_arguments

    rows, waits, begins = list[dict[str, float]](), list[float](), list[float]()

    class Watched(AdaptationTrainer):
        def get_batch_samples(self, epoch_iterator: Any, *given: Any) -> Any:
            """The step's batches, and how long they were waited for."""
            begins.append(time.perf_counter())
            parts, count = super().get_batch_samples(timed(epoch_iterator, waits), *given)
            rows.append(_read_by(self.model.config, [batch for part in parts for batch in part]))
            return parts, count

    steps = case["steps"] + 2
    options = {"save_strategy": "no", "learning_rate": 1e-5, "dataloader_num_workers": case.get("loaders", 0)}
    arguments = training_arguments(method, output_dir=str(scratch / "run"), max_steps=steps, **options)
    student = random_model(case["size"], vocab_size=VOCABULARY, max_position_embeddings=CONTEXT)
    how: dict[str, Any] = {
        "documents_per_step": case["per_step"],
        "packing": Packing(default_tokens(), example_tokens=CONTEXT),
    }
    trainer = Watched(student, arguments, train_dataset=windows, processing_class=tokenizer, method=method, **how)
    with Memory() as training:
        trainer.train()
    begins.append(time.perf_counter())
    seconds = [end - begin for begin, end in itertools.pairwise(begins[2:])]
    means = {name: sum(row[name] for row in rows[2:]) / case["steps"] for name in rows[0]}
    attention = means.pop("attention_flops")
    flops = attention + training_flops(size_of(student), **{name: round(value) for name, value in means.items()})
    on_gpu = torch.cuda.is_available()
    return {
        "step_seconds": median(seconds),
        "waited_frac": sum(waits[2:steps]) / sum(seconds),
        "training_mib": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else training.mib,
        "flops": flops,
        "limit_seconds": flops / product_flops("cuda" if on_gpu else "cpu"),
        "document_tokens": windows.counts.tokens / len(windows) * case["per_step"],
        **means,
    }


def _read_by(config: Any, batches: list[Any]) -> dict[str, float]:
    """What a step reads and trains, and the FLOPs of its attention."""
    from counting import Read, attention_flops, read_of

    def read(views: Iterable[Any]) -> Read:
        """By one side."""
        return sum((read_of(view.input_ids, view.attention_mask, view.position_ids) for view in views), start=Read())

    student = read(batch.student for batch in batches)
    teacher = read(view for batch in batches for view in batch.teacher)
    return {
        "student_tokens": student.tokens,
        "teacher_tokens": teacher.tokens,
        "trained_positions": sum(len(batch.target_ids) for batch in batches),
        "teacher_positions": sum(len(batch.target_ids) for batch in batches if batch.teacher),
        "attention_flops": attention_flops(config, student, teacher),
    }


def timed(batches: Iterator[Any], waits: list[float]) -> Iterator[Any]:
    """The same, each with how long it was waited for."""
    while True:
        with clock() as seconds:
            batch = next(batches, None)
        if batch is None:
            return
        waits.append(seconds[0])
        yield batch


# ---- tables


def run(case: dict[str, Any], asked: argparse.Namespace) -> dict[str, float]:
    """A case in a process of its own."""
    case = {"size": asked.model, "tokenizer": asked.tokenizer, **case}
    quiet = {**os.environ, "AFTERWORD_CACHE": "off", "OMP_NUM_THREADS": str(asked.threads)}
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


def show(title: str, *names: str) -> None:
    """Begin a table."""
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def row(*cells: Any) -> None:
    """A line of a table; numbers with three digits that count."""
    shown = [f"{cell:,.0f}" if isinstance(cell, float) and cell >= 100 else cell for cell in cells]
    shown = [
        f"{cell:.3g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else cell for cell in shown
    ]
    print(f"| {' | '.join(shown)} |", flush=True)


def more_documents(asked: argparse.Namespace) -> None:
    """1k → 100k documents of eight sentences: time a token and memory."""
    names = ("documents", "tokens", "gather µs/token", "MiB", "prepare µs/token", "MiB", "bytes/token")
    show("More documents (disc)", *names, "train µs/token read", "limit", "MiB")
    for count in FEW if asked.quick else COUNTS:
        how = {"steps": asked.steps, "per_step": 8, "max_length": 2048}
        found = run({"documents": count, "sentences": 8, **how}, asked)
        micros, read = 1e6 / found["tokens"], found["student_tokens"] + found["teacher_tokens"]
        gathered = (found["gathering_seconds"] * micros, found["gathering_mib"])
        prepared = (found["preparing_seconds"] * micros, found["preparing_mib"], found["bytes"] / found["tokens"])
        training = (found["step_seconds"] * 1e6 / read, found["limit_seconds"] * 1e6 / read, found["training_mib"])
        row(count, int(found["tokens"]), *gathered, *prepared, *training)


def longer_documents(asked: argparse.Namespace) -> None:
    """100 → 30k tokens a document, as many tokens in every step: disc and finetune."""
    lengths = SHORT if asked.quick else LENGTHS
    names = ("tokens", "method", "documents a step", "student", "teacher", "seconds a step", "TFLOP counted")
    show("Longer documents", *names, "limit, seconds", "measured / limit", "MiB")
    for length in lengths:
        for method in ("disc", "finetune"):
            each = max(1, lengths[-1] // length)
            sentences, count = max(2, length // TOKENS_A_SENTENCE), each * (asked.steps + 2)
            how = {"steps": asked.steps, "per_step": each, "method": method}
            found = run({"documents": count, "sentences": sentences, **how}, asked)
            row(length, method, each, *_step(found), found["training_mib"])


def more_targets(asked: argparse.Namespace) -> None:
    """k = 1 → all split points of documents of 25 sentences."""
    names = ("k", "student", "teacher", "seconds a step", "TFLOP counted", "limit, seconds", "measured / limit")
    show("More split points (disc)", *names, "seconds, beside k = 1", "counted", "MiB")
    first: dict[str, float] = {}
    for k in TWO if asked.quick else TARGETS:
        settings = {"strategy": "all"} if k == "all" else {"targets": k}
        how = {"steps": asked.steps, "per_step": 8, "settings": settings}
        found = run({"documents": 8 * (asked.steps + 2), "sentences": 25, **how}, asked)
        first = first or found
        beside = [found[name] / first[name] for name in ("step_seconds", "flops")]
        row(str(k), *_step(found), *beside, found["training_mib"])


def _step(found: dict[str, float]) -> tuple[Any, ...]:
    ratio = found["step_seconds"] / found["limit_seconds"]
    read = (round(found["student_tokens"]), round(found["teacher_tokens"]))
    return (*read, found["step_seconds"], found["flops"] / 1e12, found["limit_seconds"], ratio)


def preparation(asked: argparse.Namespace) -> None:
    """Tokens a second that are prepared, beside those that the same model is trained on, and the wait for batches."""
    show("Preparation", "", "document tokens a second", "beside training", "of the time, waited for batches")
    training: dict[str, dict[str, float]] = {}
    for name, how in {
        "training, finetune": {"method": "finetune"},
        "training, disc": {"method": "disc"},
        "training, disc, one loading process": {"method": "disc", "loaders": 1},
    }.items():
        about = {"documents": 8 * (asked.steps + 2), "sentences": 25, "steps": asked.steps, "per_step": 8}
        training[name] = found = run({**about, **how}, asked)
        found["speed"] = found["document_tokens"] / found["step_seconds"]
    fastest = max(found["speed"] for found in training.values())
    for name, found in training.items():
        row(name, found["speed"], found["speed"] / fastest, f"{100 * found['waited_frac']:.2f} %")
    found = run({"documents": 1_000 if asked.quick else 20_000, "sentences": 25}, asked)
    speed = found["tokens"] / found["preparing_seconds"]
    row("preparing", speed, speed / fastest, "")


TABLES = {"documents": more_documents, "length": longer_documents, "targets": more_targets, "preparation": preparation}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES), help="which, between commas")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs")
    parser.add_argument("--steps", type=int, default=5, help="timed, after two that are not")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--case", help="measure this one here and print JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="afterword-scaling-") as scratch:
        if asked.case:
            print(json.dumps(measured(json.loads(asked.case), Path(scratch))))
            return
        asked.tokenizer = str(Path(scratch) / "tokenizer")
        write_tokenizer(Path(asked.tokenizer))
        print(f"{asked.threads} threads, model {asked.model}, {asked.steps} timed steps")
        for name in asked.tables.split(","):
            TABLES[name](asked)


if __name__ == "__main__":
    main()
