"""Every link between pages leads somewhere, also to a heading; and every page is in the navigation. No network."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
GENERATED = {DOCS / "reference" / f"{name}.md" for name in ("settings", "commands", "methods", "measures", "checks")}
"""Pages that are made of the code; test_reference.py looks into them."""
FIGURES = {DOCS / "images" / "almanac-frontier.png"}
"""Those that the site takes from beside the rows of a study."""
PAGES = [*(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")), *sorted(DOCS.rglob("*.md"))]


def _text(page: Path) -> str:
    """A page without its code, in which brackets are no links."""
    without_blocks = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", without_blocks)


def _anchor(heading: str) -> str:
    """As mkdocs makes it of a heading."""
    plain = unicodedata.normalize("NFKD", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
    kept = re.sub(r"[^\w\s-]", "", plain.encode("ascii", "ignore").decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", kept)


def _anchors(page: Path) -> set[str]:
    without_blocks = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", without_blocks, re.MULTILINE)}


def _broken(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if target in GENERATED | FIGURES and page.is_relative_to(DOCS):
            continue
        inside = target.is_relative_to(DOCS) or not page.is_relative_to(DOCS)
        if not inside or not target.is_file() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert _broken(page) == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = str(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))["nav"])
    # Pages on extensions are put there when the site is built.
    pages = [page for page in sorted({*DOCS.rglob("*.md"), *GENERATED}) if not page.name.startswith("ADD_A_")]
    assert [str(page) for page in pages if f"'{page.relative_to(DOCS)}'" not in navigation] == []
