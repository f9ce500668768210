"""Tick labels that can be read and mean something: few of them, and none between two whole steps."""

import re
from types import SimpleNamespace

from afterword.report.figures import draw_changes, draw_training


def _labels(figure):
    assert figure
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure["svg"])


def _row(value, low, high):
    score = {"metric": "x_nats", "change": {"value": value, "interval_95": [low, high]}}
    words = {"task": "t", "metric": "m", "unit": "nats", "change": {"mean": "0", "interval": "[0, 0]"}}
    reading = SimpleNamespace(tone="unclear", words="")
    return {
        **words,
        "score": {**score, "n": 1},
        "reading": reading,
        "before": words["change"],
        "after": words["change"],
    }


def _numbers(labels):
    return [label for label in labels if re.fullmatch(r"[−-]?[\d.]+", label)]


def test_steps_are_whole_also_where_there_is_one():
    for steps in (1, 2, 3):
        rows = [{"step": step, "train/loss_nats": 3.0 - step / 10} for step in range(1, steps + 1)]
        labels = _labels(draw_training(rows))
        below = labels[: labels.index("optimizer step")]
        assert [label for label in below if re.fullmatch(r"\d+", label)] == [str(n) for n in range(1, steps + 1)]


def test_small_changes_have_few_labels_and_no_change_has_one():
    assert 2 <= len(_numbers(_labels(draw_changes([_row(0.000081, 0.00002, 0.00014)])))) <= 6
    assert _numbers(_labels(draw_changes([_row(0.0, 0.0, 0.0)]))) == ["0"]
