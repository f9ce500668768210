"""A model out as a GGUF file with ollama's Modelfile beside it: merged where it is an adapter, converted, read back.

The one rule: a file that was to be checked has its name only when it says what the model says.
"""

import json
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from afterword.errors import CheckpointError
from afterword.models import (
    GGUF,
    StoredModel,
    gguf_fields,
    is_adapter,
    load_model,
    load_tokenizer,
    model_folder,
    replace_file,
    write_model,
)
from afterword.serving.converter import convert
from afterword.serving.inputs import check
from afterword.serving.modelfile import Modelfile, modelfile
from afterword.serving.read_back import BOUND_NATS, Agreement, read_back, refuse_apart
from afterword.settings.export import ExportSettings
from afterword.storage.paths import plain_name

_TYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_MODELFILE = "Modelfile"


@dataclass(frozen=True)
class Exported:
    """What was written, and what was seen of it."""

    path: Path
    file_type: str
    name: str
    modelfile: Modelfile
    agreement: Agreement | None
    """None where it was not read back."""


def export(settings: ExportSettings, *, console: Console) -> Exported:
    """Write the GGUF file of a model, the Modelfile and the figures into the output folder.

    ConfigError where there is no converter; CheckpointError where the model cannot be converted, or the file, read
    back, says something else.
    """
    converter = check(settings)
    folder, out = model_folder(settings.model_name_or_path), Path(settings.output_dir)
    name = settings.name or plain_name(settings.model_name_or_path)
    file_type = _type(settings, folder)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as hidden, _whole(folder, hidden, console) as whole:
        file = Path(hidden) / f"{name}-{file_type}{GGUF}"
        console.print(f"Converting to {file_type} by {converter}", markup=False, highlight=False, soft_wrap=True)
        convert(converter, Path(whole), file, file_type=file_type, name=name)
        beside = modelfile(file.name, load_tokenizer(whole), _generation(whole), gguf_fields(file))
        agreement = _checked(file, whole, Path(hidden), file_type, console) if settings.check else None
        written = file.replace(out / file.name)
    replace_file(out / _MODELFILE, beside.text)
    exported = Exported(written, file_type, name, beside, agreement)
    replace_file(written.with_suffix(".json"), json.dumps(_record(exported, settings), indent=1) + "\n")
    return exported


def _type(settings: ExportSettings, folder: str) -> str:
    if settings.file_type != "auto":
        return settings.file_type
    dtype = StoredModel(folder).dtype
    if dtype not in _TYPES:
        kind = str(dtype).removeprefix("torch.")
        raise CheckpointError(f"file_type: the model is saved in {kind}. Name one: {', '.join(BOUND_NATS)}.")
    return _TYPES[dtype]


@contextmanager
def _whole(folder: str, hidden: str, console: Console) -> Generator[str]:
    """A folder of a whole model: of an adapter, both merged in float32, for as long as it is needed."""
    if not is_adapter(folder):
        yield folder
        return
    console.print("Merging the adapter into its base, in float32", markup=False, highlight=False)
    merged = Path(hidden) / "merged"
    merged.mkdir()
    write_model(load_model(folder), load_tokenizer(folder), merged, dtype=torch.float32)
    yield str(merged)
    shutil.rmtree(merged)


def _generation(folder: str) -> Any:
    """The settings of generation that a folder comes with; None where it has none."""
    import transformers

    if not (Path(folder) / "generation_config.json").is_file():
        return None
    return transformers.GenerationConfig.from_pretrained(folder)


def _checked(file: Path, whole: str, scratch: Path, file_type: str, console: Console) -> Agreement:
    console.print("Reading it back", markup=False, highlight=False)
    found = read_back(file, whole, scratch)
    refuse_apart(found, file_type)
    return found


def _record(exported: Exported, settings: ExportSettings) -> dict[str, Any]:
    agreement = exported.agreement
    return {
        "model": settings.model_name_or_path,
        "file_type": exported.file_type,
        "read_back": agreement.record() if agreement else None,
        "most_kl_mean_nats": BOUND_NATS[exported.file_type],
        "template_left_out": exported.modelfile.left_out,
    }
