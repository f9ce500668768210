"""The documents that the benchmarks train on: sentences of random words, and a tokenizer with a word for every id."""

from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SENTENCES, WORDS = 25, (14, 28)
"""Of a document, and of a sentence: from the first, to below the second."""


def tokenizer(vocabulary: int) -> "PreTrainedTokenizerFast":
    """So many words; the last four are the full stop and what stands around texts."""
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(vocabulary - 4)}
    words |= {".": vocabulary - 4, "<unk>": vocabulary - 3, "<s>": vocabulary - 2, "</s>": vocabulary - 1}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])  # pyright: ignore
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def documents_of(count: int, vocabulary: int, sentences: int = SENTENCES) -> list[list[str]]:
    """Documents as sentences, always the same."""
    rng = np.random.default_rng(0)

    def sentence() -> str:
        """Capital first, full stop last, so that it is found."""
        words = [f"w{i}" for i in rng.integers(0, vocabulary - 4, rng.integers(*WORDS))]
        return " ".join(words).replace("w", "W", 1) + "."

    return [[sentence() for _ in range(sentences)] for _ in range(count)]


def rows_of(documents: list[list[str]]) -> list[dict[str, str]]:
    """The same as a trainer reads them."""
    return [{"id": str(i), "text": " ".join(parts)} for i, parts in enumerate(documents)]
