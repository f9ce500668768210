"""`afterword align`: read, score, select, fine-tune, prefer, into one folder that resumes stage by stage.

The one rule: a stage counts once its model is there, whole; the next starts from that model as it was saved.
"""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from afterword import models
from afterword.alignment import selecting, stages, templates
from afterword.alignment.dpo import train_dpo
from afterword.alignment.folder import AlignFolder, refuse_other_content
from afterword.alignment.samples import Sample, usable_samples
from afterword.alignment.scoring import score_samples
from afterword.alignment.settings import AlignSettings, Stage
from afterword.alignment.sft import train_sft
from afterword.config import read_settings
from afterword.corpus import Corpus, CorpusOptions, Dialogue, Kind, read_corpus
from afterword.embedded import model_folder
from afterword.errors import CheckpointError, DataError
from afterword.types import Skipped

_STAGES: tuple[tuple[Stage, Kind, Any], ...] = (("sft", "instructions", train_sft), ("dpo", "preferences", train_dpo))
"""In their order: what each is trained on, and how."""


_FEW_CHANGED = 0.05
"""Share of trained weights: a stage that changes fewer, once they are saved, is told so."""


@dataclass(frozen=True)
class AlignResult:
    """What an alignment left behind."""

    path: Path
    selected: Mapping[Kind, int]
    """How many samples of each kind were trained on."""
    already_complete: bool = False


@dataclass(frozen=True)
class _Given:
    """What an alignment is made of besides the model: the tokenizer with its template, the samples."""

    tokenizer: Any
    template: str
    corpora: Mapping[Kind, Corpus]

    def content(self, model: Any) -> dict[str, str]:
        """By hash, by the settings that they belong to: paths may move, this may not change."""
        template = hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:16]
        samples = {str(kind): corpus.content_sha256 for kind, corpus in self.corpora.items()}
        return {"model_name_or_path": models.weights_fingerprint(model), "chat_template": template, **samples}


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
    folder, console = AlignFolder(Path(settings.output_dir)), console or Console(stderr=True)
    state = folder.state(settings)
    with tempfile.TemporaryDirectory(prefix="afterword-align-") as scratch:
        given = _read(settings, Path(scratch))
        model = _load_model(settings.model_name_or_path, settings)
        models.refuse_foreign_tokenizer(given.tokenizer, model, settings.model_name_or_path)
        if state:
            refuse_other_content(folder.path, state["content"], given.content(model))
        else:
            state = _begin(folder, settings, given, model, console, command)
        # Every stage loads its own, also where nothing was interrupted.
        del model
        chosen = _chosen(folder, given.corpora)
    complete = models.has_result(folder.path)
    if not complete:
        _train(folder, settings, state, given.tokenizer, chosen, console)
    shutil.rmtree(folder.work, ignore_errors=True)
    return AlignResult(folder.path, {kind: len(found) for kind, found in chosen.items()}, already_complete=complete)


def _read(settings: AlignSettings, scratch: Path) -> _Given:
    name = settings.model_name_or_path
    tokenizer = models.load_tokenizer(name)
    if tokenizer.eos_token is None:
        problem = f"the tokenizer of {name!r} has no EOS token, so no response would end"
        raise CheckpointError(f"model_name_or_path: {problem}. Set eos_token in its tokenizer_config.json.")
    template = templates.use_template(tokenizer, settings.chat_template)
    corpora: dict[Kind, Corpus] = {}
    for kind, files in settings.samples().items():
        options = CorpusOptions(kind=kind, skip_bad_rows=settings.skip_bad_rows)
        corpora[kind] = read_corpus(list(files), cache_dir=scratch / kind, options=options)
    return _Given(tokenizer, template, corpora)


def _load_model(name: str, settings: AlignSettings) -> Any:
    """Full models in float32. Under an adapter the base is frozen, so half precision loses nothing."""
    adapter = settings.use_peft or (Path(model_folder(name)) / models.ADAPTER_CONFIG).is_file()
    half = adapter and stages.resolved_precision(settings) == "bf16_mixed"
    model = models.load_adapted(name, dtype=torch.bfloat16 if half else torch.float32)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _begin(
    folder: AlignFolder, settings: AlignSettings, given: _Given, model: Any, console: Console, command: str
) -> dict[str, Any]:
    """Select, and write down what was selected, of what, and how."""
    rows, counts = _select(settings, given, model, console)
    folder.begin(settings, rows)
    state = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
    state |= {"settings": settings.model_dump(mode="json"), "content": given.content(model)}
    state |= {"read": {kind: corpus.to_json() for kind, corpus in given.corpora.items()}}
    state |= {"chat_template": given.template, "selection": counts, "stages": {}}
    folder.write_state(state)
    return state


def _select(
    settings: AlignSettings, given: _Given, model: Any, console: Console
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of every sample, and counts by kind."""
    length = models.context_length(models.causal_lm(model).config, settings.max_length)
    found: dict[Kind, tuple[list[Sample], list[Skipped]]] = {
        kind: usable_samples(corpus, kind, given.tokenizer, given.template, max_length=length)
        for kind, corpus in given.corpora.items()
    }
    quotas = selecting.quotas_of(settings.quotas, [s.source for pair in found.values() for part in pair for s in part])
    rows, counts = list[dict[str, Any]](), dict[str, Any]()
    for kind, (samples, left_out) in found.items():
        reasons = Counter(skipped.reason for skipped in left_out)
        for source in given.corpora[kind].sources:
            reasons.update(source.skipped)
        if not samples:
            problem = f"none of {reasons.total()} can be used ({dict(reasons)}) with max_length: {length}"
            raise DataError(
                f"{kind}: {problem} and chat_template: {given.template!r}. Give others, or raise max_length."
            )
        scored, selected = _select_kind(kind, samples, settings, quotas, model)
        rows += scored + [_left_out_row(kind, skipped) for skipped in left_out]
        counts[kind] = {"selected": selected, "usable": len(samples), "left_out": dict(reasons)}
        left = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items()) or "none"
        line = f"{kind}: {selected:,} of {len(samples):,} selected by {settings.selection}; left out: {left}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return rows, counts


def _select_kind(
    kind: Kind, samples: Sequence[Sample], settings: AlignSettings, quotas: Mapping[str, float], model: Any
) -> tuple[list[dict[str, Any]], int]:
    """Rows of one kind's scored samples, and how many are selected."""
    scores = score_samples(model, samples, micro_batch_tokens=settings.micro_batch_tokens)
    sources = {sample.source for sample in samples}
    own = {source: quota for source, quota in quotas.items() if source in sources}
    ranked = selecting.ranked(samples, scores, settings.selection, settings.seed)
    selected = {sample.id for sample in selecting.drawn(ranked, settings.count_of(kind), own)}
    rows = [
        {"id": s.id, "source": s.source, "kind": kind, "selected": s.id in selected, **score.to_json(s)}
        for s, score in zip(samples, scores, strict=True)
    ]
    return rows, len(selected)


def _left_out_row(kind: Kind, skipped: Skipped) -> dict[str, Any]:
    row = {"id": skipped.location, "source": skipped.source, "kind": kind, "selected": False}
    return {**row, "left_out": skipped.reason, "detail": skipped.detail}


def _chosen(folder: AlignFolder, corpora: Mapping[Kind, Corpus]) -> dict[Kind, list[Dialogue]]:
    """The selected dialogues, in the order in which they were read."""
    selected = folder.selected()
    return {
        kind: [Dialogue.from_json(d.dialogue) for d in corpus if d.dialogue and (kind, d.id) in selected]
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
        if not models.has_result(target):
            model = stages.trainable(_load_model(source, settings), settings)
            dtype = _final_dtype(model, settings) if last else torch.float32
            start = _rounded(model, dtype)
            result = train(model, tokenizer, chosen[kind], settings, folder.work / stage, console)
            changed = _share_changed(start, _rounded(model, dtype))
            state["stages"][stage] = {**result.to_json(), "changed_weights_frac": changed}
            folder.write_state(state)
            models.save_result(model, tokenizer, target, dtype=dtype)
            shutil.rmtree(folder.work / stage, ignore_errors=True)
            console.print(stages.summary(stage, result), highlight=False, markup=False, soft_wrap=True)
            if changed < _FEW_CHANGED:
                few = f"{stage}: once saved in {dtype}, {100 * changed:.2g} % of the trained weights have changed"
                remedy = (
                    f"Most of what was learned is rounded away. Raise {stage}_learning_rate, or give a float32 model."
                )
                console.print(f"{few}. {remedy}", highlight=False, markup=False, soft_wrap=True)
        source = str(target)


def _rounded(model: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The trained weights as they would be saved, copied to the CPU."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return {name: parameter.detach().to("cpu", dtype, copy=True) for name, parameter in trained}


def _share_changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> float:
    """Of all values, those that differ."""
    changed = sum(int((after[name] != value).sum()) for name, value in before.items())
    return changed / sum(value.numel() for value in before.values())


def _final_dtype(model: Any, settings: AlignSettings) -> torch.dtype:
    """That of the model as it was given; peft writes adapters in their own."""
    adapter = hasattr(model, "peft_config")
    return torch.float32 if adapter else models.saved_dtype(models.load_config(settings.model_name_or_path))
