"""Settings of `afterword compare` and `afterword blend`, checked before anything runs: all problems in one message."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import Field

from afterword.errors import ConfigError
from afterword.settings.adapt import read_settings
from afterword.settings.align import following
from afterword.settings.base import Settings, key_values, setting, underscored
from afterword.settings.evaluate import RETRIEVAL, EvaluateSettings
from afterword.settings.workers import GPUS_EACH, PROCESSES, RAY, RETRIES, ray_problems


class GridAxes(Settings):
    """What a grid runs over besides its arms. An arm may have values of its own."""

    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = setting((), "Grid", "Peak learning rates: 1e-5,3e-5.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = setting((0,), "Grid", "Random seeds: 0,1,2.")


class CompareSettings(GridAxes):
    """Everything that `afterword compare` can be told. An arm is a named set of settings of `afterword adapt`."""

    model_name_or_path: str = setting("", "What", "Folder or hub id of the model to adapt.")
    documents: tuple[str, ...] = setting((), "What", "Files, folders, globs, data-set ids.")
    suite: str = setting(
        "", "What", "Suite of learning and retention (see `afterword evaluate`); none where exams and tasks are."
    )
    methods: tuple[str, ...] = setting((), "Grid", "Arms: METHOD, or METHOD:SETTING=VALUE:SETTING=VALUE.")
    arms: dict[str, Any] = setting(
        {}, "Grid", "Arms with names, in YAML: NAME: {method: …, SETTING: …, learning_rates: […], seeds: […]}."
    )
    retrieval: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (), "Grid", "Arms that train nothing: the base model with so many excerpts found for each question: 1,3."
    )
    adapt: dict[str, Any] = setting({}, "Every cell", "A setting of `afterword adapt` for every cell: KEY=VALUE.")
    evaluate: dict[str, Any] = setting({}, "Every cell", "A setting of `afterword evaluate` for every cell: KEY=VALUE.")
    keep_models: bool = setting(False, "Every cell", "Keep the weights of every cell after it was measured.")
    processes: int | None = PROCESSES
    ray: str | None = RAY
    gpus_each: float | None = GPUS_EACH
    retries: int = RETRIES
    output_dir: str = setting("", "What", "Folder of the cells, their rows and the page.")
    learning_metric: str = setting("correct_frac", "Results", "Metric of learning: its mean over those skills.")
    retention_metric: str = setting("correct_frac", "Results", "Metric of retention: its mean over those skills.")
    reference_point: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = setting(
        (0.0, 0.0), "Results", "Where the hypervolume begins: learning,retention, both as fractions."
    )
    max_loss_points: float = setting(5.0, "Results", "Most points that a pick may lose on any retention skill.", ge=0)

    def relations(self) -> Iterator[str]:
        """Problems between settings, and those of every arm, with the arm named."""
        for name in ("model_name_or_path", "documents", "suite", "output_dir"):
            if not getattr(self, name) and not (name == "suite" and self.has_exams_and_tasks):
                yield f"{name}: missing, and it has no default. Give it in the YAML file or on the command line."
        yield from ray_problems(self)
        yield from _metric_problems(self)
        if not self.methods and not self.arms and not self.retrieval:
            yield "methods: missing, and there is no default. Give --methods NAME,NAME or `arms:` in the YAML file."
        yield from dict.fromkeys(_arm_problems(self))
        yield from evaluate_problems(self.evaluate, {"suite": "suite"})
        yield from _retrieval_problems(self)

    @property
    def has_exams_and_tasks(self) -> bool:
        """Whether learning is measured by exams and retention by tasks, so that no suite is needed."""
        given = underscored(self.evaluate)
        return bool(given.get("exams") and given.get("tasks"))

    def evaluate_settings(self) -> dict[str, Any]:
        """What `afterword evaluate` is told for a cell that trains: nothing of retrieval where it retrieves nothing."""
        given = underscored(self.evaluate)
        return given if given.get("retrieve") else {name: given[name] for name in given if name not in RETRIEVAL}

    def arm_settings(self) -> dict[str, Any]:
        """Every arm's own settings by its name: those under `arms`, and those that `methods` names by their text."""
        written = {text: _arm_of_text(text) for text in self.methods}
        return {**written, **{name: _arm_of_yaml(arm) for name, arm in self.arms.items()}}

    def cell_settings(self, arm: Mapping[str, Any], **cell: Any) -> dict[str, Any]:
        """What `afterword adapt` is told for a cell of an arm. What the arm says wins over `adapt`."""
        own = {name: value for name, value in arm.items() if name not in GridAxes.model_fields}
        ours = {"model_name_or_path": self.model_name_or_path, "documents": list(self.documents)}
        return {**underscored(self.adapt), **own, **ours, **cell}


class BlendSettings(Settings):
    """Everything that `afterword blend` can be told."""

    base: str = setting("", "What", "The model that was adapted: a folder, a name or a hub id.")
    adapted: str = setting("", "What", "What it became: a run folder, an adapter on the base, or a model.")
    lambdas: tuple[Annotated[float, Field(ge=0, le=1.5)], ...] = setting(
        (0.2, 0.4, 0.6, 0.8, 1.0),
        "What",
        "Shares λ of the way from base to adapted: 0 is the base, 1 the adapted model, above 1 goes further.",
    )
    suite: str = setting("", "What", "Suite with dev and test items of learning and retention.")
    evaluate: dict[str, Any] = setting({}, "What", "A setting of `afterword evaluate`: KEY=VALUE.")
    output_dir: str = setting("", "What", "Folder of the picked model, the rows and the page.")
    learning_metric: str = setting("correct_frac", "Results", "Metric of learning: its mean over those skills.")
    retention_metric: str = setting("correct_frac", "Results", "Metric of retention: its mean over those skills.")
    max_loss_points: float = setting(5.0, "Results", "Most points that the pick may lose on any retention skill.", ge=0)

    def relations(self) -> Iterator[str]:
        """Problems between settings."""
        for name in ("base", "adapted", "suite", "output_dir"):
            if not getattr(self, name):
                yield f"{name}: missing, and it has no default. Give it on the command line."
        if not self.lambdas or len(set(self.lambdas)) < len(self.lambdas):
            yield f"lambdas: {self.lambdas} must be one or more, each once. Give --lambda 0.2,0.4,0.6."
        for name in ("base", "adapted"):
            if self.output_dir and Path(self.output_dir).resolve() == Path(getattr(self, name)).resolve():
                yield f"output_dir: {self.output_dir!r} is {name}, which the pick would replace. Give another folder."
        yield from _metric_problems(self)
        yield from evaluate_problems(self.evaluate, {"suite": "suite", "reference": "base", "split": "suite"})


_OF_THE_GRID = {
    **{name: name for name in ("model_name_or_path", "documents", "output_dir")},
    "reference": "model_name_or_path",
    "learning_rate": "learning_rates",
    "seed": "seeds",
}
"""Settings of adapt that the grid gives every cell."""


def _metric_problems(settings: CompareSettings | BlendSettings) -> Iterator[str]:
    for name in ("learning_metric", "retention_metric"):
        if not getattr(settings, name).endswith("_frac"):
            yield f"{name}: {getattr(settings, name)!r} is no fraction where more is better. Give one ending in _frac."


def evaluate_problems(given: Mapping[str, Any], decided: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with settings of evaluate, of which `decided` says which other setting gives them."""
    wrong = [f"evaluate.{name}: decided by {decided[name]}. Leave it out here." for name in given if name in decided]
    yield from wrong or (f"evaluate.{problem}" for problem in problems_of(given, EvaluateSettings))


def _arm_problems(settings: CompareSettings) -> Iterator[str]:
    yield from _decided_by_the_grid("adapt", settings.adapt)
    arms, folders = settings.arm_settings(), dict[str, str]()
    for name, given in arms.items():
        place = f"arms.{name}" if name in settings.arms else f"methods {name}"
        if not isinstance(given, dict):
            yield f"{place}: must be METHOD:SETTING=VALUE or a mapping of adapt's settings, got {given!r}."
            continue
        arm = cast("dict[str, Any]", given)
        if (other := folders.setdefault(arm_folder(name), name)) != name:
            yield f"{place}: has the folder name of the arm {other!r}. Give one of them another name."
        axes = {key: arm[key] for key in GridAxes.model_fields if key in arm}
        yield from (f"{place}.{problem}" for problem in problems_of(axes, GridAxes))
        if not settings.learning_rates and not arm.get("learning_rates"):
            yield f"learning_rates: missing, and the arm {name!r} has none of its own. Give --learning-rates 1e-5,3e-5."
        yield from _decided_by_the_grid(place, arm)
        # The grid's own are checked once, elsewhere.
        raw = settings.cell_settings(arm, model_name_or_path="given", output_dir="given", learning_rate=1e-5, seed=0)
        for problem in _problems_of_cell({key: raw[key] for key in raw if key != "documents"}):
            shared = problem.split(":")[0].split(".")[0] in set(underscored(settings.adapt)) - set(arm)
            yield f"{'adapt' if shared else place}.{problem}"


def retrieval_arms(counts: Sequence[int]) -> dict[str, int]:
    """The arms that train nothing, by name, with how many excerpts stand before a question.

    >>> retrieval_arms([1, 3])
    {'retrieval-1': 1, 'retrieval-3': 3}
    """
    return {f"retrieval-{count}": count for count in dict.fromkeys(counts)}


def _retrieval_problems(settings: CompareSettings) -> Iterator[str]:
    taken = {arm_folder(name): name for name in settings.arm_settings()}
    for name in retrieval_arms(settings.retrieval):
        if arm_folder(name) in taken:
            yield f"retrieval: there is an arm {taken[arm_folder(name)]!r} already. Give that arm another name."
    given = underscored(settings.evaluate)
    for name in ("retrieve_from", "excerpt_tokens"):
        if name in given and not settings.retrieval and not given.get("retrieve"):
            yield f"evaluate.{name}: nothing is retrieved. Give --retrieval, or leave it out."


def arm_folder(name: str) -> str:
    """An arm's name as the beginning of a folder's name.

    >>> arm_folder("anchored:strategy=all")
    'anchored-strategy=all'
    """
    return re.sub(r"[^\w.=+-]", "-", name)


def _decided_by_the_grid(place: str, given: Mapping[str, Any]) -> Iterator[str]:
    for name in underscored(given):
        if name in _OF_THE_GRID:
            yield f"{place}.{name}: decided by {_OF_THE_GRID[name]}. Leave it out here."


def problems_of(raw: Mapping[str, Any], kind: type[Settings]) -> tuple[str, ...]:
    """What is wrong with a raw tree of settings; nothing where it is right."""
    try:
        read_settings(underscored(raw), kind)
    except ConfigError as error:
        return error.problems
    return ()


def _problems_of_cell(raw: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        following(read_settings(underscored(raw)))
    except ConfigError as error:
        return error.problems
    return ()


def _arm_of_yaml(arm: Any) -> Any:
    """The settings of an arm; what is no mapping as it is."""
    return underscored(cast("Mapping[Any, Any]", arm)) if isinstance(arm, Mapping) else arm


def _arm_of_text(text: str) -> Any:
    """`METHOD:SETTING=VALUE:…` as a mapping; the text itself where it is none."""
    method, *pairs = text.split(":")
    try:
        return {"method": method, **key_values(pairs)}
    except (ValueError, yaml.YAMLError):
        return text
