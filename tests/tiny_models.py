"""A byte-level tokenizer and a random Llama for tests that want one of a shape of their own.

Those that want no more than a model have `model_folder`, `build_model` and `tokenizer` of conftest.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS = 0, 1


def byte_tokenizer(
    chat_template: str | None = None,
    *,
    specials: Sequence[str] = (),
    adds_bos: bool = False,
    **names: str | Sequence[str] | None,
) -> PreTrainedTokenizerFast:
    """A token for <s>, </s>, each of `specials`, and each of the 256 bytes: 258 tokens and more, in this order.

    `names` are those of special tokens, as the tokenizer takes them.
    """
    tokens = ["<s>", "</s>", *specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    given: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": chat_template, **names}
    return PreTrainedTokenizerFast(tokenizer_object=core, **given)


def random_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Two layers of width 32 over 258 tokens, unless `changes` of the configuration say otherwise."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    ids = {"vocab_size": 258, "bos_token_id": BOS, "eos_token_id": EOS}
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **heads, **ids, **changes})).eval()
