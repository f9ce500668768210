"""Word, PowerPoint, Excel and e-books as text: headings, lists and tables as Markdown has them.

Read apart only (see `apart`): the libraries open whatever the file says. What a reader of the printed page does not
see, and what repeats on every page (headers, footers), is not in the text.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from afterword.corpus.columns import CorpusOptions
from afterword.corpus.html import read_html
from afterword.corpus.rows import Origin, Rows
from afterword.storage.files import BadRowError
from afterword.types import Document

_EXPANDED = 8
"""A packed file may come to so many times the largest document: pictures are in it, which are not read."""
_HEADING = re.compile(r"heading (\d)", re.I)


def docx_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The one document that a Word file is."""
    import docx
    from docx.table import Table

    _refuse_bomb(origin, options)
    opened = docx.Document(origin.path)
    blocks = (_table(_cells(b)) if isinstance(b, Table) else _paragraph(b) for b in opened.iter_inner_content())
    about = opened.core_properties
    yield "", _document(_joined(blocks), about.title, about.created)


def _cells(table: Any) -> Iterator[list[str]]:
    return ([cell.text for cell in row.cells] for row in table.rows)


def _paragraph(paragraph: Any) -> str:
    text, style = paragraph.text.strip(), str(getattr(paragraph.style, "name", "") or "")
    if not text:
        return ""
    if found := _HEADING.match(style):
        return f"\n{'#' * int(found[1])} {text}\n"
    if style == "Title":
        return f"\n# {text}\n"
    properties = paragraph._p.pPr
    listed = style.startswith("List") or (properties is not None and properties.numPr is not None)
    return f"- {text}" if listed else f"\n{text}\n"


def pptx_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The one document that a presentation is, a heading for every slide."""
    import pptx

    _refuse_bomb(origin, options)
    opened = pptx.Presentation(origin.path)
    blocks = (block for slide in opened.slides for block in _slide(slide))
    yield "", _document(_joined(blocks), opened.core_properties.title, opened.core_properties.created)


def _slide(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    yield f"\n## {' '.join(title.text.split())}\n" if title is not None and title.text.strip() else "\n"
    # A wrapper is made anew each time that a shape is asked for.
    yield from _shapes(slide.shapes, None if title is None else title.shape_id)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) and frame.text.strip():
        yield f"\n{frame.text.strip()}\n"


def _shapes(shapes: Iterable[Any], title: int | None) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes, title)
        elif getattr(shape, "has_table", False):
            yield _table([cell.text for cell in row.cells] for row in shape.table.rows)
        elif getattr(shape, "has_text_frame", False) and shape.shape_id != title:
            yield "\n" + "\n".join(p.text.strip() for p in shape.text_frame.paragraphs if p.text.strip()) + "\n"


def xlsx_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """A document for every sheet of a workbook that holds anything: a table of values, not of formulas."""
    import openpyxl

    _refuse_bomb(origin, options)
    book = openpyxl.load_workbook(origin.path, read_only=True, data_only=True)
    about = book.properties
    for sheet in book.worksheets:
        rows = ([_value(cell) for cell in row] for row in sheet.iter_rows(values_only=True))
        table = _table(row for row in rows if any(row)).strip()
        if table:
            section = " ".join(sheet.title.split())
            yield f"sheet {section}", _document(f"## {section}\n\n{table}", about.title, about.created, section)


def _value(cell: Any) -> str:
    return "" if cell is None else str(cell).removesuffix(" 00:00:00")


def epub_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """A document for every chapter of an e-book, in the order in which it is read."""
    from bs4 import BeautifulSoup

    _refuse_bomb(origin, options)
    with zipfile.ZipFile(origin.path) as book:
        container = BeautifulSoup(book.read("META-INF/container.xml"), "html.parser")
        place = str(_first(container, "rootfile")["full-path"])
        package, folder = BeautifulSoup(book.read(place), "html.parser"), place.rpartition("/")[0]
        title, date = (_said(package, name) for name in ("dc:title", "dc:date"))
        items = {str(item["id"]): item for item in package.find_all("item") if item.get("id") and item.get("href")}
        chapters = [items[str(ref.get("idref"))] for ref in package.find_all("itemref") if ref.get("idref") in items]
        for number, chapter in enumerate(chapters, start=1):
            if "nav" in str(chapter.get("properties") or "").split():
                continue
            page = read_html(_content(book, folder, str(chapter["href"])), markdown=True)
            heading = re.search(r"^#+ (.+)$", page.text, re.M)
            if page.text.strip():
                section = heading[1].strip() if heading else page.title
                yield f"chapter {number}", _document(page.text, title, date, section)


def _content(book: zipfile.ZipFile, folder: str, link: str) -> str:
    from posixpath import join, normpath
    from urllib.parse import unquote

    return book.read(normpath(join(folder, unquote(link.partition("#")[0])))).decode("utf-8-sig", "surrogateescape")


def _first(soup: Any, name: str) -> Any:
    if (found := soup.find(name)) is None:
        raise BadRowError("broken", f"no {name} in it, so it is no e-book")
    return found


def _said(soup: Any, name: str) -> str | None:
    return " ".join(found.get_text().split()) if (found := soup.find(name)) else None


def _refuse_bomb(origin: Origin, options: CorpusOptions) -> None:
    """A BadRowError for a file that is no archive, needs a password, or comes to far more than a document may."""
    try:
        with zipfile.ZipFile(origin.path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        # What Office writes with a password is no archive, but begins like its older formats.
        with open(origin.path, "rb") as file:
            locked = file.read(4) == b"\xd0\xcf\x11\xe0"
        old = ("needs a password, or is of an older format (.doc, .xls, .ppt)", "Save it anew")
        raise BadRowError("broken", *(old if locked else (f"not readable: {error}",))) from error
    most = _EXPANDED * options.max_document_bytes
    if sum(entry.file_size for entry in entries) > most:
        raise BadRowError("broken", f"unpacked it is larger than {most // 2**20} MiB, 8 × max_document_mib")
    if any(entry.flag_bits & 1 for entry in entries):
        raise BadRowError("broken", "needs a password", "Save it without")


def _table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its first row is the head."""
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    width = max((max((i for i, cell in enumerate(line, start=1) if cell), default=0) for line in lines), default=0)
    if not width:
        return ""
    shown = [f"| {' | '.join((line + [''] * width)[:width])} |" for line in lines]
    return "\n" + "\n".join([shown[0], "|" + " --- |" * width, *shown[1:]]) + "\n"


def _joined(blocks: Iterable[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(block for block in blocks if block)).strip()


def _document(text: str, title: Any, date: Any, section: str | None = None) -> Document:
    if not text.strip():
        raise BadRowError("no_text", "no text in it")
    return Document("", text, title or None, str(date)[:10] if date else None, section=section)
