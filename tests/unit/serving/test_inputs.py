"""What is wrong with an export is told at once, by names alone."""

import pytest

from afterword.errors import CheckpointError, ConfigError
from afterword.serving.converter import SCRIPT
from afterword.serving.inputs import check
from afterword.settings.adapt import read_settings
from afterword.settings.export import ExportSettings


def asked(model, converter=None):
    return read_settings({"model_name_or_path": model, "output_dir": "out", "converter": converter}, ExportSettings)


def test_a_wrong_model_is_told_beside_a_converter_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        check(asked("./nowhere"))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["model_name_or_path", "converter"]
    with pytest.raises(ConfigError) as caught:
        check(asked(str(tmp_path)))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["converter"]


def test_a_model_of_the_hub_is_to_be_a_folder_first(tmp_path):
    (tmp_path / SCRIPT).write_text("")
    assert check(asked("almanac-chat", str(tmp_path))) == tmp_path / SCRIPT
    with pytest.raises(CheckpointError, match="'org/model' is not here, and a folder is converted"):
        check(asked("org/model", str(tmp_path)))
