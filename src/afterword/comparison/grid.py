"""Arms and cells: a cell is an arm, a learning rate and a seed; its fingerprint is all that its scores follow from.

The one rule: a fingerprint is over contents, never over paths, so that rows stay valid when folders move.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afterword.evaluation.measure import VERSIONS
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.align import AlignSettings, following
from afterword.settings.compare import CompareSettings, GridAxes, arm_folder
from afterword.storage.hashes import json_sha256, path_sha256


@dataclass(frozen=True)
class Arm:
    """A named set of adapt-settings with the learning rates and seeds that it is run at."""

    name: str
    settings: Mapping[str, Any]
    """Only what the arm itself says."""
    axes: GridAxes


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    arm: str
    learning_rate: float
    seed: int
    settings: AdaptSettings

    def __str__(self) -> str:
        return f"{self.arm}, learning rate {self.learning_rate:g}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.settings.output_dir)


@dataclass(frozen=True)
class Contents:
    """What all cells share, by content."""

    model: str
    """Fingerprint of the base model's weights."""
    suite: str
    evaluate: Mapping[str, Any]
    """Settings of evaluate, files among them by their content."""


def arms_of(settings: CompareSettings) -> tuple[Arm, ...]:
    """The arms in the order given, `methods` first. What an arm does not say of the axes is the grid's."""
    names = set(GridAxes.model_fields)
    common = {"learning_rates": settings.learning_rates, "seeds": settings.seeds}
    return tuple(
        Arm(
            name,
            {key: value for key, value in arm.items() if key not in names},
            read_settings({**common, **{key: arm[key] for key in names & set(arm)}}, GridAxes),
        )
        for name, arm in settings.arm_settings().items()
    )


def cells_of(settings: CompareSettings) -> list[Cell]:
    """Every cell once, all arms and rates at the first seed before the second: an unfinished grid shows all arms."""
    cells: dict[Path, tuple[int, Cell]] = {}
    for arm in arms_of(settings):
        for rate in sorted(set(arm.axes.learning_rates)):
            for place, seed in enumerate(dict.fromkeys(arm.axes.seeds)):
                folder = Path(settings.output_dir) / "cells" / f"{arm_folder(arm.name)}-lr{rate:g}-seed{seed}"
                told = {"learning_rate": rate, "seed": seed, "output_dir": str(folder)}
                adapt = read_settings(settings.cell_settings(arm.settings, **told))
                cells[folder] = (place, Cell(arm.name, rate, seed, adapt))
    return [cell for _, cell in sorted(cells.values(), key=lambda entry: entry[0])]


def training_fingerprint(cell: Cell, model: str, documents: str) -> str:
    """SHA-256 of what the cell's weights follow from: settings with the method's own filled in, model, documents."""
    return json_sha256({"settings": settings_of(cell), "model": model, "documents": documents})


def stage_fingerprint(cell: Cell, model: str, documents: str, configuration: str) -> str:
    """SHA-256 of what the weights before an alignment follow from, the base's configuration included."""
    about = {"model": model, "documents": documents, "configuration": configuration}
    return json_sha256({"settings": weights_settings(cell.settings), **about})


def fingerprint(training: str, contents: Contents) -> str:
    """SHA-256 of what the cell's scores follow from: its weights, the suite, how it is evaluated and by what."""
    followed = {"training": training, "suite": contents.suite, "evaluate": dict(contents.evaluate)}
    later = later_scorers(with_tasks=bool(contents.evaluate.get("tasks")))
    return json_sha256(followed | ({"scorers": later} if later else {}))


def later_scorers(*, with_tasks: bool) -> dict[str, int]:
    """The versions of what makes a row's scores, where they are above 1: a first version is not part of a fingerprint.

    So rows stay valid that were recorded before versions counted, and none is taken for one of a later version. That
    of tasks counts where there are any.
    """
    made = {name: version for name, version in VERSIONS.items() if with_tasks or name != "tasks"}
    return {name: version for name, version in made.items() if version > 1}


def settings_of(cell: Cell) -> dict[str, Any]:
    """The settings that can change what is measured: those of the run, and those of an alignment that follows it."""
    second = following(cell.settings)
    return weights_settings(cell.settings) | ({"align": _aligning(second)} if second else {})


def _aligning(settings: AlignSettings) -> dict[str, Any]:
    """Settings of an alignment that can change its weights, samples and template by their content."""
    content = ("instructions", "preferences", "chat_template", "skip_bad_rows")
    dumped, later = settings.model_dump(mode="json"), AlignSettings.came_later()
    names = (*AlignSettings.weighing(), *content)
    counted = {name: AlignSettings.without_effect(name, dumped[name]) for name in names}
    return by_content({name: value for name, value in counted.items() if value is not None or name not in later})


def weights_settings(settings: AdaptSettings) -> dict[str, Any]:
    """The settings that can change the weights, with the method's declaration where none was given.

    A setting that came later counts only where it has a value, so that rows recorded before it stay valid.
    What is left to the machine (precision: auto) stays so: a row recorded on a GPU counts on a laptop, and says
    where it was recorded.
    """
    from afterword.training.run import method_of

    dumped, later, method = settings.model_dump(mode="json"), AdaptSettings.came_later(), method_of(settings)
    affecting = {name: dumped[name] for name in AdaptSettings.weighing()}
    declared = {**method.defaults, **method.settings()}
    filled = {name: declared.get(name) if value is None else value for name, value in affecting.items()}
    filled = {name: AdaptSettings.without_effect(name, value) for name, value in filled.items()}
    known = {name: value for name, value in filled.items() if value is not None or name not in later}
    return {**known, "mixture": by_content(known["mixture"])} if "mixture" in known else known


def by_content(value: Any) -> Any:
    """The value with every name of a file or folder in it replaced by the SHA-256 of what is there.

    >>> by_content({"samples": 8, "questions": "no such file"})
    {'samples': 8, 'questions': 'no such file'}
    """
    if isinstance(value, Mapping):
        return {name: by_content(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [by_content(inner) for inner in value]
    return path_sha256(Path(value)) if isinstance(value, str) and value and Path(value).exists() else value
