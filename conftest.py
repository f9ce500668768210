"""Which modules of the package pytest looks through for examples."""

from __future__ import annotations

from pathlib import Path

SOURCE = Path(__file__).parent / "src"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Those without one are not imported for it, in every process of the tests: trl alone takes seconds."""
    if collection_path.suffix != ".py" or not collection_path.is_relative_to(SOURCE):
        return None
    return ">>> " not in collection_path.read_text(encoding="utf-8") or None
