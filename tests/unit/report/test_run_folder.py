"""A folder that is not a finished run is refused with the file and the remedy."""

import json
import re

import pytest

from afterword.errors import CheckpointError
from afterword.report import write_model_card, write_report
from afterword.report.run_folder import load_run

REQUIRED = ["config.yaml", "command.txt", "environment.json", "metrics.jsonl", "data.json"]


def _edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: there is no such run folder.*afterword adapt"):
        write_report(tmp_path / "nowhere")


def test_a_folder_of_scores_alone_is_told_from_a_run(tmp_path):
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds scores, but no run .*without -o .*give the run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize("write", [write_report, write_model_card])
@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_file_is_named_with_the_remedy(run, name, write):
    (run / name).unlink()
    with pytest.raises(CheckpointError, match=f"{re.escape(name)}: missing.*afterword adapt"):
        write(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "metrics.jsonl", "data.json", "state.json"])
@pytest.mark.parametrize("content", [b'{"half": \n', b"[1, 2]\n", b"\xff\xfe\x00\n"])
def test_a_broken_file_is_named_with_the_remedy(run, name, content):
    (run / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)}: broken.*afterword adapt") as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


def test_broken_scores_name_the_field_and_the_command_that_measures(run):
    _edit(run / "scores.json", lambda raw: raw["scores"][2].pop("metric"))
    with pytest.raises(CheckpointError, match=r"scores\.json: broken \(scores\.2\.metric.*afterword evaluate"):
        load_run(run)


def test_scores_of_another_format_are_refused(run):
    _edit(run / "scores.json", lambda raw: raw.update(format=2))
    with pytest.raises(CheckpointError, match="format"):
        load_run(run)


def test_an_interval_that_is_no_pair_is_refused(run):
    for interval in (3, [1.0]):
        _edit(
            run / "scores.json", lambda raw, x=interval: raw["scores"][0].update(change={"value": 1, "interval_95": x})
        )
        with pytest.raises(CheckpointError, match=r"scores\.0\.change\.interval_95"):
            load_run(run)


def test_a_broken_metrics_row_is_named_by_its_line(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n')
    with pytest.raises(CheckpointError, match=r"line 2\.step: must be whole number, but is missing"):
        load_run(run)


def test_a_row_that_is_no_json_is_named_by_its_line(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match="line 3 column 1"):
        load_run(run)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data.json", lambda raw: raw.pop("documents"), "documents: must be whole number, but is missing"),
        ("data.json", lambda raw: raw["sources"][1].update(documents="4"), r"sources\.1\.documents: .* not '4'"),
        ("state.json", lambda raw: raw.update(seconds=[]), "seconds: must be number"),
        ("scores.json", lambda raw: raw["answers"][3].pop("after"), r"answers\.3\.after: must be text"),
        ("scores.json", lambda raw: raw["samples"].append("text"), r"samples\.2: must be mapping"),
    ],
)
def test_a_field_that_is_missing_or_of_another_kind_is_named(run, name, change, message):
    _edit(run / name, change)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)}: broken .{message}"):
        load_run(run)


def test_the_half_row_of_a_killed_run_is_not_an_error(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "train/lo')
    assert load_run(run)["metrics"] == [{"step": 1}]


def test_what_is_not_a_number_was_not_measured(run):
    def break_bound(raw):
        raw["scores"][0]["change"]["interval_95"][1] = float("inf")

    _edit(run / "scores.json", break_bound)
    scores = load_run(run)["measured"]["scores"]
    assert not scores[0]["change"]["interval_95"]
    assert not scores[-1]["before"]


def test_optional_keys_may_be_absent(run):
    (run / "data.json").write_text('{"documents": 1, "sources": [{"source": "a.md", "documents": 1}]}')
    (run / "state.json").unlink()
    (run / "metrics.jsonl").write_text("")
    (run / "scores.json").write_text('{"format": 1, "scores": []}')
    html, _ = write_report(run)
    assert "Qwen3-1.7B was taught 1 document in 0 optimizer steps." in html.read_text()


def test_access_tokens_are_hidden(run):
    write_model_card(run)
    for file in (*write_report(run), run / "README.md"):
        assert "hf_secret" not in file.read_text()
