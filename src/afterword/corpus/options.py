"""The settings of reading, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How documents are found in rows, and what stops the reading."""

    text_column: str | None = None
    """Column that holds the text. Detected when None."""
    id_column: str | None = None
    title_column: str | None = None
    date_column: str | None = None
    source_column: str | None = None
    """Column whose values replace the name of the source in `Document.source`."""
    skip_bad_rows: bool = False
    """Skip rows that are broken or not UTF-8, counted and listed, instead of stopping at the first."""
    max_document_mib: float = 64.0
    """In UTF-8, at most 1024. A larger document, line or text file stops the reading; it is never cut."""
    streaming: bool = False
    """Read data-set ids through the streaming interface of datasets, without downloading them first."""
    max_documents: int | None = None
    """Stop after so many documents, over all sources. Needed where a stream has no end."""

    @property
    def max_document_bytes(self) -> int:
        """`max_document_mib` in bytes."""
        return round(self.max_document_mib * 2**20)

    def problems(self) -> Iterator[str]:
        """One sentence for every setting that cannot be used."""
        # Arrow counts the bytes of a batch's string column in 31 bits: a document must stay well below 2 GiB.
        if not 0 < self.max_document_mib <= 1024:
            yield f"max_document_mib: must be above 0 and at most 1024, got {self.max_document_mib}."
        if self.max_documents is not None and self.max_documents < 1:
            yield f"max_documents: must be at least 1, or left out for no limit, got {self.max_documents}."
