"""HTML as a reader sees it: title, date and text of a page, in one walk over its elements."""

import re
from collections.abc import Iterator
from typing import Any

from afterword.storage.files import BadRowError
from afterword.types import Document

_SEPARATED_TAGS = {
    "\n\n": "address article aside blockquote body dl div fieldset figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr main nav ol p pre section table ul",
    "\n": "br caption dd dt figcaption li option tr",
    "  ": "td th",
}
_SEPARATOR = {name: separator for separator, names in _SEPARATED_TAGS.items() for name in names.split()}
_UNSEEN = {"script", "style", "noscript", "template", "title"}
_KEPT_SPACE = "\N{NO-BREAK SPACE}"  # Stands for the spaces inside <pre> until the lines are trimmed.
_DATES = (
    "article:published_time",
    "date",
    "dc.date",
    "dcterms.date",
    "dcterms.created",
    "pubdate",
    "article:modified_time",
)
"""Names under which pages say when they were written; the earlier wins."""


def read_html(markup: str, *, markdown: bool = False) -> Document:
    """Title, date and readable text. Blocks are separated by blank lines, list items and rows by line ends.

    With `markdown`, headings, items and the cells of tables have the marks that Markdown gives them. Takes time in
    proportion to the length of the page.
    """
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    try:
        soup = BeautifulSoup(markup, "html.parser")
    except (ParserRejectedMarkup, RecursionError) as error:
        raise BadRowError("broken", f"not readable as HTML: {error}") from error
    title = " ".join(soup.title.get_text().split()) if soup.title else None
    whole = "".join(_marked(soup) if markdown else _pieces(soup)).strip(" \n")
    # Line by line: a pattern for spaces around line ends would try every run of spaces from each of its places.
    trimmed = "\n".join(line.strip(" ") for line in whole.split("\n")).replace(_KEPT_SPACE, " ").rstrip()
    return Document("", re.sub(r"\n{3,}", "\n\n", trimmed), title, _date(soup))


def _pieces(soup: Any) -> Iterator[str]:
    """The text between its separators, in the order in which it is read."""
    kinds, inside_pre = soup.interesting_string_types, 0
    # What is still to be read, the next last: an element, or what follows one that ends.
    waiting: list[Any] = [*reversed(soup.contents)]
    while waiting:
        node = waiting.pop()
        if type(node) is tuple:
            name, separator = node
            inside_pre -= name == "pre"
            yield separator
        elif hasattr(node, "contents"):
            if node.name in _UNSEEN:
                continue
            separator = _SEPARATOR.get(node.name, "")
            yield separator
            inside_pre += node.name == "pre"
            waiting.append((node.name, separator if separator == "\n\n" else ""))
            waiting += reversed(node.contents)
        elif type(node) in kinds:
            # Line ends of the source mean nothing outside <pre>, and everything inside.
            yield node.replace(" ", _KEPT_SPACE) if inside_pre else re.sub(r"\s+", " ", node)


def _marked(soup: Any) -> Iterator[str]:
    """The same with Markdown's marks. A row of a table stays on one line, whatever blocks its cells hold."""
    for tag in soup.find_all([f"h{level}" for level in range(1, 7)]):
        tag.insert(0, f"{'#' * int(tag.name[1])} ")
    for tag in soup.find_all("li"):
        tag.insert(0, "- ")
    for table in soup.find_all("table"):
        if table.find_parent("table"):
            continue
        rows = [[" ".join(cell.get_text(" ").split()) for cell in row.find_all(["td", "th"])] for row in table("tr")]
        table.clear()
        table.name, width = "pre", max(map(len, rows), default=0)
        lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in rows if row]
        table.append("\n".join([*lines[:1], *(["|" + " --- |" * width] if lines else []), *lines[1:]]))
    yield from _pieces(soup)


def _date(soup: Any) -> str | None:
    said = {}
    for meta in soup.find_all("meta"):
        name = str(meta.get("property") or meta.get("name") or meta.get("itemprop") or "").lower()
        said.setdefault(name, str(meta.get("content") or "").strip())
    return next((said[name] for name in _DATES if said.get(name)), None)
