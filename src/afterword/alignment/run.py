"""`afterword align`: read, score, select, fine-tune, prefer, into one folder that resumes stage by stage.

The one rule: a stage counts once its model is there, whole; the next starts from that model as it was saved.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from afterword import models
from afterword.alignment import selection as selecting
from afterword.alignment import stages
from afterword.alignment.dpo import train_dpo
from afterword.alignment.folder import AlignFolder, refuse_other_content, started_from
from afterword.alignment.inputs import Given, Usable, read_given, refuse_save_precision, usable_of
from afterword.alignment.sample_scores import score_samples
from afterword.alignment.samples import Sample, dialogue_in
from afterword.alignment.sft import train_sft
from afterword.alignment.stages import StageResult
from afterword.corpus import Corpus, Dialogue, Kind
from afterword.distributed import device_type, from_main_process, is_main_process, together
from afterword.settings.adapt import read_settings
from afterword.settings.align import AlignSettings, Stage
from afterword.storage.locks import sole
from afterword.types import Skipped

_STAGES: tuple[tuple[Stage, Kind, Any], ...] = (("sft", "instructions", train_sft), ("dpo", "preferences", train_dpo))
"""In their order: what each is trained on, and how."""
_CONFIGURATION = "config.json"


@dataclass(frozen=True)
class AlignResult:
    """What an alignment left behind."""

    path: Path
    selected: Mapping[Kind, int]
    """How many samples of each kind were trained on."""
    already_complete: bool = False


def align(model: str | Path, *, output_dir: str | Path, **settings: Any) -> AlignResult:
    """Give a model its format with a few selected samples. The Python form of `afterword align`, settings as there."""
    named = {"model_name_or_path": str(model), "output_dir": str(output_dir)}
    return run_alignment(read_settings({**settings, **named}, AlignSettings), command="afterword.align(…)")


def run_alignment(settings: AlignSettings, *, console: Console | None = None, command: str = "") -> AlignResult:
    """Select, then SFT, then DPO, as far as samples were given, and write the aligned model to `output_dir`.

    The folder holds what `from_pretrained` loads, selection.jsonl with every sample's scores, and align.json with
    settings, counts and losses. The result of SFT stays in sft/ where DPO follows. A folder of the same alignment
    goes on where it stopped; a finished one is left as it is.
    """
    stages.refuse_machine()
    console = (console or Console(stderr=True)) if is_main_process() else Console(quiet=True)
    # Of several processes the first has the folder for all, and writes.
    here = sole(Path(settings.output_dir), "aligns into the same folder") if is_main_process() else nullcontext()
    with here, together():
        return _aligned(settings, console, command)


def _aligned(settings: AlignSettings, console: Console, command: str) -> AlignResult:
    folder = AlignFolder(Path(settings.output_dir))
    # All processes go by what the first one finds in the folder.
    state = from_main_process(partial(folder.state, settings))
    name = settings.model_name_or_path
    refuse_save_precision(settings, adapter=settings.use_peft or models.is_adapter(name))
    with tempfile.TemporaryDirectory(prefix="afterword-align-") as scratch:
        given = read_given(settings, Path(scratch), name, started_from(name).get("mixture"))
        usable = {} if state else usable_of(given, settings, _context(settings))
        model = _load_model(name, settings)
        models.refuse_foreign_tokenizer(given.tokenizer, model, name)
        if state:
            now = _content(given, model)
            # An alignment that does not say its configuration is taken to have this one.
            refuse_other_content(folder.path, {_CONFIGURATION: now[_CONFIGURATION], **state["content"]}, now)
        else:
            state = _begin(folder, settings, given, usable, model, console, command)
        # Every stage loads its own, also where nothing was interrupted.
        del model
        chosen = _chosen(folder, given.corpora, given.tokenizer)
    complete = from_main_process(partial(models.has_result, folder.path))
    if not complete:
        _train(folder, settings, state, given.tokenizer, chosen, console)
    if is_main_process():
        shutil.rmtree(folder.work, ignore_errors=True)
    return AlignResult(folder.path, {kind: len(found) for kind, found in chosen.items()}, already_complete=complete)


def _content(given: Given, model: Any) -> dict[str, str]:
    """What an alignment is made of, by hash, and how the model's weights are used."""
    return {**given.content(model), _CONFIGURATION: models.configuration_sha256(model)}


def _load_model(name: str, settings: AlignSettings) -> Any:
    """Full models in float32. Under an adapter the base is frozen, so half precision loses nothing."""
    adapter = settings.use_peft or models.is_adapter(name)
    half = adapter and models.resolved_precision(settings.precision) == "bf16_mixed"
    model = models.load_adapted(name, dtype=torch.bfloat16 if half else torch.float32)
    return model.eval().to(device_type())


def _context(settings: AlignSettings) -> int:
    """Tokens that a sample may have."""
    return models.context_length(models.load_config(settings.model_name_or_path), settings.max_length)


def _begin(
    folder: AlignFolder,
    settings: AlignSettings,
    given: Given,
    usable: Mapping[Kind, Usable],
    model: Any,
    console: Console,
    command: str,
) -> dict[str, Any]:
    """Select, and write down what was selected, of what, and how."""
    rows, counts = _select(settings, usable, model, console)
    if is_main_process():
        folder.begin(settings, rows)
    state = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
    state |= {"settings": settings.model_dump(mode="json"), "content": _content(given, model)}
    state |= {"read": {kind: corpus.to_json() for kind, corpus in given.corpora.items()}}
    state |= {"chat_template": given.template, "joiner": given.joiner, "selection": counts, "stages": {}}
    if is_main_process():
        folder.write_state(state)
    return state


def _select(
    settings: AlignSettings, usable: Mapping[Kind, Usable], model: Any, console: Console
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of every sample, and counts by kind."""
    rows, counts = list[dict[str, Any]](), dict[str, Any]()
    for kind, found in usable.items():
        scored = _select_kind(kind, found, settings, model)
        selected = sum(row["selected"] for row in scored)
        rows += scored + [_left_out_row(kind, skipped) for skipped in found.left_out]
        counts[kind] = {"selected": selected, "usable": len(scored), "left_out": dict(found.reasons)}
        left = ", ".join(f"{number:,} {reason}" for reason, number in found.reasons.items()) or "none"
        line = f"{kind}: {selected:,} of {len(scored):,} selected by {settings.selection}; left out: {left}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return rows, counts


def _select_kind(kind: Kind, usable: Usable, settings: AlignSettings, model: Any) -> list[dict[str, Any]]:
    """Rows of one kind's scored samples; of the selected ones with what was said."""
    scores = score_samples(model, usable.samples, micro_batch_tokens=settings.micro_batch_tokens)
    ranked = selecting.ranked(usable.samples, scores, settings.selection, settings.seed)
    selected = {sample.id for sample in selecting.drawn(ranked, settings.count_of(kind), usable.quotas)}
    rows = list[dict[str, Any]]()
    for sample, score in zip(usable.samples, scores, strict=True):
        named = {"id": sample.id, "source": sample.source, "kind": kind, "selected": sample.id in selected}
        rows.append({**named, **score.to_json(sample), **(_said(sample) if sample.id in selected else {})})
    return rows


def _said(sample: Sample) -> dict[str, Any]:
    pair = {} if sample.dialogue.rejected is None else {"rejected": sample.dialogue.rejected}
    return {"messages": list(sample.dialogue.messages), **pair}


def _left_out_row(kind: Kind, skipped: Skipped) -> dict[str, Any]:
    row = {"id": skipped.location, "source": skipped.source, "kind": kind, "selected": False}
    return {**row, "left_out": skipped.reason, "detail": skipped.detail}


def _chosen(folder: AlignFolder, corpora: Mapping[Kind, Corpus], tokenizer: Any) -> dict[Kind, list[Dialogue]]:
    """The selected dialogues, in the order in which they were read."""
    selected = from_main_process(folder.selected)
    return {
        kind: [dialogue_in(d, tokenizer) for d in corpus if d.dialogue and (kind, d.id) in selected]
        for kind, corpus in corpora.items()
    }


def _train(
    folder: AlignFolder,
    settings: AlignSettings,
    state: dict[str, Any],
    tokenizer: Any,
    chosen: Mapping[Kind, Sequence[Dialogue]],
    console: Console,
) -> None:
    """The stages in their order. The last one's model is the folder's own, in the precision that it was given in."""
    asked = [entry for entry in _STAGES if entry[1] in chosen]
    source = settings.model_name_or_path
    for stage, kind, train in asked:
        last = stage == asked[-1][0]
        target = folder.path if last else folder.path / stage
        if not from_main_process(partial(models.has_result, target)):
            model = stages.trainable(_load_model(source, settings), settings)
            # Between two stages everything is in float32.
            decides = last and not models.has_adapter(model)
            measured = decides and _may_round(model, settings)
            result = train(model, tokenizer, chosen[kind], settings, folder.work / stage, console, measured=measured)
            saving = _save(model, result, tokenizer, settings, target) if decides else None
            if saving is None and is_main_process():
                models.save_result(model, tokenizer, target, dtype=torch.float32, given=_given(settings))
            state["stages"][stage] = result.to_json() | ({"saved": saving.to_json()} if saving else {})
            if is_main_process():
                folder.write_state(state)
                shutil.rmtree(folder.work / stage, ignore_errors=True)
            console.print(stages.summary(stage, result), highlight=False, markup=False, soft_wrap=True)
            if saving:
                console.print(saving.sentence(), highlight=False, markup=False, soft_wrap=True)
        source = str(target)


def _given(settings: AlignSettings) -> models.StoredModel:
    """The model on the disk that is aligned; below an adapter, its base."""
    return models.StoredModel(settings.model_name_or_path)


def _may_round(model: Any, settings: AlignSettings) -> bool:
    precisions = models.stored_precisions(model, _given(settings))
    return settings.save_precision != "float32" and models.rounds(model, precisions)


def _save(model: Any, result: StageResult, tokenizer: Any, settings: AlignSettings, target: Path) -> models.Saving:
    """Write the last stage's model in the precision that keeps what it was trained for."""
    given = _given(settings)
    trained = models.trained_from(model, given, loss=result.loss, loss_before=result.loss_before)
    saving, precisions = models.settle(trained, settings.save_precision, seed=settings.seed)
    if is_main_process():
        models.save_result(model, tokenizer, target, dtype=precisions, given=given)
    return saving
