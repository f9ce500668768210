"""A cache says what it is of, and nothing that is not whole and of the same is believed."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from afterword.errors import CheckpointError
from afterword.models import (
    LoraSettings,
    causal_lm,
    configuration_sha256,
    given_fingerprint,
    teacher_cache,
    weights_fingerprint,
    with_lora,
)
from afterword.models.teacher_cache import INDEX, Origin, open_cache, text_key

ORIGIN = Origin(model="m", configuration="c", precision="torch.float32")
TEXTS = [np.arange(length) for length in (5, 3, 9, 4)]
KEYS = [text_key(text) for text in TEXTS]


def keys(*texts):
    return [KEYS[text] for text in texts]


def rows_of(*texts):
    return [torch.arange(len(TEXTS[text]) * 6, dtype=torch.float64).view(-1, 6) + 100 * text for text in texts]


def test_a_text_is_named_by_its_tokens_alone():
    assert len(set(KEYS)) == 4
    assert text_key(TEXTS[2].astype(np.int32)) == KEYS[2]
    assert text_key(TEXTS[2][::-1]) != KEYS[2]


@pytest.fixture
def folder(tmp_path):
    """Texts 2 and 0 in a shard, 3 in another; 1 is not there."""
    place = tmp_path / "cache"
    open_cache(place, ORIGIN).with_shard(keys(2, 0), rows_of(2, 0)).with_shard(keys(3), rows_of(3))
    return place


def test_rows_are_found_by_text_and_position(folder):
    cache = open_cache(folder, ORIGIN)
    for text in (0, 2, 3):
        positions = np.array([2, 0, len(TEXTS[text]) - 1])
        assert torch.equal(cache.rows(KEYS[text], positions), rows_of(text)[0][positions])
    assert [key in cache for key in KEYS] == [True, False, True, True]
    with pytest.raises(AssertionError, match="positions are of the text"):
        cache.rows(KEYS[3], np.array([4]))


def test_types_are_kept_bit_by_bit(tmp_path):
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        rows = torch.randn(5, 6).to(dtype)
        cache = open_cache(tmp_path / str(dtype), ORIGIN).with_shard(keys(0), [rows])
        found = cache.rows(KEYS[0], np.arange(5))
        assert found.dtype == dtype
        assert torch.equal(found, rows)


def test_a_cache_travels_to_workers(folder):
    cache = pickle.loads(pickle.dumps(open_cache(folder, ORIGIN)))
    assert torch.equal(cache.rows(KEYS[3], np.arange(4)), rows_of(3)[0])


def test_the_index_says_what_the_rows_are(folder):
    index = json.loads((folder / INDEX).read_text())
    assert index["origin"] == vars(ORIGIN)
    assert index["rows"] == "float64, 6 wide"
    assert [shard["texts"] for shard in index["shards"]] == [[[KEYS[2], 9], [KEYS[0], 5]], [[KEYS[3], 4]]]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("model", "other", "another model"),
        ("configuration", "other", r"another model configuration \(config\.json\)"),
        ("precision", "torch.bfloat16", "another precision"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_name(folder, field, value, said):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError, match=f"teacher_cache: .* by or of {said}") as caught:
        open_cache(folder, replace(ORIGIN, **{field: value}))
    assert "Give another folder, or delete this one" in str(caught.value)
    assert " and " not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_everything_that_differs_is_named(folder):
    with pytest.raises(CheckpointError, match=r"of another model and another precision\."):
        open_cache(folder, replace(ORIGIN, model="other", precision="other"))


def shorten(path):
    path.write_bytes(path.read_bytes()[:-8])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [shorten, flip, lambda path: path.unlink()], ids=["truncated", "flipped", "gone"])
def test_a_damaged_shard_is_refused(folder, damage):
    damage(folder / "00000.safetensors")
    with pytest.raises(CheckpointError, match=r"is damaged: 00000\.safetensors .* Delete the folder"):
        open_cache(folder, ORIGIN)


@pytest.mark.parametrize("text", ["", '{"format": 1', "[]", '{"origin": {}, "shards": []}'])
def test_a_damaged_index_is_refused(folder, text):
    (folder / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=r"is damaged: index\.json cannot be read"):
        open_cache(folder, ORIGIN)


def exchanged(index):
    texts = index["shards"][0]["texts"]
    texts[0], texts[-1] = texts[-1], texts[0]


@pytest.mark.parametrize("change", [exchanged, lambda index: index.pop("sha256")], ids=["exchanged", "of before"])
def test_an_index_that_was_changed_is_refused(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"is damaged: index\.json is not as it was written"):
        open_cache(folder, ORIGIN)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["_flush", "os.replace", "replace_file"], ids=["written", "renamed", "listed"])
def test_what_a_killed_process_was_writing_is_written_again(folder, monkeypatch, moment):
    real = teacher_cache.os.replace

    def die(*paths):
        # Only of a shard: the index is renamed to its place as well.
        if moment == "os.replace" and str(paths[1]).endswith(INDEX):
            return real(*paths)
        raise Killed

    cache = open_cache(folder, ORIGIN)
    with monkeypatch.context() as patch:
        patch.setattr(f"afterword.models.teacher_cache.{moment}", die)
        with pytest.raises(Killed):
            cache.with_shard(keys(1), rows_of(1))
    again = open_cache(folder, ORIGIN)
    assert [key in again for key in KEYS] == [True, False, True, True]
    # Whatever it left is overwritten, by other rows if need be.
    other = [rows_of(1)[0] + 7]
    assert torch.equal(again.with_shard(keys(1), other).rows(KEYS[1], np.arange(3)), other[0])
    assert torch.equal(open_cache(folder, ORIGIN).rows(KEYS[1], np.arange(3)), other[0])


def test_a_cache_made_anew_in_the_same_place_is_read_anew(folder):
    before = open_cache(folder, ORIGIN).rows(KEYS[3], np.arange(4))
    for path in folder.iterdir():
        path.unlink()
    cache = open_cache(folder, ORIGIN).with_shard(keys(0), rows_of(0)).with_shard(keys(3), [rows_of(3)[0] + 1])
    assert torch.equal(cache.rows(KEYS[3], np.arange(4)), before + 1)


def test_rows_are_mapped_and_not_read(folder):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not say what is mapped")
    cache = open_cache(folder, ORIGIN)
    assert str(folder) not in maps.read_text()
    cache.rows(KEYS[3], np.arange(4))
    assert str(folder / "00001.safetensors") in maps.read_text()


def test_a_model_is_told_by_its_weights_whatever_adapter_is_on_it(build_model, perturb):
    model = build_model("llama")
    plain = given_fingerprint(model)
    assert given_fingerprint(build_model("llama")) == plain
    assert given_fingerprint(build_model("llama", seed=1)) != plain
    used = configuration_sha256(model)
    for settings in ({}, {"modules_to_save": ("lm_head", "embed_tokens")}, {"use_dora": True}):
        adapted = with_lora(build_model("llama"), LoraSettings(r=4, **settings), seed=0)
        assert given_fingerprint(perturb(adapted)) == plain
        assert configuration_sha256(adapted, adapted=False) == used


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_tied_weights_are_told_whatever_adapter_is_on_them(build_model):
    plain = given_fingerprint(build_model("llama", tie_word_embeddings=True))
    settings = LoraSettings(r=4, modules_to_save=("lm_head", "embed_tokens"))
    assert given_fingerprint(with_lora(build_model("llama", tie_word_embeddings=True), settings, seed=0)) == plain


@pytest.mark.parametrize("adapter", [False, True])
def test_a_model_is_told_by_every_value(build_model, adapter):
    def model():
        return with_lora(build_model("llama"), LoraSettings(r=4), seed=0) if adapter else build_model("llama")

    plain, changed = given_fingerprint(model()), model()
    with torch.no_grad():
        # Of its 9,600 values, every second is in a sample of 4,096.
        causal_lm(changed).lm_head.weight[0, 1] += 1
    assert weights_fingerprint(changed) == weights_fingerprint(model())
    assert given_fingerprint(changed) != plain
