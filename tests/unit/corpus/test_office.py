"""PDF, Word, PowerPoint, Excel and e-books: headings and tables stay text; what cannot be read is named."""

import zipfile

import pytest

from afterword.corpus import CorpusOptions, read_corpus
from afterword.errors import DataError

for package in ("docx", "pptx", "openpyxl", "pypdfium2"):
    pytest.importorskip(package, reason="pip install 'afterword[documents]'")

TABLE = [["Crane", "Load"], ["North", "40 t"]]
AS_MARKDOWN = "| Crane | Load |\n| --- | --- |\n| North | 40 t |"


def read(source, tmp_path, **options):
    return read_corpus(source, cache_dir=tmp_path / "cache", options=CorpusOptions(**options))


def word(path):
    import docx

    made = docx.Document()
    made.core_properties.title = "Handbook of Vik"
    made.sections[0].header.paragraphs[0].text = "Vik Harbour Co."
    made.add_heading("Safety", 1)
    made.add_paragraph("Wear gloves. The crane lifts 40 tonnes.")
    made.add_heading("Gloves", 2)
    made.add_paragraph("leather", style="List Bullet")
    table = made.add_table(2, 2)
    for row, values in enumerate(TABLE):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    made.save(path)


def slides(path):
    import pptx
    from pptx.util import Inches

    made = pptx.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Harbour", "Two cranes"
    slide.notes_slide.notes_text_frame.text = "Say hello."
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(3), Inches(4), Inches(1)).table
    for row, values in enumerate(TABLE):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    made.save(path)


def workbook(path):
    import openpyxl

    made = openpyxl.Workbook()
    made.active.title = "Cranes"
    for row in [*TABLE, [None, None], ["a|b", 3]]:
        made.active.append(row)
    made.create_sheet("Empty")
    made.save(path)


def ebook(
    path, chapters=("<h1>One</h1><p>First.</p>", "<h2>Two</h2><table><tr><th>A</th></tr><tr><td>1</td></tr></table>")
):
    items = "".join(f'<item id="c{i}" href="c{i}.xhtml"/>' for i in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("META-INF/container.xml", '<container><rootfile full-path="OEBPS/a.opf"/></container>')
        about = "<metadata><dc:title>Vik</dc:title><dc:date>2025-02-03</dc:date></metadata>"
        book.writestr("OEBPS/a.opf", f"<package>{about}<manifest>{items}</manifest><spine>{spine}</spine></package>")
        for i, chapter in enumerate(chapters):
            book.writestr(f"OEBPS/c{i}.xhtml", f"<html><body>{chapter}</body></html>")


def mark(at):
    x, y, third, fourth = at
    text = isinstance(fourth, str)
    return f"BT /F1 {third} Tf {x} {y} Td ({fourth}) Tj ET\n" if text else f"{x} {y} m {third} {fourth} l S\n"


def pdf(path, pages, title="Handbook"):
    """A PDF written by hand: of each page (x, y, font size, text) and lines (x0, y0, x1, y1)."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for marks in pages:
        drawn = "".join(
            f"BT /F1 {m[2]} Tf {m[0]} {m[1]} Td ({m[3]}) Tj ET\n"
            if isinstance(m[3], str)
            else f"{m[0]} {m[1]} m {m[2]} {m[3]} l S\n"
            for m in marks
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}endstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    objects.append(f"<< /Title ({title}) /CreationDate (D:20250203101112) >>")
    content, places = "%PDF-1.4\n", []
    for number, each in enumerate(objects, start=1):
        places.append(len(content))
        content += f"{number} 0 obj\n{each}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>"
    index = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    path.write_text(f"{content}{index}trailer\n{trailer}\nstartxref\n{len(content)}\n%%EOF\n")


LONG = "The crane of the north quay lifts forty tonnes of timber on any day of the"
PAGES = [
    [
        *((72, 800, 9, "Vik Harbour Co."), (72, 740, 18, "Safety")),
        *((72, 700, 10, LONG), (72, 688, 10, "year. It is new.")),
        *((80, 640, 10, "Crane"), (180, 640, 10, "Load"), (80, 620, 10, "North"), (180, 620, 10, "40 t")),
        *((72, y, 272, y) for y in (652, 634, 614)),
        *((x, 614, x, 652) for x in (72, 172, 272)),
        (72, 30, 9, "Page 1 of 2"),
    ],
    [(72, 800, 9, "Vik Harbour Co."), (72, 700, 10, "Ships bring timber."), (72, 30, 9, "Page 2 of 2")],
]


def test_word_keeps_headings_lists_and_tables_and_says_its_title(tmp_path):
    word(tmp_path / "a.docx")
    (document,) = read(tmp_path / "a.docx", tmp_path)
    assert document.title == "Handbook of Vik"
    assert document.text == (
        f"# Safety\n\nWear gloves. The crane lifts 40 tonnes.\n\n## Gloves\n\n- leather\n\n{AS_MARKDOWN}"
    )


def test_slides_are_one_document_with_titles_tables_and_notes(tmp_path):
    slides(tmp_path / "a.pptx")
    (document,) = read(tmp_path / "a.pptx", tmp_path)
    assert document.text == f"## Harbour\n\nTwo cranes\n\n{AS_MARKDOWN}\n\nSay hello."


def test_a_sheet_is_a_document_and_its_name_the_section(tmp_path):
    workbook(tmp_path / "a.xlsx")
    (document,) = read(tmp_path / "a.xlsx", tmp_path)
    assert (document.id, document.section) == ("a.xlsx:Cranes", "Cranes")
    assert document.text == f"## Cranes\n\n{AS_MARKDOWN}\n| a\\|b | 3 |"


def test_a_chapter_is_a_document_of_its_book(tmp_path):
    ebook(tmp_path / "a.epub")
    one, two = read(tmp_path / "a.epub", tmp_path)
    assert (one.title, one.date, one.section, one.text) == ("Vik", "2025-02-03", "One", "# One\n\nFirst.")
    assert (two.section, two.text) == ("Two", "## Two\n\n| A |\n| --- |\n| 1 |")


def test_a_pdf_keeps_headings_paragraphs_and_ruled_tables_and_a_header_once(tmp_path):
    pdf(tmp_path / "a.pdf", PAGES)
    (document,) = read(tmp_path / "a.pdf", tmp_path)
    assert (document.title, document.date) == ("Handbook", "2025-02-03")
    assert "# Safety\n\n" in document.text
    assert f"{LONG} year. It is new.\n\n{AS_MARKDOWN}" in document.text
    assert document.text.endswith("Ships bring timber.")
    assert document.text.count("Vik Harbour Co.") == document.text.count("Page") == 1


def broken_files(folder):
    folder.mkdir()
    (folder / "a.md").write_text("Install it first. Then run it.")
    (folder / "cut.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    (folder / "cut.docx").write_bytes(b"PK\x03\x04 not a real one")
    (folder / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0 rest")
    (folder / "cut.epub").write_bytes(b"")
    pdf(folder / "scan.pdf", [[(72, 72, 200, 72)]])
    with zipfile.ZipFile(folder / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * 2**24)
    return folder


def test_what_cannot_be_read_in_a_folder_is_left_aside_and_named(tmp_path):
    corpus = read(broken_files(tmp_path / "docs"), tmp_path, max_document_mib=1)
    assert [d.id for d in corpus] == ["a.md"]
    assert corpus.sources[0].skipped == {"unreadable": 5, "no_text": 1}
    said = " ".join(corpus.to_json()["not_read"])
    for words in (
        "bomb.xlsx (unpacked it is larger",
        "cut.docx (File is",
        "cut.epub (",
        "2 more",
        "scan.pdf",
        "scanned?",
    ):
        assert words in said
    reasons = {skipped.location: skipped.detail for skipped in corpus.skipped}
    assert reasons.keys() == {"cut.pdf", "cut.docx", "old.docx", "cut.epub", "bomb.xlsx", "scan.pdf"}
    assert "password" in reasons["old.docx"]
    assert "larger than 8 MiB" in reasons["bomb.xlsx"]


@pytest.mark.parametrize("name", ["cut.pdf", "cut.docx", "cut.epub", "bomb.xlsx", "scan.pdf"])
def test_a_file_that_was_named_is_one_sentence(tmp_path, name):
    broken_files(tmp_path / "docs")
    with pytest.raises(DataError, match=name):
        read(tmp_path / "docs" / name, tmp_path, max_document_mib=1)


def test_packed_formats_are_not_read_compressed(tmp_path):
    (tmp_path / "a.pdf.gz").write_bytes(b"")
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.pdf.gz", tmp_path)
    remedy = "Unpack it, or set skip_bad_rows: true to leave out such files, counted."
    assert str(error.value) == f"{tmp_path}/a.pdf.gz: .pdf files are not read compressed. {remedy}"
    (tmp_path / "a.odt").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.txt .* \(plain or \.gz\), \.pdf .*\(not \.gz\)"):
        read(tmp_path / "a.odt", tmp_path)


def test_without_the_extra_the_remedy_is_said(tmp_path, monkeypatch):
    from afterword.corpus import formats, sources

    plain = {ending: reader for ending, reader in formats.ENDINGS.items() if ending not in (".pdf", ".docx")}
    monkeypatch.setattr(sources, "ENDINGS", plain)
    corpus = read(broken_files(tmp_path / "docs"), tmp_path, max_document_mib=1)
    (said,) = [sentence for sentence in corpus.to_json()["not_read"] if "ignored" in sentence]
    assert "ignored 4 files" in said
    assert "2 .docx" in said
    assert "2 .pdf" in said
    assert "pip install 'afterword[documents]' reads .pdf and .docx" in said
    with pytest.raises(DataError, match=r"afterword\[documents\]"):
        read(tmp_path / "docs" / "cut.pdf", tmp_path)
