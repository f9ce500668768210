"""Web pages become plain text: what a reader would see, with blocks apart, and the title."""

import re
import warnings

from afterword.corpus.lines import BadRowError

_UNREAD = ("script", "style", "noscript", "template", "title")
_BLOCKS = (
    "address article aside blockquote body dl div fieldset figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr main nav ol p pre section table ul"
)
_LINES = "br caption dd dt figcaption li option tr"
# Stands for a space that means something, as inside <pre>, until the lines are trimmed.
_KEPT_SPACE = "\N{NO-BREAK SPACE}"


def text_of_html(markup: str) -> tuple[str | None, str]:
    """Title and readable text. Blocks are separated by blank lines, list items and rows by line ends."""
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A page that looks like XML or like a file name is still a page.
        try:
            soup = BeautifulSoup(markup, "html.parser")
        except ParserRejectedMarkup as error:
            raise BadRowError("broken", f"not readable as HTML: {error}") from error
    title = " ".join(soup.title.get_text().split()) if soup.title else None
    for tag in soup.find_all(_UNREAD):
        tag.decompose()
    for string in list(soup.strings):
        kept = string.replace(" ", _KEPT_SPACE) if string.find_parent("pre") else re.sub(r"\s+", " ", string)
        string.replace_with(kept)
    for tag in soup.find_all((_BLOCKS + " " + _LINES).split()):
        ...
    return title or None, ""
