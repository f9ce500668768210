"""What may be given under `trainer:`: fields of TrainingArguments that have an effect here and no better name.

Read from the source of transformers, which takes seconds to import: a wrong setting is told at once.
"""

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afterword.errors import nearest

_DECIDED_ELSEWHERE = {
    "bf16": "precision",
    "fp16": "precision",
    "output_dir": "output_dir",
    **dict.fromkeys(("per_device_train_batch_size", "train_sampling_strategy"), "documents_per_step"),
    **dict.fromkeys(("remove_unused_columns", "label_names"), "nothing: batches are built by the view"),
    "ddp_find_unused_parameters": "nothing: every parameter is reached in every step",
}
"""Other fields of TrainingArguments that a setting of ours, or the design, decides."""
_WITHOUT_EFFECT = {
    "label_smoothing_factor": "the loss is the objective of the method",
    "average_tokens_across_devices": "a step is always divided by its weights over all processes",
    "auto_find_batch_size": "micro_batch_tokens bounds the memory, and changes no gradient",
    "data_seed": "seed decides the order of the documents",
    "resume_from_checkpoint": "the same command resumes its run by itself",
    **dict.fromkeys(("dataloader_drop_last", "length_column_name"), "every document is read, in the order of the seed"),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "eval_steps and eval_documents ask for evaluation"),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), "held-out text is read in the precision of training"),
    **dict.fromkeys(
        ("per_device_eval_batch_size", "eval_accumulation_steps"), "micro_batch_tokens is for held-out text, too"
    ),
    **dict.fromkeys(
        (
            "prediction_loss_only",
            "include_for_metrics",
            "batch_eval_metrics",
            "eval_do_concat_batches",
            "eval_use_gather_object",
        ),
        "held-out text is measured by its losses alone; `afterword evaluate` measures more",
    ),
}
"""Fields that the Trainer would read where this one does something else, by what that is."""
_PACKAGES = {"use_liger_kernel": "liger_kernel"}


def trainer_problems(given: Mapping[str, Any], ours: Collection[str]) -> Iterator[str]:
    """What cannot be given under `trainer:`, and why. `ours`: settings that have a name of their own."""
    for name, value in given.items():
        if name in _DECIDED_ELSEWHERE or name in ours:
            better = _DECIDED_ELSEWHERE.get(name, f"the setting {name} itself")
            yield f"trainer.{name}: decided by {better}. Leave it out here."
        elif name not in _fields():
            hint = nearest(name, _fields()) or "See TrainingArguments for its fields."
            yield f"trainer.{name}: no such field of TrainingArguments. {hint}".rstrip()
        elif value and name in _WITHOUT_EFFECT:
            yield f"trainer.{name}: {value} would have no effect: {_WITHOUT_EFFECT[name]}. Leave it out."
        elif value and name in _PACKAGES and not find_spec(_PACKAGES[name]):
            package = _PACKAGES[name].replace("_", "-")
            yield f"trainer.{name}: needs a package that is not there. Run `pip install {package}`, or leave it out."
        elif isinstance(value, str) and re.fullmatch(r"float|int|(float|int) \| None", _fields()[name]):
            yield f"trainer.{name}: must be a number, got {value!r}."


@cache
def _fields() -> dict[str, str]:
    """Type, as it is written, of every field that TrainingArguments can be given."""
    spec = find_spec("transformers")
    folder = next(iter(spec.submodule_search_locations or ())) if spec else ""
    source = (Path(folder) / "training_args.py").read_text(encoding="utf-8")
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node for node in classes if node.name == "TrainingArguments").body
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {node.target.id: ast.unparse(node.annotation) for node in fields if not _is_internal(node)}  # pyright: ignore


def _is_internal(field: ast.AnnAssign) -> bool:
    return field.value is not None and "init=False" in ast.unparse(field.value)
