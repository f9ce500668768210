"""Every problem of the settings, said at once."""

import pytest

from afterword.comparison.grid import _aligning
from afterword.errors import ConfigError
from afterword.settings.adapt import read_settings
from afterword.settings.align import AlignSettings, following
from afterword.settings.mixture import sources_of


def problems(**raw):
    with pytest.raises(ConfigError) as caught:
        read_settings(raw, AlignSettings)
    return {problem.split(":")[0]: problem for problem in caught.value.problems}


def test_everything_that_is_missing_is_said_at_once():
    found = problems()
    assert list(found) == ["model_name_or_path", "output_dir", "instructions"]
    assert "so are preferences" in found["instructions"]


def test_wrong_values_are_told_with_the_rule():
    given = {"model_name_or_path": "m", "output_dir": "o", "preferences": "p.jsonl"}
    wrong = {"selection": "perplexty", "sft_batch_size": 10, "gradient_accumulation_steps": 4, "dpo_beta": 0}
    found = problems(**given, **wrong, quotas=["a=2.5", "b=0", "c=few", "d=true", "e=1.0"])
    assert "Did you mean perplexity" in found["selection"]
    assert "greater than 0" in found["dpo_beta"]
    assert "10 cannot be cut into 4 parts" in found["sft_batch_size"]
    assert [name for name in found if name.startswith("quotas")] == [f"quotas.{name}" for name in "abcde"]
    assert "Write a=100 or a=0.25" in found["quotas.a"]


def test_the_defaults_are_those_of_the_methods_page(settings_of):
    settings = settings_of(quotas=["a.jsonl=0.25", "b.jsonl=30"])
    assert settings.quotas == {"a.jsonl": 0.25, "b.jsonl": 30}
    assert (settings.instruction_count, settings.preference_count, settings.warmup_steps) == (1000, 1000, 0.03)
    assert settings.stage("sft") == {"learning_rate": 2e-5, "epochs": 1.0, "batch_size": 16}
    assert settings.stage("dpo") == {"learning_rate": 5e-7, "epochs": 1.0, "batch_size": 16}
    assert settings.dpo_beta == 0.1
    assert settings.samples() == {"instructions": ("i.jsonl",)}


def test_a_joiner_is_taken_as_it_stands():
    """YAML has no blanks at the ends of a text, and the joiner is made of them."""
    given = {"model_name_or_path": "m", "output_dir": "o", "then": "align"}
    for text, joiner in ((" ", " "), ("\n", "\n"), ("", ""), ('"\\n"', "\n"), ("' '", " "), ("null", "null")):
        settings = read_settings({**given, "align": ["instructions=i.jsonl", f"joiner={text}"]})
        assert following(settings).joiner == joiner
        asked = [f"g=q.jsonl,kind=instructions,once=true,joiner={text}"]
        mixed = read_settings({"model_name_or_path": "m", "method": "mixcpt", "mixture": asked})
        assert sources_of(mixed.mixture)["g"].joiner == joiner
    assert following(read_settings({**given, "align": ["instructions= i.jsonl "]})).instructions == ("i.jsonl",)
    # As a YAML file has it.
    mixture = {"g": {"files": ["q.jsonl"], "once": True, "joiner": " "}}
    mixed = read_settings({"model_name_or_path": "m", "method": "mixcpt", "mixture": mixture})
    assert sources_of(mixed.mixture)["g"].joiner == " "


def test_settings_that_came_later_change_no_recorded_fingerprint():
    """An alignment's part of a row's fingerprint has them where they were given, and only there."""
    given = {"instructions": ["none.jsonl"], "model_name_or_path": "m", "output_dir": "o"}
    before = _aligning(read_settings(given, AlignSettings))
    assert not {"joiner", "save_precision"} & set(before)
    for more in ({"joiner": "\n\n"}, {"save_precision": "float32"}):
        assert _aligning(read_settings({**given, **more}, AlignSettings)) == {**before, **more}
    for same in ({"save_precision": None}, {"save_precision": "auto"}):
        assert _aligning(read_settings({**given, **same}, AlignSettings)) == before
