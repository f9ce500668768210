"""Passages that the student writes as it learns: anew after every so many steps, with its weights as they are then.

Steps are counted in blocks. What the student writes for a passage before a block follows from its weights, the seed,
the block, the window and the passage, and from no global random state. The texts of a block are on the disk before
its first step, and a run that is resumed inside of it reads them there. Those of block 0 are the view's own: before the
first step the student is the model as it was.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainingArguments

from afterword import models
from afterword.data import Prepared, View
from afterword.data.passages import with_texts
from afterword.distributed import is_main_process, main_process_first
from afterword.errors import ConfigError
from afterword.models.decoding import Writing, written_rows
from afterword.models.generation import end_of_turn, ends_of
from afterword.progress import Progress
from afterword.storage.atomic import replace_file
from afterword.storage.parsing import parse_json
from afterword.training.refusals import shard_problems
from afterword.training.steps import StepPlan
from afterword.types import PassageIds, Rewriting, Window

ROLLOUTS = "rollouts"
"""Folder of a run: a file for every block of steps, with the tokens that the student wrote before it."""
_BATCH_TOKENS = 20480
Texts = Mapping[tuple[int, int], list[int]]
"""Tokens by (window, passage)."""


@dataclass
class Rollouts:
    """What the student writes in one run."""

    windows: Prepared
    view: View
    rewriting: Rewriting
    plan: StepPlan
    folder: Path
    """Of the run."""
    seed: int
    longest: int
    """Tokens that a text and what stands before it may have together."""
    block: int | None = None
    """The one that is trained; None: the run has not begun."""
    texts: Texts = field(default_factory=dict[tuple[int, int], list[int]])
    """Of `block`."""

    def begin(self, *, resumed: bool) -> None:
        """Forget what another run wrote here, unless this one is its continuation."""
        self.block, self.texts = 0, {}
        if is_main_process() and not resumed:
            shutil.rmtree(self.folder / ROLLOUTS, ignore_errors=True)

    def ready(self, step: int, model: Any, tokenizer: Any) -> None:
        """Have the texts for the block of a step that is taken next, counted from 0. All processes call it together."""
        block = step // self.rewriting.steps
        if block != self.block:
            self.texts = main_process_first(lambda: self._of(block, model, tokenizer)) if block else {}
            self.block = block

    def rewritten(self, window: Window, block: int) -> Window:
        """A window with the texts of a block, each in place of the one that was there.

        What is read before the run has begun, to count it, has the texts of block 0.
        """
        if not block or self.block is None:
            return window
        assert block == self.block, "a step is read after what it reads was written"
        ids = [self.texts.get((window.index, number)) for number in range(len(window.passages))]
        found = with_texts(window, [None if text is None else np.array(text, np.int64) for text in ids])
        # A student that says nothing more would leave its step without effect: then what it said at first counts.
        return window if self.view.skip_reason(found) else found

    def _of(self, block: int, model: Any, tokenizer: Any) -> Texts:
        path = self.folder / ROLLOUTS / f"block-{block:05d}.jsonl"
        if not path.is_file():
            rows = [json.dumps(row) for row in self._rows(block, model, tokenizer)]
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, "".join(f"{row}\n" for row in rows))
        read = (parse_json(line) for line in path.read_text(encoding="utf-8").splitlines())
        return {(row["window"], row["passage"]): row["token_ids"] for row in read}

    def _rows(self, block: int, model: Any, tokenizer: Any) -> Iterator[dict[str, Any]]:
        """What the student writes for every passage of the block, as it is kept."""
        windows = {number: self.windows[number] for number in self._windows(block)}
        names = [(number, passage) for number, window in windows.items() for passage in range(len(window.passages))]
        passages = [windows[number].passages[passage] for number, passage in names]
        draws = [self._draws(block, *name) for name in names]
        with models.only_reading(model):
            written = _written(model, tokenizer, passages, draws, self.rewriting)
        for (number, passage), before, ids in zip(names, passages, written, strict=True):
            room = self.longest - max(len(before.student_before), len(before.teacher_before))
            text = tokenizer.decode(ids, skip_special_tokens=True)
            yield {"window": number, "passage": passage, "document": windows[number].document, "text": text} | {
                "token_ids": ids[:room]
            }

    def _windows(self, block: int) -> list[int]:
        """Windows of documents that the steps of a block read, each once."""
        first, count = block * self.rewriting.steps, self.plan.steps_per_epoch
        read = set[int]()
        for step in range(first, first + self.rewriting.steps):
            epoch, place = divmod(step, count)
            read.update(self.plan.steps(epoch)[place].tolist())
        return sorted(window for window in read if window < len(self.windows))

    def _draws(self, block: int, window: int, passage: int) -> np.ndarray:
        tokens = self.rewriting.sampling.max_new_tokens
        return np.random.default_rng((self.seed, block, window, passage)).random(tokens)


def refuse_rollouts(method: str, args: TrainingArguments, *, cached: bool) -> None:
    """ConfigError where texts would be read before they are written, or written by a part of the weights."""
    why = f"the student writes texts of its own as it learns under {method}"
    problems = list[str]()
    if args.dataloader_num_workers:
        problems.append(f"dataloader_num_workers: {why}, and workers read ahead of it. Leave it out.")
    if cached:
        problems.append(f"teacher: 'cached' reads every text before the first step, and {why}. Use copy, or offload.")
    problems += shard_problems(args, why)
    if problems:
        raise ConfigError(problems)


def _written(
    model: Any, tokenizer: Any, passages: Sequence[PassageIds], draws: Sequence[np.ndarray], how: Rewriting
) -> list[list[int]]:
    """The tokens that go on from what the student reads before each passage, up to and including what ends them."""
    inner, sampling = models.causal_lm(model), how.sampling
    ends, tokens = ends_of(model, tokenizer, end_of_turn(tokenizer)), sampling.max_new_tokens
    order = sorted(range(len(passages)), key=lambda i: -len(passages[i].student_before))
    found = dict[int, list[int]]()
    with Progress("texts of the student", len(passages)) as progress:
        while order:
            rows = max(1, _BATCH_TOKENS // (len(passages[order[0]].student_before) + tokens))
            batch, order = order[:rows], order[rows:]
            writing = Writing(
                max_new_tokens=tokens,
                min_new_tokens=0,
                ends=ends,
                draws=np.stack([draws[i] for i in batch]) if sampling.temperature else None,
                temperature=sampling.temperature or 1.0,
                top_p=sampling.top_p,
            )
            prompts = [passages[i].student_before.tolist() for i in batch]
            found |= zip(batch, written_rows(inner, prompts, writing, progress.advance), strict=True)
    return [found[i] for i in range(len(passages))]
