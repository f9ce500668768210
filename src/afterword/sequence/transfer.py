"""What a matrix of models and corpora comes to: what was learned, what of it is kept, and what a corpus did to others.

`R[k][i]` is what the model after stage k knows of corpus i; k = 0 is the first model, T the number of corpora. After
Lopez-Paz and Ranzato 2017, Gradient Episodic Memory, arXiv:1706.08840, section 2:

    at the end   1/T     · Σ_i R[T][i]                        (their ACC)
    backward     1/(T−1) · Σ_{i<T} (R[T][i] − R[i][i])        (their BWT)
    forward      1/(T−1) · Σ_{i>1} (R[i−1][i] − R[0][i])      (their FWT)
    learned      1/T     · Σ_i (R[i][i] − R[0][i])            (ours)

Their forward transfer is against a model of random weights; ours is against the first model, which has been trained.
The one rule: differences are taken question by question, and above 0 is better: of losses, how much they fell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from afterword.evaluation.intervals import estimate, paired_change
from afterword.types import Estimate

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Transfer:
    """Of one quantity, over the corpora that have it. What has no model yet is None."""

    cells: tuple[tuple[Estimate | None, ...], ...]
    """[models][corpora], the first model first."""
    learned: tuple[Estimate | None, ...]
    """[corpora]: by its own stage, against the first model."""
    forward: tuple[Estimate | None, ...]
    """[corpora]: by the stages before its own, against the first model; None of the first corpus."""
    backward: tuple[Estimate | None, ...]
    """[corpora]: by the stages after its own, against that; None of the last corpus that was taught."""
    means: dict[str, Estimate | None]
    """`end`, `learned`, `forward`, `backward`: each the mean over the corpora that have it."""


def transfer(values: Sequence[Sequence[Values | None]], taught_at: Sequence[int], *, lower_is_better: bool) -> Transfer:
    """Of values [models][corpora], each a value for every question or document of the corpus, in one order.

    `taught_at` says of every corpus by which model it has been taught, from 1. The last model is the end.

    Two corpora of two questions: the first is learned in one of its questions, which the second stage takes again.

    >>> found = transfer([[[0, 0], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [1, 1]]], [1, 2], lower_is_better=False)
    >>> [[cell.value for cell in row] for row in found.cells]
    [[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]]
    >>> {name: mean.value for name, mean in found.means.items()}
    {'end': 0.5, 'learned': 0.75, 'forward': 0.0, 'backward': -0.5}
    """
    last = len(values) - 1

    def change(before: int, after: int, corpus: int) -> Estimate | None:
        """By how much the corpus is better known to one model than to another."""
        if after > last or (one := values[before][corpus]) is None or (other := values[after][corpus]) is None:
            return None
        return paired_change(other, one) if lower_is_better else paired_change(one, other)

    cells = tuple(tuple(None if own is None else estimate(own) for own in row) for row in values)
    corpora = list(enumerate(taught_at))
    learned = tuple(change(0, own, i) for i, own in corpora)
    forward = tuple(change(0, own - 1, i) if own > 1 else None for i, own in corpora)
    backward = tuple(change(own, last, i) if own < last else None for i, own in corpora)
    parts = {"end": cells[last], "learned": learned, "forward": forward, "backward": backward}
    means = {name: mean_of([each for each in found if each]) for name, found in parts.items()}
    return Transfer(cells, learned, forward, backward, means)


def mean_of(estimates: Sequence[Estimate]) -> Estimate | None:
    """The unweighted mean of independent estimates, with an interval that is made of theirs; None of none.

    The distances from mean to bound add in squares, below and above apart (Zou and Donner 2008, Statistics in Medicine
    27(10), the method of variance estimates recovery). No interval where one has none.

    By hand: below 0.3 and 0.4 give 0.5 / 2, above 0.1 and 0.0 give 0.1 / 2.

    >>> mean_of([Estimate(0.5, (0.2, 0.6)), Estimate(0.4, (0.0, 0.4))])
    Estimate(value=0.45, interval_95=(0.2, 0.5))
    """
    if not estimates:
        return None
    count = len(estimates)
    mean = math.fsum(each.value for each in estimates) / count
    bounds = [
        (each.value - each.interval_95[0], each.interval_95[1] - each.value) for each in estimates if each.interval_95
    ]
    if len(bounds) < count:
        return Estimate(mean, None)
    below, above = (math.hypot(*side) / count for side in zip(*bounds, strict=True))
    return Estimate(mean, (mean - below, mean + above))
