"""Where names lead: ~ is the home folder for every setting, and what is written like a path never asks the hub."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from afterword.corpus import refuse_missing
from afterword.errors import CheckpointError, DataError
from afterword.models import load_config, refuse_name
from afterword.settings.adapt import AdaptSettings
from afterword.settings.align import AlignSettings
from afterword.settings.compare import BlendSettings, CompareSettings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.mixture import sources_of
from afterword.settings.yaml_files import load_yaml
from afterword.storage import hub
from afterword.storage.hub import hub_answers, is_hub_id
from afterword.storage.paths import neighbour

TREES = (AdaptSettings, EvaluateSettings, CompareSettings, BlendSettings, AlignSettings)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The person did not ask to stay offline. Who asks the hub is noted, and waits for ever."""
    asked: list[str] = []

    class Silent:
        def head(self, url: str, **_: Any) -> None:
            asked.append(url)
            time.sleep(60)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: Silent())
    monkeypatch.setattr(hub, "_HUB_SECONDS", 0.2)
    hub_answers.cache_clear()
    yield asked
    hub_answers.cache_clear()


@pytest.mark.parametrize("tree", TREES)
def test_every_setting_that_takes_text_takes_the_home_folder(tree: Any, home: Path) -> None:
    for name, field in tree.model_fields.items():
        annotation = str(field.annotation)
        if annotation in ("<class 'str'>", "str | None"):
            value, expected = "~/a/b", str(home / "a/b")
        elif annotation == "tuple[str, ...]":
            value, expected = ["~/a", "b~"], (str(home / "a"), "b~")
        else:
            continue
        read = tree.model_construct()
        found = tree.__pydantic_validator__.validate_assignment(read, name, value)
        values = found[0] if isinstance(found, tuple) else found.__dict__
        assert values[name] == expected, name


def test_nested_settings_too(home: Path) -> None:
    source = sources_of({"general": "~/g.jsonl,tokens=0.1"})["general"]
    assert source.files == (str(home / "g.jsonl"),)
    trainer = AdaptSettings(model_name_or_path="m", trainer={"logging_dir": "~/logs"}).trainer
    assert trainer == {"logging_dir": str(home / "logs")}


def test_a_file_of_settings_in_the_home_folder(home: Path) -> None:
    (home / "run.yaml").write_text("seed: 3")
    assert load_yaml(Path("~/run.yaml")) == {"seed": 3}


def test_a_name_beside_a_folder_of_its_owner_is_a_path(home: Path) -> None:
    assert is_hub_id("models/mine")
    (home.parent / "models").mkdir()
    assert not is_hub_id("models/mine")


def test_the_nearest_path_is_told(home: Path) -> None:
    (home.parent / "docs").mkdir()
    (home / "documents").mkdir()
    assert neighbour("docz") == "Did you mean docs? "
    assert neighbour(f"{home}/documants/") == f"Did you mean {home}/documents? "
    assert neighbour("quite-another") == neighbour("no/such/folder") == ""


@pytest.mark.parametrize(
    "name",
    [
        "./m",
        "../m",
        "~/m",
        "/no/such/m",
        "a/b/c",
        "models/mine",
        "m.gguf",
        "org/m.safetensors",
        "a b",
        "org/",
        "-m",
        "m--x",
    ],
)
def test_a_mistyped_model_is_told_without_asking_the_hub(name: str, home: Path, online: list[str]) -> None:
    (home.parent / "models").mkdir()
    with pytest.raises(CheckpointError, match="is no folder") as caught:
        load_config(name)
    assert repr(name) in str(caught.value)
    assert online == []


@pytest.mark.parametrize("name", ["docz", "./docz", "~/docz", "a/b/docz", "docs/docz", "docz.jsonl", "my docz"])
def test_mistyped_documents_are_told_without_asking_the_hub(name: str, home: Path, online: list[str]) -> None:
    (home.parent / "docs").mkdir()
    with pytest.raises(DataError, match="no such file or folder"):
        refuse_missing([name])
    assert online == []


def test_a_hub_that_does_not_answer_is_told_within_seconds(home: Path, online: list[str]) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"'org/model' is no folder here .* and the hub does not answer"):
        load_config("org/model")
    with pytest.raises(DataError, match=r"org/texts: .* the hub does not answer"):
        refuse_missing(["org/texts"])
    assert len(online) == 1
    assert time.monotonic() - started < 20


def test_offline_by_choice_is_told_as_such(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_answers.cache_clear()
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        load_config("org/model")


def test_a_name_alone_is_judged_without_reading_anything(home: Path, online: list[str]) -> None:
    for name in ("smollm2-135m-instruct", "almanac-chat", "org/model", "gpt2"):
        refuse_name(name)
    assert online == []
    assert not (home / ".cache").exists()
