"""What the dry run says a training would hold at most, beside what it does hold. Random weights, Linux.

    python benchmarks/peak_memory.py                    # every case, two fresh processes each: about half an hour
    python benchmarks/peak_memory.py 30m-152k-disc 100m-32k-lora

Each case is estimated, and trains three steps. Measured is the most that the process had in memory (VmHWM, reset right
before training; on a GPU what its allocator held at most) less what it had before the model was loaded. A tiny model
is trained before that, so that the pages of the libraries are not counted as the model's. Nothing is asserted.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import status_mib
from shapes import random_model

VOCABULARIES = {"1k": 1_000, "32k": 32_000, "152k": 151_936}
CASES: dict[str, dict[str, Any]] = {
    "30m-32k-disc": {},
    "30m-32k-finetune": {"method": "finetune"},
    "30m-32k-checkpointing": {"method": "finetune", "gradient_checkpointing": True},
    "30m-152k-disc": {},
    "30m-152k-mixed": {"precision": "bf16_mixed"},
    "30m-32k-bf16-8bit": {"precision": "bf16", "optimizer_states": "8bit"},
    "30m-152k-bf16-states": {"precision": "bf16", "optimizer_states": "float32"},
    "30m-32k-int8": {"teacher_precision": "int8"},
    "100m-32k-disc": {},
    "100m-32k-finetune": {"method": "finetune"},
    "100m-32k-lora": {"use_peft": True},
    "100m-152k-lora-mixed": {"use_peft": True, "precision": "bf16_mixed"},
}
"""Settings by name; the name begins with the size and the vocabulary."""
LINES = 60
"""Sentences of a document, of about 40 tokens each."""


def write_model(size: str, vocabulary: str, folder: Path) -> None:
    """A random model, its head tied for the small vocabularies, and a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    limits: dict[str, Any] = {"max_position_embeddings": 4096, "vocab_size": VOCABULARIES[vocabulary]}
    random_model(size, **limits, tie_word_embeddings=vocabulary != "152k").save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*letters, "</s>"])}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(folder)


def documents(lines: int) -> list[dict[str, str]]:
    """Three documents of equal length: every step is as large as the others."""
    return [
        {"id": f"d{i}", "text": " ".join(f"This is sentence {j:03d} of the text number {i}." for j in range(lines))}
        for i in range(3)
    ]


def run_case(name: str, *, estimate: bool) -> dict[str, float]:
    """Train, or say what the dry run says, in this process. MiB."""
    from afterword.settings.adapt import read_settings
    from afterword.training import dry_run, quiet_libraries
    from afterword.training.run import load_trainer

    quiet_libraries()
    size, vocabulary, *_ = name.split("-")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for model in (("tiny", "1k"), (size, vocabulary)):
            subprocess.run([sys.executable, __file__, "--write", *model, str(folder / model[0])], check=True)
        tiny, asked = (
            read_settings({"method": "disc", "max_steps": 3, **CASES[name], "model_name_or_path": str(folder / model)})
            for model in ("tiny", size)
        )
        load_trainer(tiny, documents(4), folder / "warm")[0].train()
        held = _settled()
        if estimate:
            memory = dry_run(asked, documents(LINES)).memory
            return {"estimate": memory.total / 2**20} | {part: value / 2**20 for part, value in vars(memory).items()}
        trainer = load_trainer(asked, documents(LINES), folder / "run")[0]
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        trainer.train()
    on_gpu = torch.cuda.is_available()
    return {"measured": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else status_mib("VmHWM") - held}


def _settled() -> float:
    """MiB in memory after everything that can be given back is given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return status_mib("VmRSS")


def main() -> None:
    """Print a row for every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--train", help="train this one here and print JSON")
    parser.add_argument("--estimate", help="estimate this one here and print JSON")
    parser.add_argument("--write", nargs=3, metavar=("SIZE", "VOCABULARY", "FOLDER"), help="write a random model")
    asked = parser.parse_args()
    if asked.write:
        write_model(asked.write[0], asked.write[1], Path(asked.write[2]))
    elif asked.train or asked.estimate:
        print(json.dumps(run_case(asked.train or asked.estimate, estimate=bool(asked.estimate))))
    else:
        parts = ("weights", "teacher", "gradients", "moments", "passing", "updating")
        print(f"| MiB | estimate | measured | ratio | {' | '.join(parts)} |\n|---|---|---|---|{'---|' * len(parts)}")
        for name in asked.cases or CASES:
            found: dict[str, float] = {}
            for what in ("--estimate", "--train"):
                command = [sys.executable, __file__, what, name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found |= json.loads(done.stdout.splitlines()[-1])
            cells = [f"{found[part]:.0f}" for part in parts]
            ratio = found["estimate"] / found["measured"]
            row = (name, f"{found['estimate']:.0f}", f"{found['measured']:.0f}", f"{ratio:.2f}", *cells)
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
