"""Document → Example: how a document is read by the student and by the teacher."""

from afterword.data.control_tokens import ControlTokens, as_words
from afterword.data.prepared import Prepared, PreparedCounts, content_hash, prepare
from afterword.data.reading_ahead import RefusedRow, Rendering
from afterword.data.stored import default_cache
from afterword.data.views import STRATEGIES, Averaging, SplitContext, View, WholeDocument
from afterword.data.windows import SpecialTokens, WindowSettings, read_document, special_tokens
