"""General text that a model wrote itself: to replay while it learns, where there is no text of its training.

The one rule: a row is what the model said, by seed, at temperature 1; nothing is chosen or mended.
"""

import json
from pathlib import Path
from typing import Any

from afterword.distributed import device_type
from afterword.errors import CheckpointError, ConfigError
from afterword.models.kept_samples import kept_own_samples
from afterword.models.load import load_model, load_tokenizer
from afterword.models.precision import evaluation_dtype
from afterword.storage.atomic import replace_file
from afterword.storage.paths import unwritable

OWN_SAMPLES_FILE = "own_samples.jsonl"
"""Of a run that replays what its model writes of itself."""


def write_own_text(model: str, path: Path, *, count: int = 200, new_tokens: int = 64, seed: int = 0) -> int:
    """Write JSON lines and return how many there are: `messages` of a chat model, user's turn and reply; else `text`.

    Either turn, or the text, has at most `new_tokens`. A sample with an empty turn is left out. ConfigError for a
    path that cannot be written.
    """
    parent = unwritable(path.parent)
    if path.is_dir() or parent:
        reason = "is a folder" if path.is_dir() else f"cannot be written ({parent} is not writable)"
        raise ConfigError(f"output: {str(path)!r} {reason}. Give a file for JSON lines.")
    tokenizer = load_tokenizer(model)
    device = device_type()
    loaded = load_model(model, dtype=evaluation_dtype([model])).eval().to(device)
    samples = kept_own_samples(loaded, tokenizer, count=count, new_tokens=new_tokens, seed=seed)
    rows = [_row(tokenizer, sample.prompt, sample.token_ids, len(sample.prompt_ids)) for sample in samples]
    kept = [row for row in rows if row]
    if not kept:
        raise CheckpointError(f"{model}: every text that the model wrote of its own is empty. Is it trained?")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return len(kept)


def _row(tokenizer: Any, prompt: str, token_ids: tuple[int, ...], start: int) -> dict[str, Any] | None:
    """A row of the file; None where a turn is empty."""
    if not tokenizer.chat_template:
        text = tokenizer.decode(token_ids, skip_special_tokens=True).strip()
        return {"text": text} if text else None
    reply = tokenizer.decode(token_ids[start:], skip_special_tokens=True).strip()
    turns = (("user", prompt.strip()), ("assistant", reply))
    return {"messages": [{"role": role, "content": text} for role, text in turns]} if all(t for _, t in turns) else None
