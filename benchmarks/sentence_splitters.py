"""Sentence splitters side by side: do spans tile the text, how fast, and how many of 20 cases by hand are right?

pip install pysbd syntok
python benchmarks/sentence_splitters.py FOLDER_OR_JSONL [...]
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pysbd
import sentencex
import syntok.segmenter

from afterword.corpus import read_corpus, split_sentences

Spans = list[tuple[int, int]]
# | marks where a reader splits.
CASES = (
    "Dr. Smith met Mrs. Jones at 5 p.m. on Monday. |They talked.",
    "It costs $3.50 today. |Tomorrow it will be 4.5 percent more.",
    'He asked, "Are you sure?" |She nodded.',
    "“Stop!” he said. |Nobody did.",
    "See Fig. 3 and Eq. 2 for details. |Then read on.",
    "Fruit, e.g. apples, i.e. round ones, etc. are sold. |Others are not.",
    "The U.S. Senate met in Washington, D.C. |It voted.",
    "J. R. R. Tolkien wrote it. |C. S. Lewis read it.",
    "Use version 3.11.2 or later. |Earlier ones fail.",
    "Visit www.example.com/a.b?c=1 for more. |Then log in.",
    "Really?! |Yes! |No... |Well, maybe.",
    "Smith et al. (2020) found it. |We agree (see p. 5). |So do others.",
    "Motivation\n==========\n\n|It is slow. |We know.",
    "1. Open the file.\n|2. Read it.\n|3. Close it.",
    "- one item\n|- another item\n|- the last",
    "Call os.path.join(a, b). |It returns a str.",
    "This line is hard-wrapped by the\nauthor at some width. |The next\none too.",
    "The firm, Acme Inc., grew. |Its rival, Foo Ltd. did not.",
    "He was born on Jan. 5, 1990 in St. Louis. |He left.",
    "She has a Ph.D. in physics. |He has an M.A. from Yale.",
)


def with_sentencex(text: str) -> Spans:
    """The library on the whole text."""
    return [(b["start_index"], b["end_index"]) for b in sentencex.get_sentence_boundaries("en", text)]


def with_syntok(text: str) -> Spans:
    """Tokens know their offsets."""
    sentences = [list(sentence) for paragraph in syntok.segmenter.analyze(text) for sentence in paragraph]
    return [(s[0].offset, s[-1].offset + len(s[-1].value)) for s in sentences]


def splitters() -> dict[str, Callable[[str], Spans]]:
    """What is compared."""
    segmenter = pysbd.Segmenter(language="en", clean=False, char_span=True)
    return {
        "afterword (sentencex by paragraph)": split_sentences,
        "sentencex, whole text": with_sentencex,
        "pysbd": lambda text: [(span.start, span.end) for span in segmenter.segment(text)],
        "syntok": with_syntok,
    }


def tiles(text: str, spans: Spans) -> bool:
    """Whether the spans are the text, with no gap and no span of white space only."""
    ends = [end for _, end in spans]
    together = [start for start, _ in spans] == [0, *ends[:-1]] and ends[-1] == len(text)
    return together and all(text[start:end].strip() for start, end in spans)


def right(split: Callable[[str], Spans]) -> Iterator[bool]:
    """For each case, whether sentences begin exactly where a reader begins them."""
    for case in CASES:
        parts = case.split("|")
        text, wanted = "".join(parts), set(itertools.accumulate(map(len, parts[:-1])))
        begins = {start + len(text[start:end]) - len(text[start:end].lstrip()) for start, end in split(text)}
        yield begins - {0} == wanted


def main(sources: list[str]) -> None:
    """A row for every splitter and source."""
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as scratch:
        corpora = {
            name: [d.text for d in read_corpus(name, cache_dir=Path(scratch) / str(i))]
            for i, name in enumerate(sources)
        }
    for name, split in splitters().items():
        print(f"{name}: {sum(right(split))} of {len(CASES)} by hand")
        for source, texts in corpora.items():
            started = time.perf_counter()
            spans = [split(text) for text in texts]
            speed = sum(map(len, texts)) / (time.perf_counter() - started) / 1e6
            exact = sum(tiles(text, each) for text, each in zip(texts, spans, strict=True))
            print(f"    {source}: {exact}/{len(texts)} tile, {sum(map(len, spans)):,} sentences, {speed:.1f} Mchar/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+")
    main(parser.parse_args().sources)
