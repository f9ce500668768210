"""A run folder is continued only by the same run, and checkpoints count only when they are whole."""

import json
import shutil
from dataclasses import replace

import pytest

from afterword import adapt
from afterword.errors import CheckpointError, ConfigError
from afterword.settings.adapt import read_settings
from afterword.storage.atomic import write_manifest
from afterword.storage.records import read_record
from afterword.training.checkpoints import checkpoint_step, last_complete_checkpoint, require_complete
from afterword.training.run_folder import Identity, RunFolder, environment

pytestmark = pytest.mark.usefixtures("unseen")

IDENTITY = Identity("model", "windows", "configuration")


def settings(**raw):
    return read_settings({"model_name_or_path": "m", **raw})


def begun(path, **raw):
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    assert resumed(folder, **raw) is None
    return folder


def resumed(folder, **raw):
    return folder.begin_or_resume(settings(**raw), settings(**raw), IDENTITY, {"documents": 3}, "afterword adapt")


def checkpoint(run, step, *, whole=True):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"{step}")
    if whole:
        write_manifest(folder)
    return folder


def test_a_new_run_writes_what_is_known_before_the_first_step(tmp_path):
    folder = begun(tmp_path / "run", seed=3)
    assert folder.exists()
    assert not folder.is_finished()
    given = {"model_fingerprint": "model", "windows_sha256": "windows", "configuration_sha256": "configuration"}
    assert folder.state() == {"status": "running", **given, "reference_fingerprint": None}
    assert {"config.yaml", "command.txt", "environment.json", "data.json", "state.json"} <= {
        file.name for file in folder.path.iterdir()
    }


def test_beginning_again_changes_nothing_of_what_was_written(tmp_path):
    folder = begun(tmp_path / "run", seed=3)
    before = (folder.path / "config.yaml").read_text()
    resumed(folder, seed=3, save_steps=7)
    assert (folder.path / "config.yaml").read_text() == before
    assert (folder.path / "command.txt").read_text() == "afterword adapt\n"
    assert read_record(folder.path / "data.json") == {"documents": 3}


def test_the_same_settings_continue_and_others_are_refused_by_name(tmp_path):
    folder = begun(tmp_path / "run", seed=3)
    folder.refuse_other_settings(settings(seed=3, save_steps=7, documents=["moved"]))
    with pytest.raises(ConfigError, match=r"seed: 3 in the run, 4 now"):
        folder.refuse_other_settings(settings(seed=4))


def test_files_of_general_text_may_move_and_nothing_else_of_it_may_change(tmp_path):
    mixture = {"g": {"files": ["a.jsonl"], "tokens": 0.3}, "h": "h.jsonl,once=true"}
    folder = begun(tmp_path / "run", method="cpt", mixture=mixture)

    def now(**sources):
        folder.refuse_other_settings(settings(method="cpt", mixture={**mixture, **sources}))

    now(g={"files": ["moved/b.jsonl"], "tokens": 0.3}, h={"files": ["h2.jsonl"], "once": True})
    with pytest.raises(ConfigError) as caught:
        now(g={"files": ["a.jsonl"], "tokens": 0.4, "kind": "instructions"})
    assert caught.value.problems[1:] == (
        "mixture.g.kind: 'documents' in the run, 'instructions' now.",
        "mixture.g.tokens: 0.3 in the run, 0.4 now.",
    )
    with pytest.raises(ConfigError, match=r"mixture\.new\.once: None in the run, True now"):
        now(new="new.jsonl,once=true")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            "model_fingerprint",
            r"model_name_or_path: .* trains another model than this \(its content differs\)\. Give the model of",
        ),
        (
            "configuration_sha256",
            r"model_name_or_path: .* a model of another configuration than this one \(config\.json differs\)",
        ),
        (
            "windows_sha256",
            r"documents: .* trains other documents than these \(their content differs, or files are read",
        ),
    ],
)
def test_another_model_or_other_documents_are_refused(changed, said, tmp_path):
    folder = begun(tmp_path / "run")
    folder.refuse_other_content(IDENTITY)
    with pytest.raises(CheckpointError, match=said):
        folder.refuse_other_content(replace(IDENTITY, **{changed: "other"}))


def test_files_that_could_not_be_read_are_said_before_the_first_step(model_folder, documents, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(documents[0]["text"])
    (tmp_path / "docs" / "theme.json").write_text('{"label": "Guide"}')
    adapt(str(model_folder), str(tmp_path / "docs"), output_dir=tmp_path / "run", max_steps=1, learning_rate=1e-4)
    said = f"skipped 1 file in {tmp_path}/docs, no document: {tmp_path}/docs/theme.json"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("status", ["running", "complete"])
def test_a_run_is_not_continued_with_another_configuration(status, model_folder, documents, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    run = {"output_dir": tmp_path / "run", "method": "disc", "max_steps": 2, "learning_rate": 1e-4}
    run["lr_scheduler_type"] = "linear"
    adapt(str(tmp_path / "model"), documents[:2], **run)
    state = {**read_record(tmp_path / "run/state.json"), "status": status}
    (tmp_path / "run/state.json").write_text(json.dumps(state))
    config = read_record(tmp_path / "model/config.json")
    (tmp_path / "model/config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(CheckpointError, match="trains a model of another configuration"):
        adapt(str(tmp_path / "model"), documents[:2], **run)
    # A run that does not say its configuration may be continued.
    (tmp_path / "run/state.json").write_text(json.dumps({**state, "configuration_sha256": None}))
    with pytest.raises(CheckpointError):
        adapt(str(tmp_path / "model"), documents[:2], **run)
    del state["configuration_sha256"]
    (tmp_path / "run/state.json").write_text(json.dumps(state))
    assert adapt(str(tmp_path / "model"), documents[:2], **run).steps == 2


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        RunFolder(tmp_path).refuse_other_settings(settings())


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "run").refuse_other_settings(settings())


def test_an_empty_or_missing_folder_is_taken(tmp_path):
    RunFolder(tmp_path).refuse_other_settings(settings())
    RunFolder(tmp_path / "a" / "b").refuse_other_settings(settings())


def test_a_run_is_finished_when_it_says_so_and_its_model_is_whole(tmp_path):
    folder = begun(tmp_path / "run")
    folder.write_state("complete", IDENTITY, steps=9)
    assert not folder.is_finished()
    (folder.path / "model.safetensors").write_text("weights")
    write_manifest(folder.path)
    assert folder.is_finished()
    (folder.path / "model.safetensors").write_text("changed")
    assert not folder.is_finished()


def test_a_damaged_file_of_a_run_is_said_to_be_damaged(tmp_path):
    (tmp_path / "state.json").write_text('{"status": ')
    with pytest.raises(CheckpointError, match="The run folder is damaged"):
        read_record(tmp_path / "state.json")


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    for step, whole in ((9, True), (10, True), (100, False)):
        checkpoint(tmp_path, step, whole=whole)
    (tmp_path / "checkpoint-200.partial").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").unlink()
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-9"
    assert checkpoint_step(tmp_path / "checkpoint-9") == 9


def test_resuming_cuts_the_metrics_back_to_the_checkpoint(tmp_path):
    folder = begun(tmp_path / "run")
    checkpoint(folder.path, 2)
    folder.metrics.write_text("".join(f'{{"step": {i}}}\n' for i in (1, 2, 3)))
    assert resumed(folder).name == "checkpoint-2"
    assert folder.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_resuming_without_a_checkpoint_starts_the_metrics_anew(tmp_path):
    folder = begun(tmp_path / "run")
    folder.metrics.write_text('{"step": 1}\n')
    assert resumed(folder) is None
    assert folder.metrics.read_text() == ""


def test_a_checkpoint_asked_for_must_be_whole(tmp_path):
    assert require_complete(checkpoint(tmp_path, 1)) == tmp_path / "checkpoint-1"
    with pytest.raises(CheckpointError, match="is not whole"):
        require_complete(checkpoint(tmp_path, 2, whole=False))
    with pytest.raises(CheckpointError, match="is no folder"):
        require_complete(tmp_path / "checkpoint-3")


def test_the_environment_names_versions_and_hardware():
    found = environment()
    assert {"afterword", "torch", "transformers", "python", "device", "commit", "created"} <= set(found)
    assert found["processes"] == 1
