"""What is checked when a model is loaded: weights, vocabulary, context, a head that we understand, and packing."""

import contextlib
from collections.abc import Generator, Iterable
from typing import Any

import torch
from torch import Tensor

from afterword.distributed import device_type
from afterword.errors import CheckpointError, ConfigError
from afterword.models.backbone import causal_lm, head_of, only_reading, trained_states
from afterword.named_models import unusable
from afterword.types import InputRows

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_HALF_TOLERANCE = 3e-2
"""Relative to the logits' norm. In silence contaminating architectures are off by 6e-2 and more."""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
_POSITIONS += ("max_target_positions", "max_seq_length", "model_max_length", "context_length")
"""Names that configurations have for the length of the context."""
_COUNTED_IN_ROWS = ("attention_chunk_size", "index_topk")
"""Sizes of chunks that attention is cut into, and of how much of a row it looks at."""
_LENGTH_DEPENDENT = {"dynamic", "longrope", "su", "yarn_dynamic"}
DEFAULT_MAX_LENGTH = 8192
"""Context where the model allows more: longer documents are read in windows. Ours; METHODS gives none."""


def has_bfloat16() -> bool:
    """Whether there is a GPU that multiplies in bfloat16 itself. Older ones imitate it, more slowly than float32."""
    return device_type() == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def has_bfloat16_units() -> bool:
    """Whether this processor multiplies in bfloat16, as far as torch knows: a build without oneDNN cannot be asked."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_weights(model: Any, name: str) -> None:
    """CheckpointError where a weight is NaN or infinite. Those on the disk are not looked at."""
    for key, value in model.named_parameters():
        # A sum shows what is not finite in a twentieth of the time; of very large values it may itself not be finite.
        if not value.is_meta and not value.sum().isfinite() and not value.isfinite().all():
            raise unusable(name, f"has non-finite values in {key}. The weights are damaged; get them again.")


def refuse_foreign_tokenizer(tokenizer: Any, model: Any, name: str) -> None:
    """CheckpointError as soon as the model is to read a token that it has no embedding for.

    A tokenizer may know more tokens than there are rows, as some are published: only those that occur matter.
    """
    rows = vocabulary_of(model)
    if max(tokenizer.get_vocab().values(), default=0) < rows:
        return
    refuse_unembedded(tokenizer, [id for id in (tokenizer.bos_token_id, tokenizer.eos_token_id) if id], rows, name)

    def look(_: Any, inputs: tuple[Any, ...]) -> None:
        """Before the embedding would fail, on some machines without a word."""
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].numel():
            refuse_unembedded(tokenizer, [int(inputs[0].max())], rows, name)

    causal_lm(model).get_input_embeddings().register_forward_pre_hook(look)


def refuse_unembedded(tokenizer: Any, ids: Iterable[int], rows: int, name: str) -> None:
    """CheckpointError where a token that is read is beyond the rows of the embedding."""
    if (largest := max(ids, default=0)) >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        problem = f"has a tokenizer that gives the token {token!r} the id {largest}, and a model of only {rows} tokens"
        raise unusable(name, f"{problem}. They do not belong together; give the model its own tokenizer.")


def context_length(config: Any, asked: int | None = None) -> int:
    """How many tokens a view may have: what was asked, else the model's limit up to DEFAULT_MAX_LENGTH."""
    limit = position_limit(config) or max(asked or 0, DEFAULT_MAX_LENGTH)
    if asked and asked > limit:
        raise ConfigError(f"max_length: {asked} is more than the model's {limit} positions. Lower it.")
    return asked or min(limit, DEFAULT_MAX_LENGTH)


def position_limit(config: Any) -> int | None:
    """How many tokens a model can read at once, as its configuration says it; None where that says no limit.

    The part for text says it where there are several.
    """
    parts = (config.get_text_config(decoder=True), config)
    said = (getattr(part, name, None) for part in parts for name in _POSITIONS)
    return next((limit for limit in said if isinstance(limit, int) and limit > 0), None)


def fixed_positions(config: Any) -> int | None:
    """The length beyond which a model cannot read at all: it has a vector for every position. None: it has none such.

    Rotary positions go on beyond the context, at worst without sense.
    """
    text = config.get_text_config(decoder=True)
    rotary = any(getattr(text, name, None) for name in ("rope_parameters", "rope_theta", "rotary_dim", "rotary"))
    return None if rotary else position_limit(config)


def row_limit(config: Any) -> int | None:
    """How long a packed row may be, so that no text in it is read otherwise than alone; None: as long as one likes.

    Masks of some families are of the context's size, those of others count from the beginning of the row.
    """
    text = config.get_text_config(decoder=True)
    limits = [position_limit(config), *(getattr(text, name, None) for name in _COUNTED_IN_ROWS)]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def alone_beyond(config: Any) -> int | None:
    """The length from which a text must be read with nothing beside it; None where there is none.

    Some position encodings turn all texts of a batch by another angle once one of them has become long.
    """
    text = config.get_text_config(decoder=True)
    ropes = [getattr(text, name, None) or {} for name in ("rope_parameters", "rope_scaling")]
    # Models with several kinds of layers have a mapping for each kind.
    kinds = [each for rope in ropes for each in (rope, *rope.values()) if isinstance(each, dict)]
    lengths = [
        each.get("original_max_position_embeddings")
        or getattr(text, "original_max_position_embeddings", None)
        or position_limit(config)
        or 0
        for each in kinds
        if each.get("rope_type", each.get("type")) in _LENGTH_DEPENDENT
    ]
    return min(lengths, default=None)


def check_head(model: Any) -> None:
    """CheckpointError where logits are not what the head makes of the hidden states."""
    with _where_it_reads(model), only_reading(model), reading_autocast(model):
        view = probe(model, 9)
        states = trained_states(model, view)
        ours = head_of(model).logits(states)
        theirs = model(input_ids=view.input_ids, use_cache=False).logits[0, :-1]
    if not is_close(ours, theirs.float(), states.dtype):
        kind, known = causal_lm(model).config.model_type, "bias, logit_scale, logits_scaling, final_logit_softcapping"
        problem = f"a {kind} model does something to its logits that Afterword does not know"
        raise CheckpointError(f"model_name_or_path: {problem}. Give a model whose head has no more than {known}.")


def packs_cleanly(model: Any) -> bool:
    """Whether two texts packed in one row give the hidden states that they give one by one.

    Some architectures read across the border in silence (convolutions, recurrences, masks of their own).
    """
    with _where_it_reads(model), _in_float32(model), only_reading(model), reading_autocast(model):
        packed = trained_states(model, probe(model, 7, 12))
        alone = [trained_states(model, probe(model, length)) for length in (7, 12)]
    return is_close(packed, torch.cat(alone), packed.dtype)


def is_close(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> bool:
    """Whether two sets of hidden states or logits agree up to the rounding of a precision."""
    error = (ours - theirs).float().norm() / theirs.float().norm().clamp_min(1e-12)
    return bool(error <= _TOLERANCE.get(dtype, _HALF_TOLERANCE))


def _kernel(model: Any) -> str:
    """Of attention, as transformers names it."""
    return str(getattr(causal_lm(model).config, "_attn_implementation", ""))


def reading_autocast(model: Any) -> torch.autocast:
    """The precision that a probe is read in."""
    # bfloat16 where the attention kernel takes nothing else.
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled="flash" in _kernel(model))


@contextlib.contextmanager
def _in_float32(model: Any) -> Generator[None]:
    """What is not in 4 bits is in float32 for the time being, and products are, where a model has layers in 4 bits.

    In halves such a model's own rounding comes to as much as what is looked for.
    """
    layers: list[Any] = [part for part in model.modules() if hasattr(getattr(part, "weight", None), "quant_state")]
    halves = {p: p.data for p in model.parameters() if layers and p.dtype in (torch.bfloat16, torch.float16)}
    computed_in = [layer.compute_dtype for layer in layers]
    for parameter in halves:
        parameter.data = parameter.data.float()
    for layer in layers:
        layer.compute_dtype = torch.float32
    try:
        yield
    finally:
        for parameter, value in halves.items():
            parameter.data = value
        for layer, dtype in zip(layers, computed_in, strict=True):
            layer.compute_dtype = dtype


@contextlib.contextmanager
def _where_it_reads(model: Any) -> Generator[None]:
    """On the GPU for the time being, where the model waits in the machine's memory and its kernel is one of a GPU.

    A model is loaded, and checked, before the Trainer moves it. Flash attention runs nowhere else; flex attention has
    another kernel on a processor.
    """
    moves = ("flash" in _kernel(model) or "flex" in _kernel(model)) and model.device.type == "cpu"
    if not moves or device_type() != "cuda":
        yield
        return
    model.to("cuda")
    try:
        yield
    finally:
        model.to("cpu")


def vocabulary_of(model: Any) -> int:
    """How many tokens have an embedding."""
    return causal_lm(model).get_input_embeddings().weight.shape[0]


def probe(model: Any, *lengths: int) -> InputRows:
    """Texts of these lengths in one row, the same tokens for the same length; only their last are not trained."""
    texts = [torch.randint(vocabulary_of(model), (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths])
    # After a text's last position comes the 0 of the next, or of the first.
    trained = positions.roll(-1).nonzero().flatten()
    ids, positions, trained = (tensor.to(model.device) for tensor in (torch.cat(texts), positions, trained))
    return InputRows(ids[None], positions[None], None, trained, len(ids))
