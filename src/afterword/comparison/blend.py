"""The way from a model to its adapted self: every λ measured as a cell of a grid is, the pick saved as a model.

The folder: `rows.jsonl` a row for every λ that was measured, `cells/` their scores, `reference/` the base's answers,
`blend.json` what it comes to; and the picked model, with a config.yaml that names its base as that of a run does.
The one rule: what is chosen is chosen on dev, what is shown is test.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from afterword import models
from afterword.comparison import grid
from afterword.comparison import run as running
from afterword.comparison.frontier import kept, pick
from afterword.comparison.summary import (
    PARTS,
    Row,
    candidate,
    losses_points,
    none_kept,
    nothing_measured,
    read_rows,
    split_summaries,
)
from afterword.errors import ConfigError
from afterword.evaluation.suites import SPLITS, find_suite
from afterword.evaluation.task_presets import outside_pick
from afterword.evaluation.task_retention import PREFIX
from afterword.progress import Progress
from afterword.settings.compare import BlendSettings
from afterword.storage.atomic import replace_file
from afterword.storage.hashes import json_sha256
from afterword.storage.locks import LOCK, alone_in
from afterword.training.checkpoints import explained
from afterword.training.run_folder import environment

_SUMMARY = "blend.json"
_BEGUN = {"cells", LOCK, "reference", "rows.jsonl"}
"""What a blend that was stopped before its first summary can have left."""


@dataclass(frozen=True)
class Blend:
    """One λ with what tells it from every other."""

    share: float
    """λ."""
    weights: str
    """Fingerprint of what its weights follow from."""
    fingerprint: str
    """Fingerprint of what its scores follow from."""


def blend(settings: BlendSettings, *, command: str = "", console: Console | None = None) -> dict[str, Any]:
    """Measure every λ that has no row yet, write blend.json and save the pick; the content of blend.json is returned.

    The pick learned most on dev among those that lost at most `max_loss_points` on each retention skill; of equals
    it is the lowest λ. Where there is none, `pick` holds the reason, and the folder no model.
    """
    console, output = console or Console(stderr=True), Path(settings.output_dir)
    path = _plan(settings)
    _begin(output)
    with alone_in(output, "measures this way"):
        missing = [each for each in path if each.fingerprint not in _rows(output)]
        with Progress("points of the way", len(missing), console=console) as progress:
            for number, each in enumerate(missing, start=1):
                console.print(f"λ {number}/{len(missing)}: {each.share:g}", markup=False, highlight=False)
                running.append_row(output, _measured(each, settings, command))
                progress.advance()
        rows = _rows(output)
        summary = summary_of(settings, [rows[each.fingerprint] for each in path], command)
        replace_file(output / _SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False))
        chosen = next((each for each in path if each.share == summary["pick"].get("lambda")), None)
        saving = _save_only(chosen, settings)
    if saving:
        console.print(saving.sentence(), markup=False, highlight=False, soft_wrap=True)
    return summary


def summary_of(settings: BlendSettings, rows: Sequence[Row], command: str = "") -> dict[str, Any]:
    """The content of blend.json: every λ on both splits, and the pick or the reason why there is none."""
    metrics, limit = {part: getattr(settings, f"{part}_metric") for part in PARTS}, settings.max_loss_points
    splits = [split_summaries(row["scores"], metrics) for row in rows]
    if any(len(each) < len(SPLITS) for each in splits):
        raise nothing_measured(metrics, rows, "not every split has")
    points = [_point(row["lambda"], each) for row, each in zip(rows, splits, strict=True)]
    outside = sorted(f"{PREFIX}{name}" for name in outside_pick(running.evaluate_settings(settings).tasks))
    candidates = [candidate(point["lambda"], [point["dev"]], outside) for point in points]
    picked: dict[str, Any] = {"reason": none_kept("λ", candidates, limit)}
    if chosen := pick(candidates, limit):
        point = next(point for point in points if point["lambda"] == chosen.setting)
        tested = losses_points([point["test"]], outside)
        picked = {**point, "kept_on_test": kept(tested, limit)}
    about = {"format": 1, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": command}
    return {**about, "settings": settings.model_dump(mode="json"), "points": points, "pick": picked}


def _point(share: float, splits: Mapping[str, Row]) -> dict[str, Any]:
    measured = {name: {**split, "losses_points": losses_points([split])} for name, split in splits.items()}
    return {"lambda": share, **measured}


def _plan(settings: BlendSettings) -> list[Blend]:
    """Every λ with its fingerprints. What cannot be blended or chosen by is refused before anything is written."""
    suite = find_suite(settings.suite)
    there = {(item.split, item.part) for item in suite.items}
    running.check_tasks(settings)
    if running.evaluate_settings(settings).tasks:
        there |= {(split, "retention") for split in SPLITS}
    if missing := [f"{split} items of {part}" for split in SPLITS for part in PARTS if (split, part) not in there]:
        problem = f"suite: {settings.suite!r} has no {' and no '.join(missing)}"
        remedy = "A blend is chosen on dev and shown on test: give a suite with both, or for retention tasks"
        raise ConfigError(f"{problem}. {remedy} (--evaluate tasks=…).")
    _refuse_two_adapters(settings)
    base, adapted = _load(settings)
    models.refuse_unlike(base, adapted)
    fingerprints = [models.content_sha256(model) for model in (base, adapted)]
    about = {"models": fingerprints, "dtype": str(models.saved_dtype(models.causal_lm(adapted).config))}
    if not models.is_adapter(settings.adapted) and models.StoredModel(settings.base).dtype != torch.float32:
        # What is rounded depends on how that is decided.
        about["save_precision"] = "auto"
    contents = grid.Contents(fingerprints[0], running.suite_fingerprint(settings.suite), running.evaluating(settings))
    weights = {share: json_sha256({**about, "lambda": share}) for share in settings.lambdas}
    return [Blend(share, made_of, grid.fingerprint(made_of, contents)) for share, made_of in weights.items()]


def _refuse_two_adapters(settings: BlendSettings) -> None:
    """An adapter is scaled from nothing, so that its way begins with the model below it; not with another adapter."""
    if models.is_adapter(settings.base) and models.is_adapter(settings.adapted):
        problem = f"base: {settings.base!r} and {settings.adapted!r} are both adapters, with no way between them"
        below = models.base_of_adapter(settings.adapted)
        remedy = f"Give {below!r}, the model below the second, or merge both (afterword adapt --merge-adapter)"
        raise ConfigError(f"{problem}. {remedy}.")


def _load(settings: BlendSettings, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """The base and the adapted model, each in the precision that it is saved in, or both in another."""
    base, adapted = settings.base, settings.adapted
    dtypes = [dtype or models.saved_dtype(models.load_config(name)) for name in (base, adapted)]
    return models.load_model(base, dtype=dtypes[0]), models.load_adapted(adapted, dtype=dtypes[1])


def _begin(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in output.iterdir() if path.suffix != models.STAGING_SUFFIX}
    except OSError as error:
        problem = f"output_dir: {str(output)!r} cannot be written ({error.strerror})"
        raise ConfigError(f"{problem}. Give a folder that is empty or not there yet.") from error
    if there - _BEGUN and _SUMMARY not in there:
        problem = f"output_dir: {str(output)!r} is not empty and holds no blend"
        raise ConfigError(f"{problem}. Give a folder that is empty or not there yet.")


def _rows(output: Path) -> dict[str, dict[str, Any]]:
    return {row["fingerprint"]: row for row in read_rows(output)}


def _measured(each: Blend, settings: BlendSettings, command: str) -> dict[str, Any]:
    """The row of one λ. Its weights are dropped once they are measured; the pick's are made again."""
    folder = Path(settings.output_dir) / "cells" / f"lambda-{each.share:g}"
    shutil.rmtree(folder, ignore_errors=True)
    saving = _save(each, settings, folder)
    models.free_memory()
    measured = running.measure(folder, settings, command)
    running.drop_weights(folder)
    models.free_memory()
    about = {"format": 1, "lambda": each.share, "fingerprint": each.fingerprint}
    saved = {"saved": saving.to_json()} if saving else {}
    return {**about, **saved, **measured, "environment": environment()}


def _save(each: Blend, settings: BlendSettings, folder: Path) -> models.Saving | None:
    """The model of one λ as a run folder has it: `afterword evaluate` compares it with the base.

    Blended in float32; what rounding it loses is decided on as of a run, by the update alone: what is measured is the
    folder as it was saved. None of an adapter, of which nothing is rounded.
    """
    base, adapted = _load(settings, torch.float32)
    result, tokenizer = models.blend_into(base, adapted, each.share), models.load_tokenizer(settings.adapted)
    del base, adapted
    given, saving, precisions = models.StoredModel(settings.base), None, models.Precisions(torch.float32)
    if not models.is_adapter(settings.adapted):
        why = "a blend is measured as it was saved"
        saving, precisions = models.settle(models.trained_from(result, given, why_no_loss=why))
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        models.save_result(result, tokenizer, folder, dtype=precisions, given=given)
        replace_file(folder / "config.yaml", _record(each, settings))
    return saving


def _record(each: Blend, settings: BlendSettings) -> str:
    # No method of this name trains, so no run begins in the folder of a blend.
    about = {"model_name_or_path": settings.base, "method": "blend", "adapted": settings.adapted}
    return yaml.safe_dump({**about, "lambda": each.share, "weights": each.weights}, sort_keys=False, allow_unicode=True)


def _save_only(chosen: Blend | None, settings: BlendSettings) -> models.Saving | None:
    """The picked model in the output folder, or none: what an earlier pick left is removed."""
    output = Path(settings.output_dir)
    config = output / "config.yaml"
    is_there = config.is_file() and models.has_result(output)
    if chosen and is_there and config.read_text(encoding="utf-8") == _record(chosen, settings):
        return None
    running.drop_weights(output)
    for name in ("config.yaml", "config.json", models.ADAPTER_CONFIG, "scores.json"):
        (output / name).unlink(missing_ok=True)
    return _save(chosen, settings, output) if chosen else None
