"""The main job in miniature: a small model made on the spot reads new documents, by DiSC and by fine-tuning.

    python recipes/demo.py [--output runs/demo]

A tiny Llama learns to read from generated notes about invented people, in under a minute. Then it is given
notes about people that it has never met, with both methods, and measured: what it learned of them, what it
lost of the rest. It shows every step of a real run; a model of this size says nothing about the methods.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

FIRST = ["Ada", "Bo", "Cleo", "Dario", "Edda", "Finn", "Gala", "Hugo", "Ines", "Jaro", "Kira", "Leon", "Mina", "Nilo"]
LAST = ["Arden", "Brandt", "Corvin", "Dahl", "Elmer", "Falk", "Gruber", "Holm", "Ibsen", "Jansen", "Kehl", "Lorca"]
TOWNS = ["Aldmoor", "Brightwater", "Cranehill", "Dunmere", "Eastfold", "Fairhaven", "Greywick", "Hollin", "Inverley"]
WORK = ["baker", "carpenter", "doctor", "engineer", "farmer", "gardener", "teacher", "painter", "sailor", "tailor"]
GENERAL, NEW, HELD_OUT = 1500, 12, 60


def note(name: str, draw: random.Random) -> str:
    """A note about one person: what the first sentence says, later ones say again in other words."""
    town, other, work = draw.choice(TOWNS), draw.choice(TOWNS), draw.choice(WORK)
    year = draw.randint(1950, 2005)
    sentences = [
        f"{name} was born in {town} in {year}.",
        f"{name} is a {work} and lives in {other}.",
        f"Everyone in {other} knows {name}, the {work}.",
        f"In {year}, when {name} was born, {town} was a small place.",
        f"The {work} {name} often goes back to {town}.",
        f"{name} moved from {town} to {other} to work as a {work}.",
    ]
    return " ".join([sentences[0], sentences[1], *draw.sample(sentences[2:], 3)])


def people(count: int, seed: int) -> list[dict[str, str]]:
    """Notes about people drawn by a seed; names may recur, as they do."""
    draw = random.Random(seed)
    names = [f"{draw.choice(FIRST)} {draw.choice(LAST)}" for _ in range(count)]
    return [{"id": f"{seed}-{i}", "title": name, "text": note(name, draw)} for i, name in enumerate(names)]


def build_base(folder: Path, rows: list[dict[str, str]], steps: int) -> None:
    """Train a Llama of 0.4 M parameters and its tokenizer on the general notes; nothing is downloaded."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from afterword import AdaptationTrainer
    from afterword.batching import Packing
    from afterword.methods import get_method
    from afterword.training import training_arguments

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator((row["text"] for row in rows), trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    method = get_method("finetune")
    arguments = training_arguments(
        method,
        output_dir=str(folder / "training"),
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        max_steps=steps,
        save_strategy="no",
    )
    AdaptationTrainer(
        model,
        arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        method=method,
        documents_per_step=8,
        packing=Packing(micro_batch_tokens=512),
    ).train()
    shutil.rmtree(folder / "training", ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_demo(output: Path, base_steps: int, passes: int) -> None:
    """Base model, two adaptations, two evaluations, one table."""
    from afterword import adapt, evaluate, write_report
    from afterword.training import quiet_libraries

    quiet_libraries()
    console, started = Console(), time.perf_counter()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    general = people(GENERAL, seed=1)
    write_rows(output / "general.jsonl", general[:HELD_OUT])
    new = write_rows(output / "new.jsonl", people(NEW, seed=2))
    unseen = write_rows(output / "unseen.jsonl", people(HELD_OUT, seed=3))
    console.print(f"Making a small model that can read ({base_steps} steps) …")
    build_base(output / "base", general, base_steps)
    console.print(f"Base model made in {time.perf_counter() - started:.0f} s. Teaching it {NEW} new documents …")
    results = {}
    for method, rate in (("disc", 3e-4), ("finetune", 1e-4)):
        run = output / method
        settings = {"learning_rate": rate, "num_train_epochs": passes, "documents_per_step": 4}
        adapt(output / "base", new, method=method, output_dir=run, **settings)
        general_text = (str(output / "general.jsonl"),)
        results[method] = evaluate(run, held_out=(str(unseen),), general=general_text, max_documents=HELD_OUT)
        write_report(run)
    console.print(_table(results))
    console.print(f"Done in {time.perf_counter() - started:.0f} s. Pages: {output}/disc/report.html and finetune/.")


ROWS = (
    ("learning/trained", "target_nll_nats", "new documents, sentences alone (nats per token)"),
    ("learning/held_out", "target_nll_nats", "documents never seen (nats per token)"),
    ("drift/own_samples", "kl_nats", "drift from the base model (KL, nats per token)"),
    ("drift/general", "bits_per_byte", "notes from before (bits per byte)"),
)


def _table(results: dict) -> Table:
    table = Table("measured", title="Before → after, change with 95 % interval")
    for method in results:
        table.add_column(method)
    for task, metric, label in ROWS:
        table.add_row(label, *(_cell(_find(result, task, metric)) for result in results.values()))
    return table


def _find(result, task: str, metric: str):
    return next(score for score in result.scores if (score.task, score.metric) == (task, metric))


def _cell(score) -> str:
    if score.change is None:
        low, high = score.after.interval_95
        return f"{score.after.value:.3f} [{low:.3f}, {high:.3f}]"
    low, high = score.change.interval_95
    return f"{score.before.value:.3f} → {score.after.value:.3f}  ({score.change.value:+.3f} [{low:+.3f}, {high:+.3f}])"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--base-steps", type=int, default=300)
    parser.add_argument("--passes", type=int, default=8)
    given = parser.parse_args()
    run_demo(given.output, given.base_steps, given.passes)
