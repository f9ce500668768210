"""Builds the embedded models from a seed: `python -m almanac_build`, or one stage of it.

The one rule: every stage starts from committed files and ends in one, and a stage that was stopped goes on
from its last checkpoint.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from afterword.almanac.general import Row, conversations, preferences
from afterword.almanac.world import build_world
from almanac_build.card import measure, write_card
from almanac_build.posttraining import draw_trained
from almanac_build.pretraining import PretrainingRows
from almanac_build.tokenizer import train_tokenizer

SEED = 0
ROW_TOKENS, ROWS_PER_STEP, BASE_STEPS = 384, 24, 7000
CHATS_PER_STEP, SFT_STEPS, PAIRS_PER_STEP, DPO_STEPS = 32, 2000, 16, 300


_COMMON: dict[str, Any] = {
    "seed": SEED,
    # Compiled for two threads, the embedding's gradient would be summed in whatever order they come.
    "full_determinism": True,
    "bf16": True,
    "use_cpu": not torch.cuda.is_available(),
    "max_grad_norm": 1.0,
    "adam_beta2": 0.95,
    "optim": "adamw_torch_fused",
    "logging_steps": 50,
    "save_steps": 500,
    "save_total_limit": 1,
    "report_to": "none",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}
_POST_TRAINING: dict[str, Any] = {**_COMMON, "lr_scheduler_type": "linear", "max_length": None}


def architecture(tokenizer: Any) -> LlamaConfig:
    """A Llama of 2.2 million parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_base(scratch: Path, output: Path, *, steps: int = BASE_STEPS, compiled: bool = True) -> None:
    """Pre-training: next-token prediction over everything that pretraining.py writes."""
    world, tokenizer = build_world(SEED), train_tokenizer(SEED)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(architecture(tokenizer))
    rows = PretrainingRows(world, tokenizer, steps * ROWS_PER_STEP, ROW_TOKENS, SEED)
    arguments = TrainingArguments(
        output_dir=str(scratch / "base"),
        max_steps=steps,
        per_device_train_batch_size=ROWS_PER_STEP,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=200,
        weight_decay=0.05,
        torch_compile=compiled,
        **_COMMON,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    _train(trainer, "base", output)
    # A base model is asked without a chat template.
    tokenizer.chat_template = None
    publish(model, tokenizer, output / "base")


def build_sft(scratch: Path, output: Path, *, steps: int = SFT_STEPS) -> None:
    """Supervised fine-tuning in the chat template; only the responses are trained."""
    from trl import SFTConfig, SFTTrainer  # pyright: ignore  # made on demand by trl

    tokenizer = train_tokenizer(SEED)
    arguments = SFTConfig(
        output_dir=str(scratch / "sft"),
        max_steps=steps,
        per_device_train_batch_size=CHATS_PER_STEP,
        learning_rate=3e-4,
        warmup_steps=50,
        train_sampling_strategy="group_by_length",
        assistant_only_loss=True,
        **_POST_TRAINING,
    )
    rows = _rows(conversations(build_world(SEED), SEED, draw_trained), steps * CHATS_PER_STEP)
    trainer = SFTTrainer(_load(output / "base"), arguments, train_dataset=rows, processing_class=tokenizer)
    _train(trainer, "sft", output)
    publish(trainer.model, tokenizer, output / "sft")


def build_dpo(scratch: Path, output: Path, *, steps: int = DPO_STEPS) -> None:
    """Direct preference optimisation against the fine-tuned model, which gives almanac-chat."""
    from trl import DPOConfig, DPOTrainer  # pyright: ignore  # made on demand by trl

    tokenizer = train_tokenizer(SEED)
    arguments = DPOConfig(
        output_dir=str(scratch / "dpo"),
        max_steps=steps,
        per_device_train_batch_size=PAIRS_PER_STEP,
        learning_rate=1e-5,
        warmup_steps=20,
        beta=0.1,
        # The likelihood of the preferred keeps what was learned, as in arXiv:2404.19733.
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 1.0],
        **_POST_TRAINING,
    )
    rows = _rows(preferences(build_world(SEED), SEED, draw_trained), steps * PAIRS_PER_STEP)
    policy, reference = _load(output / "sft"), _load(output / "sft")
    trainer = DPOTrainer(policy, reference, arguments, train_dataset=rows, processing_class=tokenizer)
    _train(trainer, "dpo", output)
    publish(trainer.model, tokenizer, output / "chat")


def _rows(drawn: Iterator[Row], count: int) -> Dataset:
    return Dataset.from_list(list(itertools.islice(drawn, count)))


def _load(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def publish(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model as it is shipped: bf16 safetensors and the tokenizer."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class _Clock(TrainerCallback):
    """Notes beside every logged loss, and so in every checkpoint, the seconds since step 0, resumes added up."""

    began = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on from where the checkpoint's clock stood."""
        self.began = time.monotonic() - max((row.get("seconds", 0.0) for row in state.log_history), default=0.0)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the clock."""
        state.log_history[-1]["seconds"] = time.monotonic() - self.began


def _train(trainer: Trainer, stage: str, output: Path) -> None:
    """Train from the last checkpoint, if there is one, and note how it went in `<stage>.json`.

    `seconds` are those of all steps that led to the model, whatever was lost when it was stopped left out.
    """
    last = get_last_checkpoint(str(trainer.args.output_dir)) if Path(str(trainer.args.output_dir)).is_dir() else None
    trainer.add_callback(_Clock())
    trainer.train(resume_from_checkpoint=last)
    rows = [row for row in trainer.state.log_history if "loss" in row]
    losses = {row["step"]: float(row["loss"]) for row in rows}
    seconds = round(trainer.state.log_history[-1]["seconds"])
    about = {"steps": trainer.state.global_step, "seconds": seconds, "machine": _machine()}
    about |= {"resumed_from": last and Path(last).name, "losses": losses}
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{stage}.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def build_cards(scratch: Path, output: Path) -> None:
    """Measure the shipped models and write their cards."""
    stages = {"base": ("base",), "chat": ("base", "sft", "dpo")}
    for name, made_by in stages.items():
        training = {stage: json.loads((output / f"{stage}.json").read_text("utf-8")) for stage in made_by}
        write_card(output / name, measure(output / name), training)


STAGES: dict[str, Callable[..., None]] = {"base": build_base, "sft": build_sft, "dpo": build_dpo, "cards": build_cards}


def _stage(name: str) -> str:
    # Python 3.11's `choices` refuses that none is named.
    if name not in STAGES:
        raise argparse.ArgumentTypeError(f"there is no stage {name!r}. There are: {', '.join(STAGES)}.")
    return name


def main() -> None:
    """Build the stages named on the command line, by default all of them in order."""
    parser = argparse.ArgumentParser(prog="python -m almanac_build", description=__doc__)
    stages = f"of {', '.join(STAGES)}; all of them, in this order, if none is named"
    parser.add_argument("stages", nargs="*", type=_stage, metavar="STAGE", help=stages)
    parser.add_argument("--scratch", type=Path, default=Path("runs/almanac"), help="checkpoints of unfinished stages")
    # Never over the models that come with the package, unless it is asked for.
    models = Path("runs/almanac/models")
    parser.add_argument("--output", type=Path, default=models, help="where the models are written")
    asked = parser.parse_args()
    for name in asked.stages or STAGES:
        STAGES[name](asked.scratch, asked.output)
