"""What was lost, with no data given: text that the model itself wrote before it was adapted.

The one rule: samples come from the reference M0 alone, by seed, at temperature 1, so that the KL divergence
of the adapted model on them is an unbiased view of M0's own distribution, through the turns of a chat where
M0 is a chat model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from afterword.errors import CheckpointError
from afterword.evaluation.generation import generate_greedy, sample

_SENTINEL = "AFTERWORDUSERTURN"
_PROMPT_TOKENS = 32
# A user turn may not end before: an empty question would tell nothing about the reply.
_MIN_USER_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """Prompt and reply, with the token that ended the reply: what drift is measured on."""
    prompt: str
    """To be read: the user's turn, or the beginning of the text."""


def own_samples(
    reference_model: Any, tokenizer: Any, *, count: int = 64, new_tokens: int = 128, seed: int = 0
) -> list[Sample]:
    """Text that the reference wrote: of a chat model both turns, of another model from its first token on.

    Either turn, or the text, has at most `new_tokens`. CheckpointError where the chat template does not
    show the user's words as they are, or where there is no token to start with.
    """
    if tokenizer.chat_template:
        return _chat_samples(reference_model, tokenizer, count, new_tokens, seed)
    return _text_samples(reference_model, tokenizer, count, new_tokens, seed)


def _text_samples(model: Any, tokenizer: Any, count: int, new_tokens: int, seed: int) -> list[Sample]:
    start = _start_id(tokenizer)
    cut = min(_PROMPT_TOKENS, new_tokens)
    # At least `cut` tokens behind the start, so that something follows the prompt.
    texts = sample(model, tokenizer, [[start]] * count, max_new_tokens=new_tokens, min_new_tokens=cut, seed=seed)
    return [_sample(tokenizer, [start, *text[: cut - 1]], text[cut - 1 :]) for text in texts]


def _start_id(tokenizer: Any) -> int:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise CheckpointError(
            "tokenizer: has neither a BOS nor an EOS token, so the model cannot begin a text of its own. "
            "Set bos_token in its tokenizer_config.json."
        )
    return start


def _sample(tokenizer: Any, prompt_ids: Sequence[int], reply: Sequence[int], prompt: str = "") -> Sample:
    text = prompt or tokenizer.decode(prompt_ids, skip_special_tokens=True)
    return Sample(tuple(prompt_ids), (*prompt_ids, *reply), text)


def _chat_samples(model: Any, tokenizer: Any, count: int, new_tokens: int, seed: int) -> list[Sample]:
    before, after = _around_user_content(tokenizer)
    prefix = _ids(tokenizer, before) or [_start_id(tokenizer)]
    turns = sample(
        model,
        tokenizer,
        [prefix] * count,
        max_new_tokens=new_tokens,
        min_new_tokens=min(_MIN_USER_TOKENS, new_tokens),
        extra_eos_ids=_end_of_turn_ids(tokenizer, after),
        seed=2 * seed,  # and 2 seed + 1 for the replies: no two samples of any seed share random numbers
    )
    users = [_user_text(tokenizer, turn, after) for turn in turns]
    prompts = [_ids(tokenizer, _render(tokenizer, user, reply_follows=True)) for user in users]
    replies = sample(model, tokenizer, prompts, max_new_tokens=new_tokens, min_new_tokens=1, seed=2 * seed + 1)
    return [
        _sample(tokenizer, prompt, reply, user) for prompt, reply, user in zip(prompts, replies, users, strict=True)
    ]


def _around_user_content(tokenizer: Any) -> tuple[str, str]:
    """What the template writes before the user's words, a default system prompt included, and behind them."""
    try:
        rendered = _render(tokenizer, _SENTINEL, reply_follows=False)
    except TemplateError as error:
        raise CheckpointError(f"chat template: cannot render one user message ({error}).") from error
    if rendered.count(_SENTINEL) != 1:
        raise CheckpointError(
            "chat template: must show the content of a user message once and unchanged, so that the model "
            f"can write one itself, but renders {_SENTINEL!r} as {rendered[:200]!r}. "
            "Correct the tokenizer's chat template."
        )
    before, after = rendered.split(_SENTINEL)
    return before, after


def _render(tokenizer: Any, content: str, *, reply_follows: bool) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=reply_follows
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _end_of_turn_ids(tokenizer: Any, after: str) -> list[int]:
    # Only a token that means nothing else ends a turn; ordinary words behind a turn are cut from its text.
    first = _ids(tokenizer, after.strip())[:1]
    return [token for token in first if token in tokenizer.added_tokens_decoder]


def _user_text(tokenizer: Any, turn: list[int], after: str) -> str:
    text = tokenizer.decode(turn, skip_special_tokens=True)
    end = after.strip()
    return (text.split(end)[0] if end else text).strip()


def before_and_after(
    reference: Any, model: Any, tokenizer: Any, samples: Sequence[Sample], *, count: int = 10, new_tokens: int = 64
) -> list[dict[str, str]]:
    """The first prompts answered greedily by both models, to be read side by side."""
    chosen = samples[:count]
    prompts = [drawn.prompt_ids for drawn in chosen]
    old, new = (
        [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in completions]
        for completions in (
            generate_greedy(writer, tokenizer, prompts, max_new_tokens=new_tokens) for writer in (reference, model)
        )
    )
    return [
        {"prompt": drawn.prompt, "before": before, "after": after}
        for drawn, before, after in zip(chosen, old, new, strict=True)
    ]
