"""What a person left open, chosen for a model, method and corpus: the rate by pilots, passes and schedule by rule."""

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from afterword.budget.path import walk
from afterword.budget.pilots import Pilot, chosen_rate, first_rate, passes_over, searched
from afterword.budget.record import load_record, save_record
from afterword.budget.yardstick import MOST_WINDOWS, Standing, Yardstick, build_yardsticks
from afterword.corpus import Corpus, CorpusOptions, read_corpus
from afterword.distributed import device_type, gathered, main_process_first
from afterword.errors import ConfigError, Diverged, number_of
from afterword.models import Between, mixed_precision, parameter_count, resolved_precision
from afterword.settings.adapt import AdaptSettings
from afterword.storage.hashes import json_sha256
from afterword.training import load_trainer, reference_weights
from afterword.training.callbacks import RichProgress
from afterword.types import Document

WARMUP_FRAC = 0.05
"""Share of the steps that warm up, where the schedule is chosen."""
SCHEDULE = "linear"
"""Decay to zero. On a small real model it has the better trade-off (docs/LOG.md)."""
PILOT_FRAC, PILOT_TOKENS = 0.25, 50_000
"""Share of the documents that pilots read, and at most so many tokens in one pass."""
FEWEST_DOCUMENTS = 4
_CHARACTERS_PER_TOKEN = 4.0
"""About, before a corpus is tokenised. Only the number of passes and the size of the pilots follow from it."""
Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Choice:
    """Rate, passes and schedule of a run, and the pilots that the rate follows from."""

    learning_rate: float | None
    """None: the pilots say it, and have not been run."""
    num_train_epochs: float | None
    """None: max_steps says it."""
    lr_scheduler_type: str
    warmup_steps: float
    pilots: tuple[Pilot, ...] = ()

    def over(self, settings: AdaptSettings) -> AdaptSettings:
        """The settings with what was chosen; what a person fixed wins."""
        names = list(settings.free)
        if "lr_scheduler_type" in names and settings.warmup_steps is None:
            names.append("warmup_steps")
        return settings.model_copy(update={name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Corpora:
    """The documents of a run, and those that its pilots read."""

    tokens: int
    """Of all documents, about."""
    measured: list[Document]
    """Those that learning is measured on."""
    sample: list[Document]
    content_sha256: str


@contextlib.contextmanager
def read_corpora(settings: AdaptSettings, documents: Any) -> Iterator[Corpora]:
    """The documents, drawn from by the seed."""
    given = documents if documents is not None else list(settings.documents)
    if isinstance(given, list) and not given:
        raise ConfigError("documents: missing, and there is no default. Give files, folders, globs or a data-set id.")
    with tempfile.TemporaryDirectory(prefix="afterword-budget-") as scratch:
        options, work = CorpusOptions.of(settings), Path(scratch)
        corpus = main_process_first(lambda: read_corpus(given, cache_dir=work, options=options))
        order = [int(i) for i in np.random.default_rng(settings.seed).permutation(len(corpus))]
        measured = [corpus[i] for i in sorted(order[:MOST_WINDOWS])]
        sample = [corpus[i] for i in sorted(order[: _pilot_documents(corpus)])]
        tokens = round(corpus.characters / _CHARACTERS_PER_TOKEN)
        yield Corpora(tokens, measured, sample, corpus.content_sha256)


def _pilot_documents(corpus: Corpus) -> int:
    mean = max(1.0, corpus.characters / _CHARACTERS_PER_TOKEN / len(corpus))
    wanted = min(PILOT_FRAC * len(corpus), PILOT_TOKENS / mean)
    return min(len(corpus), max(FEWEST_DOCUMENTS, round(wanted)))


def foreseen(settings: AdaptSettings, corpora: Corpora) -> Choice:
    """What is known before any pilot is run."""
    passes = None if settings.max_steps else settings.num_train_epochs or passes_over(corpora.tokens)
    warmup = settings.warmup_steps if settings.warmup_steps is not None else WARMUP_FRAC
    return Choice(settings.learning_rate, passes, settings.lr_scheduler_type or SCHEDULE, warmup)


def choose(settings: AdaptSettings, documents: Any, console: Console) -> Choice:
    """What is left open. Pilots are run where the rate is; those that the run's budget.json has are not repeated."""
    with read_corpora(settings, documents) as corpora:
        plan = foreseen(settings, corpora)
        if "learning_rate" not in settings.free:
            return plan
        _refuse_what_cannot_run(plan.over(settings), documents)
        autocast = autocast_of(settings)
        first = first_rate(parameter_count(settings.model_name_or_path), adapter=settings.use_peft)

        run, key = Path(settings.output_dir), _key(settings, corpora)
        record = load_record(run)
        if record.get("key") != key:
            record = {"format": 1, "key": key, "budget": asdict(settings.budget()), "pilots": []}
        known = [Pilot(**row) for row in record["pilots"]]
        said = _announced(settings, plan, corpora, first)
        console.print(said, highlight=False, markup=False, soft_wrap=True)
        (stick,) = build_yardsticks(settings, [corpora.sample], autocast)

        def pilot_of(rate: float) -> Pilot:
            """Run the pilot of a rate, write it down, and say what came of it."""
            found = _pilot(plan.over(settings), corpora.sample, stick, rate, autocast, console)
            record["pilots"].append(asdict(found))
            save_record(run, record)
            console.print(_told(found, settings), highlight=False, markup=False, soft_wrap=True)
            return found

        tried = searched(first, pilot_of, known)
        best = chosen_rate(tried) or min(tried, key=lambda pilot: pilot.learning_rate)
        return replace(plan, learning_rate=best.learning_rate, pilots=tuple(tried))


def _refuse_what_cannot_run(settings: AdaptSettings, documents: Any) -> None:
    """Whatever the run itself would refuse, before its pilots have taken time."""
    with tempfile.TemporaryDirectory(prefix="afterword-check-") as scratch:
        load_trainer(settings, documents, Path(scratch))
    gc.collect()


def autocast_of(settings: AdaptSettings) -> Autocast:
    """What everything is measured under: the products of the run itself."""
    mixed = resolved_precision(settings.precision, settings.model_name_or_path) == "bf16_mixed"
    return lambda: mixed_precision(device_type(), enabled=mixed)


def _pilot(
    settings: AdaptSettings,
    sample: Sequence[Document],
    stick: Yardstick,
    rate: float,
    autocast: Autocast,
    console: Console,
) -> Pilot:
    """One rate, on a fresh model; whatever it writes is gone afterwards."""
    started = time.perf_counter()
    # Neither evaluated, nor saved, nor reported: only its weights are wanted.
    alone = {"eval_documents": (), "eval_steps": None, "report_to": (), "push_to_hub": False, "teacher_cache": None}
    sources = {name: {**source.model_dump(), "eval_files": ()} for name, source in settings.sources().items()}
    alone |= {"learning_rate": rate, "mixture": sources or None}
    with tempfile.TemporaryDirectory(prefix="afterword-pilot-") as scratch:
        trainer, _ = load_trainer(settings.model_copy(update=alone), list(sample), Path(scratch))
        trainer.args.save_strategy = "no"  # pyright: ignore[reportAttributeAccessIssue]
        way, progress = way_to(trainer.model, settings), RichProgress(console, f"  pilot at {rate:g}, step")
        trainer.add_callback(progress)
        walked = None
        # A rate that is too large is a result, too.
        with contextlib.suppress(Diverged):
            try:
                trainer.train()
            finally:
                progress.stop()
            walked = walk(standing_along(trainer.model, way, stick, autocast), settings.budget())
        del trainer, way
    gc.collect()
    seconds = time.perf_counter() - started
    if walked is None:
        return Pilot(rate, 0.0, 0.0, 0.0, None, seconds)
    taken, end = walked.taken, walked.points[0]
    return Pilot(rate, taken.standing.learned_nats, taken.share, taken.standing.lost, end.standing.lost, seconds)


def standing_along(model: Any, way: Between, stick: Yardstick, autocast: Autocast) -> Callable[[float], Standing]:
    """Where the model at a share of its way stands; all processes take what the first one measured."""

    def standing_at(share: float) -> Standing:
        way.at(share)
        return gathered([stick.standing(model, autocast)])[0]

    return standing_at


def way_to(model: Any, settings: AdaptSettings) -> Between:
    """The way that a model takes from now on; where the settings name a reference, it comes from there."""
    return Between(model, reference_weights(settings, model) if settings.reference else None)


def _key(settings: AdaptSettings, corpora: Corpora) -> str:
    """SHA-256 of what pilots follow from, but for the model's content, which the run itself compares.

    Settings at their defaults are left out, so that one that comes or goes changes nothing of what was begun.
    """
    given = settings.model_dump(mode="json", include=set(settings.weighing()), exclude_defaults=True)
    held = [settings.reference] if settings.reference else []
    return json_sha256([given, corpora.content_sha256, *held])


def _announced(settings: AdaptSettings, plan: Choice, corpora: Corpora, first: float) -> str:
    budget, passes = settings.budget(), plan.num_train_epochs
    told = "" if not passes else ", 1 pass" if passes == 1 else f", {passes:g} passes"
    read = number_of(len(corpora.sample), "document") + told
    held = f"within a budget of {budget}" + ("" if budget.given else " (the default)")
    return f"Learning rate: pilot runs on {read} each, from {first:g} on, {held}."


def _told(pilot: Pilot, settings: AdaptSettings) -> str:
    unit = settings.budget().unit
    if pilot.lost_at_end is None:
        return f"  {pilot.learning_rate:g}: diverged"
    cut = "" if pilot.share == 1 else f", {100 * pilot.share:.0f} % of the way ({pilot.lost_at_end:.3g} at its end)"
    learned = f"learned {pilot.learned_nats:.3f} nats, lost {pilot.lost:.3g} {unit}"
    return f"  {pilot.learning_rate:g}: {learned}{cut}, in {pilot.seconds:.0f} s"
