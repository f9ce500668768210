"""The run folder: the only interface between training, evaluation and reports."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from afterword.distributed import device_type, is_main_process, process_count
from afterword.errors import CheckpointError, ConfigError, printable
from afterword.models import STAGING_SUFFIX, has_result, replace_file
from afterword.models.own_text import OWN_SAMPLES_FILE
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.mixture import SourceSettings, sources_of
from afterword.settings.yaml_files import to_yaml
from afterword.storage.paths import unwritable
from afterword.storage.records import read_record
from afterword.training.callbacks import trim_metrics
from afterword.training.checkpoints import checkpoint_step, last_complete_checkpoint
from afterword.training.rollouts import ROLLOUTS
from afterword.training.written_documents import WRITTEN

_ASKED = "asked.yaml"
"""What a person set; config.yaml is what was used."""
_BEGUN = {
    ".work",
    "state.json",
    "command.txt",
    "environment.json",
    "data.json",
    "budget.json",
    WRITTEN,
    ROLLOUTS,
    OWN_SAMPLES_FILE,
    _ASKED,
}
"""What a run that was killed before its config.yaml can have left: the same command may begin here again."""
_VERSIONED = ("afterword", "torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "sentencex")


@dataclass(frozen=True)
class Identity:
    """What a run trains, by content: paths may move, this may not change."""

    model_fingerprint: str
    windows_sha256: str
    configuration_sha256: str
    reference_fingerprint: str | None = None
    """Of the model that the run is held to; None where that is the model itself."""


_GIVEN = {
    "model_fingerprint": ("model_name_or_path", "another model than this (its content differs)", "model"),
    "configuration_sha256": (
        "model_name_or_path",
        "a model of another configuration than this one (config.json differs)",
        "configuration",
    ),
    "windows_sha256": (
        "documents",
        "other documents than these (their content differs, or files are read, or written by the method's view, "
        "otherwise than then)",
        "documents",
    ),
}
"""By the names of an identity: the setting that it is given by, what a run trains whose own differs, and its name."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    path: Path

    @property
    def metrics(self) -> Path:
        """One row per optimizer step."""
        return self.path / "metrics.jsonl"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        # Not Path.is_file, which raises below a folder that may not be entered.
        return os.path.isfile(self.path / "config.yaml")

    def is_finished(self) -> bool:
        """Whether the adapted model is written, whole."""
        return self.exists() and self.state().get("status") == "complete" and has_result(self.path)

    def state(self) -> dict[str, Any]:
        """state.json, or nothing yet."""
        return read_record(self.path / "state.json") if (self.path / "state.json").is_file() else {}

    def write_state(self, status: str, identity: Identity, **more: Any) -> None:
        """Record how far the run has come."""
        replace_file(self.path / "state.json", json.dumps({"status": status, **vars(identity), **more}, indent=1))

    def add_to_data(self, name: str, value: Any) -> None:
        """Add to data.json what is known at the end."""
        path = self.path / "data.json"
        replace_file(path, json.dumps({**read_record(path), name: value}, indent=1, ensure_ascii=False))

    def refuse_other_settings(self, settings: AdaptSettings, *, but: Collection[str] = ()) -> None:
        """ConfigError where the folder holds a run with settings that lead to other weights, or something else.

        What is named in `but` is not compared.
        """
        if not self.exists():
            if problem := _unusable(self.path):
                remedy = "Give a folder that is empty or not there yet."
                raise ConfigError(f"output_dir: {str(self.path)!r} {problem}. {remedy}")
        elif changed := differences(self._asked(), settings, but=but):
            problem = f"output_dir: {str(self.path)!r} holds a run that these settings cannot continue."
            raise ConfigError([f"{problem} Give another output_dir, or the settings of that run:", *changed])

    def _asked(self) -> dict[str, Any]:
        """What the run was asked for. Runs of before wrote it down as config.yaml."""
        asked = self.path / _ASKED
        return read_record(asked if asked.is_file() else self.path / "config.yaml")

    def is_of_before(self) -> bool:
        """Whether a run was begun here by a version that did not write down what it decided."""
        return self.exists() and not (self.path / _ASKED).is_file()

    def used(self, settings: AdaptSettings) -> AdaptSettings | None:
        """The settings that the run here uses, with everything that was left open decided; None: it is not begun.

        A machine or a version that would decide otherwise changes nothing of a run that has begun.
        """
        if not (self.path / _ASKED).is_file() or not self.exists():
            return None
        saved = read_record(self.path / "config.yaml")
        known = (name for name in AdaptSettings.weighing() if name in saved)
        # A value that is there no longer was no decision of the run: what it leads to is asked for in another way.
        decided = {name: saved[name] for name in known if not AdaptSettings.retired.of_value(name, saved[name])}
        return read_settings({**settings.model_dump(), **decided})

    def refuse_other_content(self, identity: Identity) -> None:
        """CheckpointError where the folder's run was of another model, configuration or of other documents.

        What a run does not say of itself is taken to be the same.
        """
        saved = self.state()
        for name, (setting, other, what) in _GIVEN.items():
            if saved.get(name, getattr(identity, name)) != getattr(identity, name):
                problem = f"the run in {str(self.path)!r} trains {other}"
                raise CheckpointError(f"{setting}: {problem}. Give the {what} of that run, or another output_dir.")
        if saved and saved.get("reference_fingerprint") != identity.reference_fingerprint:
            problem = f"the run in {str(self.path)!r} is held to another model than this (its content differs)"
            raise CheckpointError(f"reference: {problem}. Give the reference of that run, or another output_dir.")

    def tidy(self, *, began_here: bool) -> None:
        """Remove what reading the documents left; and the folder itself, if this command made it.

        What a model wrote stays, and the folder with it: the same command goes on from there.
        """
        if is_main_process():
            record = self.path / WRITTEN
            written = record.is_file() and record.stat().st_size > 0
            if not written:
                # A view may need no text of the model.
                record.unlink(missing_ok=True)
            shutil.rmtree(self.path if began_here and not written else self.path / ".work", ignore_errors=True)

    def begin_or_resume(
        self, asked: AdaptSettings, used: AdaptSettings, identity: Identity, data: dict[str, Any], command: str
    ) -> Path | None:
        """The newest whole checkpoint, with metrics.jsonl cut back to it; of a new run, write what is known.

        `asked` is what a person set, `used` the same with everything decided that was left open.
        """
        checkpoint = last_complete_checkpoint(self.path)
        if is_main_process():
            if not self.exists():
                self._begin(asked, used, identity, data, command)
            trim_metrics(self.metrics, checkpoint_step(checkpoint) if checkpoint else 0)
        return checkpoint

    def _begin(
        self, asked: AdaptSettings, used: AdaptSettings, identity: Identity, data: dict[str, Any], command: str
    ) -> None:
        self.write_state("running", identity)
        replace_file(self.path / "command.txt", printable(command) + "\n")
        for name, content in (("environment", environment()), ("data", data)):
            replace_file(self.path / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False))
        replace_file(self.path / _ASKED, to_yaml(asked))
        # Last, because a folder with this file is a run.
        replace_file(self.path / "config.yaml", to_yaml(used))


def differences(saved: Mapping[str, Any], now: AdaptSettings, *, but: Collection[str] = ()) -> list[str]:
    """Settings that affect the weights and differ between a saved run and this one, one line each."""
    before, after = _affecting(saved), _affecting(now.model_dump(mode="json"))
    pairs = [(name, before.get(name), after.get(name)) for name in {**before, **after} if name not in but]
    return [f"{name}: {value!r} in the run, {new!r} now." for name, value, new in pairs if value != new]


def _affecting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that affect the weights, with those of every source of general text by names of their own."""
    given = {**AdaptSettings().model_dump(mode="json"), **values}
    named = {name: AdaptSettings.without_effect(name, given[name]) for name in AdaptSettings.weighing()}
    sources = sources_of(named.pop("mixture") or {})
    of_sources = {f"mixture.{name}": source.model_dump(mode="json") for name, source in sources.items()}
    return named | {f"{name}.{key}": it[key] for name, it in of_sources.items() for key in SourceSettings.weighing()}


def environment() -> dict[str, Any]:
    """Versions, commit and hardware: what a number depends on besides the settings."""
    import torch

    device = torch.cuda.get_device_name() if device_type() == "cuda" else (platform.processor() or "cpu")
    machine = {"system": platform.platform(), "device": device, "cpu_count": os.cpu_count()}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {**_code(), **machine, "processes": process_count(), "created": created}


@cache
def _code() -> Mapping[str, str | None]:
    """Versions and commit. Looked up once: a process computes with what it has imported, whatever comes after it."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _VERSIONED}, "commit": _commit()}


def _unusable(path: Path) -> str | None:
    """Why a new run cannot be begun here."""
    held = path.iterdir() if os.path.isdir(path) else ()
    if any(file.name not in _BEGUN and file.suffix != STAGING_SUFFIX for file in held):
        return "is not empty and holds no run of Afterword"
    if os.path.exists(path) and not os.path.isdir(path):
        return "is a file"
    if parent := unwritable(path):
        return f"cannot be written ({parent} is not writable)"
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)


def _commit() -> str | None:
    """The commit of the source tree this runs from, or None where it is installed without one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
