"""A run that is held to its budget: measured along the way, and at its end the point of the way that is saved."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from afterword.budget.choice import autocast_of, read_corpora, standing_along, way_to
from afterword.budget.path import Walk, walk
from afterword.budget.record import load_record, save_record
from afterword.budget.yardstick import Yardstick, build_yardsticks
from afterword.models import Between
from afterword.settings.adapt import AdaptSettings
from afterword.training import AdaptationTrainer

_QUARTERS = (0.25, 0.5, 0.75)
"""Of the steps, after which a run is measured."""
_WORTH = 5.0
"""Seconds of training for each second of measuring on the way. What is saved does not follow from it."""


class BudgetWatch:
    """Sees a run from before its first step to after its last; see `training.run.Watch`."""

    def __init__(self, settings: AdaptSettings, documents: Any, console: Console, known: Mapping[str, Any]):
        """`known` is what budget.json says of how the settings were chosen, of a run that is not begun."""
        self.settings, self.documents, self.console, self.known = settings, documents, console, known
        self.autocast = autocast_of(settings)
        self.run = Path(settings.output_dir)
        self.record: dict[str, Any] = {}
        self.way: Between | None = None
        self.stick: Yardstick | None = None

    def begins(self, trainer: AdaptationTrainer, step: int) -> None:
        """Measure the model as it was given; what was measured of the run after `step` is measured again."""
        with read_corpora(self.settings, self.documents) as corpora:
            (self.stick,) = build_yardsticks(self.settings, [corpora.measured], self.autocast)
        self.way = way_to(trainer.model, self.settings)
        self.record = {"format": 1, "budget": asdict(self.settings.budget()), "pilots": [], "chosen": {}}
        self.record |= {**load_record(self.run), **self.known}
        along = [row for row in self.record.get("along", ()) if row["step"] <= step]
        base = {"sentence_nats": self.stick.sentences.nll_nats, "with_document_nats": self.stick.with_document_nats}
        self.record |= {"along": along, "base": base}
        save_record(self.run, self.record)
        trainer.add_callback(_Quarters(self, trainer))

    def measure(self, trainer: AdaptationTrainer) -> None:
        """Where the run stands now."""
        assert self.stick, "begun"
        standing = self.stick.standing(trainer.model, self.autocast)
        self.record["along"].append({"step": trainer.state.global_step, **asdict(standing)})
        save_record(self.run, self.record)

    def ends(self, trainer: AdaptationTrainer) -> None:
        """Take the weights back along their way as far as the budget asks for."""
        assert self.stick, "begun"
        assert self.way, "begun"
        walked = walk(standing_along(trainer.model, self.way, self.stick, self.autocast), self.settings.budget())
        self.way.at(walked.taken.share)
        self.record |= {"path": [asdict(point) for point in walked.points], "taken": asdict(walked.taken)}
        save_record(self.run, self.record)
        self.console.print(self._said(walked), highlight=False, markup=False, soft_wrap=True)

    def _said(self, walked: Walk) -> str:
        budget, taken, end = self.settings.budget(), walked.taken, walked.points[0]
        if taken.share == 1:
            return f"Budget: {end.standing.lost:.3g} of {budget} are lost; the weights are saved as they were trained."
        if taken.share == 0:
            return f"Budget: no point of the way keeps {budget}, so the model is as it was given. Raise the budget."
        kept = f"{100 * taken.share:.0f} % of the way is saved, which loses {taken.standing.lost:.3g}"
        return f"Budget: the end of training loses {end.standing.lost:.3g} {budget.unit}, more than {budget}; {kept}."


class _Quarters(TrainerCallback):
    """Measures after each quarter of the steps, where that takes little beside the training."""

    def __init__(self, watch: BudgetWatch, trainer: AdaptationTrainer):
        self.watch, self.trainer = watch, trainer
        self.last, self.cost = time.perf_counter(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the last step the way is measured, so not there."""
        due = {round(quarter * state.max_steps) for quarter in _QUARTERS}
        now = time.perf_counter()
        if state.global_step in due and now - self.last >= _WORTH * self.cost:
            self.watch.measure(self.trainer)
            self.cost, self.last = time.perf_counter() - now, time.perf_counter()
            self.trainer.step_started += self.cost
