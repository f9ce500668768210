"""llama.cpp's own converter: where it is, and one run of it.

The one rule: weights are converted by llama.cpp's program alone, and what it says is passed on.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from afterword.errors import CheckpointError, ConfigError

SCRIPT = "convert_hf_to_gguf.py"
_GET = (
    "It is a part of llama.cpp and of the source of llama-cpp-python: "
    "`pip download --no-deps --no-binary llama-cpp-python llama-cpp-python`, unpack it, and give its folder "
    "vendor/llama.cpp as --converter"
)
_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_UNKNOWN = (
    (
        r"BPE pre-tokenizer was not recognized",
        "llama.cpp does not know how this model's tokenizer splits words: it knows those of published models",
    ),
    (
        r"ERROR.*Model \S+ is not supported",
        "llama.cpp's converter does not know this kind of model. A newer llama.cpp may",
    ),
)
"""What the converter says of models that it cannot take, and what that means."""
_SAID = 2000
"""Characters of the converter's last words that are looked at where no line is an error."""


def find_converter(given: str | None) -> Path:
    """The converter's script: the one that was given, or the one on PATH. ConfigError where there is none."""
    if given is not None:
        path = Path(given) / SCRIPT if Path(given).is_dir() else Path(given)
        if not path.is_file():
            raise ConfigError(f"converter: {str(path)!r} is not there. Give the file {SCRIPT}. {_GET}.")
        return path
    if found := shutil.which(SCRIPT) or _on_path():
        return Path(found)
    raise ConfigError(f"converter: there is no {SCRIPT} on PATH. {_GET}.")


def _on_path() -> str | None:
    """A script that lies on PATH without leave to be executed: Python runs it all the same."""
    folders = (Path(folder) for folder in os.get_exec_path() if folder)
    return next((str(folder / SCRIPT) for folder in folders if (folder / SCRIPT).is_file()), None)


def convert(converter: Path, folder: Path, file: Path, *, file_type: str, name: str) -> None:
    """Write the model of a folder into a GGUF file. CheckpointError with the converter's own words where it fails."""
    command = [sys.executable, str(converter), str(folder), "--outfile", str(file), "--outtype", file_type]
    done = subprocess.run(
        [*command, "--model-name", name],
        # transformers must ask no hub for what is not in the folder.
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not file.is_file():
        raise CheckpointError(f"model_name_or_path: {str(folder)!r} was not converted. {_reason(done)}")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """What is wrong and what to do, in a sentence or two."""
    if missing := _MODULE.search(done.stderr):
        package = missing[1].partition(".")[0]
        return f"The converter needs the package {package}: pip install {package}, and run it again."
    for words, meaning in _UNKNOWN:
        if re.search(words, done.stderr):
            return f"{meaning}; serve the folder itself (see the guide on serving)."
    lines = [line for line in done.stderr[-_SAID:].splitlines() if line.strip()]
    said = lines[-1].strip() if lines else f"nothing, and ended with {done.returncode}"
    return f"The converter said: {said}"
