"""A model's own samples, written once: they follow from the model and a seed, and cost more than most measures."""

import json
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from afterword.distributed import from_main_process, is_main_process
from afterword.models.backbone import is_partly_away
from afterword.models.generation import Sample, own_samples
from afterword.models.save import content_sha256
from afterword.storage.atomic import replace_file
from afterword.storage.hashes import json_sha256, text_sha256
from afterword.storage.paths import cache_folder


def kept_own_samples(model: Any, tokenizer: Any, *, count: int, new_tokens: int, seed: int) -> list[Sample]:
    """As `own_samples`; of the same model, tokenizer, precision, kind of device and numbers they are read again.

    They are in `samples/` of the cache (AFTERWORD_CACHE); where that is off or cannot be used they are written anew.
    """
    place = _place(model, tokenizer, count=count, new_tokens=new_tokens, seed=seed)
    if place and (found := from_main_process(partial(_read, place))):
        return found
    samples = own_samples(model, tokenizer, count=count, new_tokens=new_tokens, seed=seed)
    if place and is_main_process():
        with suppress(OSError):  # They are written again next time.
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, json.dumps([asdict(sample) for sample in samples], ensure_ascii=False))
    return samples


def _place(model: Any, tokenizer: Any, **numbers: int) -> Path | None:
    folder = cache_folder("samples")
    # Weights on the disk are read for every forward, and not once more to be told apart.
    if folder is None or is_partly_away(model):
        return None
    read_as = text_sha256(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    follows_from = [content_sha256(model), str(model.dtype), model.device.type, read_as, tokenizer.chat_template]
    return folder / f"{json_sha256([follows_from, numbers])}.json"


def _read(place: Path) -> list[Sample] | None:
    """None where there are none, or what is there is damaged."""
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))
        return [Sample(tuple(row["prompt_ids"]), tuple(row["token_ids"]), row["prompt"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return None
