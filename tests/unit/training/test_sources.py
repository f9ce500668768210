"""Settings decide how documents become windows; the run says where they came from, and is the same either way."""

import copy
import json
from datetime import date
from pathlib import Path

import pytest

from afterword import adapt
from afterword.corpus import CorpusOptions, read_corpus
from afterword.data import SplitContext, WindowSettings, default_cache
from afterword.data.mixture import SourceShare
from afterword.errors import CheckpointError, ConfigError
from afterword.methods import METHODS
from afterword.settings.adapt import read_settings
from afterword.training import AdaptationTrainer, training_arguments
from afterword.training import sources as parts
from afterword.training.run import run_adaptation
from afterword.training.sources import MixtureSource, Preparation, mixture_sources

CHATS = [
    {"messages": [{"role": "user", "content": f"Ask {i}."}, {"role": "assistant", "content": "Yes."}]} for i in (1, 2)
]


def losses(folder):
    return [json.loads(line)["train/loss_nats"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("given", "cache"),
    [
        (None, default_cache),
        (True, default_cache),
        ("off", lambda: None),
        (False, lambda: None),
        ("~/x", Path("~/x").expanduser),
    ],
)
def test_the_setting_is_a_folder_or_off_also_as_yaml_reads_it(given, cache):
    settings = read_settings({"model_name_or_path": "m", "preparation_cache": given, "preparation_workers": 3})
    assert Preparation.of(settings.preparation_workers, settings.preparation_cache) == Preparation(
        workers=3, cache=cache()
    )


@pytest.mark.parametrize("given", [-1, "many", 1.5])
def test_a_number_of_workers_that_is_none_is_refused(given):
    with pytest.raises(ConfigError, match="preparation_workers"):
        read_settings({"model_name_or_path": "m", "preparation_workers": given})


def test_a_run_finds_the_windows_of_another_and_trains_the_same(model_folder, documents, tmp_path):
    how = {"max_length": 64, "preparation_cache": str(tmp_path / "cache"), "max_steps": 2, "learning_rate": 1e-3}
    runs = [adapt(model_folder, documents, output_dir=str(tmp_path / name), **how).path for name in ("first", "again")]
    alone = adapt(
        model_folder, documents, output_dir=str(tmp_path / "alone"), **{**how, "preparation_cache": "off"}
    ).path
    data = [json.loads((run / "data.json").read_text()) for run in (*runs, alone)]
    assert all(each["saved"].pop("seconds") >= 0 for each in data)
    assert [each.pop("windows_from_cache") for each in data] == [False, True, False]
    assert data[0] == data[1] == data[2]
    assert losses(runs[0]) == losses(runs[1]) == losses(alone)
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1


def test_the_settings_reach_every_reading(model_folder, documents, tmp_path, monkeypatch):
    asked = []

    def prepare(*given, workers, cache, **how):
        asked.append((workers, cache))
        return parts_prepare(*given, workers=workers, cache=cache, **how)

    parts_prepare = parts.prepare
    monkeypatch.setattr(parts, "prepare", prepare)
    texts = {name: tmp_path / f"{name}.jsonl" for name in ("held", "general")}
    for path in texts.values():
        path.write_text("".join(json.dumps({"text": f"{row['text']} {path.stem}"}) + "\n" for row in documents))
    settings = {
        "model_name_or_path": str(model_folder), "eval_documents": [str(texts["held"])], "max_steps": 1,
        "mixture": {"general": {"files": [str(texts["general"])], "tokens": 0.3}}, "replay": "prediction",
        "preparation_workers": 1, "preparation_cache": str(tmp_path / "cache"), "output_dir": str(tmp_path / "run"),
        "max_length": 64,
    }  # fmt: skip
    run_adaptation(read_settings(settings), documents)
    assert asked == [(1, tmp_path / "cache")] * 3


def test_a_dry_run_prepares_for_the_run_and_says_so_the_next_time(afterword, model_folder, documents, tmp_path):
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in documents))
    how = ("--max-length", "64", "--preparation-cache", str(tmp_path / "cache"), "--dry-run")
    first, again = (afterword("adapt", str(model_folder), str(file), *how) for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    (line,) = [line for line in again.out.splitlines() if line.startswith("windows")]
    assert line.endswith("tokens; from the cache")
    assert line.removesuffix("; from the cache") in first.out.splitlines()


def chats(tokenizer, tmp_path, template, cache):
    tokenizer.chat_template = template
    corpus = read_corpus(CHATS, cache_dir=tmp_path / "chats", options=CorpusOptions(kind="instructions"))
    text = MixtureSource(documents=corpus, share=SourceShare(), chat=True, preparation=Preparation(cache=cache))
    place = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
    (part,) = mixture_sources({"chats": text}, place, SplitContext(), tokenizer, WindowSettings(max_length=200))
    return part.windows


def test_conversations_are_found_by_their_template_and_its_day(tokenizer, tmp_path, monkeypatch):
    tokenizer, cache = copy.deepcopy(tokenizer), tmp_path / "cache"
    plain = "{% for m in messages %}{{ m.content }} {% endfor %}"
    dated = "{{ strftime_now('%d %m %Y') }}" + plain
    found = [chats(tokenizer, tmp_path, template, cache).from_cache for template in (plain, plain, dated, dated)]
    assert found == [False, True, False, True]
    monkeypatch.setattr(parts, "date", type("Tomorrow", (date,), {"today": lambda: date(2031, 1, 1)}))
    assert [chats(tokenizer, tmp_path, template, cache).from_cache for template in (plain, dated)] == [True, False]


def test_conversations_are_rendered_in_workers_too(tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    corpus = read_corpus(CHATS, cache_dir=tmp_path / "chats", options=CorpusOptions(kind="instructions"))
    made = []
    for workers in (1, 2):
        how = Preparation(workers=workers, cache=None)
        text = MixtureSource(documents=corpus, share=SourceShare(), chat=True, preparation=how)
        given = ({"chats": text}, tmp_path / str(workers), SplitContext(), tokenizer, WindowSettings(max_length=200))
        (part,) = mixture_sources(*given)
        made.append([tokenizer.decode(window.token_ids) for window in part.windows])
    assert made[0] == made[1] == ["Ask 1. Yes. ", "Ask 2. Yes. "]


def test_conversations_change_nothing_for_the_source_after_them(tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    corpus = read_corpus(CHATS, cache_dir=tmp_path / "chats", options=CorpusOptions(kind="instructions"))
    uncached = Preparation(cache=None)
    chat = MixtureSource(documents=corpus, share=SourceShare(), chat=True, preparation=uncached)
    rows = [{"text": f"A control token is text here: {tokenizer.eos_token} and so on."}]
    plain = MixtureSource(documents=rows, share=SourceShare(), preparation=uncached)
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
