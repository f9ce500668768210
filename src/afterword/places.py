"""Where a name leads: into the home folder, or into the cache."""

import os
from pathlib import Path


def cache_folder(part: str) -> Path | None:
    """`part` of $AFTERWORD_CACHE, else of ~/.cache/afterword; None where the variable says off."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "afterword"
    folder = os.environ.get("AFTERWORD_CACHE") or usual
    return None if folder == "off" else Path(folder).expanduser() / part
