"""Folders of runs, alignments, comparisons and blends → pages and tables. Reads files only: no torch, no training."""

from pathlib import Path

from afterword.report.alignment import write_alignment
from afterword.report.blend import write_blend
from afterword.report.comparison import write_comparison
from afterword.report.pages import verdict_on, write_model_card, write_report
from afterword.report.quiz import write_quiz
from afterword.report.sequence import write_sequence

__all__ = [
    "verdict_on",
    "write_alignment",
    "write_blend",
    "write_comparison",
    "write_model_card",
    "write_pages",
    "write_quiz",
    "write_report",
    "write_sequence",
]


def write_pages(folder: Path) -> tuple[Path, ...]:
    """All that can be written of a folder: of a comparison, a sequence, a blend, an alignment, or else a run."""
    if (folder / "compare.json").is_file():
        return tuple(page for page in write_comparison(folder) if page)
    if (folder / "sequence.json").is_file():
        return write_sequence(folder)
    if (folder / "blend.json").is_file():
        return (write_blend(folder),)
    if (folder / "align.json").is_file():
        return (write_alignment(folder),)
    return (*write_report(folder), write_model_card(folder))
