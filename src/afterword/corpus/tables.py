"""Rows of a table that are not documents: of a file, or of one split of a data set."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from afterword.corpus.columns import CorpusOptions
from afterword.corpus.formats import ROW_ENDINGS
from afterword.corpus.rows import Origin, Rows, numbered
from afterword.corpus.sources import load_split, refuse_missing
from afterword.errors import DataError
from afterword.storage.files import BadRowError, ending_of, shown_name

_PICKLES = (".pickle", ".pkl")
# Every column is read, as of dialogues: which of them are needed, whoever reads the rows says.
_ALL_COLUMNS = CorpusOptions(kind="instructions")


def read_table(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row, with where it stands, of a .jsonl, .json, .csv or .parquet file or of `data-set id[:split]`.

    DataError, with the place, for what cannot be read.
    """
    shown, path = shown_name(name), os.path.expanduser(name)
    for place, row in _file_rows(path, shown) if os.path.isfile(path) else _data_set_rows(name, shown):
        where = f"{shown}, {place}" if place else shown
        if isinstance(row, BadRowError):
            raise DataError(f"{where}: {row}. Repair the row.") from row
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: must be an object with named columns, not {row!r:.40}.")
        yield where, cast("Mapping[str, Any]", row)


def _file_rows(path: str, shown: str) -> Rows:
    ending = ending_of(Path(path))
    if ending in _PICKLES:
        problem = f"{shown}: reading a pickle runs whatever program is in it, so none is read"
        make = f'pandas.read_pickle("{shown}").to_json("{Path(shown).stem}.jsonl", orient="records", lines=True)'
        raise DataError(f"{problem}. If you trust it, make rows of it: python -c 'import pandas; {make}'")
    if ending not in ROW_ENDINGS:
        raise DataError(f"{shown}: its ending {ending!r} is none of rows. Known: {' '.join(ROW_ENDINGS)}.")
    return ROW_ENDINGS[ending](Origin(shown, shown, shown, path), _ALL_COLUMNS)


def _data_set_rows(name: str, shown: str) -> Rows:
    refuse_missing([name])
    folder, _, split = name.partition(":")
    return numbered(load_split(folder, split, shown, _ALL_COLUMNS))
