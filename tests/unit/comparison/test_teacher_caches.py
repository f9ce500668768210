"""A grid reads what its teachers read once, whatever arms, rates and seeds it has; and its rows are the same."""

import json

import pytest

from afterword.comparison import run as running
from afterword.comparison.grid import cells_of, training_fingerprint, weights_settings
from afterword.errors import ConfigError
from afterword.models import AdapterOff, FrozenCopy, load_model, size_of
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings

GIVEN = {"model_name_or_path": "model", "documents": ["docs.jsonl"], "suite": "suite.jsonl", "output_dir": "out"}
GIVEN |= {"methods": "disc", "learning_rates": "1e-4,3e-4", "evaluate": {"samples": 0}}


def settings(**raw):
    adapt = {"num_train_epochs": 1, "documents_per_step": 5, "teacher": "cached", **raw.pop("adapt", {})}
    return read_settings({**GIVEN, "adapt": adapt, **raw}, CompareSettings)


@pytest.fixture
def read(monkeypatch, by_hand):
    """How many texts each forward of a teacher read; evaluation is by hand."""
    counts = []
    for kind in (FrozenCopy, AdapterOff):
        real = kind.trained_states

        def spied(self, *views, real=real):
            counts.append(sum(int((view.position_ids == 0).sum()) for view in views))
            return real(self, *views)

        monkeypatch.setattr(kind, "trained_states", spied)
    kept = by_hand.retention(0.9, 0.8)
    found = {"scores": by_hand.scores(dev=(0.3, kept), test=(0.4, kept)), "notes": []}
    monkeypatch.setattr(running, "measure", lambda *_: found)
    return counts


def caches(place):
    return sorted(path.parent.name for path in (place / "out/teacher").glob("*/index.json"))


def test_arms_that_read_alike_read_once(place, read):
    arms = ("disc", "disc:strategy=all", "disc:use_peft=true", "finetune_kl", "finetune")
    running.compare(settings(methods=arms, seeds="0,1", learning_rates="1e-4"))
    rows = [json.loads(line) for line in (place / "out/rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["complete"] * 10
    assert len(caches(place)) == 1
    assert sum(read) == 10
    size = size_of(load_model("model"))
    once = {row["arm"]: row["cost"].get("teacher_read_once") for row in rows}
    assert once.pop("finetune") is None
    for counted in once.values():
        # All ten documents, each with its BOS; hidden states need no head.
        assert counted == {"tokens": counted["tokens"], "flops": 2 * size.backbone * counted["tokens"]}
        assert counted["tokens"] == once["disc"]["tokens"] > 100


def test_arms_that_read_otherwise_have_texts_of_their_own(place, read):
    running.compare(settings(methods=("disc", "disc:bos=never", "disc:join=authors"), learning_rates="1e-4"))
    assert len(caches(place)) == 1
    assert sum(read) == 30


def test_a_grid_can_keep_them_where_it_is_told(place, read):
    running.compare(settings(adapt={"teacher_cache": "elsewhere"}, methods=("disc", "disc:bos=never")))
    assert len(list((place / "elsewhere").glob("*/index.json"))) == 1
    assert not (place / "out/teacher").exists()


def test_rows_recorded_without_a_cache_stay_valid(place, read):
    running.compare(settings(adapt={"teacher": None}))
    read.clear()
    running.compare(settings())
    assert read == []
    assert len((place / "out/rows.jsonl").read_text().splitlines()) == 2


def fingerprint(**adapt):
    cell, _ = cells_of(settings(adapt=adapt))
    return training_fingerprint(cell, "weights", "texts")


def test_where_a_teacher_is_kept_is_no_part_of_what_weights_follow_from():
    exact = fingerprint(teacher=None)
    assert {fingerprint(teacher=kind) for kind in ("copy", "offload", "cached")} == {exact}
    assert fingerprint(teacher="cached", teacher_cache="x") == exact
    cell, _ = cells_of(settings())
    assert not [name for name in weights_settings(cell.settings) if name.startswith("teacher_") and "prec" not in name]
    assert "teacher" not in weights_settings(cell.settings)


def test_what_cannot_work_is_refused_before_anything_is_trained(place, read):
    with pytest.raises(ConfigError, match="teacher: 'adapter_off' needs an adapter"):
        running.compare(settings(adapt={"teacher": "adapter_off"}))
    assert not (place / "out/rows.jsonl").exists()
