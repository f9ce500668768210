"""Which samples are kept: three rules, counts, and quotas for sources.

The one rule: equal samples and scores give an equal selection. Ties go to the smaller id, and nothing depends on the
order in which samples were read.
"""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from afterword.alignment.sample_scores import Scores
from afterword.alignment.samples import Sample
from afterword.errors import ConfigError, nearest
from afterword.settings.align import Rule


def ranked(samples: Sequence[Sample], scores: Sequence[Scores], rule: Rule, seed: int) -> list[Sample]:
    """What a rule would keep, the first to be kept first.

    `perplexity`: the easiest, lowest templated loss (the rule of Mix-CPT's first version; that it is taken over the
    response in the template is ours). `format_score`: of the samples whose plain loss is at most the median, whose
    knowledge is there, those with the highest ratio, whose format is not; the others are never kept. `random`: all,
    shuffled by the seed.
    """
    ordered = sorted(zip(samples, scores, strict=True), key=lambda pair: (pair[0].id, pair[0].source))
    if rule == "random":
        return [ordered[i][0] for i in np.random.default_rng(seed).permutation(len(ordered))]
    if rule == "perplexity":
        return [sample for sample, _ in sorted(ordered, key=lambda pair: pair[1].templated_nats)]
    limit = statistics.median(score.plain_nats for score in scores)
    known = [pair for pair in ordered if pair[1].plain_nats <= limit]
    return [sample for sample, _ in sorted(known, key=lambda pair: -pair[1].format_score)]


def drawn(candidates: Sequence[Sample], count: int, quotas: Mapping[str, float]) -> list[Sample]:
    """The first `count` of ranked candidates, or of all that there are; of a source with a quota, its number.

    A quota is a number of samples, or below 1 a share of `count`. Sources without one share what the quotas leave,
    by rank alone. ConfigError where quotas come to more than `count`, or to nothing.
    """
    numbers = {source: _number(quota, count) for source, quota in quotas.items()}
    if (total := sum(numbers.values())) > count:
        raise ConfigError(f"quotas: come to {total} samples of {count}. Lower them, or raise the count.")
    of_source = {source: [s for s in candidates if s.source == source][:number] for source, number in numbers.items()}
    free = [sample for sample in candidates if sample.source not in quotas][: count - total]
    kept = {id(sample) for group in (*of_source.values(), free) for sample in group}
    if not kept:
        raise ConfigError(f"quotas: leave nothing of {count} samples. Raise them, or leave them out.")
    return [sample for sample in candidates if id(sample) in kept]


def _number(quota: float, count: int) -> int:
    return int(quota) if quota >= 1 else round(quota * count)


def quotas_of(asked: Mapping[str, float], sources: Sequence[str]) -> dict[str, float]:
    """Quotas by the sources' own names. ConfigError for one of no source.

    The command line writes dashes in a setting's name as underscores, so either stands for the other.
    """
    named = {source.replace("-", "_"): source for source in sources}
    for name in asked:
        if name.replace("-", "_") not in named:
            there = f"{nearest(name, sources)}There are {', '.join(named.values())}."
            raise ConfigError(f"quotas.{name}: no source has this name. {there}")
    return {named[name.replace("-", "_")]: quota for name, quota in asked.items()}
