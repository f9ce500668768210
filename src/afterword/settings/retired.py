"""Settings of versions before: configurations and run folders that hold them are still read, or say what to do now."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RetiredName:
    """A setting that is there no longer."""

    sentence: str
    """Why it went, and what to do instead."""
    any_value: bool = False
    """Whether every value is passed over, because none changed a result; else only null is."""


@dataclass(frozen=True)
class RetiredValue:
    """A value that a setting has no longer."""

    sentence: str
    same_weights: bool
    """Whether it led to the same weights as none given: then a run that was begun with it goes on without."""


@dataclass(frozen=True)
class Retired:
    """What one tree of settings has no longer."""

    names: Mapping[str, RetiredName] = field(default_factory=dict[str, RetiredName])
    values: Mapping[tuple[str, str], RetiredValue] = field(default_factory=dict[tuple[str, str], RetiredValue])
    """By the name of the setting and the value."""

    def passes_over(self, name: str, value: object) -> bool:
        """Whether a setting that is no longer there is read as not given."""
        found = self.names.get(name)
        return found is not None and (found.any_value or value is None)

    def of_value(self, name: str, value: object) -> RetiredValue | None:
        """What is known of a value, if it is one that is there no longer."""
        return self.values.get((name, value)) if isinstance(value, str) else None


_ONE_PROCESS = "documents are prepared in one process, which is faster than training reads. Leave it out."
_TOP_K = "a top_k teacher was 23 % off in the gradient at τ = 2. Use teacher: cached, which is exact"
OF_ADAPT = Retired(
    names={
        "preparation_workers": RetiredName(_ONE_PROCESS, any_value=True),
        "preparation_cache": RetiredName("prepared documents are kept by the run. Leave it out.", any_value=True),
        "teacher_top_k": RetiredName(f"{_TOP_K}, and leave this out."),
    },
    values={
        ("teacher", "top_k"): RetiredValue(f"{_TOP_K}.", same_weights=False),
        ("teacher", "offload_disk"): RetiredValue(
            "'offload_disk' is there no longer. Use offload, which keeps it in the memory of the CPU, or cached.",
            same_weights=True,
        ),
    },
)
"""Of `afterword adapt`."""
