"""The models that the benchmarks train: Qwen3's shape in several sizes, with random weights."""

from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "small": {"hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 4, "num_attention_heads": 3},
    "30m": {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 10, "num_attention_heads": 6},
    "100m": {"hidden_size": 640, "intermediate_size": 1920, "num_hidden_layers": 16, "num_attention_heads": 10},
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
"""Parameters as named, embedding included. The last two are Qwen3's own."""
QWEN3_VOCABULARY, VOCABULARY = 151_936, 32_000
OWN: dict[str, dict[str, Any]] = {
    "small": {"num_key_value_heads": 3},
    "0.6b": {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": QWEN3_VOCABULARY},
    "8b": {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": QWEN3_VOCABULARY, "tie_word_embeddings": False},
}
"""What a shape has for itself. Otherwise: head_dim 64, two attention heads to a key, 32,000 words, a tied head."""


def config_of(shape: str, **settings: Any) -> Any:
    """The configuration of a shape, with these settings over it."""
    from transformers import Qwen3Config

    plain: dict[str, Any] = {"head_dim": 64, "vocab_size": VOCABULARY, "tie_word_embeddings": True}
    grouped = {"num_key_value_heads": max(1, SHAPES[shape]["num_attention_heads"] // 2)}
    context = {"max_position_embeddings": 2**15}
    return Qwen3Config(**{**plain, **grouped, **context, **SHAPES[shape], **OWN.get(shape, {}), **settings})


def random_model(shape: str, *, dtype: Any = None, device: Any = "cpu", attention: str | None = None, **settings: Any):
    """A model of a shape, the same weights whenever it is asked for. Made on its device; float32 if nothing is said."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    how = {"dtype": dtype or torch.float32, "attn_implementation": attention}
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config_of(shape, **settings), **how)
