"""An arm that trains nothing: what was to be learned is looked up, what is kept is the base's, every question costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afterword.comparison import run as running
from afterword.comparison.searches import as_an_arm
from afterword.comparison.with_retrieval import retrieval_summary
from afterword.errors import ConfigError
from afterword.report import write_comparison
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings

GIVEN = {"model_name_or_path": "model", "documents": ["docs.jsonl"], "suite": "suite.jsonl", "output_dir": "out"}
GIVEN |= {"evaluate": {"samples": 0, "answer_tokens": 4, "max_documents": 2, "excerpt_tokens": 32}}

METRICS = {"learning": "correct_frac", "retention": "correct_frac"}


def _settings(**raw: Any) -> CompareSettings:
    return read_settings({**GIVEN, **raw}, CompareSettings)


def _score(task: str, after: float, before: float | None = None, metric: str = "correct_frac") -> dict[str, Any]:
    def estimate(value: float | None) -> dict[str, Any] | None:
        return None if value is None else {"value": value, "interval_95": [value - 0.1, value + 0.1]}

    change = None if before is None else {"value": after - before, "interval_95": [after - before - 0.1] * 2}
    return {"task": task, "metric": metric, "before": estimate(before), "after": estimate(after), "change": change}


def test_what_is_learned_is_looked_up_and_what_is_kept_is_the_bases():
    base = [_score("test/learning/direct", 0.1), _score("test/retention/reading", 0.8)]
    found = [_score("test/learning_retrieved/direct", 0.7), _score("test/retention_retrieved/reading", 0.5)]
    learned, kept, *beside = as_an_arm([*base, *found])
    assert [learned[side]["value"] for side in ("before", "after")] == [0.1, 0.7]
    assert [kept[side]["value"] for side in ("before", "after")] == [0.8, 0.8]
    assert beside == found


def _costs(tokens: float, gflops: float, seconds: float, kind: str) -> list[dict[str, Any]]:
    part = f"test/learning{kind}"
    return [
        _score(part, tokens, metric="prompt_tokens"),
        _score(part, gflops, metric="answer_gflops"),
        _score(f"suite{kind}", seconds, metric="answer_seconds"),
    ]


def test_training_has_paid_when_the_questions_have_cost_as_much():
    always = [_score("test/retention_retrieved/reading", 0.2), _score("test/retention_retrieved/sums", 0.6)]
    search = {"scores": [*_costs(50, 20.0, 1.0, ""), *_costs(300, 70.0, 3.0, "_retrieved"), *always]}
    trained = [{"cost": {"flops": flops}, "scores": []} for flops in (1e12, 2e12)]
    cells = [{"arm": "retrieval-3", "learning_rate": 0.0}, *({"arm": "a", "learning_rate": r} for r in (1e-5, 1e-4))]
    summary = retrieval_summary(list(zip(cells, [search, *trained], strict=True)), "test", METRICS)
    assert summary is not None
    (question,) = summary["questions"]
    assert question["alone"] == {"prompt_tokens": 50, "gflops": 20.0, "seconds": 1.0}
    assert question["retrieved"] == {"prompt_tokens": 300, "gflops": 70.0, "seconds": 3.0}
    assert question["kept_if_always"]["value"] == pytest.approx(0.4)
    # 1.5e12 FLOPs on the mean, and 50e9 more for a question.
    assert summary["paid_after"] == [{"arm": "a", "flops": 1.5e12, "questions": {"retrieval-3": 30}}]


def test_having_learned_is_held_against_the_base_with_the_same_excerpts():
    scores = [
        _score("test/learning/direct", 0.4, 0.1),
        _score("test/learning_retrieved/direct", 0.6, 0.7),
        _score("test/learning/reverse", 0.2, 0.1),
        _score("test/learning_retrieved/reverse", 0.4, 0.7),
    ]
    cell = {"arm": "a", "learning_rate": 1e-5}
    summary = retrieval_summary([(cell, {"cost": {"flops": 1.0}, "scores": scores})], "test", METRICS)
    assert summary is not None
    (row,) = summary["together"]
    means = {name: round(row[name]["value"], 6) for name in ("alone", "base_retrieved", "retrieved", "change")}
    assert means == {"alone": 0.3, "base_retrieved": 0.7, "retrieved": 0.5, "change": -0.2}
    assert row["change"]["interval_95"][0] < 0, "a loss is not cut off at nothing"
    assert retrieval_summary([(cell, {"cost": {"flops": 1.0}, "scores": scores[:1]})], "test", METRICS) is None


def test_what_did_not_fit_any_prompt_is_no_mean():
    left_out = {**_score("test/retention_retrieved/reading", 0.0), "after": None}
    row = {"scores": [left_out], "cost": {"flops": 0.0}}
    summary = retrieval_summary([({"arm": "retrieval-1", "learning_rate": 0.0}, row)], "test", METRICS)
    assert summary is not None
    assert summary["questions"][0]["kept_if_always"] is None


def test_an_arm_that_trains_nothing_has_a_row_and_a_place_on_the_page(place, monkeypatch):
    made = running.compare(_settings(retrieval="1"))
    (row,) = [json.loads(line) for line in (place / "out/rows.jsonl").read_text().splitlines()]
    assert (row["arm"], row["learning_rate"], row["cost"]["flops"]) == ("retrieval-1", 0.0, 0.0)
    (arm,) = made["arms"]
    assert arm["pick"]["learning_rate"] == 0.0
    assert arm["points"][0]["retention"]["value"] == made["base"]["test"]["retention"]["value"]
    (question,) = made["retrieval"]["questions"]
    assert question["retrieved"]["prompt_tokens"] >= question["alone"]["prompt_tokens"]
    assert question["retrieved"]["seconds"] > 0
    # What has a row is not asked again.
    monkeypatch.setattr(running, "measure", lambda *_, **__: pytest.fail("asked again"))
    assert running.compare(_settings(retrieval="1"))["arms"] == made["arms"]
    html, markdown, _ = write_comparison(place / "out")
    for page in (html, markdown):
        text = page.read_text(encoding="utf-8")
        assert "Looking it up instead" in text
        assert "untrained" in text


def test_what_is_searched_and_how_is_part_of_what_a_row_is_of(place, monkeypatch):
    asked = []

    def measure(name: str, settings: CompareSettings, command: str, **more: Any) -> dict[str, Any]:
        asked.append((more["retrieve"], settings.evaluate["excerpt_tokens"]))
        scores = [_score(f"{split}/{part}/x", 0.5) for split in ("dev", "test") for part in ("learning", "retention")]
        return {"scores": [{**score, "n": 2} for score in scores], "notes": []}

    monkeypatch.setattr(running, "measure", measure)
    longer = {**GIVEN["evaluate"], "excerpt_tokens": 64}
    for more in ({"retrieval": "1"}, {"retrieval": "1,2"}, {"retrieval": "2", "evaluate": longer}):
        running.compare(_settings(**more))
    assert asked == [(1, 32), (2, 32), (2, 64)]


def test_arms_that_train_are_not_told_of_retrieval_that_they_do_not_do():
    settings = _settings(retrieval="1", methods="finetune", learning_rates="1e-5")
    assert "excerpt_tokens" not in settings.evaluate_settings()
    both = _settings(methods="finetune", learning_rates="1e-5", evaluate={**GIVEN["evaluate"], "retrieve": 1})
    assert both.evaluate_settings()["excerpt_tokens"] == 32
    # What cells are that retrieve nothing is not changed by how others do.
    plain = _settings(methods="finetune", learning_rates="1e-5", retrieval="1", evaluate={"samples": 0})
    assert running.evaluating(plain).keys() == running.evaluating(settings).keys()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"retrieval": "0"}, "retrieval.0: .*greater than or equal to 1"),
        ({"methods": "finetune", "learning_rates": "1e-5"}, "evaluate.excerpt_tokens: nothing is retrieved"),
        (
            {"retrieval": "1", "arms": {"retrieval-1": {"method": "finetune", "learning_rates": [1e-5]}}},
            "retrieval: there is an arm 'retrieval-1' already",
        ),
    ],
)
def test_what_cannot_be_is_said_beforehand(raw: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        _settings(**raw)
