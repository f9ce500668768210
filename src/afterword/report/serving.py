"""How the result in a run folder is served: commands that can be copied, and the chat template that it has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterword.report.run_folder import read_file
from afterword.storage.parsing import parse_json
from afterword.storage.paths import plain_name

_ADAPTER = "adapter_config.json"
_TEMPLATE = "chat_template.jinja"
_MERGED = "merged"
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM has room for."""
_DEFAULT_RANK = 16
_COPY = "Copy the adapter again."


def serving_block(path: Path, folder: str, options: list[str]) -> dict[str, Any]:
    """Commands for a run folder that is called `folder`; `options` are further words for vLLM."""
    served = f"{folder.rstrip('/')}/{_MERGED}" if (path / _MERGED).is_dir() else folder
    name, out = plain_name(path), f"{folder.rstrip('/')}/gguf"
    return {
        "vllm": vllm_words(path, folder, options),
        "export": ["afterword", "export", served, "-o", out, "--file-type", "q8_0", "--name", name],
        "llama_server": ["llama-server", "-m", f"{out}/{name}-q8_0.gguf", "--jinja"],
        "ollama": ["ollama", "create", name.lower(), "-f", f"{out}/Modelfile"],
        "chat_template": chat_template(path),
    }


def vllm_words(path: Path, folder: str, options: list[str]) -> list[str] | None:
    """`vllm serve …` for a result: of an adapter, its base with the adapter on it. None where vLLM does not take it."""
    if (path / _MERGED).is_dir():
        return ["vllm", "serve", f"{folder.rstrip('/')}/{_MERGED}", *options]
    if not (path / _ADAPTER).is_file():
        return ["vllm", "serve", folder, *options]
    adapter = read_file(path / _ADAPTER, parse_json, _COPY)
    if adapter.get("use_dora") or adapter.get("modules_to_save") or adapter.get("bias", "none") != "none":
        return None
    ranks = [int(adapter.get("r") or 0), *map(int, (adapter.get("rank_pattern") or {}).values())]
    words = ["vllm", "serve", _base(adapter), "--enable-lora"]
    words += ["--lora-modules", f"{plain_name(path)}={folder}"]
    if max(ranks) > _DEFAULT_RANK:
        words += ["--max-lora-rank", str(next((each for each in _RANKS if each >= max(ranks)), max(ranks)))]
    return [*words, *options]


def chat_template(path: Path) -> str | None:
    """The chat template of a result, as it stands in its file; None where it has none."""
    file = path / _TEMPLATE
    return read_file(file, str, "Copy the folder again.") if file.is_file() else None


def _base(adapter: Mapping[str, Any]) -> str:
    return str(adapter.get("base_model_name_or_path") or "BASE")
