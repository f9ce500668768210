"""Shares of general text, counted in what the student is given to read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterword.corpus import CorpusOptions, read_corpus
from afterword.data import SplitContext, WholeDocument, WindowSettings, prepare, special_tokens
from afterword.data.batching import Packing
from afterword.data.mixture import SourceShare
from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training.sources import MixtureSource, Source, mixture_sources

WORDS = ["bread", "cake", "coffee", "bakery", "morning", "people", "Oslo", "Bergen", "opens", "sells", "every", "born"]


def sentences(rng: np.random.Generator, words: int) -> str:
    drawn = rng.choice(WORDS, words).tolist()
    return " ".join(f"{' '.join(drawn[i : i + 9])}." for i in range(0, words, 9))


def tokens_by_source(trainer: AdaptationTrainer, passes: int) -> np.ndarray:
    """Tokens of the rows that the student reads, by the source of the sequence that they are in."""
    counted = np.zeros(2, np.int64)
    loader = trainer.get_train_dataloader()
    for number in range(passes):
        loader.set_epoch(number)
        for batch in (batch for batches in loader for batch in batches):
            positions = batch.student.position_ids[0].numpy()
            assert batch.student.padding == 0
            sequence = (positions == 0).cumsum() - 1
            of_sequence = np.zeros(sequence[-1] + 1, np.int64)
            of_sequence[batch.sequences.numpy()] = batch.sources.numpy()
            counted += np.bincount(of_sequence[sequence], minlength=2)
    return counted


def test_shares_hold_in_a_million_packed_tokens(build_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Documents of about 400 tokens, instructions of about 40, of which BOS and EOS are a large part."""
    rng = np.random.default_rng(0)
    documents = [sentences(rng, 120) for _ in range(450)]
    rows = [{"prompt": sentences(rng, 4), "completion": sentences(rng, 7)} for _ in range(2500)]
    asked = read_corpus(rows, cache_dir=tmp_path / "rows", options=CorpusOptions(kind="instructions"))
    trainer = AdaptationTrainer(
        build_model("llama", max_position_embeddings=1024),
        training_arguments(METHODS["mixcpt"], output_dir=str(tmp_path), num_train_epochs=4),
        train_dataset=documents,
        processing_class=tokenizer,
        method="mixcpt",
        mixture={"instructions": MixtureSource(documents=asked, share=SourceShare(tokens=0.3, max_epochs=9))},
        documents_per_step=8,
        packing=Packing(4096),
    )
    counted = tokens_by_source(trainer, 4)
    assert counted.sum() > 1e6
    assert counted[1] / counted.sum() == pytest.approx(0.3, rel=0.01)
    report = trainer.mixture_report()
    assert [row["tokens"] for row in report] == counted.tolist()
    assert report[1]["token_share"] == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("bos", ["auto", "never"])
def test_the_tokens_of_a_window_are_those_of_its_whole_reading(tokenizer: Any, tmp_path: Path, bos: Any) -> None:
    """Long documents too: of their windows, only the last has an EOS."""
    rng = np.random.default_rng(1)
    corpus = read_corpus([sentences(rng, words) for words in (20, 200, 60)], cache_dir=tmp_path)
    view = WholeDocument(bos=bos)
    special = special_tokens(tokenizer, bos, "document")
    windows = prepare(corpus, tokenizer, special, WindowSettings(max_length=100), view, tmp_path / "windows.arrow")
    assert len(windows) > len(corpus)
    read = [view.build(window, special, rng).segments[0].student_ids for window in windows]
    assert Source("documents", windows, special).lengths.tolist() == [len(ids) for ids in read]
    # What a split view draws of it does not matter; it adds no EOS.
    split = Source("documents", windows, special, eos=SplitContext().needs_eos)
    assert split.lengths.tolist() == [len(special.bos_ids) + len(window.token_ids) for window in windows]


def test_a_chat_template_brings_its_own_bos_and_eos(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}|{% endfor %}"
    rows = [{"prompt": "Who?", "completion": "Mara."}]
    asked = read_corpus(rows, cache_dir=tmp_path / "rows", options=CorpusOptions(kind="instructions"))
    chats = MixtureSource(documents=asked, share=SourceShare(), chat=True)
    (part,) = mixture_sources({"chats": chats}, tmp_path, SplitContext(), tokenizer, WindowSettings(max_length=100))
    assert part.lengths.tolist() == [len(tokenizer("Who?|Mara.|", add_special_tokens=False).input_ids)]
