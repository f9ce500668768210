"""A method that does not come with the package: by entry point, by place, from Python."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import afterword
from afterword import methods, plugins
from afterword.data import WholeDocument
from afterword.errors import ConfigError
from afterword.methods import METHODS, Method, get_method, known_methods, register_method
from afterword.objectives import Prediction
from afterword.settings.adapt import read_settings

PAGE = Path(__file__).parents[3] / "docs" / "ADD_A_METHOD.md"
OWN = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0] + "NOTHING = 3\n"
DECLARED = Method(
    name="from_python", summary="", paper="", view=WholeDocument(), objective=Prediction(), general_tokens=0.25
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Nothing that a test registers is there for the next."""
    monkeypatch.setattr(methods, "_REGISTERED", {})


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the working folder."""
    (tmp_path / "own_method.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("METHOD = (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(plugins.sys.modules, "own_method", raising=False)
    monkeypatch.setattr(plugins.sys, "path", list(plugins.sys.path))
    return "own_method"


def test_a_method_is_found_by_its_place(module):
    found = get_method(f"{module}:METHOD")
    assert (found.name, found.defaults["learning_rate"]) == ("even", 1e-5)
    assert read_settings({"model_name_or_path": "m", "documents": ["d"], "method": f"{module}:METHOD"})


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("own_method:GONE", "cannot be loaded .*has no attribute 'GONE'"),
        ("no_such_module:METHOD", "cannot be loaded .*No module named 'no_such_module'"),
        ("own_method:NOTHING", "is of the type int, not a Method"),
        (":METHOD", "cannot be loaded"),
        ("./own_method.py:METHOD", "cannot be loaded"),
        ("broken:METHOD", "cannot be loaded .SyntaxError"),
        ("even", r"is not known\. .*or package\.module:NAME of your own"),
    ],
)
def test_a_place_that_gives_no_method_is_named(place, words, module):
    with pytest.raises(ConfigError, match=words):
        get_method(place)


def test_a_method_of_an_installed_package_has_its_name(module, monkeypatch):
    points = {"theirs": EntryPoint("theirs", f"{module}:METHOD", "afterword.methods")}
    monkeypatch.setattr(plugins, "added", lambda kind: points if kind == "methods" else {})
    monkeypatch.syspath_prepend(str(plugins.os.getcwd()))
    assert get_method("theirs").name == "even"
    assert known_methods() == [*METHODS, "theirs"]


def test_a_method_from_python_is_trained_with_and_resumed(model_folder, documents, tmp_path):
    how = {"method": DECLARED, "output_dir": tmp_path / "run", "max_steps": 2, "learning_rate": 1e-3}
    result = afterword.adapt(model_folder, documents, **how)
    assert result.steps == 2
    assert "method: from_python" in (tmp_path / "run" / "config.yaml").read_text()
    assert afterword.adapt(model_folder, documents, **how).already_complete


def test_the_methods_of_the_package_keep_their_names():
    assert register_method(METHODS["finetune"]) == "finetune"
    other = Method(name="finetune", summary="", paper="", view=WholeDocument(), objective=Prediction())
    with pytest.raises(ConfigError, match=r"'finetune' is a method of Afterword\. Give your own another name"):
        register_method(other)


def test_a_command_trains_with_a_method_of_the_working_folder(module, afterword, model_folder, documents, tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in documents)
    (tmp_path / "documents.jsonl").write_text(lines)
    words = f"adapt {model_folder} documents.jsonl -o run --method {module}:METHOD --max-steps 1 --learning-rate 1e-3"
    said = afterword(*words.split())
    assert said.code == 0, said.err
    assert f"method: {module}:METHOD" in (tmp_path / "run" / "config.yaml").read_text()
    assert f"method         {module}:METHOD" in said.out
