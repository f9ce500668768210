"""Which items of a benchmark task are asked, and which of them are dev and which test.

Benchmarks have one split to be measured on. The one rule: whether an item is dev or test follows from its task and
place alone, never from a run's seed, so that nothing is reported on what any run has chosen by.
"""

import hashlib
from typing import Literal

import numpy as np

Split = Literal["dev", "test", "both"]


def is_dev(task: str, item: int) -> bool:
    """Whether an item of a task is one to choose by: about every second is.

    >>> sum(is_dev("piqa", item) for item in range(1000))
    505
    """
    return hashlib.sha256(f"{task}/{item}".encode()).digest()[0] % 2 == 0


def drawn_items(task: str, count: int, *, limit: int | None = None, split: Split = "both", seed: int = 0) -> list[int]:
    """The items of a task that are asked, in its order: all, or `limit` of them drawn by the seed.

    Of both splits half are dev, the odd one too, and half test, as far as there are so many.
    """
    dev = [is_dev(task, item) for item in range(count)]
    by_split = {name: [i for i in range(count) if dev[i] is (name == "dev")] for name in ("dev", "test")}
    if split != "both":
        by_split = {split: by_split[split]}
    total = sum(map(len, by_split.values()))
    wanted = min(total, total if limit is None else limit)
    shares = _shares(wanted, [len(items) for items in by_split.values()])
    draw = np.random.default_rng(seed)
    drawn = [draw.permutation(items)[:share] for items, share in zip(by_split.values(), shares, strict=True)]
    return sorted(int(item) for items in drawn for item in items)


def _shares(wanted: int, sizes: list[int]) -> list[int]:
    """How many of each part, as equal as the sizes allow, the first with the odd one.

    >>> _shares(5, [10, 10]), _shares(5, [1, 10]), _shares(4, [7])
    ([3, 2], [1, 4], [4])
    """
    if len(sizes) == 1:
        return [min(wanted, sizes[0])]
    second = min(wanted // 2, sizes[1])
    first = min(wanted - second, sizes[0])
    return [first, min(wanted - first, sizes[1])]
