"""Two models one after the other, and one that is spread over devices, are measured as both in memory."""

import gc
import json
import weakref

import pytest

from afterword import evaluation
from afterword.evaluation import pair as pairing
from afterword.models import load
from afterword.settings.adapt import read_settings
from afterword.settings.evaluate import EvaluateSettings


@pytest.fixture
def place(tmp_path, pair, tokenizer, documents, monkeypatch):
    """A folder with `before`, `after` and docs.jsonl."""
    for name, model in zip(("before", "after"), pair(), strict=True):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents), encoding="utf-8")
    (tmp_path / "questions.jsonl").write_text(
        "".join(
            json.dumps({"question": f"Where is {n}?", "answers": ["Oslo"], "choices": ["Rome"]}) + "\n"
            for n in range(5)
        ),
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFTERWORD_CACHE", "off")
    return tmp_path


MEASURED = {"reference": "before", "documents": ("docs.jsonl",), "general": ("docs.jsonl",), "samples": 4}
MEASURED |= {"questions": "questions.jsonl", "max_documents": 4, "sample_tokens": 16, "max_length": 96}


def test_models_in_turns_are_measured_as_both_at_once(place, monkeypatch):
    there, most, real = list[weakref.ref](), [0], load.load_model

    def counted(*words, **how):
        gc.collect()
        model = real(*words, **how)
        there.append(weakref.ref(model))
        most[0] = max(most[0], sum(each() is not None for each in there))
        return model

    monkeypatch.setattr(load, "load_model", counted)
    both = evaluation.evaluate("after", **MEASURED, models_at_once="both")
    assert most == [2]
    del there[:]
    most[0] = 0
    one = evaluation.evaluate("after", **MEASURED, models_at_once="one")
    assert most == [1]
    assert len(there) > 2
    assert (one.scores, one.answers, one.samples) == (both.scores, both.answers, both.samples)


def test_both_are_in_memory_only_where_they_fit(place, monkeypatch):
    settings = read_settings({"reference": "before"}, EvaluateSettings)
    needed = 2 * pairing.weights_bytes("after", pairing.torch.float32)
    for free, in_turns in ((2 * needed, False), (needed, True)):
        monkeypatch.setattr(pairing, "_free_bytes", lambda *, spread, free=free: free)
        models = pairing.load_models("after", settings)
        assert models.in_turns == in_turns
        assert models.are_two


def test_a_model_alone_takes_no_turns(place):
    models = pairing.load_models("after", read_settings({"models_at_once": "one"}, EvaluateSettings))
    assert (models.are_two, models.in_turns) == (False, False)


def test_a_model_that_is_partly_on_the_disk_is_measured_as_one_in_memory(place, monkeypatch):
    import accelerate.utils
    from transformers.integrations import accelerate as placing

    whole = evaluation.evaluate("after", **MEASURED)
    # What a machine has is a little less than the model needs.
    small = {"cpu": pairing.weights_bytes("after", pairing.torch.float32) * 2 // 3}
    for module in (accelerate.utils, placing):
        monkeypatch.setattr(module, "get_max_memory", lambda *_: dict(small), raising=False)
    model = load.load_model("after", device_map="auto")
    assert "disk" in model.hf_device_map.values()
    assert any(weight.is_meta for weight in model.parameters())
    spread = evaluation.evaluate("after", **MEASURED, device_map="auto")
    for one, other in zip(spread.scores, whole.scores, strict=True):
        values = [[side.value for side in (score.before, score.after) if side] for score in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=1e-5), one.task
    assert spread.answers == whole.answers
