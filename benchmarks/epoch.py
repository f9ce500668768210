"""Training on the same documents, side by side: TRL's SFTTrainer, our methods, the authors' loop of DiSC.

    python benchmarks/epoch.py --threads 2                 # about fifteen minutes
    python benchmarks/epoch.py --only "trl;finetune" --steps 6

A Qwen3-shaped model of about 30 million parameters with a vocabulary of 32,000 and random weights, documents of 25
sentences, the same number of documents in every optimizer step for all. Seconds of a step are the median over steps
after the first two; contenders run one after another, `--rounds` times in turn, and the best median counts. "counted"
is the ratio of multiply-adds by the formula of METHODS §1, heads included, attention left out. What a cached teacher
reads once before the first step is in no step.
"""

import argparse
import copy
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from afterword.batching import Packing
from afterword.comparison.costs import ModelSize, size_of, training_flops
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.caching import Caching

VOCABULARY, SENTENCES, WORDS = 32_000, 25, (14, 28)


@dataclass(frozen=True)
class Measured:
    """A contender's speed."""

    seconds: float
    """Of a step."""
    flops: float
    """Counted, of a step."""


class Clock(TrainerCallback):
    """Seconds of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop; the optimizer's step is inside."""
        self.times.append(time.perf_counter() - self.began)

    @property
    def seconds(self) -> float:
        """The median, without the first two steps."""
        return median(self.times[2:])


def tokenizer() -> PreTrainedTokenizerFast:
    """A word for every id."""
    words = {f"w{i}": i for i in range(VOCABULARY - 4)}
    words |= {".": VOCABULARY - 4, "<unk>": VOCABULARY - 3, "<s>": VOCABULARY - 2, "</s>": VOCABULARY - 1}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])  # pyright: ignore
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def sentences_of(count: int) -> list[list[str]]:
    """Documents as sentences of random words."""
    rng = np.random.default_rng(0)

    def sentence() -> str:
        """Capital first, full stop last, so that it is found."""
        words = [f"w{i}" for i in rng.integers(0, VOCABULARY - 4, rng.integers(*WORDS))]
        return " ".join(words).replace("w", "W", 1) + "."

    return [[sentence() for _ in range(SENTENCES)] for _ in range(count)]


def model() -> Qwen3ForCausalLM:
    """About 30 million parameters, two thirds of them not in the embeddings."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1152,
        num_hidden_layers=10,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config)


def ours(method: str, **how: Any) -> Callable[[Any, Path], Measured]:
    """One of our methods."""
    from afterword.methods import METHODS

    strategy, cached = how.pop("strategy", None), how.pop("cached", False)
    declared = METHODS[method].configured(**({"strategy": strategy} if strategy else {}))

    def run(asked: Any, folder: Path) -> Measured:
        """Train some steps; what is read is counted by the trainer itself."""
        rows = [{"id": str(i), "text": " ".join(parts)} for i, parts in enumerate(asked.documents)]
        arguments = training_arguments(
            declared, output_dir=str(folder), max_steps=asked.steps, save_strategy="no", learning_rate=1e-5
        )
        clock, student = Clock(), model()
        counts: list[dict[str, Any]] = []

        class Counted(AdaptationTrainer):
            def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
                """Keep what was read."""
                if "loss" in logs:
                    counts.append(dict(self.step_counts))
                super().log(logs, start_time)

        trainer = Counted(
            student,
            arguments,
            train_dataset=rows,
            processing_class=tokenizer(),
            method=declared,
            documents_per_step=asked.per_step,
            packing=Packing(asked.micro_batch_tokens),
            callbacks=[clock],
            caching=Caching(folder=folder / "cache") if cached else None,
            **how,
        )
        trainer.train()
        names = ("student_tokens", "teacher_tokens", "trained_positions", "teacher_positions")
        means = {name: round(float(np.mean([row.get(name, 0) for row in counts]))) for name in names}
        return Measured(clock.seconds, training_flops(size_of(student), **means))

    return run


def _plain() -> dict[str, Any]:
    """What both of TRL's trainers are told."""
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    return {"gradient_checkpointing": False, "bf16": False, "use_cpu": not torch.cuda.is_available(), **quiet}


def trl(packed: bool) -> Callable[[Any, Path], Measured]:
    """TRL's SFTTrainer on the same texts: packed into full rows, or padded."""

    def run(asked: Any, folder: Path) -> Measured:
        """As many documents in a step."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer  # pyright: ignore

        texts = [" ".join(parts) for parts in asked.documents]
        words, student, clock = tokenizer(), model(), Clock()
        tokens = sum(len(words(text)["input_ids"]) + 1 for text in texts) / len(texts)
        rows = max(1, round(asked.per_step * tokens / 1024)) if packed else asked.per_step
        config = SFTConfig(
            output_dir=str(folder),
            max_steps=asked.steps,
            per_device_train_batch_size=rows,
            packing=packed,
            max_length=1024,
            **_plain(),
        )
        data = Dataset.from_dict({"text": texts})
        SFTTrainer(student, config, train_dataset=data, processing_class=words, callbacks=[clock]).train()
        # Packed rows are full, so a step of them reads a little more or less than the documents would be.
        share = rows * 1024 / (asked.per_step * tokens) if packed else 1.0
        count = round(asked.per_step * tokens)
        flops = training_flops(
            size_of(student), student_tokens=count, teacher_tokens=0, trained_positions=count, teacher_positions=0
        )
        return Measured(clock.seconds / share, flops)

    return run


def gkd(asked: Any, folder: Path) -> Measured:
    """TRL's GKDTrainer with the model itself as teacher, forward KL on given texts: all of LSSD that it can say."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    words, student, clock = tokenizer(), model(), Clock()
    words.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    rows = [
        [{"role": "user", "content": "w0"}, {"role": "assistant", "content": " ".join(parts)}]
        for parts in asked.documents
    ]
    tokens = round(sum(len(words(row[1]["content"])["input_ids"]) for row in rows) / len(rows))
    config = GKDConfig(
        output_dir=str(folder),
        max_steps=asked.steps,
        per_device_train_batch_size=asked.per_step,
        lmbda=0.0,
        beta=0.0,
        temperature=1.0,
        max_length=1024,
        **_plain(),
    )
    data = Dataset.from_dict({"messages": rows})
    GKDTrainer(
        student, copy.deepcopy(student), config, train_dataset=data, processing_class=words, callbacks=[clock]
    ).train()
    count = asked.per_step * tokens
    return Measured(clock.seconds, _dense_flops(size_of(student), count, count))


def authors(asked: Any, folder: Path) -> Measured:
    """DiSC as METHODS §1 describes the authors' loop: a teacher forward for every target, dense logits."""
    words, student, rng = tokenizer(), model(), np.random.default_rng(0)
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
    counts, documents, times = {"teacher": 0, "student": 0}, _endless(asked.documents), list[float]()
    student.train()
    for _ in range(asked.steps):
        began = time.perf_counter()
        for parts in (next(documents) for _ in range(asked.per_step)):
            ids = [torch.tensor(words(part)["input_ids"]) for part in parts]
            last = len(ids) - 1
            targets = [last, *rng.choice(np.arange(1, last + 1), 4, replace=False)]
            losses = []
            for target in targets:
                whole, own = torch.cat(ids[: target + 1])[None], ids[target][None]
                with torch.no_grad():
                    taught = teacher(whole).logits[0, -len(ids[target]) : -1].float()
                said = student(own).logits[0, :-1].float()
                log_p, log_s = (functional.log_softmax(logits / 2.0, -1) for logits in (taught, said))
                losses.append(4.0 * (log_p.exp() * (log_p - log_s)).sum(-1).mean())
                counts["teacher"] += whole.shape[1]
                counts["student"] += own.shape[1]
            (torch.stack(losses).mean() / asked.per_step).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    size, steps = size_of(student), asked.steps
    return Measured(median(times[2:]), _dense_flops(size, counts["student"] / steps, counts["teacher"] / steps))


def sdft(asked: Any, folder: Path) -> Measured:
    """DiSC as TRL's SDFTTrainer can be brought to it: nothing generated; the teacher's prompt is what stands before."""
    from datasets import Dataset
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    words, clock, rng, counts = tokenizer(), Clock(), np.random.default_rng(0), {"teacher": 0, "student": 0}
    model().save_pretrained(folder / "model")

    class Given(SDFTTrainer):
        def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            """What would be generated is the target's text, after its first token."""
            targets = [torch.tensor(words(row["prompt"])["input_ids"]) for row in inputs]
            before = [torch.tensor(words(row["privileged_context"])["input_ids"]) for row in inputs]
            counts["student"] += sum(map(len, targets))
            counts["teacher"] += sum(map(len, targets)) + sum(map(len, before))
            said, shown = _padded([ids[1:] for ids in targets], "right")
            asks, asked_for = _padded([ids[:1] for ids in targets], "left")
            reads, read = _padded([torch.cat([a, b[:1]]) for a, b in zip(before, targets, strict=True)], "left")
            student = {"prompt_ids": asks, "prompt_mask": asked_for, "completion_ids": said, "completion_mask": shown}
            teacher = {"teacher_input_ids": (reads, said), "teacher_attention_mask": (read, shown)}
            return student | {name: torch.cat(parts, 1) for name, parts in teacher.items()}

    rows = []
    for parts in asked.documents:
        last = len(parts) - 1
        for target in (last, *rng.choice(np.arange(1, last), 4, replace=False)):
            rows.append({"prompt": parts[target], "privileged_context": " ".join(parts[:target])})
    how: dict[str, Any] = {"distillation_mode": "full_logits", "distillation_alpha": 0.0, "distillation_is_clip": None}
    config = SDFTConfig(
        output_dir=str(folder),
        max_steps=asked.steps,
        per_device_train_batch_size=5 * asked.per_step,
        num_generations=1,
        temperature=2.0,
        **how,
        **_plain(),
    )
    data = Dataset.from_list(rows)
    trainer = Given(str(folder / "model"), config, train_dataset=data, processing_class=words, callbacks=[clock])  # pyright: ignore
    trainer.train()
    size, student, teacher = size_of(trainer.model), *(round(counts[n] / asked.steps) for n in ("student", "teacher"))
    read = {"student_tokens": student, "teacher_tokens": teacher}
    return Measured(clock.seconds, training_flops(size, **read, trained_positions=student, teacher_positions=student))


def _padded(rows: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and their mask, of one length."""
    from trl.trainer.utils import pad

    return pad(rows, VOCABULARY - 1, side), pad([torch.ones_like(row) for row in rows], 0, side)


def _dense_flops(size: ModelSize, student: float, teacher: float) -> float:
    """A head at every position that is read."""
    read = {"student_tokens": round(student), "teacher_tokens": round(teacher)}
    return training_flops(size, **read, trained_positions=round(student), teacher_positions=round(teacher))


def _endless(documents: Sequence[list[str]]) -> Iterator[list[str]]:
    while True:
        yield from documents


CONTENDERS: dict[str, Callable[[Any, Path], Measured]] = {
    "trl": trl(packed=True),
    "trl, padded": trl(packed=False),
    "finetune": ours("finetune"),
    "disc": ours("disc"),
    "disc, all": ours("disc", strategy="all"),
    "authors": authors,
    "trl sdft": sdft,
    "cpt": ours("cpt"),
    "mixcpt": ours("mixcpt"),
    "mixcpt, cached": ours("mixcpt", cached=True),
    "trl gkd": gkd,
}
BESIDE = {
    "trl, padded": "trl",
    "finetune": "trl",
    "disc": "trl",
    "disc, all": "trl",
    "authors": "trl",
    "trl sdft": "disc",
    "mixcpt": "cpt",
    "mixcpt, cached": "cpt",
    "trl gkd": "cpt",
    "cpt": "trl",
}
"""What each is a ratio to."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--per-step", type=int, default=8, help="documents in an optimizer step")
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="names, between semicolons; all if none is given")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")
    asked.documents = sentences_of(asked.per_step * asked.steps)
    names = [name for name in CONTENDERS if name in asked.only.split(";")] or list(CONTENDERS)
    best: dict[str, Measured] = {}
    for _ in range(asked.rounds):
        for name in names:
            folder = Path(tempfile.mkdtemp(prefix="afterword-epoch-"))
            found = CONTENDERS[name](asked, folder)
            shutil.rmtree(folder)
            if name not in best or found.seconds < best[name].seconds:
                best[name] = found
    print(f"\n{asked.threads} threads, {asked.per_step} documents a step, {asked.steps} steps, {asked.rounds} rounds\n")
    print("| | seconds a step | TFLOP counted | beside | ratio | counted | measured / counted |")
    print("|---|---|---|---|---|---|---|")
    for name, found in best.items():
        other = best.get(BESIDE.get(name, ""))
        ratio, counted = (found.seconds / other.seconds, found.flops / other.flops) if other else (1.0, 1.0)
        beside = BESIDE.get(name, "–") if other else "–"
        tera = found.flops / 1e12
        cells = [f"{value:.2f}" for value in (ratio, counted, ratio / counted)]
        print(f"| {name} | {found.seconds:.2f} | {tera:.2f} | {beside} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
