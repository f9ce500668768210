"""benchmarks/candidates.py: weights and gradients by hand, what each side reads, and that every candidate trains."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted import ScriptedWriter

import afterword
from afterword.data.passages import passages_from_json
from afterword.methods import Method
from afterword.objectives import Head, weighted_sum
from afterword.storage.parsing import parse_json
from afterword.types import Document

ROOT = Path(__file__).parents[3]
NAMES = ("RECITE_WITH_PARTS", "SENTENCES", "REREAD", "RECITE_FROM_TEXT", "OTHER_OPENING", "SURPRISE", "REMAINING")
NAMES += ("UNKNOWN", "REFERENCE_SURPRISE", "CONTEXT_GAIN")
# Those without a closed form say so.
pytestmark = pytest.mark.filterwarnings("ignore:ContrastPrediction")
DOCUMENTS = [Document("a", "One came. Two went. Three stay.", title="Counts"), Document("b", "Rain fell.  It stopped.")]


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("candidates")


def logits_of(*golds: float) -> torch.Tensor:
    """Of two tokens, the first with these probabilities."""
    return torch.tensor([[math.log(p), math.log1p(-p)] for p in golds], dtype=torch.float64)


def gradients(objective: Any, student: torch.Tensor, teacher: torch.Tensor | None = None) -> torch.Tensor:
    """[N, 2] of the loss on the student's logits, as training takes it: the logits are the hidden states of a head."""
    states, eye = student.clone().requires_grad_(), torch.eye(2, dtype=torch.float64)
    golds, ones = torch.zeros(len(states), dtype=torch.long), torch.ones(len(states), dtype=torch.float64)
    side = None if teacher is None else (teacher, Head(eye))
    value, _ = weighted_sum(objective, (states, Head(eye)), side, golds, ones)
    value.backward()
    assert states.grad is not None
    return states.grad


def weights_by(objective: Any, golds: tuple[float, ...], teacher: torch.Tensor | None = None) -> list[float]:
    """The weight of every token: what its gradient is of s − δ, where both coordinates must agree."""
    found = gradients(objective, logits_of(*golds), teacher)
    plain = torch.tensor([[p - 1, 1 - p] for p in golds], dtype=torch.float64)
    torch.testing.assert_close(found[:, 0] * plain[:, 1], found[:, 1] * plain[:, 0])
    parts = objective.parts(logits_of(*golds), teacher, torch.zeros(len(golds), dtype=torch.long))
    weights = found[:, 0] / plain[:, 0]
    torch.testing.assert_close(parts[:, 0], weights * parts[:, 1])
    return weights.tolist()


def test_surprise_weighs_a_token_by_its_surprise_over_its_documents(candidates: Any) -> None:
    objective = candidates.SurprisePrediction().for_step([4 * math.log(2), 2 * math.log(2), math.log(2)])
    # The median is 2 ln 2: half the surprise is half the weight, four times it the bound, and nearly none the other.
    assert weights_by(objective, (0.5, 0.25, 2.0**-12, 0.9)) == pytest.approx([0.5, 1.0, 4.0, 0.25])


def test_surprise_has_mean_1_over_a_document_that_is_alone(candidates: Any) -> None:
    golds = (0.5, 0.25, 0.6)
    objective = candidates.SurprisePrediction().for_step([-sum(map(math.log, golds)) / 3])
    assert sum(weights_by(objective, golds)) == pytest.approx(3.0)


def test_what_remains_weighs_the_whole_document(candidates: Any) -> None:
    objective = candidates.RemainingPrediction(nats=2.0)
    for mean, weight in ((3.0, 1.5), (1.0, 0.5), (9.0, 2.0), (0.01, 0.1)):
        assert weights_by(objective.for_step([mean]), (0.5, 0.01)) == pytest.approx([weight, weight])


def test_without_a_step_nothing_is_weighed(candidates: Any) -> None:
    for objective in (candidates.SurprisePrediction(), candidates.RemainingPrediction()):
        assert weights_by(objective, (0.5, 0.01)) == pytest.approx([1.0, 1.0])


def test_what_is_known_is_not_trained(candidates: Any) -> None:
    assert weights_by(candidates.UnknownPrediction(), (0.51, 0.49, 0.01)) == pytest.approx([0.0, 1.0, 1.0])


def test_the_references_surprise_by_hand(candidates: Any) -> None:
    objective, teacher = candidates.REFERENCE_SURPRISE.objective, logits_of(0.5, 0.25, 0.125)
    # ln 2 times 1, 2 and 3, over their mean.
    assert weights_by(objective, (0.3, 0.9, 0.2), teacher) == pytest.approx([0.5, 1.0, 1.5])
    # 1, 1, 1 and 97 over 25: 0.04 three times and 3.88, the small ones raised to 0.25; their mean is then 1.1575.
    teacher = logits_of(0.5, 0.5, 0.5, 2.0**-97)
    bounded = [0.25 / 1.1575] * 3 + [3.88 / 1.1575]
    assert weights_by(objective, (0.3, 0.9, 0.2, 0.4), teacher) == pytest.approx(bounded)


def test_the_gain_of_the_context_by_hand(candidates: Any) -> None:
    objective, teacher = candidates.CONTEXT_GAIN.objective, logits_of(0.5, 0.5, 0.25, 0.2)
    # The student lacks ln 2, 2 ln 2 and 3 ln 2 of what the context says; of the last token it knows more than that.
    golds = (0.25, 0.125, 2.0**-5, 0.8)
    raised = [2 / 3, 4 / 3, 2.0, 0.25]
    assert weights_by(objective, golds, teacher) == pytest.approx([w * 4 / sum(raised) for w in raised])


def test_sentences_are_those_of_the_text_whose_spaces_they_begin_with(candidates: Any) -> None:
    assert candidates.sentences_of(DOCUMENTS[0]) == ["One came.", " Two went.", " Three stay."]
    assert candidates.sentences_of(DOCUMENTS[1]) == ["Rain fell.", "  It stopped."]


def test_the_student_reads_another_documents_opening(candidates: Any, tokenizer: Any) -> None:
    first, second = candidates.OTHER_OPENING.view.prepare(ScriptedWriter(None, tokenizer), DOCUMENTS)
    found = [(p.student_before, p.teacher_before, p.text) for p in passages_from_json(first.passages)]
    # The other document has no third sentence.
    whole = "Rain fell.  It stopped."
    assert found == [("Rain fell.", "One came.", " Two went."), (whole, "One came. Two went.", " Three stay.")]
    (only,) = passages_from_json(second.passages)
    assert (only.student_before, only.teacher_before) == ("One came.", "Rain fell.")
    assert list(candidates.OTHER_OPENING.view.prepare(ScriptedWriter(None, tokenizer), DOCUMENTS[:1])) == []


def test_only_the_teacher_has_read_the_document_before(candidates: Any, tokenizer: Any) -> None:
    first, _ = candidates.REREAD.view.prepare(ScriptedWriter(None, tokenizer), DOCUMENTS)
    (passage,) = passages_from_json(first.passages)
    assert (passage.text, passage.student_before) == (DOCUMENTS[0].text, "")
    assert passage.teacher_before == f"{DOCUMENTS[0].text}\n\n"
    first, _ = candidates.RECITE_FROM_TEXT.view.prepare(ScriptedWriter(None, tokenizer), DOCUMENTS)
    (passage,) = passages_from_json(first.passages)
    assert "about Counts" in passage.student_before
    assert DOCUMENTS[0].text not in passage.student_before
    assert DOCUMENTS[0].text in passage.teacher_before


@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_trains(name: str, candidates: Any, model_folder: Path, documents: Any, tmp_path: Path) -> None:
    method: Method = getattr(candidates, name)
    how = {"num_train_epochs": 3, "lr_scheduler_type": "constant", "learning_rate": 3e-3}
    afterword.adapt(model_folder, documents[:3], method=method, output_dir=tmp_path / "run", **how)
    rows = [parse_json(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [row["train/loss_nats"] for row in rows if "train/loss_nats" in row]
    assert len(losses) == 9
    assert sum(losses[-3:]) < sum(losses[:3])
