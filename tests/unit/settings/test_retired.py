"""Configurations of versions before are read, or say in one sentence what to do now."""

from typing import Literal

import pytest
import yaml

from afterword.errors import ConfigError
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.base import Settings, later, setting, without_problems
from afterword.settings.retired import OF_ADAPT, Retired, RetiredName, RetiredValue
from afterword.training import RunFolder
from afterword.training.run_folder import differences


class Tree(Settings):
    """Settings of which two and two values are there no longer."""

    retired = Retired(
        names={"speed": RetiredName("all are quick. Leave it out.", any_value=True), "depth": RetiredName("Use kind.")},
        values={("kind", "old"): RetiredValue("Use new.", False), ("kind", "same"): RetiredValue("Use new.", True)},
    )
    kind: Literal["new"] | None = later("A", "Kind.", exact=("new",))
    size: int = setting(1, "A", "Size.")


@pytest.mark.parametrize("raw", [{"speed": 3}, {"speed": None}, {"speed": "off"}, {"depth": None}])
def test_what_had_no_effect_is_passed_over(raw):
    assert read_settings({**raw, "size": 2}, Tree) == Tree(size=2)
    assert without_problems(raw, Tree) == (Tree(), set())


@pytest.mark.parametrize(
    ("raw", "problem"),
    [({"depth": 4}, "depth: Use kind."), ({"kind": "old"}, "kind: Use new."), ({"kind": "same"}, "kind: Use new.")],
)
def test_what_had_an_effect_is_one_sentence(raw, problem):
    with pytest.raises(ConfigError) as caught:
        read_settings(raw, Tree)
    assert list(caught.value.problems) == [problem]


def test_a_value_of_before_that_led_to_the_same_weights_counts_as_none():
    values = ("same", "new", "old", None)
    assert [Tree.without_effect("kind", value) for value in values] == [None, None, "old", None]


def test_every_sentence_has_a_remedy():
    for about in (*OF_ADAPT.names.values(), *OF_ADAPT.values.values()):
        assert any(word in about.sentence for word in ("Leave it out", "Use ")), about.sentence


@pytest.fixture
def begun(tmp_path):
    """A function that writes what a run of before left in its folder."""

    def folder(**saved):
        settings = read_settings({"model_name_or_path": "m", "output_dir": str(tmp_path)})
        record = yaml.safe_dump({**settings.model_dump(mode="json"), **saved})
        for name in ("asked.yaml", "config.yaml"):
            (tmp_path / name).write_text(record)
        return settings

    return folder


OF_BEFORE = {"preparation_workers": 2, "preparation_cache": "off", "teacher_top_k": None}


@pytest.mark.parametrize("teacher", ["offload_disk", "cached", None])
def test_a_run_of_before_goes_on(begun, tmp_path, teacher):
    asked = begun(**OF_BEFORE, teacher=teacher).model_copy(update={"teacher": "offload"})
    run = RunFolder(tmp_path)
    run.refuse_other_settings(asked)
    used = run.used(asked)
    assert used is not None
    assert used.teacher == ("offload" if teacher == "offload_disk" else teacher)


def test_a_run_of_before_with_another_gradient_does_not(begun, tmp_path):
    asked = begun(teacher="top_k", teacher_top_k=64)
    with pytest.raises(ConfigError, match="teacher: 'top_k' in the run, None now"):
        RunFolder(tmp_path).refuse_other_settings(asked)
    assert differences({"teacher": "offload_disk", **OF_BEFORE}, AdaptSettings()) == []
