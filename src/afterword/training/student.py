"""The student as it begins: the model that was given, in 4 bits where that was asked for, with its adapter."""

from typing import Any

import torch

from afterword import models
from afterword.errors import ConfigError
from afterword.settings.adapt import AdaptSettings

_OF_AN_ADAPTER = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_bias", "use_dora")
"""Settings that an adapter which goes on has been made with."""


def base_model(settings: AdaptSettings, tokenizer: Any) -> Any:
    """The model as it is given, which the tokenizer belongs to; without an adapter that goes on: that comes onto it."""
    name, attention = settings.model_name_or_path, settings.attn_implementation
    name = models.base_of_adapter(models.model_folder(name)) if adapter_goes_on(settings) else name
    model = _loaded(name, settings, dtype_of(settings), attention)
    models.refuse_foreign_tokenizer(tokenizer, model, name)
    return model


def with_adapter(model: Any, settings: AdaptSettings) -> Any:
    """The base with a new adapter, with the one that goes on, or as it is."""
    if not settings.use_peft:
        return model
    if adapter_goes_on(settings):
        return models.go_on(model, models.model_folder(settings.model_name_or_path))
    return models.with_lora(model, lora_of(settings), settings.seed)


def as_begun(settings: AdaptSettings, dtype: torch.dtype) -> Any:
    """The model that a run is held to, as the run itself holds it: in 4 bits where its student begins so."""
    return _loaded(settings.held_to, settings, dtype, None)


def dtype_of(settings: AdaptSettings) -> torch.dtype:
    """The precision that the student is loaded in."""
    precision = models.resolved_precision(settings.precision, settings.model_name_or_path)
    # Under LoRA the base is frozen, so half precision loses nothing; peft keeps the adapters in float32.
    half = precision == "bf16" or (precision == "bf16_mixed" and settings.use_peft)
    return torch.bfloat16 if half else torch.float32


def adapter_goes_on(settings: AdaptSettings) -> bool:
    """Whether the model that was given is an adapter, and an adapter is to be trained: it is the same one."""
    return settings.use_peft and models.is_adapter(models.model_folder(settings.model_name_or_path))


def refuse_other_adapter(settings: AdaptSettings) -> None:
    """ConfigError where settings ask for another adapter than the one that goes on, or where its base is one too."""
    if not adapter_goes_on(settings):
        return
    folder = models.model_folder(settings.model_name_or_path)
    models.adapter_folder(folder)
    own, problems = _of_adapter(folder), list[str]()
    merged = "leave it out, or give the merged model (merged/ of a run with merge_adapter) for a new adapter"
    for name in _OF_AN_ADAPTER:
        given, default = getattr(settings, name), AdaptSettings.model_fields[name].default
        if given not in (default, own[name]):
            problems.append(f"{name}: {given!r}, and the adapter that goes on has {own[name]!r}: {merged}.")
    if settings.lora_modules_to_save:
        problems.append(f"lora_modules_to_save: the adapter that goes on has none: {merged}.")
    if problems:
        raise ConfigError(problems)


def of_adapter(settings: AdaptSettings) -> dict[str, Any]:
    """The settings of LoRA that a run uses which goes on with an adapter: that adapter's own; else none.

    ConfigError as of `refuse_other_adapter`.
    """
    refuse_other_adapter(settings)
    return _of_adapter(models.model_folder(settings.model_name_or_path)) if adapter_goes_on(settings) else {}


def chain_of(settings: AdaptSettings) -> dict[str, dict[str, str]]:
    """For data.json, of a run that goes on with an adapter: which, and the base that both are for; else nothing."""
    if not adapter_goes_on(settings):
        return {}
    name = settings.model_name_or_path
    base = models.base_of_adapter(models.model_folder(name))
    said = f"The adapter {name} goes on: what is saved is one adapter for {base}, with all rounds in it. Its teacher is"
    held = f"the reference, {settings.reference}" if settings.reference else "both as they were given"
    return {"adapter": {"adapter": name, "base": base, "note": f"{said} {held}."}}


def lora_of(settings: AdaptSettings) -> models.LoraSettings:
    """What a new adapter is made with."""
    every = settings.lora_target_modules == ("all-linear",)
    return models.LoraSettings(
        r=settings.lora_r,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        target_modules="all-linear" if every else settings.lora_target_modules,
        modules_to_save=settings.lora_modules_to_save,
        bias=settings.lora_bias,
        use_dora=settings.use_dora,
    )


def _of_adapter(folder: str) -> dict[str, Any]:
    made = models.settings_of_adapter(folder)
    targets = (made.target_modules,) if isinstance(made.target_modules, str) else made.target_modules
    shape = {"lora_r": made.r, "lora_alpha": made.alpha, "lora_dropout": made.dropout, "use_dora": made.use_dora}
    return {**shape, "lora_target_modules": targets, "lora_bias": made.bias}


def _loaded(name: str, settings: AdaptSettings, dtype: torch.dtype, attention: str | None) -> Any:
    if not settings.load_in_4bit or name == settings.reference:
        return models.load_model(name, dtype=dtype, attn_implementation=attention)
    four_bit = models.FourBit(
        quant_type=settings.bnb_4bit_quant_type,
        double_quant=settings.bnb_4bit_use_double_quant,
        kept=settings.lora_modules_to_save,
    )
    return models.load_in_4bit(name, four_bit, dtype=dtype, attn_implementation=attention)
