"""The peers of benchmarks/epoch.py: TRL's SFTTrainer, GKDTrainer and SDFTTrainer, and the authors' loop of DiSC."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from counting import Meter
from race import Contender, Measured, Race, measured, shares
from torch import Tensor
from torch.nn import functional

Batch = Literal["micro", "one", "step"]
"""How much is read at a time: about `micro_batch_tokens`, one row, or all of a step."""


def sft(rows: Literal["padded", "bfd", "wrapped"], batch: Batch, **settings: Any) -> Contender:
    """SFTTrainer on the same texts.

    `bfd`, TRL's default packing, lays whole documents into rows of `max_length` and then all rows of a batch into one
    sequence, with positions that begin anew; on sdpa, transformers makes a block-diagonal mask of them, so that no
    document reads another. What is computed depends only on how many documents a batch has: rows here hold one each,
    which gives every step the same number. `wrapped` cuts the texts into full rows wherever that falls: documents
    in a row read each other, and some are cut in two. (With rows of 1,024 by `bfd`, documents of 541 tokens stand
    alone, and a row is half empty, unread.) `padded`: a row each, padded to the longest.
    """

    def run(race: Race, folder: Path) -> Measured:
        """Some steps of it."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer  # pyright: ignore

        size, accumulated, length = _rows(race, rows, batch)
        packing: dict[str, Any] = {} if rows == "padded" else {"packing": True, "packing_strategy": rows}
        cut: dict[str, Any] = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        config = SFTConfig(output_dir=str(folder), **cut, **packing, max_length=length, **race.arguments(), **settings)
        student, meter = race.student(), Meter(race.device)
        data = Dataset.from_dict({"text": race.texts})
        trainer = SFTTrainer(student, config, train_dataset=data, processing_class=race.words, callbacks=[meter])
        meter.listen(student=student)
        trainer.train()
        read = meter.read("student")
        return measured(meter, student, (read.tokens - read.sequences, 0.0))

    return run


def _rows(race: Race, rows: str, batch: Batch) -> tuple[int, int, int]:
    """Rows at a time, how often in a step, and how long they may be."""
    whole = race.per_step if rows != "wrapped" else max(1, round(race.step_tokens / 1024))
    length = max(race.lengths) if rows != "wrapped" else math.ceil(sum(race.lengths) / (whole * race.steps))
    wanted = {"one": 1.0, "step": whole, "micro": race.micro_batch_tokens * whole / race.step_tokens}[batch]
    return *shares(whole, wanted), length


def gkd(batch: Batch) -> Contender:
    """GKDTrainer with the model itself as teacher, forward KL on given texts: all of LSSD that it can say."""

    def run(race: Race, folder: Path) -> Measured:
        """A padded row for every document."""
        from datasets import Dataset
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        size, accumulated, length = _rows(race, "padded", batch)
        cut: dict[str, Any] = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        divergence: dict[str, Any] = {"lmbda": 0.0, "beta": 0.0, "temperature": 1.0}
        config = GKDConfig(output_dir=str(folder), **cut, **divergence, max_length=length + 8, **race.arguments())
        race.words.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        rows = [[{"role": "user", "content": "w0"}, {"role": "assistant", "content": text}] for text in race.texts]
        student, meter = race.student(), Meter(race.device)
        teacher, data = race.twin(student), Dataset.from_dict({"messages": rows})
        how: dict[str, Any] = {"train_dataset": data, "processing_class": race.words, "callbacks": [meter]}
        trainer = GKDTrainer(student, teacher, config, **how)
        meter.listen(student=student, teacher=teacher)
        trainer.train()
        # Dense logits at every position.
        return measured(meter, student, (meter.read("student").tokens, meter.read("teacher").tokens))

    return run


def sdft(batch: Batch) -> Contender:
    """DiSC as SDFTTrainer can be brought to it: nothing generated; the teacher's prompt is what stands before."""

    def run(race: Race, folder: Path) -> Measured:
        """A padded row for every target: the last sentence and four more of every document."""
        from datasets import Dataset
        from trl.experimental.sdft import SDFTConfig

        race.student().save_pretrained(folder / "model")
        size, accumulated, _ = _rows(race, "padded", batch)
        cut: dict[str, Any] = {"per_device_train_batch_size": 5 * size, "gradient_accumulation_steps": accumulated}
        cut |= {"num_generations": 1, "steps_per_generation": 1}
        how: dict[str, Any] = {"distillation_mode": "full_logits", "distillation_alpha": 0.0}
        how |= {"distillation_is_clip": None, "temperature": 2.0}
        config = SDFTConfig(output_dir=str(folder), **cut, **how, **race.arguments())
        meter, documents = Meter(race.device), list[int]()
        given: dict[str, Any] = {"train_dataset": Dataset.from_list(_targets(race)), "processing_class": race.words}
        trainer: Any = _given_trainer(race, documents)(str(folder / "model"), config, **given, callbacks=[meter])
        meter.listen(student=trainer.model, teacher=trainer.teacher_model)
        trainer.train()
        read = meter.read("student")
        trained = read.tokens - read.sequences
        return measured(meter, trainer.model, (trained, trained), sum(documents) / race.steps)

    return run


def _targets(race: Race) -> list[dict[str, str]]:
    """The last sentence of every document and four others but the first, and what stands before each."""
    rng, rows = np.random.default_rng(0), list[dict[str, str]]()
    for parts in race.documents:
        last = len(parts) - 1
        for target in (last, *rng.choice(np.arange(1, last), 4, replace=False)):
            rows.append({"prompt": parts[target], "privileged_context": " ".join(parts[:target])})
    return rows


def _given_trainer(race: Race, documents: list[int]) -> Any:
    """SDFTTrainer that is given what it would generate. Notes the tokens of every document whose last target comes."""
    from trl.experimental.sdft import SDFTTrainer

    lasts = {parts[-1] for parts in race.documents}

    class Given(SDFTTrainer):
        def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            """What would be generated is the target's text, after its first token."""
            device = self.accelerator.device
            targets, before = (
                [torch.tensor(race.words(row[name])["input_ids"], device=device) for row in inputs]
                for name in ("prompt", "privileged_context")
            )
            for row, *both in zip(inputs, targets, before, strict=True):
                documents.extend([sum(map(len, both))] if row["prompt"] in lasts else [])
            said, shown = _padded([ids[1:] for ids in targets], "right", race)
            asks, asked_for = _padded([ids[:1] for ids in targets], "left", race)
            reads, read = _padded([torch.cat([a, b[:1]]) for a, b in zip(before, targets, strict=True)], "left", race)
            student = {"prompt_ids": asks, "prompt_mask": asked_for, "completion_ids": said, "completion_mask": shown}
            teacher = {"teacher_input_ids": (reads, said), "teacher_attention_mask": (read, shown)}
            return student | {name: torch.cat(parts, 1) for name, parts in teacher.items()}

    return Given


def _padded(rows: list[Tensor], side: str, race: Race) -> tuple[Tensor, Tensor]:
    """Ids and their mask, of one length."""
    from trl.trainer.utils import pad

    return pad(rows, race.words.pad_token_id, side), pad([torch.ones_like(row) for row in rows], 0, side)


def authors(race: Race, folder: Path) -> Measured:
    """DiSC as METHODS §1 describes the authors' loop: a teacher forward for every target, dense logits."""
    student, rng, meter = race.student(), np.random.default_rng(0), Meter(race.device)
    teacher = race.twin(student)
    if race.gradient_checkpointing:
        student.gradient_checkpointing_enable()
    meter.listen(student=student, teacher=teacher)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
    documents, tokens = iter(race.documents), 0
    student.train()
    meter.tick()
    for _ in range(race.steps):
        for parts in (next(documents) for _ in range(race.per_step)):
            ids = [torch.tensor(race.words(part)["input_ids"], device=race.device) for part in parts]
            last, tokens = len(ids) - 1, tokens + sum(map(len, ids))
            targets = [last, *rng.choice(np.arange(1, last + 1), 4, replace=False)]
            losses = [_authors_loss(race, (student, teacher), ids, target) for target in targets]
            (torch.stack(losses).mean() / race.per_step).backward()
        optimizer.step()
        optimizer.zero_grad()
        meter.tick()
    heads = (meter.read("student").tokens, meter.read("teacher").tokens)
    return measured(meter, student, heads, tokens / race.steps)


def _authors_loss(race: Race, sides: tuple[Any, Any], ids: list[Tensor], target: int) -> Tensor:
    """Of one target."""
    student, teacher = sides
    whole, own = torch.cat(ids[: target + 1])[None], ids[target][None]
    with torch.autocast(race.device.type, torch.bfloat16, enabled=race.precision == "mixed"):
        with torch.no_grad():
            taught = teacher(input_ids=whole, use_cache=False).logits[0, -len(ids[target]) : -1]
        said = student(input_ids=own, use_cache=False).logits[0, :-1]
    log_p, log_s = (functional.log_softmax(logits.float() / 2.0, -1) for logits in (taught, said))
    return 4.0 * (log_p.exp() * (log_p - log_s)).sum(-1).mean()
