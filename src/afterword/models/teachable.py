"""Which models can be taught, told from their configuration: before documents or weights are read.

The one rule: what cannot be taught, or would lose a part of itself, is named in a sentence with what to give instead.
"""

from pathlib import Path
from typing import Any

from afterword.named_models import unusable

_CAUSAL = ("ForCausalLM", "LMHeadModel", "WithLMHead")
"""Ends of the names of classes that predict the next token. (Names of other programs' classes end so, too.)"""
_UNFIT = {
    "xlnet": "a permutation language model",
    "xlm": "a masked language model",
    "prophetnet": "a model that predicts several tokens at once",
    "reformer": "a model whose training takes no length but multiples of its chunks",
    "rwkv": "a model that changes its own weights in place whenever it is read after it was trained",
    "musicgen": "a model of sounds",
    "musicgen_melody": "a model of sounds",
}
"""Model types whose class counts as causal in transformers, and that cannot be taught all the same."""
_HEADS = {"bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "modernbert-decoder"}
_HEADS |= {
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Model types whose head is more than a product with its weight, so that losses would be of other logits."""
_ALWAYS_CAUSAL = ("gpt_neox",)
"""Model types whose configuration says that they are no decoders, although they are."""
_QUANTISED = ("quantization_config", "compression_config", "quantization")
_POINTER = b"version https://git-lfs"
_SMALL_BYTES = 1024
"""A pointer of Git LFS is smaller."""


def refuse_pointers(folder: Path, name: str) -> None:
    """CheckpointError where files of a folder are pointers: cloned without Git LFS, or before it had fetched them."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < _SMALL_BYTES and file.read_bytes().startswith(_POINTER):
            problem = f"was cloned without its large files: {file.name} is a pointer of Git LFS, not downloaded"
            raise unusable(name, f"{problem}. Run `git lfs pull` there, or download the model anew.")


def refuse_unteachable(config: Any, name: str) -> None:
    """CheckpointError where a model of this configuration cannot be taught whole."""
    kind = str(getattr(config, "model_type", "")) or type(config).__name__
    if method := _quantised_by(config):
        problem = f"is a quantised checkpoint ({method}): weights in so few bits cannot be trained"
        raise unusable(name, f"{problem}. Give the checkpoint that it was made from, in bf16, fp16 or float32.")
    if reason := _not_causal(config, kind):
        rule = "Only causal (decoder-only) language models can be taught"
        raise unusable(name, f"is {reason} ({kind}). {rule}, and none of this kind.")
    if towers := _left_out(config):
        problem = f"is a multimodal model ({towers[0]}), of which only the text part ({towers[1]}) would be saved"
        remedy = f"Give that part alone: transformers.{towers[1]}.from_pretrained(…).save_pretrained(…)"
        raise unusable(name, f"{problem}: its other towers (vision, audio) would be lost. {remedy}")


def causal_class(config: Any) -> Any:
    """The class that transformers makes of a configuration, or None."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        return None
    return found[0] if isinstance(found, tuple) else found


def _quantised_by(config: Any) -> str:
    """The method by which a model's weights are quantised; empty where they are not."""
    for part in (config, config.get_text_config()):
        for field in _QUANTISED:
            if settings := getattr(part, field, None):
                said = settings if isinstance(settings, dict) else vars(settings)
                return str(said.get("quant_method") or said.get("quant_algo") or f"{said.get('bits', 'few')} bits")
    return ""


def _not_causal(config: Any, kind: str) -> str:
    """What a model is, if it is no causal language model; else nothing."""
    named = list(getattr(config, "architectures", None) or ())
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder-decoder model"
    if kind in _UNFIT:
        return _UNFIT[kind]
    picked = causal_class(config)
    if picked is None:
        return f"a {named[0]}, which is no causal language model" if named else "no causal language model"
    if named and picked.__name__ not in named and not any(each.endswith(_CAUSAL) or _is_seen(each) for each in named):
        return f"a {named[0]}, which has no head that predicts the next token"
    if getattr(config, "is_decoder", None) is False and not kind.startswith(_ALWAYS_CAUSAL):
        return "an encoder, which reads a text in both directions"
    return "a model whose head is more than a product with its weight" if kind in _HEADS else ""


def _is_seen(architecture: str) -> bool:
    return architecture.endswith("ForConditionalGeneration")


def _left_out(config: Any) -> tuple[str, str] | None:
    """The class of a model with other towers than text, and the class that it would become; None where it is whole."""
    named, picked = list(getattr(config, "architectures", None) or ()), causal_class(config)
    whole = [each for each in named if _is_seen(each)]
    return (whole[0], picked.__name__) if whole and picked and picked.__name__ not in named else None
