"""Documents become windows on the main process, as they were given or as a view writes them."""

import copy
import json
from dataclasses import replace

import pytest

from afterword import adapt
from afterword.corpus import CorpusOptions, read_corpus
from afterword.data import SplitContext, WholeDocument, WindowSettings, content_hash
from afterword.data.mixture import SourceShare
from afterword.errors import CheckpointError, ConfigError, DataError
from afterword.methods import METHODS
from afterword.training import AdaptationTrainer, sources, training_arguments, written_documents
from afterword.training.sources import MixtureSource, as_windows, mixture_sources
from afterword.training.written_documents import DocumentWriter
from afterword.types import Request, Sampling
from afterword.writing import GeneratorChoice

ENDPOINT = {"generator": "http://localhost:8000/v1", "generator_model": "m"}
CHATS = [
    {"messages": [{"role": "user", "content": f"Ask {i}."}, {"role": "assistant", "content": "Yes."}]} for i in (1, 2)
]


def test_only_the_main_process_reads_and_the_others_find_its_windows(tokenizer, documents, tmp_path, monkeypatch):
    given = (tmp_path, SplitContext(), tokenizer, WindowSettings(max_length=64))
    main = as_windows(documents, *given)
    monkeypatch.setattr(sources, "is_main_process", lambda: False)
    monkeypatch.setattr(sources, "prepare", None)
    other = as_windows(iter(()), *given)
    assert content_hash(other) == content_hash(main)
    assert (other.counts, other.skipped, other.sources) == (main.counts, main.skipped, main.sources)
    assert other.to_json() == main.to_json()


def test_conversations_are_rendered_by_their_template(tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    corpus = read_corpus(CHATS, cache_dir=tmp_path / "chats", options=CorpusOptions(kind="instructions"))
    text = MixtureSource(documents=corpus, share=SourceShare(), chat=True)
    (part,) = mixture_sources({"chats": text}, tmp_path, SplitContext(), tokenizer, WindowSettings(max_length=200))
    assert [tokenizer.decode(window.token_ids) for window in part.windows] == ["Ask 1. Yes. ", "Ask 2. Yes. "]


class Repeating(WholeDocument):
    """Writes what goes on from each document, and has it twice."""

    def prepare(self, writer, documents):
        given, sampling = list(documents), Sampling(max_new_tokens=12)
        texts = writer.write([Request(text=each.text, sampling=sampling, about=each.id) for each in given], "texts")
        for document, written in zip(given, texts, strict=True):
            yield replace(document, id=f"{document.id}/on", text=document.text + written.text)
            yield replace(document, id=f"{document.id}/again", text=document.text + written.text)


def test_what_a_view_writes_is_counted_and_is_what_is_read(tokenizer, build_model, documents, tmp_path):
    writer = DocumentWriter(load=lambda: build_model("llama"), folder=tmp_path)
    given = (tmp_path / "work", Repeating(), tokenizer, WindowSettings(max_length=128))
    windows, plain = as_windows(documents, *given, writer=writer), as_windows(documents, tmp_path / "plain", *given[1:])
    written = windows.to_json()["prepared_by_view"]
    # The second of each has the same text as the first.
    assert (written["view"], written["documents"], written["skipped"]) == ("Repeating", len(documents), len(documents))
    assert "prepared_by_view" not in plain.to_json()
    again = as_windows(documents, *given, writer=writer)
    assert {window.document for window in again} == {f"{row['id']}/on" for row in documents}
    assert content_hash(again) == content_hash(windows) != content_hash(plain)
    assert again.to_json()["prepared_by_view"] == written
    record = [json.loads(line) for line in (tmp_path / "written.jsonl").read_text().splitlines()]
    assert [(row["about"], row["prompt"]) for row in record] == [(row["id"], row["text"]) for row in documents]


def test_a_view_that_writes_nothing_costs_nothing(tokenizer, documents, tmp_path):
    def refused():
        raise AssertionError("no model is needed")

    writer = DocumentWriter(load=refused, folder=tmp_path / "run")
    given = (SplitContext(), tokenizer, WindowSettings(max_length=128))
    windows = as_windows(documents, tmp_path / "a", *given, writer=writer)
    assert content_hash(windows) == content_hash(as_windows(documents, tmp_path / "b", *given))
    assert not (tmp_path / "run").exists()


class Discarding(WholeDocument):
    """Nothing that is written for it is of use."""

    def prepare(self, writer, documents):
        yield from ()


def test_that_nothing_of_use_was_written_is_said(tokenizer, documents, tmp_path):
    writer = DocumentWriter(load=lambda: None, folder=tmp_path, choice=GeneratorChoice(**ENDPOINT))
    with pytest.raises(DataError, match=r"documents: nothing of use was written about them .*larger model write"):
        as_windows(documents, tmp_path / "w", Discarding(), tokenizer, WindowSettings(max_length=128), writer=writer)


def test_a_model_in_shards_cannot_write(tokenizer, documents, tmp_path, monkeypatch):
    monkeypatch.setattr(written_documents, "is_zero3", lambda model: True)
    writer = DocumentWriter(load=lambda: None, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"view Repeating writes with the model, which ZeRO-3 has in shards. Write"):
        as_windows(documents, tmp_path, Repeating(), tokenizer, WindowSettings(max_length=128), writer=writer)


def test_conversations_change_nothing_for_the_source_after_them(tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    corpus = read_corpus(CHATS, cache_dir=tmp_path / "chats", options=CorpusOptions(kind="instructions"))
    chat = MixtureSource(documents=corpus, share=SourceShare(), chat=True)
    rows = [{"text": f"A control token is text here: {tokenizer.eos_token} and so on."}]
    plain = MixtureSource(documents=rows, share=SourceShare())
    settings, made = WindowSettings(max_length=200), []
    for name, mixture in (("alone", {"plain": plain}), ("after", {"chats": chat, "plain": plain})):
        *_, last = mixture_sources(mixture, tmp_path / name, SplitContext(), tokenizer, settings)
        made.append(last.windows[0].token_ids.tolist())
    assert made[0] == made[1]


@pytest.mark.parametrize("where", ["documents", "held out", "mixture"])
def test_a_token_without_an_embedding_is_refused_before_a_step(where, build_model, tokenizer, documents, tmp_path):
    more = copy.deepcopy(tokenizer)
    more.add_tokens(["extraordinary"])
    odd = [{"text": "It was an extraordinary day. Nobody came."}]
    model = build_model("llama")
    model.resize_token_embeddings(len(tokenizer))
    given = {
        "documents": {"train_dataset": documents + odd},
        "held out": {"train_dataset": documents, "eval_dataset": odd},
        "mixture": {
            "train_dataset": documents,
            "mixture": {"general": MixtureSource(documents=odd, share=SourceShare(samples=0.5))},
        },
    }
    method = METHODS["disc_mixcpt"] if where == "mixture" else METHODS["finetune"]
    args = training_arguments(method, output_dir=str(tmp_path / "run"), use_cpu=True)
    how = {"args": args, "processing_class": more, "method": method}
    if where != "mixture":
        AdaptationTrainer(model, **how, train_dataset=documents)
    with pytest.raises(CheckpointError, match=r"gives the token .extraordinary. the id .* They do not belong together"):
        AdaptationTrainer(model, **how, **given[where])


def test_what_was_not_read_of_held_out_files_is_said_too(model_folder, documents, tmp_path, capsys):
    held = tmp_path / "held"
    held.mkdir()
    (held / "a.txt").write_text(documents[0]["text"])
    (held / "theme.json").write_text('{"label": "Guide"}')
    how = {"method": "disc", "eval_steps": 1, "max_steps": 1, "learning_rate": 1e-3, "lr_scheduler_type": "linear"}
    run = adapt(model_folder, documents, eval_documents=[str(held)], **how).path
    (said,) = json.loads((run / "data.json").read_text())["not_read"]
    assert said.startswith("eval_documents: ")
    assert "theme.json" in said
    assert "theme.json" in "".join(capsys.readouterr())
