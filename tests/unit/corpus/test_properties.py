"""What holds of every text that can be written to a file: it is read as it stands, in order, and nothing is lost."""

import csv
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterword.corpus import CorpusOptions, read_corpus, split_sentences

CHARACTER = st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\ufeff")
TEXT = st.text(CHARACTER, min_size=1, max_size=60).filter(str.strip)
TEXTS = st.lists(TEXT, min_size=1, max_size=6, unique=True)


def written(folder: Path, ending: str, texts: list[str]) -> Path:
    """The texts as rows of a file."""
    path, rows = folder / f"rows{ending}", [{"text": text} for text in texts]
    with path.open("w", encoding="utf-8", newline="") as file:
        if ending == ".csv":
            # A record of one empty-looking field would be a blank line.
            table = csv.writer(file, quoting=csv.QUOTE_ALL)
            table.writerows([["text"], *([text] for text in texts)])
        elif ending == ".json":
            json.dump(rows, file)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
@given(texts=TEXTS)
@settings(max_examples=40)
def test_rows_are_read_as_they_stand_in_their_order(texts, ending):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        corpus = read_corpus(str(written(place, ending, texts)), cache_dir=place / "cache", options=CorpusOptions())
        found = [document.text for document in corpus]
        # What is there twice but for white space around it is counted, not read twice.
        assert len(found) + sum(corpus.sources[0].skipped.values()) == len(texts)
        assert [text for text in texts if text in found] == found


@given(text=st.text(CHARACTER, max_size=300).filter(str.strip), language=st.sampled_from(["en", "de", "ja"]))
def test_sentences_tile_a_text(text, language):
    spans = split_sentences(text, language)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
