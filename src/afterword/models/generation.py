"""What a model writes: completions, greedy or drawn, and texts of its own that drift is measured on.

The one rule: what is written for a prompt depends on the model, the prompt, its place in the list and the
seed; not on the batch it was written in (up to the rounding of the arithmetic), nor on any global random state.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import GenerationConfig

from afterword.data import as_words
from afterword.data.passages import turn_end
from afterword.distributed import own_share, put_together, shares
from afterword.errors import CheckpointError, DataError
from afterword.models import alone_beyond, causal_lm, fixed_positions
from afterword.models.decoding import Forbidden, TokenIds, Writing, written_rows
from afterword.progress import Progress

_SENTINEL = "AFTERWORDUSERTURN"
_PROMPT_TOKENS = 32
SHOWN_TOKENS = 64
"""Of an answer that is shown, to be read."""
BATCH_TOKENS = 20480
"""All samples of the default number and length at once: a processor that reads every weight for each token of a batch
wants many rows."""
# A user turn may not end before: an empty question would tell nothing about the reply.
_MIN_USER_TOKENS = 4


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The text's own tokens, without BOS or EOS."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def user_turn(tokenizer: Any, content: str, *, reply_follows: bool = True) -> str:
    """A user's words as the chat template has them. Models that think aloud first are asked not to.

    Control tokens that the words write out stay words: a document in them cannot end the turn.
    """
    return by_template(tokenizer, ("user", as_words(tokenizer, content)), reply_follows=reply_follows)


def by_template(
    tokenizer: Any, *turns: tuple[str, str], reply_follows: bool = False, thinking: bool | None = False
) -> str:
    """Turns of (role, content) as the model's chat template writes them. CheckpointError where it cannot.

    `thinking`: whether a model that can thinks aloud first; None: as the template has it by itself.
    """
    messages = [{"role": role, "content": content} for role, content in turns]
    told = {} if thinking is None else {"enable_thinking": thinking}
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply_follows, **told)
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        problem = f"chat template: the model's own cannot write a turn of {turns[-1][0]} ({reason})"
        raise CheckpointError(f"{problem}. Repair it in tokenizer_config.json or chat_template.jinja.") from error


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    seed: int | None = None,
    min_new_tokens: int = 0,
    extra_eos_ids: TokenIds = (),
    forbidden: Sequence[Forbidden] = (),
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """One completion for each prompt, in their order: greedy, or with a seed drawn at temperature 1.

    A completion has no prompt in it and reaches up to and including the token that ended it: an EOS of the
    model or tokenizer, or one of `extra_eos_ids`; nothing ends it before `min_new_tokens`. Prompt i is drawn
    with random numbers of its own, made from (seed, i). `forbidden` has one entry for each prompt, or is empty.
    `batch_tokens` bounds rows × (longest prompt + new tokens). Settings or penalties of the model's own
    generation_config are not applied, and dropped. `advance` is told how many more prompts are done.
    """
    assert not model.training, "dropout would be in what is written"
    inner = causal_lm(model)
    ends = ends_of(model, tokenizer, extra_eos_ids)
    # generate() fills whatever `config` leaves open from the model's own (repetition_penalty, for one).
    inner.generation_config = GenerationConfig(eos_token_id=inner.generation_config.eos_token_id)
    if (limit := alone_beyond(inner.config)) and max(map(len, prompts), default=0) + max_new_tokens > limit:
        batch_tokens = 0
    max_new_tokens = min(max_new_tokens, room_behind(inner, prompts))
    found = dict[int, list[int]]()
    # Smaller ones where several processes write, so that each has some.
    planned = _batches([len(prompt) for prompt in prompts], max_new_tokens, batch_tokens // shares())
    for rows in own_share(list(planned)):
        how = Writing(
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            ends=ends,
            forbidden=[forbidden[row] for row in rows] if forbidden else (),
            draws=None if seed is None else _draws(seed, rows, max_new_tokens),
        )
        found |= zip(rows, written_rows(inner, [prompts[row] for row in rows], how, advance), strict=True)
    here, found = len(found), put_together(found)
    if advance and here < len(found):
        advance(len(found) - here)
    return [found[row] for row in range(len(prompts))]


def ends_of(model: Any, tokenizer: Any, extra: TokenIds = ()) -> frozenset[int]:
    """The tokens that end a text: EOS of the tokenizer and of the model, and `extra`."""
    # Chat models name several in their generation_config: the end of a turn and the end of a text.
    own = causal_lm(model).generation_config.eos_token_id
    named = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own]), *extra]
    return frozenset(token for token in named if token is not None)


def end_of_turn(tokenizer: Any) -> list[int]:
    """The token that the chat template writes behind an answer, where it is one that means nothing else."""
    end = turn_end(tokenizer)
    return [] if end is None else [end]


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The tokens of a prompt. A chat template writes BOS and the like itself."""
    if tokenizer.chat_template:
        return token_ids(tokenizer, prompt)
    ids = tokenizer(prompt, verbose=False)["input_ids"]
    # A tokenizer that closes every text with EOS would end the prompt before the answer.
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids


def room_behind(model: Any, prompts: Sequence[TokenIds]) -> int:
    """How many tokens fit behind the longest prompt. DataError where none does."""
    limit, longest = fixed_positions(model.config), max(map(len, prompts), default=0)
    if limit is None:
        return sys.maxsize
    if longest >= limit:
        problem = f"a prompt has {longest} tokens, and the model reads {limit} at most, its answer included"
        raise DataError(f"prompt: {problem}. Leave it out, or shorten it.")
    return limit - longest


def _draws(seed: int, rows: Sequence[int], new_tokens: int) -> np.ndarray:
    """[rows, new_tokens] float64 in [0, 1): a stream of its own for every prompt, whatever else is in its batch."""
    return np.stack([np.random.default_rng((seed, row)).random(new_tokens) for row in rows])


def _batches(lengths: Sequence[int], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices, longest prompts first: little padding, and what does not fit in memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        rows = max(1, batch_tokens // (lengths[order[0]] + new_tokens))
        yield order[:rows]
        order = order[rows:]


@dataclass(frozen=True, slots=True)
class Sample:
    """A text that the reference wrote, to measure drift on."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """Prompt and reply, with the token that ended the reply: what drift is measured on."""
    prompt: str
    """To be read: the user's turn, or the beginning of the text."""


def own_samples(model: Any, tokenizer: Any, *, count: int = 64, new_tokens: int = 128, seed: int = 0) -> list[Sample]:
    """Text that the reference wrote: of a chat model both turns, of another model from its first token on.

    By seed, at temperature 1, so that the KL divergence of the adapted model on them is an unbiased view of
    M0's own distribution.

    Either turn, or the text, has at most `new_tokens`. CheckpointError where the chat template does not
    show the user's words as they are, or where there is no token to start with.
    """
    if limit := fixed_positions(causal_lm(model).config):
        # Two turns and what the template writes around them have to fit.
        new_tokens = max(2, min(new_tokens, limit // 3))
    if tokenizer.chat_template:
        return _chat_samples(model, tokenizer, count, new_tokens, seed)
    start, cut = _start_ids(tokenizer), min(_PROMPT_TOKENS, new_tokens)
    with Progress("texts of the model's own", count, cost=f"at most {count * new_tokens:,} tokens") as progress:
        # At least `cut` tokens behind the start, so that something follows the prompt.
        texts = generate(
            model,
            tokenizer,
            [start] * count,
            max_new_tokens=new_tokens,
            min_new_tokens=cut,
            seed=seed,
            advance=progress.advance,
        )
    prompts = [[*start, *text[: cut - 1]] for text in texts]
    shown = [tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts]
    return [Sample(tuple(p), (*start, *text), words) for p, text, words in zip(prompts, texts, shown, strict=True)]


def _start_ids(tokenizer: Any) -> list[int]:
    starts = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    if not starts:
        raise CheckpointError("tokenizer: has neither a BOS nor an EOS token to begin a text with. Set bos_token.")
    return starts[:1]


def _chat_samples(model: Any, tokenizer: Any, count: int, new_tokens: int, seed: int) -> list[Sample]:
    before, end = _around_user_content(tokenizer)
    # Only a token that means nothing else ends a turn; ordinary words behind a turn are cut from its text.
    ends = [token for token in token_ids(tokenizer, end)[:1] if token in tokenizer.added_tokens_decoder]
    prefix = token_ids(tokenizer, before) or _start_ids(tokenizer)
    write, shortest = partial(generate, model, tokenizer, max_new_tokens=new_tokens), min(_MIN_USER_TOKENS, new_tokens)
    # 2 seed here and 2 seed + 1 for the replies: no two samples of any seed share random numbers.
    cost = f"at most {2 * count * new_tokens:,} tokens"
    with Progress("turns of the model's own", 2 * count, cost=cost) as progress:
        write = partial(write, advance=progress.advance)
        turns = write([prefix] * count, min_new_tokens=shortest, extra_eos_ids=ends, seed=2 * seed)
        texts = [tokenizer.decode(turn, skip_special_tokens=True) for turn in turns]
        users = [(text.split(end)[0] if end else text).strip() for text in texts]
        prompts = [token_ids(tokenizer, user_turn(tokenizer, user)) for user in users]
        replies = write(prompts, min_new_tokens=1, seed=2 * seed + 1)
    return [Sample(tuple(p), (*p, *reply), user) for p, reply, user in zip(prompts, replies, users, strict=True)]


def _around_user_content(tokenizer: Any) -> tuple[str, str]:
    """What the template writes before the user's words, a default system prompt included, and what ends them."""
    rendered = user_turn(tokenizer, _SENTINEL, reply_follows=False)
    if rendered.count(_SENTINEL) != 1:
        raise CheckpointError(f"chat template: makes {rendered[:200]!r} of {_SENTINEL!r}. Let it show a user's words.")
    before, after = rendered.split(_SENTINEL)
    return before, after.strip()


def answered_prompts(
    models: Sequence[Callable[[], Any]], tokenizer: Any, samples: Sequence[Sample], *, new_tokens: int = SHOWN_TOKENS
) -> list[dict[str, str]]:
    """The samples' prompts answered greedily by both models, to be read side by side. Each is asked for in its turn."""
    prompts = [sample.prompt_ids for sample in samples]
    cost = f"at most {2 * len(prompts) * new_tokens:,} tokens"
    with Progress("prompts answered before and after", 2 * len(prompts), cost=cost) as progress:
        written = [
            generate(writer(), tokenizer, prompts, max_new_tokens=new_tokens, advance=progress.advance)
            for writer in models
        ]
    return beside_each_other(tokenizer, samples, written)


def beside_each_other(
    tokenizer: Any, samples: Sequence[Sample], written: Sequence[Sequence[TokenIds]]
) -> list[dict[str, str]]:
    """What both models wrote to the samples' prompts, as it is read."""
    texts = [[tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in side] for side in written]
    return [{"prompt": s.prompt, "before": old, "after": new} for s, old, new in zip(samples, *texts, strict=True)]
