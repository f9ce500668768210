"""What was written once is not written again: by another run, another method, another process, after a kill."""

import json

import pytest
from tiny_models import byte_tokenizer, random_llama

from afterword.errors import DataError
from afterword.pool import Workers
from afterword.types import Request, Sampling
from afterword.writing import GeneratorChoice, LocalGenerator, Spread, open_writer

SAMPLING = Sampling(max_new_tokens=8)
ASKED = [Request(text=f"Document {n}. ", sampling=SAMPLING, seed=seed) for n in range(5) for seed in (0, 1)]


@pytest.fixture(scope="module")
def model():
    return random_llama()


@pytest.fixture
def counted(monkeypatch):
    """The numbers of requests of every batch that was written."""
    sizes, real = list[int](), LocalGenerator.write

    def write(self, requests, advance):
        sizes.append(len(requests))
        return real(self, requests, advance)

    monkeypatch.setattr(LocalGenerator, "write", write)
    return sizes


def written(model, requests, record=None, **choice):
    with open_writer(lambda: model, byte_tokenizer(), GeneratorChoice(**choice), record=record) as writer:
        return writer.write(requests, "texts")


def test_another_run_finds_what_was_written_and_writes_the_rest(model, counted, tmp_path):
    folder = str(tmp_path / "store")
    first = written(model, ASKED[:6], tmp_path / "a" / "written.jsonl", written_folder=folder)
    both = written(model, [*ASKED, ASKED[0]], tmp_path / "b" / "written.jsonl", written_folder=folder)
    assert (both[:6], both[-1]) == (first, first[0])
    assert sum(counted) == len(ASKED)
    assert len((tmp_path / "b" / "written.jsonl").read_text().splitlines()) == len(ASKED)


def test_the_record_is_readable_and_enough_without_the_store(model, counted, tmp_path):
    record = tmp_path / "written.jsonl"
    (request,) = [Request(text="Once ", sampling=SAMPLING, about="report.txt, rephrase_1 (version 2)")]
    (text,) = written(model, [request], record, written_folder=str(tmp_path / "store"))
    row = json.loads(record.read_text())
    assert (row["prompt"], row["text"], row["about"], row["what"]) == ("Once ", text.text, request.about, "texts")
    assert (row["max_new_tokens"], row["temperature"], row["seed"]) == (8, 1.0, 0)
    assert written(model, [request], record, written_folder=str(tmp_path / "another")) == [text]
    assert counted == [1]


def test_without_a_cache_the_record_is_the_store(model, counted, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERWORD_CACHE", "off")
    record = tmp_path / "run" / "written.jsonl"
    assert written(model, ASKED, record) == written(model, ASKED, record)
    assert sum(counted) == len(ASKED)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "written.jsonl"]


def test_a_run_that_is_stopped_in_its_midst_goes_on_to_the_same_bytes(model, tmp_path, monkeypatch):
    through = written(model, ASKED, tmp_path / "a.jsonl", written_folder=str(tmp_path / "a"))
    real, batches = LocalGenerator.write, LocalGenerator.batches
    sizes = list[int]()

    def by_threes(self, requests):
        whole = [number for batch in batches(self, requests) for number in batch]
        return [whole[at : at + 3] for at in range(0, len(whole), 3)]

    def stopped(self, requests, advance):
        sizes.append(len(requests))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return real(self, requests, advance)

    monkeypatch.setattr(LocalGenerator, "batches", by_threes)
    monkeypatch.setattr(LocalGenerator, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        written(model, ASKED, tmp_path / "b.jsonl", written_folder=str(tmp_path / "b"))
    assert written(model, ASKED, tmp_path / "b.jsonl", written_folder=str(tmp_path / "b")) == through
    # Two batches were stored whole, the third was in flight.
    assert sizes == [3, 3, 3, 3, 1]
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_one_that_goes_on_writes_in_the_batches_it_was_stopped_in(model, tmp_path, monkeypatch):
    """Also where the rest alone would be put together in another way. What is left of a batch is put together anew."""
    sizes, real, stops = list[int](), LocalGenerator.write, [2]

    def by_how_many(self, requests):
        size = 2 + len(requests) % 2
        return [list(range(at, min(at + size, len(requests)))) for at in range(0, len(requests), size)]

    def stopped(self, requests, advance):
        stops[0] -= 1
        if not stops[0]:
            raise KeyboardInterrupt
        sizes.append(len(requests))
        return real(self, requests, advance)

    monkeypatch.setattr(LocalGenerator, "batches", by_how_many)
    monkeypatch.setattr(LocalGenerator, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        written(model, ASKED[:9], written_folder=str(tmp_path / "stopped"))
    written(model, ASKED[:9], written_folder=str(tmp_path / "stopped"))
    assert sizes == [3, 3, 3]
    sizes.clear()
    written(model, [ASKED[1], ASKED[3]], written_folder=str(tmp_path / "part"))
    written(model, ASKED[:8], written_folder=str(tmp_path / "part"))
    assert sizes == [2, 2, 2, 2]


def test_another_model_writes_where_it_is_named_and_the_taught_one_is_not_read(model_folder, tmp_path):
    def refused():
        raise AssertionError("it does not write")

    choice = GeneratorChoice(generator=str(model_folder), written_folder=str(tmp_path))
    with open_writer(refused, byte_tokenizer(), choice) as writer:
        assert len(writer.write(ASKED[:1], "texts")) == 1
        with pytest.raises(AssertionError, match="it does not write"):
            _ = writer.model


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_another_model_writes_in_the_precision_that_is_asked_for(precision, model_folder, tmp_path):
    choice = GeneratorChoice(generator=str(model_folder), written_folder=str(tmp_path), precision=precision)
    with open_writer(lambda: None, byte_tokenizer(), choice) as writer:
        assert writer.generator.name.endswith({"float32": " float32", "bf16": " bfloat16"}[precision])


def test_seeds_do_not_matter_to_the_likeliest_tokens(model, counted, tmp_path):
    greedy = Sampling(max_new_tokens=8, temperature=0)
    one, other = (Request(text="Once ", sampling=greedy, seed=seed) for seed in (0, 1))
    first, second = written(model, [one, other], written_folder=str(tmp_path))
    assert first == second
    assert sum(counted) == 1


@pytest.mark.parametrize("field", ["text", "ended"])
def test_a_row_of_another_format_is_said(field, model, tmp_path):
    (first, *_) = ASKED
    written(model, [first], written_folder=str(tmp_path))
    (store,) = tmp_path.glob("*.jsonl")
    row = {name: value for name, value in json.loads(store.read_text()).items() if name != field}
    store.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"the row '\w+' has no text. Remove it"):
        written(model, [first], written_folder=str(tmp_path))


@pytest.fixture
def pooled(model, tmp_path, imported_pool):
    """`pooled(requests, **workers)`: what a pool of processes writes, and no store but its own."""
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")

    def write(requests, store="pooled", **workers):
        def load():
            raise AssertionError("the model is not loaded here")

        spread = Spread(Workers(**workers), str(tmp_path / "model"))
        choice = GeneratorChoice(written_folder=str(tmp_path / store))
        with open_writer(load, byte_tokenizer(), choice, spread=spread) as writer:
            return writer.write(requests, "texts")

    return write


def test_processes_write_what_one_writes(model, pooled, counted, tmp_path, monkeypatch):
    # Some batches, so that there is something to share out.
    longer = [Request(text=f"{'Word. ' * n}", sampling=SAMPLING, seed=n) for n in range(150)]
    here = written(model, longer, written_folder=str(tmp_path / "here"))
    assert len(counted) > 2
    assert pooled(longer, processes=2) == here
    # Under the same keys: none is written again.
    before = len(counted)
    assert written(model, longer, written_folder=str(tmp_path / "pooled")) == here
    assert len(counted) == before


def test_texts_of_a_pool_go_on_where_it_was_stopped(model, pooled, tmp_path):
    first = written(model, ASKED[:6], written_folder=str(tmp_path / "shared"))
    assert pooled(ASKED, "shared", processes=2)[:6] == first
