"""Text that a model wrote itself, written once: it follows from the model, and costs more than most measures."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from afterword.distributed import from_main_process, is_main_process
from afterword.models.backbone import is_partly_away
from afterword.models.generation import Sample, end_of_turn, generate, own_samples, prompt_ids, user_turn
from afterword.models.save import content_sha256
from afterword.storage.atomic import replace_file
from afterword.storage.hashes import json_sha256, text_sha256
from afterword.storage.paths import cache_folder


def kept_own_samples(model: Any, tokenizer: Any, *, count: int, new_tokens: int, seed: int) -> list[Sample]:
    """As `own_samples`; of the same model, tokenizer, precision, kind of device and numbers they are read again.

    They are in `samples/` of the cache (AFTERWORD_CACHE); where that is off or cannot be used they are written anew.
    """
    write = partial(own_samples, model, tokenizer, count=count, new_tokens=new_tokens, seed=seed)
    return _kept(_place(model, tokenizer, {"count": count, "new_tokens": new_tokens, "seed": seed}), write)


def kept_replies(model: Any, tokenizer: Any, prompts: Sequence[str], *, new_tokens: int) -> list[Sample]:
    """The likeliest reply of a chat model to each user's turn, to its end or `new_tokens`; kept like its samples."""

    def write() -> list[Sample]:
        """All replies, anew."""
        asked = [prompt_ids(tokenizer, user_turn(tokenizer, prompt)) for prompt in prompts]
        ends = end_of_turn(tokenizer)
        replies = generate(model, tokenizer, asked, max_new_tokens=new_tokens, extra_eos_ids=ends)
        both = zip(asked, replies, prompts, strict=True)
        return [Sample(tuple(before), (*before, *reply), prompt) for before, reply, prompt in both]

    return _kept(_place(model, tokenizer, {"prompts": list(prompts), "new_tokens": new_tokens}), write)


def _kept(place: Path | None, write: Callable[[], list[Sample]]) -> list[Sample]:
    if place and (found := from_main_process(partial(_read, place))):
        return found
    samples = write()
    if place and is_main_process():
        with suppress(OSError):  # They are written again next time.
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, json.dumps([asdict(sample) for sample in samples], ensure_ascii=False))
    return samples


def _place(model: Any, tokenizer: Any, asked_for: Mapping[str, Any]) -> Path | None:
    folder = cache_folder("samples")
    # Weights on the disk are read for every forward, and not once more to be told apart.
    if folder is None or is_partly_away(model):
        return None
    read_as = text_sha256(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else tokenizer.get_vocab()
    follows_from = [content_sha256(model), str(model.dtype), model.device.type, read_as, tokenizer.chat_template]
    return folder / f"{json_sha256([follows_from, asked_for])}.json"


def _read(place: Path) -> list[Sample] | None:
    """None where there are none, or what is there is damaged."""
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))
        return [Sample(tuple(row["prompt_ids"]), tuple(row["token_ids"]), row["prompt"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return None
