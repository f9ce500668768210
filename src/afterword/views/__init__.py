"""Document → Example: how a document is read by the student and by the teacher."""

from afterword.views.control_tokens import ControlTokens, as_words
from afterword.views.examples import STRATEGIES, Averaging, SplitContext, ViewBuilder, WholeDocument
from afterword.views.prepared import Prepared, PreparedCounts, content_hash, prepare
from afterword.views.reading import Reading, SpecialTokens, read_document, special_tokens
from afterword.views.reading_ahead import RefusedRow, Rendering
from afterword.views.stored import default_cache
