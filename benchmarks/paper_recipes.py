"""Writes recipes/disc-paper and recipes/mixcpt-paper: every row of the papers' tables, as far as it is published.

    python benchmarks/paper_recipes.py            # over those that are there

A recipe is a configuration of `afterword compare`. What it needs stands at its top, by these rules, which are counted
and not measured:

- memory: 16 bytes for each parameter trained in float32 (weight, gradient, two moments), 2 for the teacher in bfloat16,
  and 10 GB for what a document's forward and backward add;
- hours of training: the FLOPs of METHODS §1 (fine-tuning 6 for each parameter and token, a teacher that reads 2 more,
  DiSC 2 + 6 · 0.2; writing 2 for each new token), at 100 TFLOP/s under bf16 autocast and 20 in float32;
- hours of an exam: 5 answers of 200 new tokens to each question, 1,500 new tokens a second;
- benchmarks are not counted.

`afterword adapt … --dry-run` counts the documents, and measures memory and time on the machine itself.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
FLOPS = {"float32": 20e12, "mixed": 100e12}
NEW_TOKENS_PER_SECOND = 1500
ANSWER_TOKENS = 5 * 200


@dataclass(frozen=True, slots=True)
class Model:
    """A model, its parameters, and the paper's rate of fine-tuning for each corpus."""

    hub_id: str
    parameters: float
    rates: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Data:
    """A corpus with its exam. The documents' mean length is taken, not known."""

    documents: str
    reading: Mapping[str, str]
    exam: str
    count: int
    tokens: int


MODELS = {
    "qwen2.5-3b": Model("Qwen/Qwen2.5-3B-Instruct", 3.09e9, {"kup": 1e-5, "bioasq": 1e-5}),
    "qwen2.5-7b": Model("Qwen/Qwen2.5-7B-Instruct", 7.62e9, {"kup": 1e-5, "bioasq": 5e-6}),
    "llama-3.1-8b": Model("meta-llama/Llama-3.1-8B-Instruct", 8.03e9, {"kup": 4e-6, "bioasq": 1e-6}),
    "qwen3-8b": Model("Qwen/Qwen3-8B", 8.19e9, {"kup": 1.5e-5, "bioasq": 5e-6}),
}
DATA = {
    "kup": Data("data/kup.jsonl", {"text_column": "evidence_news"}, "data/wikimcq_df.jsonl", 5000, 600),
    "bioasq": Data(
        "kroshan/BioASQ:train", {"text_column": "text", "text_after": "<context>"}, "data/bioasq_mcq.jsonl", 3266, 400
    ),
}
PER_TOKEN = {
    "FT": 6.0,
    "FT + KL": 8.0,
    "FT + LoRA": 6.0,
    "FT + Rephrase": 2 * 2 + 6 * 2,
    "FT + TALR": 8.0,
    "CD-base": 0.0,
    "DiSC": 2 + 6 * 0.2,
}
"""FLOPs for each parameter and token of a document. Of rephrasing: two texts of its length, written and read."""
CONTINUED = 5 * 1000 * (2 + 8)
"""FLOPs of CD-base for each parameter and document: continuations written, and read by teacher and student."""
STRATEGIES = ("sentence", "middle", "uniform_sentence", "random_token", "uniform_token", "random_token_suffix")
DOMAINS = {"encyclopedia": "an encyclopedia", "mathematics": "mathematical text", "code": "code"}
ALIGNED = {"base": "meta-llama/Llama-3.1-8B", "chat": "meta-llama/Llama-3.1-8B-Instruct"}


def recipes() -> Iterator[tuple[str, str]]:
    """Every recipe, by its place under recipes/."""
    for corpus in DATA:
        for model in MODELS:
            yield f"disc-paper/{corpus}-{model}.yaml", _disc(corpus, model, _methods(MODELS[model].rates[corpus]))
    splits = {f"DiSC, {name}": {**_DISC, "strategy": name, "learning_rates": [3e-6]} for name in STRATEGIES}
    yield "disc-paper/ablation-splits.yaml", _disc("kup", "qwen2.5-3b", splits, name="ablation-splits")
    for domain in DOMAINS:
        for kind in ALIGNED:
            yield f"mixcpt-paper/{domain}-{kind}.yaml", _mixcpt(domain, kind)


_DISC: Mapping[str, Any] = {"method": "disc", "join": "authors", "precision": "bf16_mixed", "teacher_precision": "bf16"}


def _methods(rate: float) -> dict[str, dict[str, Any]]:
    """The rows of a table: the published rate, and two below it for the pick, which are ours."""
    plain = {"precision": "float32", "learning_rates": _rates(rate)}
    with_teacher = {**plain, "teacher_precision": "bf16"}
    return {
        "FT": {"method": "finetune", **plain},
        "FT + KL": {"method": "finetune_kl", **with_teacher},
        "FT + LoRA": {"method": "finetune", "use_peft": True, **plain, "learning_rates": _rates(5e-5)},
        "FT + Rephrase": {"method": "rephrase", **plain},
        "FT + TALR": {"method": "talr", **plain},
        "CD-base": {"method": "continuation", **with_teacher, "learning_rates": _rates(4e-6)},
        "DiSC": {**_DISC, "learning_rates": _rates(3e-6)},
    }


def _rates(published: float) -> list[float]:
    return [published / 4, published / 2, published]


def _disc(corpus: str, model: str, arms: Mapping[str, Mapping[str, Any]], name: str = "") -> str:
    taught, data, name = MODELS[model], DATA[corpus], name or f"{corpus}-{model}"
    hours = sum(len(arm["learning_rates"]) * _hours(row, taught, data) for row, arm in arms.items())
    cells, memory = sum(len(arm["learning_rates"]) for arm in arms.values()), _gigabytes(taught)
    what = "DiSC's ways of splitting" if name.startswith("ablation") else "Every method of DiSC's table"
    lines = [
        f"# {what} (arXiv:2602.16093), {corpus.upper()}, {taught.hub_id}. Made by benchmarks/paper_recipes.py.",
        "#",
        f"#   HF_ALLOW_CODE_EVAL=1 afterword compare --config recipes/disc-paper/{name}.yaml",
        "#",
        f"# Needs: one GPU with {memory:.0f} GB; for {cells} cells about {hours:.0f} hours, without the benchmarks.",
        "#   Both by the rules in that file. With less memory, and not as published: docs/reproduce.md.",
        f"# Data: {data.documents} (documents), {data.exam} (questions). See docs/reproduce.md.",
        "# Published: the highest rate of each arm; for all but FT and DiSC that of the authors' examples, or FT's.",
        "#   The lower ones are ours, for the pick: the paper's grid is not readable.",
        "",
    ]
    body = {
        "model_name_or_path": taught.hub_id,
        "documents": [data.documents],
        "output_dir": f"runs/disc-paper/{name}",
        "seeds": [0],
        "adapt": {**data.reading, "num_train_epochs": 1, "lr_scheduler_type": "constant", "documents_per_step": 1},
        "evaluate": {
            "exams": {corpus: {"file": data.exam}},
            "tasks": ["retention-disc"],
            # The paper measures drift on what was trained.
            "general": [data.documents],
        },
    }
    return "\n".join(lines) + _yaml(body, arms)


def _gigabytes(model: Model) -> float:
    return 18 * model.parameters / 1e9 + 10


def _hours(row: str, taught: Model, data: Data) -> float:
    """Of one cell."""
    per_token = PER_TOKEN["DiSC"] if row.startswith("DiSC") else PER_TOKEN[row]
    flops = per_token * taught.parameters * data.count * data.tokens
    flops += CONTINUED * taught.parameters * data.count * (row == "CD-base")
    speed = FLOPS["mixed" if row.startswith("DiSC") else "float32"]
    return (flops / speed + data.count * ANSWER_TOKENS / NEW_TOKENS_PER_SECOND) / 3600


def _mixcpt(domain: str, kind: str) -> str:
    model = MODELS["llama-3.1-8b"]
    cpt, stage_1 = (1e9 * flops * model.parameters / FLOPS["mixed"] / 3600 for flops in (6, 8 / 0.7))
    values = {
        "name": f"{domain}-{kind}",
        "domain": domain,
        "text": DOMAINS[domain],
        "kind": kind,
        "model": ALIGNED[kind],
        "memory": f"{_gigabytes(model):.0f}",
        "cpt": f"{cpt:.0f}",
        "stage_1": f"{stage_1:.0f}",
        "template": "\n      chat_template: chatml" if kind == "base" else "",
    }
    return _MIXCPT.format_map(values)


_MIXCPT = """\
# The arms of Mix-CPT (arXiv:2407.10804) on {text}, from a {kind} model. Made by benchmarks/paper_recipes.py.
#
#   HF_ALLOW_CODE_EVAL=1 afterword compare --config recipes/mixcpt-paper/{name}.yaml
#
# Needs: one GPU with {memory} GB. Hours on it, for each billion tokens of documents and each rate: {cpt} for CPT,
#   {stage_1} for stage 1 with its general text. By the rules in that file.
# Data: data/mixcpt/{domain}.jsonl (documents), data/mixcpt/{domain}-quiz.jsonl (`afterword quiz` makes one of them),
#   general instructions and preferences. The paper's samples, amounts and proportions are not published.
# Ours, because the paper's are not readable: the model, the rates, the shares of general text, α, τ, the direction of
#   the divergence, the numbers of samples, and by what is measured. See docs/reproduce.md.
model_name_or_path: {model}
documents: [data/mixcpt/{domain}.jsonl]
suite: data/mixcpt/{domain}-quiz.jsonl
output_dir: runs/mixcpt-paper/{name}
seeds: [0]
learning_rates: [2.5e-6, 1.0e-5]
adapt: {{num_train_epochs: 1, lr_scheduler_type: constant, step_tokens: 65536, precision: bf16_mixed}}
evaluate: {{tasks: [retention-disc]}}
arms:
  CPT: {{method: cpt}}
  CPT, SFT, DPO:
    method: cpt
    then: align
    align: &random
      instructions: [data/mixcpt/instructions.jsonl]
      preferences: [data/mixcpt/preferences.jsonl]
      selection: random{template}
      instruction_count: 1000
      preference_count: 1000
  CPT on the mixture:
    method: cpt
    mixture: &general
      instructions: {{files: [data/mixcpt/instructions.jsonl], kind: instructions, tokens: 0.2}}
      preferences: {{files: [data/mixcpt/preferences.jsonl], kind: preferences, tokens: 0.1}}
  Mix-CPT, stage 1: {{method: mixcpt, mixture: *general}}
  Mix-CPT, easiest samples:
    {{method: mixcpt, mixture: *general, then: align, align: {{<<: *random, selection: perplexity}}}}
  Mix-CPT, format score:
    {{method: mixcpt, mixture: *general, then: align, align: {{<<: *random, selection: format_score}}}}
  Mix-CPT, random samples: {{method: mixcpt, mixture: *general, then: align, align: *random}}
  Mix-CPT without the swap: {{method: mixcpt, mixture: *general, swap: false}}
"""


def _yaml(body: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each setting, and one for each arm."""
    return (
        "".join(f"{name}: {_flow(value)}\n" for name, value in body.items())
        + "arms:\n"
        + "".join(f"  {name}: {_flow(arm)}\n" for name, arm in arms.items())
    )


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Plain, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


class _Plain(yaml.SafeDumper):
    """Rates as people write them, and nothing said once and pointed at."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always: a reader should not have to look an arm up."""
        return True


def _rate(rate: float) -> str:
    """A rate as YAML takes it for a number.

    >>> _rate(1.5e-05), _rate(2.5e-06)
    ('1.5e-5', '2.5e-6')
    """
    digits, _, power = f"{rate:e}".partition("e")
    return f"{float(digits):g}".replace(".", ".", 1) + f"e{int(power)}"


def _represent(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = f"{value:g}" if value >= 0.001 else _rate(value)
    digits, e, power = text.partition("e")
    # YAML wants a point: 1e-5 would be a text.
    text = f"{digits if '.' in digits or not e else digits + '.0'}{e}{power}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Plain.add_representer(float, _represent)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for place, text in recipes():
        (RECIPES / place).parent.mkdir(parents=True, exist_ok=True)
        (RECIPES / place).write_text(text, encoding="utf-8")
        print(f"recipes/{place}")
