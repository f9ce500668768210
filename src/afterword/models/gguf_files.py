"""GGUF files become ordinary folders: config, safetensors, tokenizer and chat template, once, into the cache.

transformers reads them through `gguf`. The weights are those of the quantised ones: what quantising lost does not
come back. The one rule: what transformers would leave out in silence is read, said or refused here.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from afterword.errors import CheckpointError
from afterword.named_models import unusable
from afterword.storage import cache as cached
from afterword.storage.hashes import file_sha256
from afterword.storage.parsing import parse_json

ORIGIN = "origin.json"
"""What the folder was made from."""
_FLOATS = {"F16": torch.float32, "F32": torch.float32}
"""Kinds whose values bf16 would round; those of every other are coarser than that, or bf16 itself."""
_SCALED = "rope_freqs.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of every Llama from 3.1 on. The factor itself is in the file."""
_SPLITS = {None, "default", "gpt-2", "gpt2", "smollm"}
"""Ways of splitting words that transformers has right without knowing them. (smollm takes digits one by one, and its
vocabulary holds no token of two.)"""
_OTHER = "Give its original folder, with config.json and safetensors"


def dequantised(file: Path, console: Console | None = None) -> Path:
    """The folder in the cache of a GGUF file, found by its content. What is not there is made first, and said.

    CheckpointError for a file that is damaged, a part of one, or of a kind that transformers does not read.
    """
    console = console or Console(stderr=True)
    _refuse_part(file)

    def make(staging: Path) -> None:
        """Write the folder, and say what it came from."""
        written_as_folder(file, staging, name=str(file), about={"file": file.name})
        origin = parse_json((staging / ORIGIN).read_text(encoding="utf-8"))
        console.print(_in_words(file, origin), markup=False, highlight=False, soft_wrap=True)

    return cached.made_once(f"gguf-{cached.remembered_sha256(file)[:16]}", make, console)


def written_as_folder(
    file: Path, folder: Path, *, name: str, about: Mapping[str, str], dtype: torch.dtype | None = None
) -> None:
    """Write a GGUF file into a folder as save_pretrained does, with origin.json, which also says `about`.

    `name` is what the person called it, for errors. `dtype`: the precision of the folder, else the one that loses
    nothing of most of the file's values.
    """
    fields, kinds, factors = _header(file, name)
    if int(fields.get("split.count") or 1) > 1:
        raise _in_parts(name, int(fields["split.count"]))
    dtype = dtype or _dtype(kinds)
    tokenizer = _read("AutoTokenizer", "tokenizer", file, name, fields)
    model = _read("AutoModelForCausalLM", "model", file, name, fields, dtype=dtype)
    config = model.config
    _scale_positions(config, factors, fields, name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # It is none any more, and would not be saved.
    for said in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(said, None)
    # On no device: its weights are those that were read.
    with torch.device("meta"):
        whole = type(model)(config)
    whole.load_state_dict(model.state_dict(), assign=True)
    whole.tie_weights()
    if ends := _ends(fields):
        whole.generation_config.eos_token_id = ends
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    origin = {
        **about,
        "sha256": file_sha256(file),
        "quantised": dict(kinds),
        "saved": str(dtype).removeprefix("torch."),
    }
    origin["splits_words"] = fields.get("tokenizer.ggml.pre")
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1), encoding="utf-8")


def gguf_fields(file: Path) -> Mapping[str, Any]:
    """The metadata of a GGUF file, but for long lists. CheckpointError where it is damaged."""
    return _header(file, str(file))[0]


def _in_words(file: Path, origin: Mapping[str, Any]) -> str:
    kinds = " and ".join(kind for kind, _ in Counter(origin["quantised"]).most_common() if kind != "F32") or "F32"
    said = f"{file.name}: dequantised from {kinds} into an ordinary {origin['saved']} checkpoint in the cache"
    lost = "What quantising lost does not come back; to serve quantised again, convert the result"
    said = f"{said}. {lost}."
    if (split := origin["splits_words"]) not in _known_splits():
        odd = f"Its tokenizer splits words in a way ({split}) that transformers does not know"
        said = f"{said} {odd}: texts may become other tokens than in its own program. Better: its original folder."
    return said


def _known_splits() -> set[str | None]:
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as known
    except ImportError:
        return _SPLITS
    return _SPLITS | set(known.GGUF_PRE_TOKENIZER_SPLITS)


def _header(file: Path, name: str) -> tuple[dict[str, Any], Counter[str], Any]:
    """The file's fields but for long lists, how many values it has of each kind of number, and its RoPE factors."""
    import gguf

    try:
        reader = gguf.GGUFReader(file)
        short = {key: field for key, field in reader.fields.items() if len(field.data) <= 1}
        fields = {key: field.contents() for key, field in short.items() if field.data}
        kinds: Counter[str] = Counter()
        for tensor in reader.tensors:
            kinds[tensor.tensor_type.name] += int(tensor.n_elements)
    except Exception as error:  # Damaged bytes can be anything: a length, a kind, a text.
        raise unusable(name, f"is damaged, or no GGUF file ({_first_line(error)}). Get it again.") from error
    if not reader.tensors:
        raise unusable(name, f"holds no weights. {_OTHER}.")
    return fields, kinds, next((tensor.data for tensor in reader.tensors if tensor.name == _SCALED), None)


def _dtype(kinds: Counter[str]) -> torch.dtype:
    """The precision that loses nothing of most of its values, beside which quantising lost more."""
    return _FLOATS.get(kinds.most_common(1)[0][0], torch.bfloat16)


def _read(auto: str, what: str, file: Path, name: str, fields: Mapping[str, Any], **options: Any) -> Any:
    import transformers

    if auto == "AutoModelForCausalLM":
        options |= {"output_loading_info": True}
        if hasattr(transformers, "GgufConfig"):
            options |= {"quantization_config": transformers.GgufConfig(dequantize=True)}
    try:
        # Its bar of hundreds of tensors goes to the standard error.
        with redirect_stderr(io.StringIO()):
            read = getattr(transformers, auto).from_pretrained(str(file.parent), gguf_file=file.name, **options)
    except Exception as error:  # As of a checkpoint: whatever a library of readers for everything finds wrong.
        kind, said = fields.get("general.architecture"), _first_line(error)
        if re.search("not supported|Unknown gguf model_type|Unrecognized", said):
            problem = f"is a GGUF file of the architecture {kind!r}, which transformers does not read from GGUF"
            raise unusable(name, f"{problem}. {_OTHER}.") from error
        raise unusable(name, f"is a GGUF file whose {what} cannot be read ({said}). {_OTHER}.") from error
    if auto != "AutoModelForCausalLM":
        return read
    model, report = read
    if missing := sorted(report["missing_keys"]):
        raise unusable(name, f"is a GGUF file without the weights {', '.join(missing[:3])}. {_OTHER}.")
    return model


def _scale_positions(config: Any, factors: Any, fields: Mapping[str, Any], name: str) -> None:
    """Stretched positions, which transformers does not read: those of Llama 3.1 and later are; others are refused."""
    kind = fields.get("general.architecture")
    stretched = fields.get(f"{kind}.rope.scaling.type", "none") not in ("none", "") and kind not in ("gpt-oss",)
    if stretched or (factors is not None and not _is_llama3(factors, config)):
        raise unusable(name, f"stretches its positions in a way that transformers does not read from GGUF. {_OTHER}.")
    if factors is not None:
        rope = dict(config.rope_parameters)
        config.rope_parameters = {**rope, **_LLAMA3, "rope_type": "llama3", "factor": round(float(factors.max()), 4)}


def _is_llama3(factors: Any, config: Any) -> bool:
    """Whether these factors are what Llama 3 makes of its lengths of waves."""
    theta = config.rope_parameters["rope_theta"]
    pairs = len(factors)
    waves = 2 * torch.pi * theta ** (torch.arange(pairs, dtype=torch.float64) / pairs)
    factor = float(factors.max())
    positions, low, high = (_LLAMA3[key] for key in ("original_max_position_embeddings", *list(_LLAMA3)[:2]))
    smooth = ((positions / waves - low) / (high - low)).clamp(0, 1)
    ours = 1 / ((1 - smooth) / factor + smooth)
    return bool(torch.allclose(ours, torch.tensor(factors.tolist(), dtype=torch.float64), rtol=1e-3))


def _ends(fields: Mapping[str, Any]) -> int | list[int] | None:
    """Ids of the tokens that end a turn: the end of the text, and that of a turn where it is another."""
    keys = (f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot", "eom"))
    found = list(dict.fromkeys(int(fields[key]) for key in keys if fields.get(key) is not None))
    return found if len(found) > 1 else (found[0] if found else None)


def _refuse_part(file: Path) -> None:
    if part := re.search(r"-\d{5}-of-(\d{5})\.gguf$", file.name, re.IGNORECASE):
        raise _in_parts(str(file), int(part[1]))


def _in_parts(name: str, parts: int) -> CheckpointError:
    join = "Join them with llama.cpp (llama-gguf-split --merge), and give the whole file"
    return unusable(name, f"is one of {parts} parts of a GGUF file. {join}.")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
