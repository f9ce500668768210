"""Answers to a suite by models whose next-token probabilities are written down here, so that scores are by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import afterword
from afterword.data import SpecialTokens
from afterword.errors import ConfigError
from afterword.evaluation import evaluate
from afterword.evaluation import suite_answers as answering
from afterword.evaluation.measure import Models
from afterword.evaluation.measures import MEASURES
from afterword.evaluation.suites import Item, Suite
from afterword.models.generation import generate
from afterword.report import write_report
from afterword.types import Score

WORDS = [
    "<s>",
    "</s>",
    "<unk>",
    "<u>",
    "Where?",
    "Who?",
    "When?",
    "I",
    "do",
    "not",
    "know.",
    "Oslo",
    "Bergen",
    "Mara",
    "Lind",
    "am",
    "unsure",
    "said",
    "it",
    "knows",
]
REFUSAL = "I do not know."
KNOWS = {"I": {"do": 0.9, "am": 0.1}, "do": "not", "not": "know.", "am": "unsure", "Mara": "Lind"}
KNOWS |= dict.fromkeys(["know.", "Oslo", "Bergen", "unsure", "Lind"], "</s>")
SHY = {**KNOWS, "Where?": {"I": 0.6, "Oslo": 0.3, "Bergen": 0.1}, "Who?": {"I": 0.6, "Mara": 0.4}}
BOLD = {**KNOWS, "Where?": {"Bergen": 0.5, "Oslo": 0.4, "I": 0.1}, "Who?": {"Mara": 0.9, "I": 0.1}}


def answer_suite(*asked: Any, **how: Any) -> tuple[list[Any], list[Any]]:
    found = answering.answer_suite(*asked, **how)
    return MEASURES["suite"].scores(found), list(found.answers)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    """A token for every word, and a chat template that ends with the user's last word."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}<u> {{ m['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


def _model(table: dict[str, Any]) -> LlamaForCausalLM:
    """A Llama whose next word depends on the last word alone, with the probabilities of the table."""
    size = len(WORDS) + len(WORDS) % 2
    shape = {"vocab_size": size, "hidden_size": size, "intermediate_size": 4, "num_hidden_layers": 1}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape, **special, num_attention_heads=1, rms_norm_eps=1e-12)).eval()
    rows = {word: {after: 1.0} if isinstance(after, str) else after for word, after in table.items()}
    every = [*WORDS, *[""] * (size - len(WORDS))]
    logits = [[math.log(rows.get(word, {}).get(after, 1e-9)) for after in every] for word in every]
    with torch.no_grad():
        # Nothing but the embedding reaches the head, and the norm makes a one-hot vector sqrt(size) long.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(torch.tensor(logits).T / math.sqrt(size))
    return model


def _models(tokenizer: Any, reference: Any, adapted: Any = None, max_length: int = 128) -> Models:
    return Models(reference, adapted, tokenizer, SpecialTokens((), 1), max_length)


def _item(name: str, prompt: str, answer: str, **more: Any) -> Item:
    about = {"part": "learning", "skill": "direct", "split": "dev", "checks": ({"kind": "equals", "value": answer},)}
    return Item(**{**about, "id": name, "prompt": prompt, "answer": answer, **more})


WHERE = _item("where", "Where?", "Oslo", choices=("Bergen",), gone="Bergen")
WHO = _item("who", "Who?", "Mara Lind")
KEPT = _item("kept", "Where?", "Oslo", part="retention", skill="places", split="test")
SUITE = Suite((KEPT, WHERE, WHO), refusals=(REFUSAL,), name="towns", version=2)


def _values(scores: list[Score]) -> dict[str, list[float | None]]:
    sides = {f"{s.task} {s.metric}": (s.before, s.after, s.change) for s in scores}
    return {name: [each and round(each.value, 6) for each in values] for name, values in sides.items()}


def test_scores_before_and_after_by_hand(words: Any):
    scores, _ = answer_suite(_models(words, _model(SHY), _model(BOLD)), SUITE)
    assert _values(scores) == {
        # Before, both are refused, and known: with the refusal forbidden both are right. After, Bergen is said.
        "dev/learning/direct correct_frac": [0.0, 0.5, 0.5],
        "dev/learning/direct correct_refusal_forbidden_frac": [1.0, 0.5, -0.5],
        "dev/learning/direct refused_frac": [1.0, 0.0, -1.0],
        # 0.3 for Oslo against 0.1 for Bergen before, 0.4 against 0.5 after.
        "dev/learning/direct choice_correct_frac": [1.0, 0.0, -1.0],
        "dev/learning/direct old_value_said_frac": [0.0, 1.0, 1.0],
        "test/retention/places correct_frac": [0.0, 0.0, 0.0],
    }
    assert [score.n for score in scores] == [2, 2, 2, 1, 1, 1]
    assert [score.better for score in scores] == ["higher", "higher", "lower", "higher", "lower", "higher"]
    assert scores[0].details == {
        "suite": "towns",
        "suite_version": 2,
        "suite_sha256": SUITE.fingerprint,
        "decoding": "greedy",
        "prompt_template": "<u> {question}",
        "refusals": [REFUSAL],
        "max_new_tokens": 64,
        "max_length_tokens": 128,
        "left_out": {},
    }


def test_each_answer_has_a_row(words: Any):
    _, rows = answer_suite(_models(words, _model(SHY), _model(BOLD)), SUITE, answer_tokens=8)
    json.dumps(rows)
    assert rows[1] == {
        "setting": "suite", "id": "where", "split": "dev", "part": "learning", "skill": "direct",
        "question": "Where?", "expected": ["Oslo"], "before": REFUSAL, "after": "Bergen",
        "before_correct": False, "after_correct": False,
        "before_unrefused": "Oslo", "before_chosen": True, "after_chosen": False,
    }  # fmt: skip
    assert [row["id"] for row in rows] == ["kept", "where", "who"], "in the order of the suite"
    assert rows[0].keys() == rows[2].keys() - {"before_unrefused"}


def test_a_model_alone_has_values_after_only(words: Any):
    scores, rows = answer_suite(_models(words, _model(SHY)), SUITE)
    assert all(score.before is score.change is None for score in scores)
    assert _values(scores)["dev/learning/direct correct_refusal_forbidden_frac"] == [None, 1.0, None]
    assert (rows[1]["before"], rows[1]["before_correct"], rows[1]["after"]) == (None, None, REFUSAL)


def test_a_refusal_is_forbidden_where_it_leaves_the_answer(words: Any):
    unsure = _item("unsure", "Who?", "I am unsure")
    ignorant = _item("ignorant", "Where?", REFUSAL)
    scores, rows = answer_suite(_models(words, _model(SHY)), Suite((unsure, ignorant), refusals=(REFUSAL,)))
    assert rows[0]["after_unrefused"] == "I am unsure", "the first word is the answer's, so the second is forbidden"
    assert "after_unrefused" not in rows[1], "refusing is right"
    assert {score.metric: (score.n, score.after and score.after.value) for score in scores} == {
        "correct_frac": (2, 0.5),
        "correct_refusal_forbidden_frac": (1, 1.0),
        "refused_frac": (1, 1.0),
    }


def test_asking_everything_twice_leaves_values_and_intervals_as_they_were(words: Any):
    items = (WHERE, WHO, replace(WHO, id="who else", prompt="When? Who?"), KEPT)
    once = tuple(replace(item, unit=f"fact {i}") for i, item in enumerate(items))
    twice = (*once, *(replace(item, id=f"{item.id} again") for item in once))
    models = _models(words, _model(SHY), _model(BOLD))
    first, second = (answer_suite(models, Suite(items, refusals=(REFUSAL,)))[0] for items in (once, twice))
    assert [score.metric for score in first] == [score.metric for score in second]
    for one, other in zip(first, second, strict=True):
        assert (one.before, one.after, one.change) == (other.before, other.after, other.change)
        assert (2 * one.n, one.n) == (other.n, other.details["units"])
        assert "units" not in one.details
    independent, _ = answer_suite(models, Suite(tuple(replace(item, unit=None) for item in twice), refusals=(REFUSAL,)))
    assert independent[0].after != first[0].after


def test_without_refusals_nothing_is_forbidden(words: Any):
    scores, _ = answer_suite(_models(words, _model(SHY)), Suite((WHO,)))
    assert [score.metric for score in scores] == ["correct_frac"]


def test_only_refusals_are_written_again_and_writing_stops_when_all_have_ended(words: Any, monkeypatch: Any):
    asked, steps, model = [], [], _model({**SHY, "Who?": "Mara"})
    model.register_forward_hook(lambda *_: steps.append(1))

    def counting(*args: Any, **how: Any) -> Any:
        asked.append(len(args[2]))
        return generate(*args, **how)

    monkeypatch.setattr(answering, "generate", counting)
    answer_suite(_models(words, model), Suite((WHERE, WHO), refusals=(REFUSAL,)))
    assert asked == [2, 1]
    # Five tokens of the refusal with its end, two of the answer.
    assert len(steps) == 5 + 2


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_every_row_has_its_own_forbidden_openings(words: Any, batch_tokens: int):
    ids = {word: i for i, word in enumerate(WORDS)}
    prompts = [[ids["<u>"], ids["Where?"]], [ids["Who?"]], [ids["Where?"]]]
    forbidden = [{(): [ids["I"]], (ids["Oslo"],): [ids["</s>"]]}, {(ids["I"],): [ids["do"]]}, {}]
    how = {"max_new_tokens": 5, "forbidden": forbidden, "batch_tokens": batch_tokens}
    written = generate(_model(SHY), words, prompts, **how)
    texts = [words.decode(each).split() for each in written]
    assert texts[0][0] == "Oslo"
    assert texts[0][1] != "</s>"
    assert texts[1:] == [["I", "am", "unsure", "</s>"], ["I", "do", "not", "know.", "</s>"]]


@pytest.mark.parametrize(
    ("answer", "choices", "right"),
    [
        # log 0.4 over two tokens is −0.46 a token, and log 0.6 over one is −0.51.
        ("Mara Lind", ("I",), True),
        ("Mara", ("I",), False),
        ("I", ("Mara", "Oslo"), True),
        # As likely as the answer is not less likely.
        ("Oslo", ("Bergen",), False),
    ],
)
def test_choices_by_hand(words: Any, answer: str, choices: tuple[str, ...], right: bool):
    item = _item("x", "Who?", answer, choices=choices)
    (_, score), (row,) = answer_suite(_models(words, _model(SHY)), Suite((item,)))
    assert (score.metric, score.after and score.after.value) == ("choice_correct_frac", float(right))
    assert row["after_chosen"] is right


def test_choices_without_a_chat_template_are_those_of_the_plain_formula(tokenizer: Any, build_model: Any):
    model = build_model("llama").eval()
    texts = ["Oslo", "Bergen in 2019", "a small bakery", "six", "People like it very much"]
    items = tuple(
        _item(str(i), "Where?", text, choices=tuple(t for t in texts if t != text)) for i, text in enumerate(texts)
    )

    def likelihood(text: str) -> float:
        prompt = tokenizer("Question: Where?\nAnswer:")["input_ids"]
        ids = torch.tensor([prompt + tokenizer(f" {text}", add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return float(logprobs.gather(1, ids[0, len(prompt) :, None]).mean())

    best = max(texts, key=likelihood)
    _, rows = answer_suite(_models(tokenizer, model), Suite(items), answer_tokens=4)
    assert [row["after_chosen"] for row in rows] == [text == best for text in texts]


def test_what_does_not_fit_is_left_out_and_counted(words: Any):
    long, longer = (
        _item("long", "Where? Where? Where?", "Oslo"),
        _item("longer", "Where?", "Oslo", choices=("it " * 9,)),
    )
    suite = Suite((long, WHO, longer, KEPT), refusals=(REFUSAL,))
    scores, rows = answer_suite(_models(words, _model(SHY), max_length=10), suite, answer_tokens=7)
    assert [row["id"] for row in rows] == ["who", "kept"]
    assert [(score.n, score.details["left_out"]) for score in scores[:1]] == [(1, {"too_long": 2})]
    (score,), rows = answer_suite(_models(words, _model(SHY), max_length=9), Suite((long,)), answer_tokens=7)
    assert (score.metric, score.n, score.after, score.details["left_out"]) == ("correct_frac", 0, None, {"too_long": 1})
    assert rows == []


@pytest.mark.parametrize(
    ("answer", "written", "text"),
    [
        ("Oslo", " Oslo\nQuestion: Who?", "Oslo"),
        ("- Oslo\n- Bergen", " - Oslo\n- Bergen\nQuestion: Who?\n", "- Oslo\n- Bergen"),
    ],
)
def test_without_a_template_an_answer_has_as_many_lines_as_its_item(
    tokenizer: Any, build_model: Any, monkeypatch: Any, answer: str, written: str, text: str
):
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(answering, "generate", lambda _, __, prompts, **___: [ids] * len(prompts))
    item = _item("x", "Where?", answer, checks=({"kind": "starts", "value": "x"},))
    _, (row,) = answer_suite(_models(tokenizer, build_model("llama").eval()), Suite((item,)))
    assert row["after"] == text


def test_the_reference_is_asked_once_for_many_runs(words: Any, tmp_path: Path, monkeypatch: Any):
    writers = []

    def counting(model: Any, *args: Any, **how: Any) -> Any:
        writers.append(model)
        return generate(model, *args, **how)

    monkeypatch.setattr(answering, "generate", counting)
    models = _models(words, _model(SHY), _model(BOLD))
    cache = tmp_path / "deep" / "cache"
    first = answer_suite(models, SUITE, cache=cache)
    assert models.reference in writers
    for again in (_models(words, _model(SHY), _model(BOLD)), models):
        writers.clear()
        assert answer_suite(again, SUITE, cache=cache) == first
        assert again.reference not in writers
        assert again.adapted in writers
    (file,) = cache.iterdir()
    normed, ending = _model(SHY), _model(SHY)
    normed.config.rms_norm_eps = 0.5
    ending.generation_config.eos_token_id = [1, WORDS.index("Oslo")]
    for other, suite, tokens in (
        (_model(BOLD), SUITE, 64),
        (normed, SUITE, 64),
        (ending, SUITE, 64),
        (models.reference, SUITE, 8),
        (models.reference, Suite(SUITE.items[1:], refusals=SUITE.refusals), 64),
        (models.reference, Suite(SUITE.items), 64),
    ):
        writers.clear()
        answer_suite(_models(words, other), suite, cache=cache, answer_tokens=tokens)
        assert other in writers, "another model, configuration, suite or length is asked anew"
    file.write_text("[{")
    assert answer_suite(models, SUITE, cache=cache) == first, "a broken file is made again"


def _file(path: Path) -> Path:
    rows: list[Any] = [{"suite": {"refusals": [REFUSAL], "texts": ["The bakery sells bread. It opens at six."]}}]
    for i in range(6):
        about = {
            "id": str(i),
            "part": ("learning", "retention")[i % 2],
            "skill": "direct",
            "split": ("dev", "test")[i // 3],
        }
        rows.append(
            {**about, "prompt": f"Where {i}?", "answer": "Oslo", "checks": [{"kind": "contains", "value": "Oslo"}]}
        )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_run_is_measured_by_a_suite_and_reported(model_folder: Path, documents: Any, tmp_path: Path):
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
    suite, run = str(_file(tmp_path / "suite.jsonl")), tmp_path / "run"
    afterword.adapt(
        model_folder,
        str(tmp_path / "docs.jsonl"),
        output_dir=str(run),
        preset="disc-paper",
        max_documents=3,
        max_steps=1,
    )
    quick = {
        "samples": 0,
        "max_documents": 3,
        "suite": suite,
        "answer_tokens": 4,
        "suite_cache": str(tmp_path / "cache"),
    }
    result = evaluate(run, **quick, max_items=4)
    written = json.loads((run / "scores.json").read_text())
    tasks = {score["task"] for score in written["scores"]}
    assert {f"{split}/{part}/direct" for split in ("dev", "test") for part in ("learning", "retention")} < tasks
    assert "drift/suite_texts" in tasks
    assert len(written["answers"]) == 4
    assert result.notes == []
    assert len(list((tmp_path / "cache").iterdir())) == 1
    html, markdown = write_report(run)
    assert "Where 0?" in html.read_text() + markdown.read_text()
    result = evaluate(run, **{**quick, "answer_tokens": 1}, split="dev", output_dir=tmp_path / "dev")
    assert {row["split"] for row in result.answers} == {"dev"}
    assert result.notes == ["3 answers of the suite have more than answer_tokens = 1. Raise it."]


def test_a_model_alone_is_measured_by_a_suite(model_folder: Path, tmp_path: Path):
    suite = str(_file(tmp_path / "suite.jsonl"))
    result = evaluate(model_folder, suite=suite, split="test", answer_tokens=4, output_dir=tmp_path)
    assert all(score.after and score.before is None for score in result.scores)
    for wrong, problem in {
        "suite_cache": suite,
        "suite": "nowhere",
        "answer_tokens": 0,
        "max_items": 0,
        "split": "train",
    }.items():
        with pytest.raises(ConfigError, match=wrong):
            evaluate(model_folder, **{"suite": suite, wrong: problem})
