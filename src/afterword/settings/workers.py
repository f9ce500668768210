"""What every command that gives out tasks can be told of where they are run: the fields of its panel Machines."""

import re
from collections.abc import Iterator
from typing import Any, Protocol

from afterword.pool import Workers
from afterword.settings.base import setting


def _field(default: Any, text: str, **rules: Any) -> Any:
    return setting(default, "Machines", text, weights=False, **rules)


PROCESSES: Any = _field(
    None,
    "Processes at once, each with a model of its own (default: 1 here; with ray, as many as the cluster has GPUs, or "
    "else CPUs).",
    ge=1,
)
RAY: Any = _field(None, "Address of a Ray cluster to run on: auto, or HOST:PORT.")
GPUS_EACH: Any = _field(
    None, "With ray, GPUs of each process; 0.5 lets two share one (default: 1 where there are any).", ge=0
)
_ADDRESS = re.compile(r"auto|local|(ray://)?[^\s/]+:\d+")
RETRIES: Any = _field(2, "Times that a task is begun anew whose process or machine died.", ge=0)


class HasWorkers(Protocol):
    """Settings with these fields."""

    @property
    def processes(self) -> int | None:
        """See PROCESSES."""
        ...

    @property
    def ray(self) -> str | None:
        """See RAY."""
        ...

    @property
    def gpus_each(self) -> float | None:
        """See GPUS_EACH."""
        ...

    @property
    def retries(self) -> int:
        """See RETRIES."""
        ...


def ray_problems(settings: HasWorkers) -> Iterator[str]:
    """What cannot be the address of a cluster, told before Ray is imported and looks for one."""
    if settings.ray is not None and not _ADDRESS.fullmatch(settings.ray):
        yield f"ray: {settings.ray!r} is no address of a cluster. Give auto, or HOST:PORT."


def workers_of(settings: HasWorkers) -> Workers:
    """As a pool is opened with them."""
    return Workers(
        processes=settings.processes, ray=settings.ray, gpus_each=settings.gpus_each, retries=settings.retries
    )
