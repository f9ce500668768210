"""Benchmark tasks, from their names to what the harness asks: everything that can be wrong is said before a model is
loaded.

The one rule: what a task is, its data, prompts and metrics, is the harness's own affair; here is which tasks, which of
their items, and with which settings.
"""

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from afterword.errors import ConfigError
from afterword.evaluation.task_files import MissingDataError, task_files, with_found_data
from afterword.evaluation.task_items import Split, drawn_items
from afterword.evaluation.task_presets import AskedTask, asked_tasks, needs_folder, presets

_CONSENT = "HF_ALLOW_CODE_EVAL"
"""The variable by which the metrics that run code are allowed, too."""
_EXTRA = {"langdetect", "immutabledict", "nltk", "math_verify", "antlr4", "sympy"}
"""Modules that some tasks need, and the extra brings."""
Task = Any
"""A task or a group of tasks, as the harness has made it."""


@dataclass(frozen=True)
class Asking:
    """How tasks are asked, as a person set it; None: as a preset, or else each task, has it."""

    apply_chat_template: bool | None = None
    enable_thinking: bool | None = None
    max_gen_toks: int | None = None
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limit: int | None = None
    """Items of a task."""
    split: Split = "both"
    seed: int = 0
    """By which items are drawn under a limit."""
    runs_code: bool = False
    """Whether code that the model wrote may be run."""


@dataclass(frozen=True)
class LoadedTask:
    """What was asked for by one name: a task, or a group or a list of them."""

    asked: AskedTask
    objects: tuple[Task, ...]
    items: Mapping[str, Sequence[int]]
    """By task, the places of the items that are asked."""
    groups: Mapping[str, Sequence[str]]
    """By group, the names of its members."""

    @property
    def writes(self) -> bool:
        """Whether the model writes; else its likelihoods are read."""
        return any(task.OUTPUT_TYPE == "generate_until" for task in leaves_of(self.objects))

    @property
    def only_writes(self) -> bool:
        """Whether no likelihood is read, which a model that thinks has none of."""
        return all(task.OUTPUT_TYPE == "generate_until" for task in leaves_of(self.objects))


@dataclass(frozen=True)
class LoadedTasks:
    """Everything that was asked for, with what the harness finds its tasks by."""

    tasks: tuple[LoadedTask, ...]
    manager: Any
    asking: Asking


def load_tasks(names: Sequence[str], *, tasks_path: str | None = None, asking: Asking | None = None) -> LoadedTasks:
    """Tasks by the names that the setting `tasks` can have: presets, the harness's names, task files and folders.

    ConfigError, with every problem, where lm_eval or what a task needs is not installed, a task is unknown, has no
    data, or runs code that nobody has consented to. Data sets of the hub are fetched.
    """
    asking = asking or Asking()
    _refuse_missing_harness()
    if problems := list(_folder_problems(names, tasks_path)):
        raise ConfigError(problems)
    wanted = [each for task in asked_tasks(names, tasks_path) for each in _in_folder(task)]
    manager = _manager(wanted, tasks_path)
    wanted = _once([_registered(task, manager) for task in wanted], manager)
    leaves = dict.fromkeys(leaf for task in wanted for leaf in _members(task.name, manager))
    consented = asking.runs_code or os.environ.get(_CONSENT) == "1"
    if problems := [problem for leaf in leaves for problem in _problems(leaf, manager, consented)]:
        raise ConfigError(dict.fromkeys(problems))
    if consented:
        # The metric asks for it when it is read.
        os.environ[_CONSENT] = "1"
    return LoadedTasks(tuple(_loaded(task, manager, asking) for task in wanted), manager, asking)


def leaves_of(objects: Iterable[Task]) -> list[Task]:
    """The tasks themselves, those in groups too."""
    return [leaf for each in objects for leaf in (each.get_all_tasks() if hasattr(each, "get_all_tasks") else [each])]


def _refuse_missing_harness() -> None:
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"tasks: need lm_eval ({error}). Install it: pip install 'afterword[tasks]'.") from error


def _folder_problems(names: Sequence[str], tasks_path: str | None) -> Iterator[str]:
    if tasks_path and not Path(tasks_path).is_dir():
        yield f"tasks_path: {tasks_path!r} is not a folder that is there. Give one that holds task files (.yaml)."
    for name in names:
        if needs_folder(name) and not tasks_path:
            yield f"tasks: {name!r} runs the tasks of a folder of yours. Give it with --tasks-path FOLDER."


def _in_folder(task: AskedTask) -> list[AskedTask]:
    """A folder's task files in the place of the folder. A file without a task, as a template is, is passed over."""
    if not Path(task.name).is_dir():
        return [task]
    configs = {path: _read(path) for path in task_files(Path(task.name))}
    found = [replace(task, name=str(path)) for path, config in configs.items() if "task" in config or "group" in config]
    if not found:
        raise ConfigError(f"tasks: {task.name!r} holds no task file. Give a folder with .yaml files that say `task:`.")
    return found


def _read(path: Path) -> dict[str, Any]:
    """A task file, with what it includes, its functions not looked up."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return load_yaml(path, resolve_func=False)
    except Exception as error:  # Whatever a YAML parser raises.
        said = " ".join(str(error).split())
        raise ConfigError(f"tasks: {path} cannot be read as a task file ({said}). Mend the file.") from error


def _manager(wanted: Sequence[AskedTask], folder: str | None) -> Any:
    """What finds tasks by their names. ConfigError where a task is unknown."""
    from lm_eval.tasks import TaskManager as task_manager_class  # noqa: N813

    names, manager = [task.name for task in wanted if not Path(task.name).is_file()], None
    # Reading the harness's own thousands of files takes many seconds; tasks of one's own do not need them.
    for include_defaults in (False, True):
        manager = task_manager_class(include_path=folder, include_defaults=include_defaults)
        unknown = [name for name in names if name not in manager.all_tasks]
        if not unknown:
            return manager
    known = [*manager.all_tasks, *presets()] if manager else []
    close = {name: difflib.get_close_matches(name, known) for name in unknown}
    raise ConfigError(f"tasks: the harness knows no task {name!r}. Nearest: {close[name] or 'none'}." for name in close)


def _registered(task: AskedTask, manager: Any) -> AskedTask:
    """A task of a file under its own name, as if the harness had known it."""
    if not Path(task.name).is_file():
        return task
    config = _read(Path(task.name))
    name = config.get("group") or config.get("task")
    if not isinstance(name, str):
        raise ConfigError(f"tasks: {task.name} names no task. Let it say `task: NAME`.")
    from lm_eval.tasks._index import TaskIndex

    manager.task_index[name] = TaskIndex.entry_from_path(Path(task.name))
    return replace(task, name=name)


def _members(name: str, manager: Any) -> Iterator[str]:
    """The tasks behind a name, those of a group or a tag."""
    entry = manager.task_index.get(name)
    config = _config(entry) if entry else {}
    members = sorted(entry.tags) if entry and entry.kind.name == "TAG" else config.get("task")
    if not isinstance(members, list):
        yield name
        return
    for member in members:
        named = member if isinstance(member, str) else member.get("task") or member.get("group")
        if isinstance(named, str):
            yield from _members(named, manager)


def _once(wanted: Sequence[AskedTask], manager: Any) -> list[AskedTask]:
    """The tasks without those that another one, a group, has too. ConfigError where two have some in common."""
    members = {task.name: set(_members(task.name, manager)) for task in wanted}
    kept = [
        task
        for place, task in enumerate(wanted)
        if not any(members[task.name] < members[other.name] for other in wanted)
        and not any(members[task.name] == members[other.name] for other in wanted[:place])
    ]
    for place, task in enumerate(kept):
        for other in kept[:place]:
            if both := sorted(members[task.name] & members[other.name]):
                problem = f"tasks: {both[0]!r} is both in {other.name!r} and in {task.name!r}"
                raise ConfigError(f"{problem}. Leave one of them out, or name its tasks.")
    return kept


def _config(entry: Any) -> dict[str, Any]:
    return entry.cfg or (_read(entry.yaml_path) if entry.yaml_path else {})


def _problems(name: str, manager: Any, consented: bool) -> Iterator[str]:
    """What keeps a task from being asked. Its data files are found on the way."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = manager.task_index.get(name)
    if entry is None or entry.yaml_path is None:
        return
    if _config(entry).get("unsafe_code") and not consented:
        problem = f"tasks: {name!r} runs code that the model wrote, on this machine (unsafe_code)"
        remedy = f"Where that may do no harm, allow it with --confirm-run-unsafe-code or {_CONSENT}=1"
        yield f"{problem}. {remedy}; or leave the task out."
        return
    try:
        config = load_yaml(entry.yaml_path, resolve_func=True)
        entry.cfg, entry.yaml_path = with_found_data(config, entry.yaml_path), None
    except MissingDataError as error:
        yield str(error)
    except ImportError as error:
        yield _missing_module(name, error)
    except Exception as error:  # Its functions are code of others, which may raise whatever it likes.
        yield f"tasks: {name!r} cannot be read ({' '.join(str(error).split())})."


def _missing_module(name: str, error: ImportError) -> str:
    module = (error.name or "").split(".")[0]
    said = f"tasks: {name!r} needs {module or 'a package'}, which is not installed"
    if not module or module in _EXTRA:
        detail = "" if module else f" ({' '.join(str(error).split())})"
        return f"{said}{detail}. Install it: pip install 'afterword[tasks]'."
    return f"{said}. Install it: pip install {module}."


def _loaded(task: AskedTask, manager: Any, asking: Asking) -> LoadedTask:
    """A task as the harness makes it, with the items that are asked, and what a person or a preset set of it."""
    with _explained(task.name):
        made = manager.load([task.name])
        whole = made["groups"].get(task.name)
        objects = (whole,) if whole is not None else tuple(made["tasks"].values())
        counts = {leaf.task_name: len(leaf.eval_docs) for leaf in leaves_of(objects)}
    how = {"limit": asking.limit, "split": asking.split, "seed": asking.seed}
    items = {name: drawn_items(name, count, **how) for name, count in counts.items()}
    if empty := [name for name, places in items.items() if not places]:
        raise ConfigError(f"tasks: {empty[0]!r} has no items of the split {asking.split}. Give a larger limit.")
    return LoadedTask(task, objects, items, made["group_map"])


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever goes wrong as a task is made is said with its name."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # The harness and the data sets behind it raise whatever they like.
        said = " ".join(str(error).split())[:300]
        problem = f"tasks: {name!r} cannot be loaded ({type(error).__name__}: {said})"
        remedy = "It may have to be fetched: give access to the hub, or tasks of your own (retention-offline)"
        raise ConfigError(f"{problem}. {remedy}.") from error
