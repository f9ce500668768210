"""A method that does not come with the package: by entry point, by place, from Python; also one that writes."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
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
from afterword.training import AdaptationTrainer, dry_run, training_arguments
from afterword.training.checkpoints import Interrupted
from afterword.types import Sampling
from afterword.writing import LocalGenerator

pytestmark = pytest.mark.usefixtures("unseen")

PAGE = Path(__file__).parents[3] / "docs" / "ADD_A_METHOD.md"
BLOCKS = [block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```python\n")[1:]]
TAKEN = "TAKEN = Method(name='finetune', summary='', paper='', view=WholeDocument(), objective=Prediction())"
OWN = f"{BLOCKS[0]}NOTHING = 3\n{TAKEN}\n"
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
    assert (found.name, found.defaults["learning_rate"]) == ("by_token", 1e-5)
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
        ("own_method:TAKEN", "is called 'finetune', as one of Afterword's"),
        ("by_token", r"is not known\. .*or package\.module:NAME of your own"),
    ],
)
def test_a_place_that_gives_no_method_is_named(place, words, module):
    with pytest.raises(ConfigError, match=words):
        get_method(place)


def test_a_method_of_an_installed_package_has_its_name(module, monkeypatch):
    points = {"theirs": EntryPoint("theirs", f"{module}:METHOD", "afterword.methods")}
    monkeypatch.setattr(plugins, "added", lambda kind: points if kind == "methods" else {})
    monkeypatch.syspath_prepend(str(plugins.os.getcwd()))
    assert get_method("theirs").name == "by_token"
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


# ---- a method that rewrites documents before training


@pytest.fixture
def retelling(tmp_path, monkeypatch):
    """The module of the page, and how often its model has written."""
    (RETOLD,) = (block for block in BLOCKS if "def prepare" in block)
    assert len([line for line in RETOLD.splitlines() if line]) <= 20
    (tmp_path / "my_retelling.py").write_text(RETOLD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(plugins.sys.modules, "my_retelling", raising=False)
    module = importlib.import_module("my_retelling")
    module.calls, module.dies_at, write = [], None, LocalGenerator.write

    def watched(self, requests, advance):
        module.calls.append(requests)
        if len(module.calls) == module.dies_at:
            raise KeyboardInterrupt
        return write(self, requests, advance)

    monkeypatch.setattr(LocalGenerator, "write", watched)
    monkeypatch.setattr(LocalGenerator, "batches", lambda self, requests: [[n] for n in range(len(requests))])
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path / "cache"))
    module.SAMPLING = Sampling(max_new_tokens=12)
    return module


@pytest.fixture
def chat_folder(model_folder, tmp_path):
    """The tiny model with a chat template."""
    folder = tmp_path / "chat"
    shutil.copytree(model_folder, folder)
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def hashes(run):
    state, data = (json.loads((run / f"{name}.json").read_text()) for name in ("state", "data"))
    return state["windows_sha256"], data["prepared_by_view"], data["content_sha256"]


def losses(run):
    return [json.loads(line)["train/loss_nats"] for line in (run / "metrics.jsonl").read_text().splitlines()]


HOW = {"max_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_length": 128}


def test_documents_are_written_once_and_trained(retelling, chat_folder, documents, tmp_path):
    how = {**HOW, "method": retelling.METHOD, "output_dir": str(tmp_path / "run")}
    run = afterword.adapt(chat_folder, documents, **how).path
    count = len(documents)
    assert len(retelling.calls) == count == len((run / "written.jsonl").read_text().splitlines())
    _, prepared, given = hashes(run)
    assert (prepared["view"], prepared["documents"] + prepared["skipped"]) == ("Retold", 2 * count)
    assert prepared["content_sha256"] != given
    assert json.loads((run / "data.json").read_text())["documents"] == count
    # A finished run is known as such by the documents that were written.
    assert afterword.adapt(chat_folder, documents, **how).already_complete
    assert len(retelling.calls) == count


def test_a_writing_that_is_killed_goes_on_and_ends_the_same(retelling, chat_folder, documents, tmp_path, monkeypatch):
    runs = [tmp_path / "through", tmp_path / "killed"]
    how = {**HOW, "method": retelling.METHOD}
    afterword.adapt(chat_folder, documents, **how, output_dir=str(runs[0]))
    retelling.calls.clear()
    retelling.dies_at = 4
    monkeypatch.setenv("AFTERWORD_CACHE", str(tmp_path / "another"))
    with pytest.raises(Interrupted):
        afterword.adapt(chat_folder, documents, **how, output_dir=str(runs[1]))
    # What was written by then is in the cache; the run had used nothing of it.
    assert not runs[1].exists()
    afterword.adapt(chat_folder, documents, **how, output_dir=str(runs[1]))
    assert len(retelling.calls) == len(documents) + 1
    assert (runs[0] / "written.jsonl").read_bytes() == (runs[1] / "written.jsonl").read_bytes()
    assert hashes(runs[0]) == hashes(runs[1])
    assert losses(runs[0]) == losses(runs[1])


def test_pilots_and_the_run_share_what_was_written(retelling, chat_folder, documents, tmp_path, monkeypatch):
    monkeypatch.setattr("afterword.budget.pilots.MOST_PILOTS", 2)
    how = {"method": retelling.METHOD, "max_length": 128, "num_train_epochs": 1, "forgetting_budget": "0.5"}
    run = afterword.adapt(chat_folder, documents, **how, output_dir=str(tmp_path / "run")).path
    assert json.loads((run / "budget.json").read_text())["pilots"]
    assert len(retelling.calls) == len(documents)


def test_a_dry_run_writes_nothing_and_says_so(retelling, chat_folder, documents):
    settings = {"model_name_or_path": chat_folder, "method": register_method(retelling.METHOD), **HOW}
    found = dry_run(read_settings(settings), documents)
    assert "the method asks for about 10 texts" in found.data["remark"]
    assert not retelling.calls


def test_a_trainer_of_ones_own_has_them_written_too(retelling, build_model, tokenizer, documents, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    args = training_arguments(retelling.METHOD, output_dir=str(tmp_path), use_cpu=True, max_steps=1)
    model, how = build_model("llama"), {"args": args, "processing_class": tokenizer, "method": retelling.METHOD}
    before = model.generation_config
    trainer = AdaptationTrainer(model, **how, train_dataset=documents, eval_dataset=documents[:1])
    ids = {trainer.windows[i].document for i in range(len(trainer.windows))}
    assert {i.partition("/")[0] for i in ids} == {i for i in ids if "/" not in i} < ids
    assert trainer.windows.written.documents > len(documents)
    assert len(retelling.calls) == len(documents)
    assert model.generation_config.to_dict() == before.to_dict()
    trainer.train()
