"""Web pages become plain text: what a reader would see, with blocks apart, and the title."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_UNREAD_TAGS = ("script", "style", "noscript", "template", "title")
# Private characters, which no text means, hold a place until the lines are trimmed: a space inside <pre>,
# and a line end that is one line end however many elements close at it.
_KEPT_SPACE = "\ue000"
_LINE_END = "\ue001"
_SEPARATED_TAGS = {
    "\n\n": "address article aside blockquote body dl div fieldset figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr main nav ol p pre section table ul",
    _LINE_END: "caption dd dt figcaption li option tr",
    " ": "td th",
}


class MarkupError(ValueError):
    """A page that the parser refuses."""


def text_of_html(markup: str) -> tuple[str | None, str]:
    """Title and readable text. Blocks are separated by blank lines, list items and rows by line ends."""
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A page that looks like XML or like a file name is still a page.
        try:
            soup = BeautifulSoup(markup, "html.parser")
        except ParserRejectedMarkup as error:
            raise MarkupError(f"not readable as HTML: {error}") from error
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for tag in soup.find_all(_UNREAD_TAGS):
        tag.decompose()
    _normalise_spaces(soup)
    _separate_blocks(soup)
    readable = re.sub(rf"[ {_LINE_END}]*{_LINE_END}[ {_LINE_END}]*", "\n", soup.get_text())
    lines = (line.strip().replace(_KEPT_SPACE, " ").rstrip() for line in readable.split("\n"))
    return title or None, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _normalise_spaces(soup: BeautifulSoup) -> None:
    """Line ends of the source mean nothing outside <pre>, and everything inside."""
    for pre in soup.find_all("pre"):
        for string in pre.find_all(string=True):
            string.replace_with(string.replace(" ", _KEPT_SPACE).replace("\n", _KEPT_SPACE + "\n"))
    for string in soup.find_all(string=re.compile(r"\s")):
        if _KEPT_SPACE not in string and type(string).__name__ == "NavigableString":
            string.replace_with(re.sub(r"\s+", " ", string))


def _separate_blocks(soup: BeautifulSoup) -> None:
    for tag in soup.find_all("br"):
        tag.replace_with("\n")
    for separator, names in _SEPARATED_TAGS.items():
        for tag in soup.find_all(names.split()):
            tag.insert_before(separator)
            tag.insert_after(separator)
