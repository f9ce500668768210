"""Settings of an alignment with what every one needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from afterword.settings.adapt import read_settings
from afterword.settings.align import AlignSettings


@pytest.fixture
def settings_of() -> Callable[..., Any]:
    """Settings with what every alignment needs filled in."""
    needed = {"model_name_or_path": "m", "output_dir": "o", "instructions": ["i.jsonl"], "precision": "float32"}
    return lambda **raw: read_settings({**needed, **raw}, AlignSettings)
