"""A model in 4 bits below an adapter: QLoRA (arXiv:2305.14314), by bitsandbytes.

The one rule: the values of the 4 bits never change. The teacher reads the same ones with the adapter off, and merged
are these values, dequantised, with what the adapter adds.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from afterword.distributed import own_device
from afterword.errors import ConfigError
from afterword.models.adapters import adapter_on, is_adapter
from afterword.models.backbone import causal_lm, only_reading
from afterword.models.checks import probe
from afterword.models.load import load_config, load_model
from afterword.models.lookup import model_folder
from afterword.models.lora import KERNELS, STATE_SPACES
from afterword.models.stored_precision import StoredModel
from afterword.named_models import unusable

_PROBE_TOKENS = 9
_OF_LIBRARIES = (ValueError, RuntimeError, AttributeError, TypeError, IndexError, KeyError)
"""What a model raises whose own code takes the weights of its layers past them."""


@dataclass(frozen=True, kw_only=True)
class FourBit:
    """How the linear layers are held, but for the head and what is trained whole."""

    quant_type: str = "nf4"
    double_quant: bool = True
    kept: tuple[str, ...] = ()
    """Ends of the names of modules that stay as they are."""


def require_bitsandbytes(setting: str) -> None:
    """ConfigError where bitsandbytes is not installed; `setting` is what needs it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        problem = f"{setting} needs bitsandbytes, which is not installed"
        raise ConfigError(f"{problem}. Install it: pip install 'afterword[qlora]'.")


def load_in_4bit(name: str, four_bit: FourBit, *, dtype: torch.dtype, attn_implementation: str | None = None) -> Any:
    """A model whose linear layers are in 4 bits, and which computes in `dtype`, where this process trains.

    An adapter's folder is the adapter on its base in 4 bits. ConfigError for a model that cannot be so.
    """
    if is_adapter(folder := model_folder(name)):
        below = partial(load_in_4bit, four_bit=four_bit, dtype=dtype, attn_implementation=attn_implementation)
        return adapter_on(below, folder)
    require_bitsandbytes("load_in_4bit: true")
    _refuse_damaged(name)
    model = load_model(
        name,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantization_config=_configuration(name, four_bit, dtype),
        device_map={"": own_device()},
    )
    kind, layers = causal_lm(model).config.model_type, list(_layers(model))
    if not layers:
        problem = f"load_in_4bit: no layer of a {kind} model can be held in 4 bits"
        raise ConfigError(f"{problem}. Leave it out.")
    for layer in layers:
        # Read without gradients on a processor with AVX512-BF16, a layer would pack its weights for reading alone:
        # from then on no gradient goes through it, and its values are rounded.
        layer.support_avx512bf16_for_cpu = False
    try:
        with only_reading(model):
            model(input_ids=probe(model, _PROBE_TOKENS).input_ids, use_cache=False)
    except _OF_LIBRARIES as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        problem = f"load_in_4bit: a {kind} model cannot be read with its layers in 4 bits ({first})"
        raise ConfigError(f"{problem}. Leave it out.") from error
    return model


def four_bit_of(model: Any) -> FourBit | None:
    """How a model in memory is held in 4 bits; None of one that is not."""
    asked: Any = getattr(causal_lm(model).config, "quantization_config", None)
    if not getattr(asked, "load_in_4bit", False):
        return None
    kept = tuple(asked.llm_int8_skip_modules or ())
    return FourBit(quant_type=asked.bnb_4bit_quant_type, double_quant=asked.bnb_4bit_use_double_quant, kept=kept)


@torch.no_grad()
def dequantise(model: Any) -> Any:
    """A model without an adapter whose layers in 4 bits are made ordinary ones of the same values, in float32."""
    from bitsandbytes.functional import dequantize_4bit

    for layer, parent, name in list(_places(model)):
        # In the precision that products take them in, and only then wider.
        values = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(values.float(), requires_grad=False)
        plain.bias = layer.bias
        setattr(parent, name, plain.train(layer.training))
    model.is_loaded_in_4bit = model.is_quantized = False
    model.hf_quantizer = model.quantization_method = None
    del model.config.quantization_config
    return model


def _configuration(name: str, four_bit: FourBit, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=four_bit.quant_type,
        bnb_4bit_use_double_quant=four_bit.double_quant,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_kept(name, four_bit),
    )


def _kept(name: str, four_bit: FourBit) -> list[str] | None:
    """Names of modules that stay as they are; None: those that transformers leaves by itself, as the head."""
    import transformers
    from transformers.quantizers.base import get_keys_to_not_convert

    config = load_config(name)
    own = [*four_bit.kept, *(KERNELS if config.model_type in STATE_SPACES else ())]
    if not own:
        return None
    with torch.device("meta"):
        whole = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sorted({*get_keys_to_not_convert(whole), *own})


def _refuse_damaged(name: str) -> None:
    """CheckpointError for weights that are not finite: once they are in 4 bits, nothing tells."""
    stored = StoredModel(name)
    for key in stored.dtypes:
        if not torch.isfinite(stored.tensor(key)).all():
            raise unusable(name, f"has non-finite values in {key}. The weights are damaged; get them again.")


def _places(model: Any) -> Iterator[tuple[Any, nn.Module, str]]:
    """Every layer in 4 bits, with the module that it is in and its name there."""
    from bitsandbytes.nn.modules import Linear4bit

    for parent in model.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, Linear4bit):
                yield layer, parent, name


def _layers(model: Any) -> list[Any]:
    return [layer for layer, _, _ in _places(model)]
