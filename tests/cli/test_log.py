"""What README and the other pages rest on is recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
LOG = (DOCS / "LOG.md").read_text("utf-8")
RECORDS = {
    path: [entry for entry in path.read_text("utf-8").split("\n## ") if re.match(r"\d{4}-\d\d-\d\d · ", entry)]
    for path in (DOCS / "LOG.md", DOCS / "history.md", *sorted((DOCS / "studies").glob("*.md")))
}
"""The dated entries of every page that has any."""
TOLD = [(REPOSITORY / name).read_text("utf-8") for name in ("README.md", "docs/benchmarks.md")]
NAMED = sorted({name for text in TOLD for name in re.findall(r"benchmarks/(\w+\.py)", text)})


@pytest.mark.parametrize("script", NAMED)
def test_a_benchmark_that_readme_names_has_a_dated_entry(script: str) -> None:
    assert (REPOSITORY / "benchmarks" / script).is_file()
    assert any(f"benchmarks/{script}" in entry for entries in RECORDS.values() for entry in entries)


def test_the_log_lists_every_entry() -> None:
    titles = {entry.split("\n")[0] for entries in RECORDS.values() for entry in entries}
    assert len(titles) > 40
    assert sorted(title for title in titles if f"[{title}](" not in LOG and f"\n## {title}\n" not in LOG) == []


def test_the_log_says_what_is_left_to_do() -> None:
    assert "\n## Left to do\n" in LOG
