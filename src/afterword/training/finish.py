"""The end of a run: its model in the precision that keeps what was trained, written, read again, and pushed.

The one rule: what is decided on is what is written, and what is written is what is pushed. It is decided on by the
method's own loss on a fixed sample of what the run reads, whose draws and teacher are the same for every loss, so that
two differ by the student's weights alone. They are computed in float32: under autocast every weight is rounded in the
product anyway, and what saving rounds away would not be seen.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword import models
from afterword.data.batching import micro_batches, to_device
from afterword.distributed import device_type, is_main_process, is_sharded, whole_state
from afterword.errors import TrainingError
from afterword.objectives import Head
from afterword.settings.adapt import AdaptSettings
from afterword.training.rollouts import ROLLOUTS
from afterword.training.run_folder import RunFolder
from afterword.training.steps import ExampleKey
from afterword.training.trainer import AdaptationTrainer
from afterword.training.written_documents import WRITTEN
from afterword.types import Batch

_ADAPTER = "The adapter is saved in float32: nothing is rounded."
_OF_4BIT = (
    "It is what was trained: the 4 bits dequantised, with the adapter's update. The adapter alone, put on the base in "
    "its own precision, says something a little else."
)
_ROOM = 1.2
"""Free memory that the base in float32 needs, over its size."""
_NOT_PUSHED = ["_*", "checkpoint-*", ".*", f"*{models.STAGING_SUFFIX}", WRITTEN, f"{ROLLOUTS}/*"]
MOST_WINDOWS = 64
MOST_TOKENS = 16_384
_LEAST_TOKENS = 512
_SHARE = 1 / 30
"""Of all tokens that the run reads: four losses of it take about a twentieth of the run's time."""


@dataclass(frozen=True)
class GainSample:
    """Batches of the sample, each with what the teacher says of it."""

    trainer: AdaptationTrainer
    batches: tuple[Batch, ...]
    teachers: tuple[tuple[Tensor, Head] | None, ...]
    """Hidden states of the teacher at the trained positions, on the CPU, with its head."""

    @torch.no_grad()
    def loss(self, model: Any) -> float:
        """What a step's loss would be on the whole sample, in nats, of a model in the place of the student."""
        terms = self.trainer.terms
        sums = torch.zeros(len(terms), 2, dtype=torch.float64)
        with models.only_reading(model):
            for batch, teacher in zip(self.batches, self.teachers, strict=True):
                here = to_device(batch, model.device)
                student = (models.trained_states(model, here.student).float(), models.head_of(model))
                said = (teacher[0].to(model.device), teacher[1]) if teacher else None
                weighted, _ = self.trainer.weighted(terms[batch.term].objective, student, said, here)
                sums[batch.term] += torch.tensor([float(weighted), batch.total_weight], dtype=torch.float64)
        pairs = zip(terms, sums.numpy().tolist(), strict=True)
        return sum(term.weight * loss / weight for term, (loss, weight) in pairs if weight)


def gain_sample(trainer: AdaptationTrainer, *, everything: bool = False) -> GainSample:
    """The sample of a run, read by its teacher as that is now. Draws are those of epoch 0; dropout is off.

    `everything`: of all that the run reads, whatever that takes.
    """
    terms_of = [[n for n, term in enumerate(trainer.terms) if term.reads(each.source)] for each in trainer.sources]
    ends = np.cumsum([len(each.windows) for each in trainer.sources])
    windows: list[int] = (_read(trainer) if everything else _sampled(trainer)).tolist()
    draws = [
        ExampleKey(window, 0, term)
        for window in windows
        for term in terms_of[int(np.searchsorted(ends, window, side="right"))]
    ]
    batches, teachers = list[Batch](), list[Any]()
    with torch.no_grad(), models.only_reading(trainer.model):
        for batch in micro_batches([trainer.examples[draw] for draw in draws], trainer.packing):
            here = to_device(batch, trainer.model.device)
            said = trainer.teacher_reads(here, trainer.terms[batch.term].objective)
            batches.append(batch)
            teachers.append((said[0].cpu(), said[1]) if said else None)
    return GainSample(trainer, tuple(batches), tuple(teachers))


def _read(trainer: AdaptationTrainer) -> np.ndarray:
    """Every window that the run reads."""
    return trainer.plan.windows(trainer.total_steps)


def _sampled(trainer: AdaptationTrainer) -> np.ndarray:
    """At random among those that the run reads, some of the documents' own among them."""
    lengths = np.concatenate([each.lengths for each in trainer.sources])
    order = np.random.default_rng((trainer.args.seed, 1)).permutation(_read(trainer))
    # A window of the documents comes first, whatever general text there is beside them.
    own = order < len(trainer.sources[0].windows)
    order = np.concatenate([order[own][:1], np.delete(order, np.argmax(own))])
    tokens = sum(row["tokens"] for row in trainer.plan.realised(trainer.total_steps))
    most = min(MOST_TOKENS, max(_LEAST_TOKENS, _SHARE * tokens))
    count = int(np.searchsorted(lengths[order].cumsum(), most, "right"))
    return np.sort(order[: max(1, min(MOST_WINDOWS, count))])


@dataclass(frozen=True)
class Measure:
    """How the losses of saving are measured; or why they are not."""

    sample: GainSample | None = None
    loss_before: float | None = None
    why_not: str = ""
    seconds: float = 0.0
    """Of what was measured before the training."""


def measure_before(trainer: AdaptationTrainer, settings: AdaptSettings) -> Measure:
    """The loss before the first step, where the result of the run may have to be rounded.

    Of an adapter nothing is measured yet: switched off, it is the model before.
    """
    if settings.save_precision == "float32" or settings.use_peft or not is_main_process():
        return Measure()
    if why := _why_not(trainer):
        return Measure(why_not=why)
    stored = models.StoredModel(settings.model_name_or_path)
    if not models.rounds(trainer.model, models.stored_precisions(trainer.model, stored)):
        return Measure()
    return _measured_before(trainer)


def _why_not(trainer: AdaptationTrainer) -> str:
    """Why no loss can be measured; empty where one can."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return "the model is sharded, and one process has no GPU for all of it"
    if "flash" in str(getattr(models.causal_lm(trainer.model).config, "_attn_implementation", "")):
        return "its attention kernel computes in bf16, which hides what is rounded"
    return ""


def _measured_before(trainer: AdaptationTrainer) -> Measure:
    began = time.perf_counter()
    sample = gain_sample(trainer)
    model = trainer.model
    with models.as_given(model) if models.has_adapter(model) else contextlib.nullcontext():
        loss = sample.loss(model)
    return Measure(sample, loss, seconds=time.perf_counter() - began)


def finish(
    trainer: AdaptationTrainer, folder: RunFolder, settings: AdaptSettings, measure: Measure, fresh: Callable[[], Any]
) -> dict[str, Any] | None:
    """Write the result, and say of it what data.json keeps; None on every process but the main one.

    `fresh` loads the model as it was, for the weights of one that is sharded.
    """
    adapted, tokenizer = _adapted(trainer, fresh), trainer.processing_class
    if not trainer.is_world_process_zero():
        return None
    given, began = models.StoredModel(settings.model_name_or_path), time.perf_counter()
    with models.result_folder(folder.path) as staging:
        if not settings.use_peft:
            saving, precisions = models.settle(_trained(adapted, given, measure), settings.save_precision)
            models.write_model(adapted, tokenizer, staging, dtype=precisions, given=given)
            saved = saving.to_json()
        else:
            models.write_model(adapted, tokenizer, staging, dtype=given.dtype)
            saved = dict[str, Any](sentence=_ADAPTER)
            if settings.merge_adapter:
                saved["merged"] = merged = _merge(trainer, adapted, settings, given, staging)
                saved["sentence"] += f" merged/: {merged['sentence'][0].lower()}{merged['sentence'][1:]}"
                saved["sentence"] += f" {_OF_4BIT}" if settings.load_in_4bit else ""
    return {**saved, "seconds": measure.seconds + time.perf_counter() - began}


def _trained(model: Any, given: models.StoredModel, measure: Measure) -> models.Trained:
    sample = measure.sample
    loss = (lambda: sample.loss(model)) if sample else None
    return models.trained_from(model, given, loss=loss, loss_before=measure.loss_before, why_no_loss=measure.why_not)


def _merge(
    trainer: AdaptationTrainer, adapted: Any, settings: AdaptSettings, given: models.StoredModel, result: Path
) -> dict[str, Any]:
    """Merge in float32, decide as of any model, and write. The adapter, which is used up, is written in `result`."""
    _make_room(trainer, adapted)
    if not settings.load_in_4bit:
        models.widen(adapted, given)
    why, may_round = _why_not(trainer), settings.save_precision != "float32" and given.dtype.itemsize < 4
    measure = _measured_before(trainer) if may_round and not why else Measure(why_not=why)
    whole = models.merged(models.out_of_4bit(adapted, result) if settings.load_in_4bit else adapted)
    saving, precisions = models.settle(_trained(whole, given, measure), settings.save_precision)
    models.write_model(whole, trainer.processing_class, result / "merged", dtype=precisions, given=given)
    return saving.to_json()


def _make_room(trainer: AdaptationTrainer, adapted: Any) -> None:
    """Go on in the machine's memory where a GPU has no room for the base in float32."""
    needed = sum(4 * models.shape_of(parameter).numel() for parameter in adapted.parameters())
    if device_type() != "cuda" or torch.cuda.mem_get_info()[0] > _ROOM * needed:
        return
    adapted.to("cpu")
    if isinstance(trainer.teacher, models.LiveTeacher):
        trainer.teacher = trainer.teacher.placed(torch.device("cpu"))


def _adapted(trainer: AdaptationTrainer, fresh: Callable[[], Any]) -> Any:
    """The model that was trained. Of a sharded one, a fresh model with its weights, and on the main process alone."""
    if not is_sharded(trainer.model):
        # Without accelerate's autocast: it is compared, in its own precision, with what was written.
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    state = whole_state(trainer.model)
    if not trainer.is_world_process_zero():
        return None
    model = fresh()
    model.load_state_dict(state)
    return model


def push(settings: AdaptSettings, folder: Path, hub_model_id: str) -> None:
    """Push the very folder that was saved to the hub, without its checkpoints."""
    import huggingface_hub

    token, revision = (settings.trainer.get(f"hub_{name}") for name in ("token", "revision"))
    try:
        huggingface_hub.upload_folder(
            repo_id=hub_model_id,
            folder_path=folder,
            ignore_patterns=_NOT_PUSHED,
            token=token,
            revision=revision,
            commit_message="Adapted with Afterword",
        )
    except OSError as error:
        problem = f"push_to_hub: {hub_model_id!r} was not pushed ({' '.join(str(error).split())})"
        raise TrainingError(f"{problem}. The result is whole in {str(folder)!r}: push that folder.") from error
