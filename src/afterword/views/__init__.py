"""Document → Example: how a document is read by the student and by the teacher."""

from afterword.views.prepared import Prepared, PreparedCounts, ViewBuilder, content_hash, prepare
from afterword.views.reading import Reading, SpecialTokens, read_document, special_tokens
from afterword.views.segments import Averaging, aligned_segments, position_weights
from afterword.views.split_context import STRATEGIES, SplitContext
from afterword.views.whole_document import WholeDocument
