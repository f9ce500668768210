"""The model itself writes, by transformers."""

from collections.abc import Iterator, Sequence
from typing import Any

from afterword.models import weights_fingerprint
from afterword.models.generation import generate, token_ids
from afterword.types import Request, Written
from afterword.writing.chat import as_conversation


class LocalGenerator:
    """A model in this process."""

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer

    @property
    def name(self) -> str:
        """The content of its weights."""
        return weights_fingerprint(self.model)

    def write(self, requests: Sequence[Request]) -> Iterator[tuple[int, Written]]:
        """One after the other."""
        for number, request in enumerate(requests):
            prompt = as_conversation(self.tokenizer, request.turns) if request.turns else request.text
            seed = request.seed if request.sampling.temperature else None
            (ids,) = generate(
                self.model,
                self.tokenizer,
                [token_ids(self.tokenizer, prompt)],
                max_new_tokens=request.sampling.max_new_tokens,
                seed=seed,
            )
            ended = len(ids) < request.sampling.max_new_tokens
            yield number, Written(self.tokenizer.decode(ids, skip_special_tokens=True).strip(), ended)
