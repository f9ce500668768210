"""A run is evaluated on held-out documents and held-out general text, and its report tells every source."""

import json

import pytest

from afterword.data.mixture import SourceShare
from afterword.methods import get_method
from afterword.report import write_report
from afterword.settings.adapt import read_settings
from afterword.training import run_adaptation
from afterword.training.held_out import MOST_WINDOWS, HeldOut
from afterword.training.sources import Source
from afterword.training.steps import ExampleKey

pytestmark = pytest.mark.usefixtures("unseen")

HELD_OUT = "A cold winter came. It was long."


@pytest.fixture
def run(model_folder, documents, general_rows, tmp_path):
    """A finished run of two objectives on general text, which is evaluated on some more of it, and its metrics."""
    place = tmp_path / "texts"
    place.mkdir()
    for name, rows in {"general": general_rows, "held": [{"text": HELD_OUT}], "documents": documents[:2]}.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def adapt(**settings):
        chats = {"files": [str(place / "general.jsonl")], "tokens": 0.2, "eval_files": [str(place / "held.jsonl")]}
        mixture = {"chats": {**chats, "objective": "kl"}, "notes": {**chats, "objective": "prediction", "weight": 0.5}}
        how = {"model_name_or_path": str(model_folder), "method": "finetune", "max_length": 64, "max_steps": 4}
        how |= {"learning_rate": 1e-2, "mixture": mixture, "eval_steps": 2, "output_dir": str(tmp_path / "run")}
        done = run_adaptation(read_settings({**how, **settings}), documents[2:])
        rows = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
        return done.path, [row for row in rows if "eval/loss_nats" in row]

    return adapt, place


def test_a_run_logs_the_losses_of_held_out_general_text_by_source(run, tokenizer):
    adapt, place = run
    folder, (first, last) = adapt(eval_documents=[str(place / "documents.jsonl")])
    assert (first["step"], last["step"]) == (2, 4)
    tokens = len(tokenizer(HELD_OUT, add_special_tokens=False).input_ids) + 1
    for row in (first, last):
        parts = {name: value for name, value in row.items() if name.startswith("eval_source/")}
        assert parts["eval_source/chats/replay_positions"] == parts["eval_source/notes/replay_positions"] == tokens
        assert len(parts) == 6  # positions and a loss, of the documents' source too
        general = parts["eval_source/chats/replay_forward_kl_nats"], parts["eval_source/notes/replay_prediction_nats"]
        assert row["eval/loss_nats"] == pytest.approx(row["eval/nll_nats"] + general[0] + 0.5 * general[1], rel=1e-4)
    page = write_report(folder)[1].read_text()
    assert "Losses of each source on held-out text, in the first and the last evaluation of the run:" in page
    shown = f"{last['eval_source/notes/replay_prediction_nats']:.3f}"
    assert any("notes" in line and shown in line for line in page.splitlines())
    assert "| First evaluation | Last evaluation |" in page


def test_a_run_without_held_out_documents_is_evaluated_on_general_text(run):
    adapt, _ = run
    _, (first, _) = adapt()
    assert "eval/nll_nats" not in first
    assert {name.split("/")[1] for name in first if name.startswith("eval_source/")} == {"chats", "notes"}


class Windows(list):
    """As many windows as there are numbers."""

    sources = ("s",)


def test_of_a_large_part_windows_at_even_distances_are_read_by_every_term_of_it():
    few, many = Windows(range(3)), Windows(range(3 * MOST_WINDOWS))
    held_out = HeldOut((Source("documents", few, None), Source("chats", many, None, SourceShare())))
    numbers = held_out.windows().tolist()
    assert numbers == [0, 1, 2, *range(3, 3 + 3 * MOST_WINDOWS, 3)]

    of_documents, of_chats = get_method("mol").terms(general=("chats",))
    draws = list(held_out.draws([of_documents, of_chats, of_documents]))
    assert draws[:6] == [
        ExampleKey(0, 0, 0),
        ExampleKey(0, 0, 2),
        ExampleKey(1, 0, 0),
        ExampleKey(1, 0, 2),
        ExampleKey(2, 0, 0),
        ExampleKey(2, 0, 2),
    ]
    assert draws[6:] == [ExampleKey(number, 0, 1) for number in numbers[3:]]
