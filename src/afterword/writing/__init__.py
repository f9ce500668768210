"""What models write before training: requests in, texts out, none of them written twice.

Arrows: below training, evaluation and methods' views that write; above models and storage.
"""

from afterword.writing.chat import as_conversation
from afterword.writing.local import LocalGenerator, load_to_write
from afterword.writing.opening import RECORD, GeneratorChoice, Spread, open_writer
from afterword.writing.prompts import Prompt, prompt
from afterword.writing.replies import room_for
from afterword.writing.sentences import spread_sentences
from afterword.writing.writer import Generator, StoredWriter

__all__ = [
    "RECORD",
    "Generator",
    "GeneratorChoice",
    "LocalGenerator",
    "Prompt",
    "Spread",
    "StoredWriter",
    "as_conversation",
    "load_to_write",
    "open_writer",
    "prompt",
    "room_for",
    "spread_sentences",
]
