"""What README and the other pages rest on is recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README, LOG = ((REPOSITORY / name).read_text("utf-8") for name in ("README.md", "docs/LOG.md"))
NAMED = sorted(set(re.findall(r"benchmarks/(\w+\.py)", README)))


@pytest.mark.parametrize("script", NAMED)
def test_a_benchmark_that_readme_names_has_a_dated_entry_in_the_log(script: str) -> None:
    assert (REPOSITORY / "benchmarks" / script).is_file()
    dated = [entry for entry in LOG.split("\n## ") if re.match(r"\d{4}-\d\d-\d\d · ", entry)]
    assert any(f"benchmarks/{script}" in entry for entry in dated)
