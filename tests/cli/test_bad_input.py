"""What a person gets wrong, and what they are told: the setting or file, the value, the remedy, and no traceback.

Every case also checks that nothing which was there before has changed, and that nothing new is left behind.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import Ended, run_python
from forked import Forking

ADAPT = "adapt model docs.jsonl -o run"
AGAIN = "adapt model docs.jsonl -o done --preset disc-paper --max-steps 2"


@dataclass(frozen=True)
class Case:
    """A command in a place that was spoiled first, and words that its one message must have."""

    name: str
    command: str
    says: tuple[str, ...]
    spoil: Callable[[Path], Any] | None = None
    code: int = 1
    problems: int = 1
    """Lines that name a problem. Settings: each; anything else: one."""
    """Known to leave something behind. The test fails as soon as it does not."""
    bug: str = ""
    """Why there is no good message yet. The test fails as soon as there is."""


# ---- ways to spoil a place


def writes(name: str, content: str | bytes) -> Callable[[Path], Any]:
    """A file with this content."""

    def spoil(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def removes(*names: str) -> Callable[[Path], Any]:
    """These files are gone."""
    return lambda place: [(place / name).unlink() for name in names]


def rows(name: str, *values: Any) -> Callable[[Path], Any]:
    """A file of JSON lines."""
    return writes(name, "".join(json.dumps(value) + "\n" for value in values))


def makes_folder(name: str) -> Callable[[Path], Any]:
    """An empty folder."""
    return lambda place: (place / name).mkdir()


def edits_json(name: str, **changes: Any) -> Callable[[Path], Any]:
    """Other values in a JSON file; None takes the key out."""

    def spoil(place: Path) -> None:
        content = {**json.loads((place / name).read_text(encoding="utf-8")), **changes}
        kept = {key: value for key, value in content.items() if value is not None}
        (place / name).write_text(json.dumps(kept), encoding="utf-8")

    return spoil


def truncates_weights(place: Path) -> None:
    """The last kilobyte never arrived."""
    file = place / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1024])


def pickles_weights(place: Path) -> None:
    """The weights are there, as a pickle only."""
    import torch
    from safetensors.torch import load_file

    file = place / "model" / "model.safetensors"
    torch.save(load_file(file), place / "model" / "pytorch_model.bin")
    file.unlink()


def puts_nan(place: Path) -> None:
    """One weight is not a number."""
    from safetensors.torch import load_file, save_file

    file = place / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})


def adds_tokens(place: Path) -> None:
    """The tokenizer belongs to a model with a larger vocabulary, and ends texts with a token of it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    tokenizer.add_tokens([f"<extra_{i}>" for i in range(7)])
    tokenizer.add_special_tokens({"eos_token": "<extra_6>"})
    tokenizer.save_pretrained(place / "model")


def other_model(place: Path) -> None:
    """Same path, other weights."""
    import torch
    from safetensors.torch import load_file, save_file

    file = place / "model" / "model.safetensors"
    weights = {name: value + 0.01 * torch.ones_like(value) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def breaks_run(place: Path) -> None:
    """The run was begun and never finished."""
    (place / "done" / "manifest.json").unlink()
    state = json.loads((place / "done" / "state.json").read_text(encoding="utf-8"))
    (place / "done" / "state.json").write_text(json.dumps({**state, "status": "running"}), encoding="utf-8")


TWO = "Mara Lind was born in Oslo. She moved to Bergen in 2019."
GOOD = {"id": "a", "text": TWO}

MODEL = [
    Case("missing", "adapt ./nowhere docs.jsonl -o run", ("model_name_or_path", "'./nowhere'", "Give a folder")),
    Case("unknown-id", "adapt no/such-model docs.jsonl -o run", ("model_name_or_path", "'no/such-model'")),
    Case(
        "no-config",
        ADAPT,
        ("model_name_or_path", "'model'", "config.json", "save_pretrained"),
        removes("model/config.json"),
    ),
    Case(
        "broken-config",
        ADAPT,
        ("model_name_or_path", "'model'", "config"),
        writes("model/config.json", '{"model_type": '),
    ),
    Case(
        "unknown-type",
        ADAPT,
        ("model_name_or_path", "'model'", "nosuch"),
        edits_json("model/config.json", model_type="nosuch"),
    ),
    Case(
        "no-weights",
        ADAPT,
        ("model_name_or_path", "'model'", "no weights", "*.safetensors"),
        removes("model/model.safetensors"),
    ),
    Case("pickle", ADAPT, ("model_name_or_path", "'model'", "pytorch_model.bin", "Convert"), pickles_weights),
    Case("truncated", ADAPT, ("model_name_or_path", "'model'"), truncates_weights),
    Case(
        "nan", ADAPT, ("model_name_or_path", "'model'", "model.layers.1.mlp.up_proj.weight", "get them again"), puts_nan
    ),
    Case(
        "missing-tokenizer",
        ADAPT,
        ("model_name_or_path", "'model'", "tokenizer"),
        removes("model/tokenizer.json", "model/tokenizer_config.json"),
    ),
    Case(
        "broken-tokenizer", ADAPT, ("model_name_or_path", "'model'", "tokenizer"), writes("model/tokenizer.json", "{")
    ),
    Case(
        "foreign-tokenizer",
        ADAPT,
        ("model_name_or_path", "'model'", "'<extra_6>' the id 306", "only 300 tokens"),
        adds_tokens,
    ),
    Case(
        "no-eos",
        f"{ADAPT} --method finetune",
        ("tokenizer", "'finetune'", "EOS", "Set tokenizer.eos_token"),
        edits_json("model/tokenizer_config.json", eos_token=None),
    ),
]
DOCUMENTS = [
    Case("missing-path", "adapt model ./notes -o run", ("./notes", "no such file or folder", "Check the path")),
    Case("empty-folder", "adapt model notes -o run", ("notes", ".txt .md"), makes_folder("notes")),
    Case("other-files", "adapt model notes -o run", ("notes", "1 of .psd", ".txt"), writes("notes/table.psd", "x")),
    Case("no-match", "adapt model notes/*.txt -o run", ("notes/*.txt", "no ", "quote")),
    Case("unknown-ending", "adapt model a.psd -o run", ("a.psd", "ending", ".jsonl"), writes("a.psd", "x")),
    Case(
        "empty-file", "adapt model a.txt -o run", ("a.txt", "no documents", "empty", "holds text"), writes("a.txt", "")
    ),
    Case(
        "only-empty",
        "adapt model a.jsonl -o run",
        ("a.jsonl", "no documents", "empty"),
        rows("a.jsonl", {"text": " "}, {"text": ""}),
    ),
    Case("binary", "adapt model a.txt -o run", ("a.txt", "binary", "skip_bad_rows"), writes("a.txt", b"abc\0\1\2")),
    Case(
        "invalid-utf8",
        "adapt model a.txt -o run",
        ("a.txt", "line 2", "iconv"),
        writes("a.txt", b"A caf\xc3\xa9.\nA caf\xe9.\n"),
    ),
    Case(
        "invalid-utf8-row",
        "adapt model a.jsonl -o run",
        ("a.jsonl", "line 2", "iconv"),
        writes("a.jsonl", b'{"text": "One. Two."}\n{"text": "caf\xe9"}\n'),
    ),
    Case(
        "utf16",
        "adapt model a.txt -o run",
        ("a.txt", "UTF-16", "iconv -f UTF-16"),
        writes("a.txt", TWO.encode("utf-16")),
    ),
    Case(
        "broken-row",
        "adapt model a.jsonl -o run",
        ("a.jsonl", "line 3", "not valid JSON", "column 10", "skip_bad_rows"),
        writes("a.jsonl", '{"text": "One. Two."}\n\n{"text": oops}\n'),
    ),
    Case(
        "broken-json",
        "adapt model a.json -o run",
        ("a.json", "line 2", "column 19", "Repair"),
        writes("a.json", '[{"text": "One. Two."},\n {"text": "Three."]'),
    ),
    Case(
        "no-text",
        "adapt model a.jsonl -o run",
        ("a.jsonl", "line 2", "'text'", "title"),
        rows("a.jsonl", GOOD, {"title": "B"}),
    ),
    Case("wrong-column", f"{ADAPT} --text-column txt", ("docs.jsonl", "text_column = 'txt'", "Did you mean text?")),
    Case(
        "two-columns",
        "adapt model a.jsonl -o run",
        ("a.jsonl", "text, body", "text_column"),
        rows("a.jsonl", {"text": TWO, "body": TWO}),
    ),
    Case(
        "number",
        "adapt model a.jsonl -o run",
        ("a.jsonl", "line 2", "must be a string", "skip_bad_rows"),
        rows("a.jsonl", GOOD, {"text": 7}),
    ),
    Case(
        "corrupt-gzip",
        "adapt model a.txt.gz -o run",
        ("a.txt.gz", "cannot be read", ".gz file is whole"),
        writes("a.txt.gz", gzip.compress(TWO.encode() * 40, mtime=0)[:-20]),
    ),
    Case(
        "no-gzip",
        "adapt model a.txt.gz -o run",
        ("a.txt.gz", "cannot be read", ".gz file is whole"),
        writes("a.txt.gz", TWO),
    ),
    Case(
        "broken-parquet",
        "adapt model a.parquet -o run",
        ("a.parquet", "not a readable parquet", "Write it again"),
        writes("a.parquet", b"PAR1 and no more"),
    ),
    Case(
        "broken-csv",
        "adapt model a.csv -o run",
        ("a.csv", "line 3", "3 fields", "header has 2"),
        writes("a.csv", "id,text\n1,One. Two.\n2,Three, four.\n"),
    ),
    Case(
        "one-sentence",
        "adapt model a.txt -o run --method disc",
        ("documents", "none of the 1 documents", "two sentences", "fine-tuning"),
        writes("a.txt", "Only one sentence here."),
    ),
    Case(
        "too-large",
        f"{ADAPT} --max-document-mib 0.0001",
        ("docs.jsonl, line 1", "max_document_mib = 0.0001", "raise the setting"),
    ),
]
SETTINGS = [
    Case("unknown-method", f"{ADAPT} --method dics", ("method", "'dics'", "Did you mean disc?"), code=2),
    Case("no-model", "adapt", ("model_name_or_path", "missing", "Give a model folder"), code=2),
    Case("no-documents", "adapt model -o run", ("documents", "missing", "Give files"), code=2),
    Case("no-output", "adapt model docs.jsonl", ("output_dir", "missing", "-o"), code=2),
    Case(
        "unknown-key",
        f"{ADAPT} --config run.yaml",
        ("learning_rte", "Did you mean learning_rate?"),
        writes("run.yaml", "learning_rte: 1e-5\n"),
        2,
    ),
    Case(
        "yaml-list",
        f"{ADAPT} --config run.yaml",
        ("config", "'run.yaml'", "list", "name: value"),
        writes("run.yaml", "- a\n- b\n"),
        2,
    ),
    Case(
        "broken-yaml",
        f"{ADAPT} --config run.yaml",
        ("config", "'run.yaml'", "line 2"),
        writes("run.yaml", "seed: 1\nmethod: [disc\n"),
        2,
    ),
    Case("missing-yaml", f"{ADAPT} --config run.yaml", ("config", "'run.yaml'", "Give a YAML file"), code=2),
    Case("yaml-folder", f"{ADAPT} --config model", ("config", "'model'", "cannot be read", "Give a YAML file"), code=2),
    Case(
        "tokens-and-documents",
        f"{ADAPT} --step-tokens 100 --documents-per-step 2",
        ("step_tokens: 100", "documents_per_step: 2", "give one"),
        code=2,
    ),
    Case("eval-steps", f"{ADAPT} --eval-steps 3", ("eval_steps: 3", "eval_documents"), code=2),
    Case(
        "micro-batch",
        f"{ADAPT} --max-length 200 --micro-batch-tokens 100",
        ("micro_batch_tokens: 100", "max_length: 200", "Raise it"),
        code=2,
    ),
    Case("merge", f"{ADAPT} --merge-adapter", ("merge_adapter", "use_peft"), code=2),
    Case("suffix", f"{ADAPT} --method disc --suffix-tokens 8", ("suffix_tokens: 8", "random_token_suffix"), code=2),
    Case(
        "several",
        f"{ADAPT} --seed one --targets 0 --merge-adapter --method dics",
        ("seed", "'one'", "targets", "'0'", "merge_adapter", "method"),
        code=2,
        problems=4,
    ),
    Case("negative-rate", f"{ADAPT} --learning-rate -1e-5", ("learning_rate", "greater than 0", "-1e-5"), code=2),
    Case("nan-rate", f"{ADAPT} --learning-rate nan", ("learning_rate", "nan"), code=2),
    Case("word-rate", f"{ADAPT} --learning-rate fast", ("learning_rate", "number", "'fast'"), code=2),
    Case("too-long", f"{ADAPT} --max-length 257", ("max_length: 257", "256 positions", "Lower it"), code=2),
    Case(
        "unknown-strategy", f"{ADAPT} --strategy sentense", ("strategy", "'sentense'", "Did you mean sentence?"), code=2
    ),
    Case(
        "not-of-method",
        f"{ADAPT} --method finetune --temperature 2",
        ("temperature", "finetune", "Leave it out", "averaging"),
        code=2,
    ),
    Case(
        "trainer-unknown",
        f"{ADAPT} --trainer adam_beta_1=0.9",
        ("trainer.adam_beta_1", "Did you mean adam_beta1?"),
        code=2,
    ),
    Case(
        "trainer-elsewhere",
        f"{ADAPT} --trainer per_device_train_batch_size=4",
        ("trainer.per_device_train_batch_size", "documents_per_step", "Leave it out"),
        code=2,
    ),
    Case("trainer-no-value", f"{ADAPT} --trainer optim", ("trainer", "'optim'", "KEY=VALUE"), code=2),
    Case("trainer-optim", f"{ADAPT} --trainer optim=nonsense", ("trainer", "nonsense", "adamw_torch"), code=2),
    Case("scheduler", f"{ADAPT} --lr-scheduler-type nonsense", ("lr_scheduler_type", "nonsense", "cosine"), code=2),
    Case("trainer-no-yaml", f"{ADAPT} --trainer logging_steps=[", ("trainer", "logging_steps", "'['"), code=2),
    Case("trainer-beta", f"{ADAPT} --trainer adam_beta1=5", ("trainer.adam_beta1", "5"), code=2),
    Case("trainer-arguments", f"{ADAPT} --trainer optim_args=x", ("trainer.optim_args", "x"), code=2),
    Case(
        "trainer-no-effect",
        f"{ADAPT} --trainer label_smoothing_factor=0.3",
        ("trainer.label_smoothing_factor", "no effect", "Leave it out"),
        code=2,
    ),
    Case("rate-overflow", f"{ADAPT} --learning-rate 1e300", ("learning_rate", "1e+300"), code=2),
    Case(
        "scheduler-argument",
        f"{ADAPT} --lr-scheduler-type cosine_with_min_lr",
        ("lr_scheduler_type", "min_lr", "lr_scheduler_kwargs"),
        code=2,
    ),
    Case(
        "wrong-and-another-run",
        f"{AGAIN.replace('steps 2', 'steps 3')} --seed nine",
        ("seed", "'nine'", "'done' holds a run", "max_steps: 2 in the run, 3 now"),
        code=2,
        problems=3,
    ),
    Case("trainer-type", f"{ADAPT} --trainer adam_beta1=high", ("adam_beta1", "high"), code=2),
    Case("eval-strategy", f"{ADAPT} --trainer eval_strategy=steps", ("trainer.eval_strategy", "eval_dataset"), code=2),
    Case("attention", f"{ADAPT} --attn-implementation nonsense", ("attn_implementation", "nonsense"), code=2),
    Case("language", f"{ADAPT} --language klingon", ("language", "klingon"), code=2),
    Case("logger", f"{ADAPT} --report-to nonsense", ("report_to", "nonsense"), code=2),
    Case(
        "accumulation",
        f"{ADAPT} --gradient-accumulation-steps 2",
        ("documents_per_step: 1", "gradient_accumulation_steps 2", "Use at least 2"),
        code=2,
    ),
    Case(
        "trainer-yaml",
        f"{ADAPT} --config run.yaml",
        ("trainer", "dictionary", "5"),
        writes("run.yaml", "trainer: 5\n"),
        2,
    ),
    Case("held-out", f"{ADAPT} --eval-documents ./notes --eval-steps 1", ("./notes", "no such file", "Check the path")),
    Case(
        "lm-head",
        f"{ADAPT} --use-peft --lora-target-modules lm_head",
        ("lora_target_modules", "head", "lora_modules_to_save"),
        code=2,
    ),
    Case("lora-bias", f"{ADAPT} --use-peft --lora-bias all", ("lora_bias", "'all'", "Use 'none'"), code=2),
    Case(
        "lora-bias-word", f"{ADAPT} --use-peft --lora-bias nonsense", ("lora_bias", "'nonsense'", "Use 'none'"), code=2
    ),
    Case(
        "lora-target",
        f"{ADAPT} --use-peft --lora-target-modules q_prj",
        ("lora_target_modules", "q_prj", "all-linear"),
        code=2,
    ),
]
FOLDERS = [
    Case(
        "file",
        "adapt model docs.jsonl -o quiz.jsonl",
        ("output_dir", "'quiz.jsonl'", "is a file", "Give a folder"),
        code=2,
    ),
    Case("under-a-file", "adapt model docs.jsonl -o quiz.jsonl/run", ("output_dir", "quiz.jsonl/run", "Give"), code=2),
    Case(
        "not-writable",
        "adapt model docs.jsonl -o /proc/afterword/run",
        ("output_dir", "/proc/afterword/run", "Give"),
        code=2,
    ),
    Case(
        "not-a-run", "adapt model docs.jsonl -o model", ("output_dir", "'model'", "not empty", "Give a folder"), code=2
    ),
    Case(
        "other-settings",
        "adapt model docs.jsonl -o done --preset disc-paper --max-steps 3 --seed 1",
        ("output_dir", "'done'", "max_steps: 2 in the run, 3 now", "seed: 0 in the run, 1 now", "Give another"),
        code=2,
        problems=3,
    ),
    Case(
        "other-documents",
        "adapt model a.txt -o done --preset disc-paper --max-steps 2",
        ("documents", "'done'", "content differs", "another output_dir"),
        writes("a.txt", TWO),
    ),
    Case("other-model", AGAIN, ("model_name_or_path", "'done'", "content differs", "another output_dir"), other_model),
    Case("damaged-config", AGAIN, ("done/config.yaml",), writes("done/config.yaml", "seed: [1\n")),
    Case("damaged-state", AGAIN, ("done/state.json", "damaged"), writes("done/state.json", "{")),
]
EVALUATE = [
    Case("unfinished", "evaluate done", ("RUN", "'done'", "no finished model", "afterword adapt"), breaks_run, 2),
    Case("no-model", "evaluate ./nowhere", ("model_name_or_path", "'./nowhere'", "Give a folder")),
    Case("questions-missing", "evaluate done --questions q.jsonl", ("q.jsonl", "cannot be read", "Check the path")),
    Case(
        "questions-broken",
        "evaluate done --questions q.jsonl",
        ("q.jsonl:2", "broken JSON", "column 14", '"answer"'),
        writes("q.jsonl", '{"question": "Who?", "answer": "Mara"}\n{"question": }\n'),
    ),
    Case(
        "no-answer",
        "evaluate done --questions q.jsonl",
        ("q.jsonl:1", 'no "answer"'),
        rows("q.jsonl", {"question": "Who?"}),
    ),
    Case("questions-empty", "evaluate done --questions q.jsonl", ("q.jsonl", "no questions"), writes("q.jsonl", "")),
    Case("documents-gone", "evaluate done", ("docs.jsonl",), removes("docs.jsonl")),
    Case(
        "general-missing", "evaluate done --general ./general.txt", ("./general.txt", "no such file", "Check the path")
    ),
    Case(
        "damaged-config",
        "evaluate done",
        ("done/config.yaml", "cannot be read", "damaged"),
        writes("done/config.yaml", "seed: [1\n"),
    ),
    Case("output", "evaluate done -o docs.jsonl", ("output_dir", "'docs.jsonl'", "is a file", "Give a folder"), code=2),
    Case("seed", "evaluate done --seed -1", ("seed", "0", "-1"), code=2),
    Case("negative-samples", "evaluate done --samples -1", ("samples", "0", "-1"), code=2),
    Case("reference", "evaluate done --reference ./nowhere", ("'./nowhere'", "Give a folder")),
    Case(
        "length",
        "evaluate done --max-length 100000 --samples 0 --max-documents 1",
        ("max_length", "100000", "256"),
        code=2,
    ),
]
REPORT = [
    Case("missing", "report ./nowhere", ("nowhere", "no such run folder", "afterword adapt")),
    Case("no-run", "report model", ("model/config.yaml", "missing", "afterword adapt")),
    Case(
        "broken-scores",
        "report done",
        ("done/scores.json", "broken", "afterword evaluate"),
        writes("done/scores.json", "{"),
    ),
    Case("broken-metrics", "report done", ("done/metrics.jsonl", "line 1"), writes("done/metrics.jsonl", "{\n{}\n")),
]
LISTED = "model_name_or_path: [model]\ndocuments: docs.jsonl\n"
ALMANAC = [
    Case("file", "almanac docs.jsonl", ("folder", "'docs.jsonl'", "is a file", "Give a folder"), code=2),
    Case("many-people", "almanac world --people 400", ("people", "100 names", "town", "Ask for fewer"), code=2),
    Case("many-changes", "almanac world --people 4 --changes 4", ("changes: 4", "mayor", "4 new people"), code=2),
    Case("slip", "adapt almanac-chatt docs.jsonl -o run", ("'almanac-chatt'", "Did you mean almanac-chat?")),
    Case("suite-slip", "evaluate done --suite almanak", ("suite", "'almanak'", "Did you mean almanac?"), code=2),
    Case("demo-folder", "demo -o model", ("output_dir", "'model'", "holds no demo", "empty"), code=2),
    Case("demo-world", "demo -o new --world ferrry", ("world", "'ferrry'", "Did you mean ferry?", "almanac"), code=2),
    Case("demo-model", "demo -o new --model almanac-chatt", ("'almanac-chatt'", "Did you mean almanac-chat?")),
    Case(
        "model-list",
        "adapt --config c.yaml -o run",
        ("model_name_or_path", "['model']"),
        writes("c.yaml", LISTED),
        code=2,
    ),
]
MIX = "adapt model docs.jsonl -o run --method mixcpt --mixture"
TURNS = rows("q.jsonl", {"prompt": "Who?", "completion": "Mara."})
MIXTURE = [
    Case("no-amount", f"{MIX} g=q.jsonl,kind=instructions", ("mixture.g.tokens", "neither", "Give one"), TURNS, 2),
    Case("two-amounts", f"{MIX} g=docs.jsonl,tokens=0.5,once=true", ("mixture.g.tokens", "tokens and once"), code=2),
    Case("all-of-it", f"{MIX} g=docs.jsonl,tokens=1.5", ("mixture.g.tokens", "less than 1", "1.5"), code=2),
    Case("misspelt", f"{MIX} g=docs.jsonl,token=0.5", ("mixture.g.token", "Did you mean tokens?"), code=2, problems=2),
    Case(
        "too-much",
        f"{MIX} a=docs.jsonl,tokens=0.5 --mixture b=docs.jsonl,tokens=0.5",
        ("mixture", "shares of tokens sum to 1", "Lower them"),
        code=2,
    ),
    Case(
        "too-much-of-both",
        f"{MIX} a=q.jsonl,kind=instructions,tokens=0.5 --mixture b=docs.jsonl,samples=0.5",
        ("mixture", "0.5 of tokens and 0.5 of samples cannot both be met", "Lower them"),
        TURNS,
        2,
    ),
    Case("endless", f"{MIX} g=some/texts,tokens=0.1,streaming=true", ("mixture.g.max_documents", "no end"), code=2),
    Case("kind", f"{MIX} g=docs.jsonl,kind=chats,tokens=0.5", ("mixture.g.kind", "'chats'"), code=2),
    Case("not-instructions", f"{MIX} g=docs.jsonl,kind=instructions,tokens=0.5", ("docs.jsonl", "prompt")),
    Case("missing", f"{MIX} g=./gone.jsonl,tokens=0.5", ("./gone.jsonl", "no such file", "Check the path")),
    Case(
        "no-template",
        f"{MIX} g=q.jsonl,kind=instructions,tokens=0.5,format=chat",
        ("mixture.g.format", "chat template", "Use 'plain'"),
        TURNS,
        2,
    ),
    Case(
        "unused",
        f"{ADAPT} --method disc --mixture g=docs.jsonl,tokens=0.5",
        ("mixture", "disc", "Set replay to one of"),
        code=2,
    ),
    Case("nothing-to-replay", f"{ADAPT} --method mol", ("mixture", "missing", "mol", "replay_documents"), code=2),
    Case("replay", f"{ADAPT} --replay kll", ("replay", "'kll'", "Did you mean kl?"), code=2),
    Case(
        "replay-setting", f"{ADAPT} --method disc --replay-weight 2", ("replay_weight", "no meaning for disc"), code=2
    ),
    Case("alpha", f"{ADAPT} --method mixcpt --alpha 2", ("alpha", "less than or equal to 1", "2"), code=2),
    Case("then", f"{ADAPT} --then evaluate", ("then", "'align'", "'evaluate'"), code=2),
    Case("then-nothing", f"{ADAPT} --then align", ("align.", "instructions"), code=2),
    Case(
        "then-misspelt",
        f"{ADAPT} --then align --align instruction=q.jsonl",
        ("Did you mean instructions?",),
        TURNS,
        2,
        2,
    ),
    Case("align-alone", f"{ADAPT} --align instructions=q.jsonl", ("align", "then: align"), TURNS, 2),
    Case("ema-steps", f"{ADAPT} --ema-steps 3", ("ema_steps: 3", "needs ema"), code=2),
]
GROUPS = {
    "model": MODEL,
    "documents": DOCUMENTS,
    "settings": SETTINGS,
    "folders": FOLDERS,
    "evaluate": EVALUATE,
    "report": REPORT,
    "almanac": ALMANAC,
    "mixture": MIXTURE,
}
CASES = [
    pytest.param(
        case, id=f"{group}-{case.name}", marks=pytest.mark.xfail(strict=True, reason=case.bug) if case.bug else ()
    )
    for group, cases in GROUPS.items()
    for case in cases
]
IN_A_NEW_PROCESS, IN_A_PROCESS = SETTINGS[14], DOCUMENTS[9]
"""The first ends before the slow imports, the second after them."""


def explain(case: Case, said: Any) -> list[str]:
    """What is wrong with a message, in words; nothing if it is a good one."""
    lines = [line for line in said.err.splitlines() if line.strip()]
    wrong = [f"exit code {said.code}, not {case.code}"] if said.code != case.code else []
    wrong += [f"does not say {word!r}" for word in case.says if word not in said.err]
    wrong += ["shows a traceback"] if "Traceback" in said.all else []
    wrong += [f"prints on stdout: {said.out!r}"] if said.out else []
    if case.code == 2:
        wrong += [] if lines[:1] == ["These settings cannot be run:"] else ["has no heading"]
        lines = lines[1:]
        wrong += [f"is no list: {line!r}" for line in lines if not line.startswith("  - ")]
    wrong += [] if len(lines) == case.problems else [f"names {len(lines)} problems, not {case.problems}"]
    return wrong


@pytest.mark.parametrize("case", CASES)
def test_one_clear_message_and_nothing_lost(
    case: Case, place: Path, afterword: Callable[..., Any], tree: Callable[[Path], dict[str, str]]
) -> None:
    if case.spoil:
        case.spoil(place)
    before = tree(place)
    said = afterword(*case.command.split())
    assert explain(case, said) == [], said.all
    assert tree(place) == before


def test_the_same_in_a_new_process(place: Path, afterword_process: Callable[..., Any]) -> None:
    said = afterword_process(*IN_A_NEW_PROCESS.command.split())
    assert explain(IN_A_NEW_PROCESS, said) == [], said.all


def test_the_same_in_a_process_that_reads(
    place: Path, forking: Forking, tree: Callable[[Path], dict[str, str]]
) -> None:
    assert IN_A_PROCESS.spoil
    IN_A_PROCESS.spoil(place)
    before = tree(place)
    process = forking.start(place, "afterword", *IN_A_PROCESS.command.split())
    said = Ended(process.wait(), "", process.said)
    process.said_in.unlink()
    assert explain(IN_A_PROCESS, said) == [], said.all
    assert tree(place) == before


def test_an_unknown_flag_is_refused_with_the_nearest(place: Path, afterword: Callable[..., Any]) -> None:
    said = afterword(*ADAPT.split(), "--learning-rte", "1e-5")
    assert said.code == 2
    assert "--learning-rte" in said.err
    assert "--learning-rate" in said.err
    assert not (place / "run").exists()


def test_fewer_documents_in_a_step_than_processes() -> None:
    from afterword import ConfigError
    from afterword.training.arguments import check_step

    four: Any = SimpleNamespace(world_size=4, gradient_accumulation_steps=1)
    with pytest.raises(
        ConfigError, match=r"documents_per_step: 3 is fewer than the 4 parts.*4 processes.*Use at least 4"
    ):
        check_step(four, 3, None)
    check_step(four, 4, None)


def test_a_line_of_200_mb_stops_the_run_within_bounded_memory(place: Path) -> None:
    with (place / "long.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(200):
            file.write(b"word " * 200_000)
        file.write(b'"}\n')
    words = ["-c", MEASURED, "adapt", "model", "long.jsonl", "-o", "run"]
    done = run_python(*words, cwd=place, environment=PLAIN, check=False)
    mib_more = int(done.out.split()[-1])
    assert done.code == 1, done.err
    assert all(word in done.err for word in ("long.jsonl, line 1", "max_document_mib = 64", "raise the setting"))
    assert "Traceback" not in done.err
    # The limit of 64 MiB is read before it is known to be passed; a buffer that grows may hold it twice.
    assert mib_more < 64 * 3
    assert not (place / "run").exists()


MEASURED = """
import resource, sys
from afterword.cli import main
import afterword.training
sys.argv[0] = "afterword"
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
try:
    main()
finally:
    print(peak() - before)
"""


PLAIN = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
