"""Documents in: files, folders and data sets become one list of documents on disk; texts become sentences.

Instructions and preferences become documents, too: plain texts that keep the dialogue they render.

Nothing is dropped in silence: every row that is not used is counted, and says why.
"""

from afterword.corpus.columns import CorpusOptions
from afterword.corpus.dialogues import Dialogue, Kind, dialogue_of, plain_text
from afterword.corpus.formats import register_format
from afterword.corpus.sentences import split_sentences
from afterword.corpus.sources import refuse_missing
from afterword.corpus.store import Corpus, SourceReport, read_corpus
from afterword.corpus.tables import read_table

__all__ = [
    "Corpus",
    "CorpusOptions",
    "Dialogue",
    "Kind",
    "SourceReport",
    "dialogue_of",
    "plain_text",
    "read_corpus",
    "read_table",
    "register_format",
    "split_sentences",
]
