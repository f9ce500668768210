"""Does reading take time in proportion to length? A page of flat HTML and a Japanese text, whole and half, in one run.

    python benchmarks/reading_time.py --html-mb 5 --japanese-mb 2

Processor seconds of this process. Twice the length should take about twice the time: a ratio near 4 is quadratic.
Ends with exit code 1 where a ratio is 3 or more.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from afterword.corpus import CorpusOptions, read_corpus, split_sentences

LIMIT = 3.0
_PARAGRAPH = "<p>Mara Lind was born in Oslo. She moved to Bergen in 2019, and sells bread there.</p>\n"
_JAPANESE = "彼は外に出た。空は青く、風は静かだった。「もう春だ」と彼女は言った。"


def main(
    html_mb: Annotated[float, typer.Option(help="Size of the page.")] = 5.0,
    japanese_mb: Annotated[float, typer.Option(help="Size of the text.")] = 2.0,
) -> None:
    """Read both, half and whole."""
    ratios = {}
    with tempfile.TemporaryDirectory(prefix="reading-") as scratch:
        for name, ending, piece, size in (
            ("flat HTML", "html", _PARAGRAPH, html_mb),
            ("Japanese", "txt", _JAPANESE, japanese_mb),
        ):
            # The first reading imports what reading needs.
            seconds = [_seconds(Path(scratch), ending, piece, share * size) for share in (0.01, 0.5, 1)][1:]
            ratios[name] = seconds[1] / max(seconds[0], 1e-9)
            print(f"{name}, {size / 2:g} and {size:g} MB: {seconds[0]:.2f} and {seconds[1]:.2f} s, {ratios[name]:.2f}")
    raise typer.Exit(1 if max(ratios.values()) >= LIMIT else 0)


def _seconds(scratch: Path, ending: str, piece: str, megabytes: float) -> float:
    """Of reading a file of that size into documents, and these into sentences."""
    path = scratch / f"{megabytes}.{ending}"
    path.write_text(piece * max(1, round(megabytes * 1e6 / len(piece.encode()))), encoding="utf-8")
    began = time.process_time()
    corpus = read_corpus(path, cache_dir=scratch / f"{ending}-{megabytes}", options=CorpusOptions(max_document_mib=64))
    for document in corpus:
        split_sentences(document.text, "ja" if ending == "txt" else "en")
    return time.process_time() - began


if __name__ == "__main__":
    typer.run(main)
