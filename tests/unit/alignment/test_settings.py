"""Every problem of the settings, said at once."""

import pytest

from afterword.alignment.settings import AlignSettings
from afterword.config import read_settings
from afterword.errors import ConfigError


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
