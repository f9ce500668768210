"""Web pages become plain text: what a reader would see, with blocks apart, and the title."""

import re

from afterword.corpus.columns import BadRowError
from afterword.types import Document

_SEPARATED_TAGS = {
    "\n\n": "address article aside blockquote body dl div fieldset figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr main nav ol p pre section table ul",
    "\n": "br caption dd dt figcaption li option tr",
    "  ": "td th",
}
_KEPT_SPACE = "\N{NO-BREAK SPACE}"  # Stands for the spaces inside <pre> until the lines are trimmed.


def read_html(markup: str) -> Document:
    """Title and readable text. Blocks are separated by blank lines, list items and rows by line ends."""
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    try:
        soup = BeautifulSoup(markup, "html.parser")
    except ParserRejectedMarkup as error:
        raise BadRowError("broken", f"not readable as HTML: {error}") from error
    title = " ".join(soup.title.get_text().split()) if soup.title else None
    for tag in soup.find_all(["script", "style", "noscript", "template", "title"]):
        tag.decompose()
    for string in list(soup.strings):
        # Line ends of the source mean nothing outside <pre>, and everything inside.
        pattern, kept = (" ", _KEPT_SPACE) if string.find_parent("pre") else (r"\s+", " ")
        string.replace_with(re.sub(pattern, kept, string))
    for separator, names in _SEPARATED_TAGS.items():
        for tag in soup.find_all(names.split()):
            tag.insert_before(separator)
            if separator == "\n\n":
                tag.insert_after(separator)
    trimmed = re.sub(r" *\n *", "\n", soup.get_text().strip(" \n")).replace(_KEPT_SPACE, " ").rstrip()
    return Document("", re.sub(r"\n{3,}", "\n\n", trimmed), title)
