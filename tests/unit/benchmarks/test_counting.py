"""What benchmarks/ counts of the batches that it compares: by hand, and of contenders that cut them differently."""

import importlib
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Imports one of the scripts, which find each other as they do when they are run."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture
def race(script):
    """Two steps of two documents for the smallest model."""
    documents = script("texts").documents_of(4, 32_000, 6)
    how = {"shape": "tiny", "device": torch.device("cpu"), "precision": "float32", "attention": None}
    plan = {"steps": 2, "per_step": 2, "micro_batch_tokens": 64, "gradient_checkpointing": False}
    return script("race").Race(documents, **plan, **how)


def test_padding_is_not_read(script):
    counting = script("counting")
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])
    assert counting.read_of(torch.zeros(2, 4), mask) == counting.Read(tokens=5, sequences=2, squares=9 + 4)


def test_packed_texts_begin_where_positions_begin_anew(script):
    counting = script("counting")
    positions = torch.tensor([[0, 1, 2, 0, 0, 1]])
    expected = counting.Read(tokens=6, sequences=3, squares=9 + 1 + 4)
    assert counting.read_of(torch.zeros(1, 6), None, positions) == expected


def test_a_row_without_mask_and_positions_is_one_text(script):
    counting = script("counting")
    assert counting.read_of(torch.zeros(2, 3)) == counting.Read(tokens=6, sequences=2, squares=18)


def test_rows_that_share_positions_are_read_each(script):
    counting = script("counting")
    read = counting.read_of(torch.zeros(2, 3), None, torch.arange(3)[None])
    assert read == counting.Read(tokens=6, sequences=2, squares=18)


def test_sides_and_steps_are_kept_apart(script):
    student, teacher = (script("shapes").random_model("tiny", vocab_size=16) for _ in range(2))
    meter = script("counting").Meter().listen(student=student, teacher=teacher)
    teacher(input_ids=torch.zeros(1, 7, dtype=torch.long))
    meter.tick()
    for length in (2, 4):
        student(input_ids=torch.zeros(1, length, dtype=torch.long))
        teacher(input_ids=torch.zeros(1, 10, dtype=torch.long))
        meter.tick()
    assert (meter.steps, meter.read("student").tokens, meter.read("teacher").tokens) == (2, 3, 10)
    assert meter.read_before("teacher").tokens == 3.5  # seven, spread over two steps
    assert meter.read_before("student").tokens == 0


def test_the_first_steps_are_not_timed(script):
    meter = script("counting").Meter()
    meter.ends = [0.0, 100.0, 150.0, 151.0, 153.0, 156.0]
    assert meter.seconds == 2.0  # of 1, 2 and 3


def test_a_step_is_cut_into_equal_parts(script):
    shares = script("race").shares
    assert [shares(8, wanted) for wanted in (0.3, 1.9, 5.5, 100)] == [(1, 8), (2, 4), (4, 2), (8, 1)]
    assert shares(7, 3) == (1, 7)


@pytest.mark.parametrize(("rows", "batch"), [("padded", "step"), ("bfd", "one"), ("bfd", "step"), ("wrapped", "micro")])
def test_every_way_of_trl_reads_the_same_documents(script, race, tmp_path, rows, batch):
    pytest.importorskip("trl")
    found = script("peers").sft(rows, batch)(race, tmp_path)
    assert found.student.tokens == race.step_tokens == found.document_tokens
    assert found.teacher.tokens == 0


def test_ours_reads_each_document_once(script, race, tmp_path):
    pytest.importorskip("trl")  # benchmarks/epoch.py names its trainers
    found = script("epoch").ours("disc")(race, tmp_path)
    assert found.teacher.tokens == pytest.approx(race.step_tokens, rel=0.01)
    assert found.student.tokens < found.teacher.tokens
    assert found.document_tokens == found.teacher.tokens


def test_a_contender_of_fewer_documents_stops_the_run(script, race, tmp_path):
    epoch = script("epoch")

    def half(race, folder):
        """Half of them."""
        fewer = {"documents": race.documents[:2], "per_step": 1}
        return epoch.ours("finetune")(script("dataclasses").replace(race, **fewer), folder)

    with pytest.raises(AssertionError, match=r"half: .* tokens of documents"):
        epoch.race_once("half", half, race)


def test_the_least_that_a_loss_costs(script):
    # V = 10, H = 2, N = 3 in float32: a product is 120 FLOPs, a head 80 bytes, states or their gradient 24.
    least = script("loss").least
    assert least(10, 2, 3, 4, False) == (3 * 120, 80 + 3 * 24)
    assert least(10, 2, 3, 4, True) == (4 * 120, 3 * 80 + 3 * 24)
