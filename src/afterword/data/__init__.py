"""Document → Example: how a document is read by the student and by the teacher."""

from afterword.data.control_tokens import ControlTokens, as_words
from afterword.data.pieces import NextPiece
from afterword.data.prepared import (
    Prepared,
    PreparedCounts,
    RefusedRow,
    Rendering,
    WrittenDocuments,
    content_hash,
    prepare,
    read_prepared,
)
from afterword.data.prompted import Prompted
from afterword.data.views import STRATEGIES, Averaging, SplitContext, View, WholeDocument
from afterword.data.windows import SpecialTokens, WindowSettings, read_document, special_tokens

__all__ = [
    "STRATEGIES",
    "Averaging",
    "ControlTokens",
    "NextPiece",
    "Prepared",
    "PreparedCounts",
    "Prompted",
    "RefusedRow",
    "Rendering",
    "SpecialTokens",
    "SplitContext",
    "View",
    "WholeDocument",
    "WindowSettings",
    "WrittenDocuments",
    "as_words",
    "content_hash",
    "prepare",
    "read_document",
    "read_prepared",
    "special_tokens",
]
