"""A run within a forgetting budget, from what a person asked for to the finished folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from afterword.budget.choice import Choice, choose, foreseen, read_corpora
from afterword.budget.watched_run import BudgetWatch
from afterword.budget.yardstick import kept_by
from afterword.distributed import is_main_process
from afterword.errors import ConfigError
from afterword.settings.adapt import AdaptSettings
from afterword.training import RunFolder, RunResult, refuse_before_loading, run_adaptation, sharded_by
from afterword.training.run import arguments_of, method_of


def run_within_budget(
    asked: AdaptSettings, documents: Any = None, *, command: str = "", console: Console | None = None
) -> RunResult:
    """Adapt a model with what was left open chosen for it; the point of the way that keeps the budget is saved.

    Arguments, resuming and errors as of `run_adaptation`. What was chosen and from what is in budget.json.
    """
    if not asked.output_dir:
        raise ConfigError("output_dir: missing, and it has no default. Give the run folder with -o.")
    refuse_before_loading(asked.trainer)
    if kind := sharded_by(asked.trainer):
        problem = f"forgetting_budget: is measured on whole models, and {kind} has them in shards"
        raise ConfigError(f"{problem}. Give learning_rate, num_train_epochs and lr_scheduler_type, or a preset.")
    # What was chosen is told once, however many processes choose it.
    console = (console or Console(stderr=True)) if is_main_process() else Console(quiet=True)
    folder = RunFolder(Path(asked.output_dir))
    documents = list(documents) if isinstance(documents, Iterator) else documents
    # What cannot be measured, and what optimizer and schedule refuse, is told before the first pilot.
    kept_by(asked)
    arguments_of(asked, method_of(asked), folder.path)
    folder.refuse_other_settings(asked)
    settings, chosen = folder.used(asked), dict[str, Any]()
    if settings is None:
        choice = choose(asked, documents, console)
        settings = choice.over(asked)
        chosen = {"chosen": {name: getattr(choice, name) for name in asked.free}}
        console.print(in_words(asked, choice), highlight=False, markup=False, soft_wrap=True)
    watch = BudgetWatch(settings, documents, console, chosen)
    return run_adaptation(settings, documents, command=command, console=console, asked=asked, watch=watch)


def foresee(asked: AdaptSettings, documents: Any = None) -> tuple[AdaptSettings, str]:
    """The settings that a run would have as far as they are known before its pilots, and what to say of the rest."""
    if known := RunFolder(Path(asked.output_dir)).used(asked) if asked.output_dir else None:
        return known, "chosen by the run that is in the folder"
    with read_corpora(asked, documents) as corpora:
        plan = foreseen(asked, corpora)
    return plan.over(asked), in_words(asked, plan)


def in_words(asked: AdaptSettings, choice: Choice) -> str:
    """What was chosen, in a sentence."""
    rate = (
        "a learning rate by pilot runs" if choice.learning_rate is None else f"learning rate {choice.learning_rate:g}"
    )
    passes = [f"{choice.num_train_epochs:g} passes"] if choice.num_train_epochs else []
    said = {"learning_rate": [rate], "num_train_epochs": passes, "lr_scheduler_type": [choice.lr_scheduler_type]}
    words = [word for name in asked.free for word in said[name]]
    budget = asked.budget()
    held = f"Forgetting budget: {budget}{'' if budget.given else ', the default'}."
    return f"Chosen: {', '.join(words)}. {held}" if words else held
