"""What a dry run foresees of what is written, and which generators cannot write for a view."""

import pytest
from tiny_models import byte_tokenizer

from afterword.errors import ConfigError, number_of
from afterword.methods import METHODS
from afterword.settings.adapt import AdaptSettings
from afterword.training.written_documents import Foreseen, refuse_generator
from afterword.types import Document

DOCUMENT = Document("d", "Mara Lind built it. It stands in Oslo. It rained. Nobody came. It is red.", title="The hall")


@pytest.mark.parametrize(
    ("method", "texts"), [("rephrase", "2 texts"), ("mixsd", "10 texts"), ("memory_conditioned", "1 text")]
)
def test_a_dry_run_counts_what_is_asked_for(tmp_path, method, texts):
    found = Foreseen()
    assert found.written(METHODS[method].view, [DOCUMENT], byte_tokenizer(), tmp_path, 2048) == ([DOCUMENT], None)
    assert (number_of(found.requests, "text"), found.whole) == (texts, True)
    assert f"asks for about {texts}," in found.in_words()


def test_a_dry_run_says_nothing_of_texts_that_are_not_there(tmp_path, caplog):
    Foreseen().written(METHODS["study"].view, [DOCUMENT], byte_tokenizer(), tmp_path, 2048)
    assert caplog.records == []


@pytest.mark.parametrize("generator", ["vllm", "http://localhost:8000/v1"])
def test_what_writes_whole_texts_is_refused_where_tokens_are_chosen(generator):
    settings = AdaptSettings(model_name_or_path="m", documents=("d",), generator=generator, generator_model="g")
    refuse_generator(settings, METHODS["rephrase"].view)
    with pytest.raises(ConfigError, match=r"writes whole texts, .* Leave it out"):
        refuse_generator(settings, METHODS["mixsd"].view)
