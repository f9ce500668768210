"""PDF as text: lines put back together to paragraphs; headings by their size, tables by their rulings.

Read apart only (see `apart`): PDFium is compiled code, and files are made to break it. A PDF says where marks are, not
what they mean: headings, paragraphs and tables are a guess that is right for pages as programs print them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from afterword.corpus.columns import CorpusOptions
from afterword.corpus.office import _document, _table
from afterword.corpus.rows import Origin, Rows
from afterword.storage.files import BadRowError

_HEADING = 1.15
"""A line so many times as high as the usual one is a heading."""
_MARGIN = 0.09
"""Part of a page's height, at its top and bottom, where headers and footers are looked for."""
_HYPHENS = "\x02\xad\ufffe"
"""What PDFium writes for a hyphen that only the line's end asked for."""
_ITEM = re.compile(r"([•◦▪‣–●○■*-]|\(?\d{1,3}[.)])\s")
Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points; the origin is below on the left."""


@dataclass
class _Line:
    text: str
    box: Box
    height: float
    furniture: bool = False
    """Whether it is where headers and footers are."""


@dataclass
class _Page:
    lines: list[_Line] = field(default_factory=list[_Line])


def pdf_rows(origin: Origin, options: CorpusOptions) -> Rows:
    """The one document that a PDF is."""
    import pypdfium2

    try:
        opened = pypdfium2.PdfDocument(origin.path)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        about = ("needs a password", "Save it without") if locked else (f"not readable: {error}",)
        raise BadRowError("broken", *about) from error
    pages, size = list[_Page](), 0
    for number in range(len(opened)):
        page = opened[number]
        pages.append(_page(page))
        page.close()
        size += sum(len(line.text) for line in pages[-1].lines)
        if size > options.max_document_bytes:
            raise BadRowError("broken", f"larger than max_document_mib = {options.max_document_mib:g}", "Raise it")
    if not size:
        raise BadRowError("no_text", f"no text on its {len(pages)} pages (scanned?). Let OCR make text of it")
    about = opened.get_metadata_dict()
    date = re.match(r"D:(\d{4})(\d\d)(\d\d)", about.get("CreationDate") or "")
    yield "", _document(_text(pages), _title(about.get("Title")), "-".join(date.groups()) if date else None)


def _title(said: str | None) -> str | None:
    """The title that a PDF says it has, unless it is what a program put there."""
    title = " ".join((said or "").split())
    return None if re.fullmatch(r"(untitled|\(?anonymous\)?|.*\.(docx?|indd|tex|dvi|qxd))?", title, re.I) else title


def _page(page: Any) -> _Page:
    text, (_, height) = page.get_textpage(), page.get_size()
    pieces = list(_pieces(text))
    tables = _tables(page)
    found = _Page()
    for piece, box, tall in pieces:
        table = next((t for t in tables if _inside(box, t.box)), None)
        if table:
            if not table.begun:
                table.begun = True
                found.lines.append(_Line("", table.box, 0))
                table.line = found.lines[-1]
            table.add(piece, box)
        elif found.lines and found.lines[-1].height and _same_line(found.lines[-1], box):
            last = found.lines[-1]
            gap = " " if box[0] - last.box[2] > 0.15 * tall and not last.text.endswith(" ") else ""
            last.text += gap + piece
            last.box = (last.box[0], min(last.box[1], box[1]), box[2], max(last.box[3], box[3]))
            last.height = max(last.height, tall)
        else:
            middle = (box[1] + box[3]) / 2
            found.lines.append(_Line(piece, box, tall, not _MARGIN * height < middle < (1 - _MARGIN) * height))
    for table in tables:
        if table.line:
            table.line.text = _table(table.cells()).strip()
    text.close()
    found.lines = [line for line in found.lines if line.text.strip()]
    return found


def _pieces(text: Any) -> Iterator[tuple[str, Box, float]]:
    """What is written without a change of font or line: the text, where, and how high the font is."""
    import ctypes

    from pypdfium2 import raw

    loose = raw.FS_RECTF()
    for number in range(text.count_rects()):
        box = text.get_rect(number)
        piece = text.get_text_bounded(*box).replace("\r\n", " ").strip()
        if not piece:
            continue
        at = text.get_index((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 5, 5)
        tall = box[3] - box[1]
        if at is not None and raw.FPDFText_GetLooseCharBox(text, at, ctypes.byref(loose)):
            tall = loose.top - loose.bottom
        yield piece, box, tall


def _same_line(line: _Line, box: Box) -> bool:
    middle = (box[1] + box[3]) / 2
    return line.box[1] - 1 <= middle <= line.box[3] + 1 and box[0] >= line.box[2] - 2


def _inside(box: Box, outer: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


@dataclass
class _Ruled:
    """A table as its lines draw it."""

    xs: list[float]
    ys: list[float]
    found: dict[tuple[int, int], list[str]] = field(default_factory=dict[tuple[int, int], list[str]])
    begun: bool = False
    line: _Line | None = None

    @property
    def box(self) -> Box:
        return self.xs[0], self.ys[0], self.xs[-1], self.ys[-1]

    def add(self, text: str, box: Box) -> None:
        """Put a text into the cell that its middle lies in."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        column, row = sum(x > edge for edge in self.xs[1:-1]), sum(y < edge for edge in self.ys[1:-1])
        self.found.setdefault((row, column), []).append(text)

    def cells(self) -> list[list[str]]:
        columns = range(len(self.xs) - 1)
        return [[" ".join(self.found.get((row, c), ())) for c in columns] for row in range(len(self.ys) - 1)]


def _tables(page: Any) -> list[_Ruled]:
    """Groups of crossing lines with at least two rows and two columns."""
    from pypdfium2 import raw

    flat, upright = list[Box](), list[Box]()
    for drawn in page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=4):
        left, bottom, right, top = box = drawn.get_bounds()
        if top - bottom < 3 <= right - left:
            flat.append(box)
        elif right - left < 3 <= top - bottom:
            upright.append(box)
        elif right - left >= 3:
            flat += [(left, y, right, y) for y in (bottom, top)]
            upright += [(x, bottom, x, top) for x in (left, right)]
    if len(flat) + len(upright) > 2000:  # A drawing.
        return []
    tables = []
    for group in _groups([*flat, *upright]):
        xs = _edges([box[0] for box in group if box in upright])
        ys = _edges([box[1] for box in group if box in flat])
        if len(xs) > 2 and len(ys) > 2:
            tables.append(_Ruled(xs, ys))
    return tables


def _groups(lines: list[Box]) -> list[list[Box]]:
    groups: list[tuple[Box, list[Box]]] = []
    for line in sorted(lines, key=lambda box: -box[3]):
        touching = [group for group in groups if _touch(group[0], line)]
        members = [line, *(each for group in touching for each in group[1])]
        boxes = [line, *(group[0] for group in touching)]
        whole = (*(min(b[i] for b in boxes) for i in (0, 1)), *(max(b[i] for b in boxes) for i in (2, 3)))
        groups = [group for group in groups if group not in touching] + [(whole, members)]  # type: ignore[list-item]
    return [members for _, members in groups]


def _touch(one: Box, other: Box) -> bool:
    return all(one[i] <= other[i + 2] + 2 and other[i] <= one[i + 2] + 2 for i in (0, 1))


def _edges(values: Sequence[float]) -> list[float]:
    edges: list[float] = []
    for value in sorted(values):
        if not edges or value - edges[-1] > 3:
            edges.append(value)
    return edges


def _text(pages: Sequence[_Page]) -> str:
    """Paragraphs, headings and tables of all pages. A header or footer that repeats is there once."""
    usual = median([line.height for page in pages for line in page.lines if line.height] or [1])
    right = max((line.box[2] for page in pages for line in page.lines if line.height), default=0)
    times = Counter(key for page in pages for key in {_key(line) for line in page.lines if line.furniture})
    repeated, told = {key for key, n in times.items() if n >= max(2, 0.5 * len(pages))}, set[str]()
    parts, before = list[str](), None
    for page in pages:
        for line in page.lines:
            if line.furniture and (key := _key(line)) in repeated:
                if key not in told:
                    told.add(key)
                    parts.append(f"\n\n{line.text}\n\n")
                continue
            parts.append(_between(before, line, usual, right) + _shown(line, usual))
            before = line
    whole = re.sub(rf"[{_HYPHENS}]\s*", "", "".join(parts))
    return re.sub(r"\n{3,}", "\n\n", whole).strip()


def _key(line: _Line) -> str:
    return re.sub(r"\d+", "#", line.text)


def _shown(line: _Line, usual: float) -> str:
    if not _is_heading(line, usual):
        return line.text
    return f"{'#' if line.height > 1.6 * usual else '##'} {line.text}"


def _is_heading(line: _Line, usual: float) -> bool:
    return line.height >= _HEADING * usual and len(line.text) < 200 and any(map(str.isalpha, line.text))


def _between(before: _Line | None, line: _Line, usual: float, right: float) -> str:
    """What stands between two lines: a blank line between paragraphs, a space where a line only ran out of room."""
    if before is None:
        return ""
    if _is_heading(line, usual) and _is_heading(before, usual) and abs(line.height - before.height) < 1:
        return "\n"
    if not line.height or not before.height or _is_heading(line, usual) or _is_heading(before, usual):
        return "\n\n"
    drop = before.box[1] - line.box[3]
    if 0 < drop > 0.7 * usual:
        return "\n\n"
    # On the next page or in the next column: the paragraph goes on where its last line was full.
    full = before.box[2] > 0.8 * right
    return " " if full and not _ITEM.match(line.text) else "\n"
