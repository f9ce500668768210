"""The whole of an alignment on a tiny model: both stages, either alone, and every way to go on with one."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from afterword.alignment import run as running
from afterword.alignment import stages
from afterword.alignment.folder import started_from
from afterword.alignment.run import align, run_alignment
from afterword.errors import CheckpointError, ConfigError, DataError
from afterword.evaluation import scores as measuring
from afterword.models import has_result, load_adapted, load_model, load_tokenizer
from afterword.settings.evaluate import EvaluateSettings

SFT = {"instructions": ["i.jsonl"], "instruction_count": 8, "sft_batch_size": 2, "sft_learning_rate": 1e-3}
DPO = {"preferences": ["p.jsonl"], "preference_count": 6, "dpo_batch_size": 2, "dpo_learning_rate": 1e-3}
BOTH = {**SFT, **DPO, "output_dir": "out"}


@pytest.fixture
def run(place: Path, settings_of: Any) -> Any:
    """`run(**settings)`: an alignment of `model` in the working folder; its result and what was said."""

    def aligned(**raw: Any) -> Any:
        """One."""
        given = {"model_name_or_path": "model", "output_dir": "out", "chat_template": "template.jinja", **raw}
        said = Console(file=io.StringIO(), width=200)
        result = run_alignment(settings_of(**{"instructions": [], **given}), console=said, command="afterword align …")
        return result, said.file.getvalue()

    return aligned


def state(folder: str = "out") -> dict[str, Any]:
    return json.loads((Path(folder) / "align.json").read_text(encoding="utf-8"))


def rows(folder: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "selection.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(folder: str) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in load_adapted(folder).named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_both_stages_leave_a_model_that_loads_and_say_what_they_did(run: Any):
    result, said = run(**SFT, **DPO)
    assert (dict(result.selected), result.already_complete) == ({"instructions": 8, "preferences": 6}, False)
    assert "instructions: 8 of 12 selected by perplexity; left out: 1 too_long, 1 duplicate" in said
    assert "preferences: 6 of 12 selected by perplexity; left out: 1 too_long, 1 duplicate" in said
    assert "sft: 4 steps" in said
    assert "dpo: 3 steps" in said
    found = state()
    counts = {"usable": 12, "left_out": {"too_long": 1, "duplicate": 1}}
    assert found["selection"] == {"instructions": {"selected": 8, **counts}, "preferences": {"selected": 6, **counts}}
    assert list(found["stages"]["dpo"]["losses"]) == ["1", "2", "3"]
    assert found["stages"]["dpo"]["losses"]["1"] == pytest.approx(math.log(2), abs=1e-4)
    assert not equal(weights("model"), weights("out/sft"))
    assert not equal(weights("out/sft"), weights("out"))
    assert not Path("out/.work").exists()
    # The template is saved with the tokenizer, and nothing that trl added.
    tokenizer = load_tokenizer("out")
    assert tokenizer.chat_template == Path("template.jinja").read_text(encoding="utf-8")
    assert tokenizer.pad_token is None


def test_dpo_starts_from_what_sft_made(run: Any):
    run(**SFT, **{**DPO, "dpo_learning_rate": 1e-9})
    given, between, after = (weights(folder) for folder in ("model", "out/sft", "out"))
    moved = [max(float((value - after[name]).abs().max()) for name, value in of.items()) for of in (given, between)]
    assert moved[0] > 1e-3
    assert 0 < moved[1] < 1e-6


def test_the_selection_is_written_with_every_samples_scores_and_what_was_said(run: Any, pairs: Any):
    run(**SFT, **DPO)
    written = rows()
    assert len(written) == 26
    scored = [row for row in written if row["kind"] == "instructions" and "left_out" not in row]
    kept = {row["id"] for row in scored if row["selected"]}
    easiest = sorted(scored, key=lambda row: (row["templated_nll_nats"], row["id"]))[:8]
    assert kept == {row["id"] for row in easiest}
    for row in scored:
        assert row["format_score"] == pytest.approx(row["templated_nll_nats"] / row["plain_nll_nats"])
        assert row["source"] == "i.jsonl"
    said = {f"d{i}": pair for i, pair in enumerate(pairs)}
    for row in written:
        pair = said.get(row["id"])
        texts = {"messages": list(pair.messages), "rejected": pair.rejected} if pair and row["selected"] else {}
        texts = texts if row["kind"] == "preferences" else {name: texts[name] for name in texts if name != "rejected"}
        assert {name: row[name] for name in ("messages", "rejected") if name in row} == texts
    (long,) = [row for row in written if row["kind"] == "preferences" and "left_out" in row]
    assert (long["id"], long["left_out"], long["selected"]) == ("long", "too_long", False)
    assert int(long["detail"].split()[0]) > 256


@pytest.mark.parametrize(("stage", "given"), [("sft", SFT), ("dpo", DPO)])
def test_either_stage_alone(run: Any, stage: str, given: dict[str, Any]):
    result, _ = run(**given)
    assert list(state()["stages"]) == [stage]
    assert not Path(f"out/{stage}").exists()
    assert not equal(weights("model"), weights("out"))
    assert list(result.selected) == ["instructions" if stage == "sft" else "preferences"]


def test_the_result_has_the_precision_of_the_model_and_the_step_between_has_float32(run: Any):
    half = load_model("model", dtype=torch.bfloat16)
    Path("half").mkdir()
    half.save_pretrained("half")
    load_tokenizer("model").save_pretrained("half")
    run(**SFT, **DPO, model_name_or_path="half")
    dtypes = [json.loads(Path(folder, "config.json").read_text())["dtype"] for folder in ("out/sft", "out")]
    assert dtypes == ["float32", "bfloat16"]


def test_lora_is_trained_on_and_nothing_but_one_adapter_is_left(run: Any):
    run(**SFT, use_peft=True, output_dir="first")
    assert Path("first/adapter_model.safetensors").is_file()
    run(**{**SFT, **DPO}, model_name_or_path="first")
    before, between, after = (weights(folder) for folder in ("first", "out/sft", "out"))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("lora" in name for name in moved)
    assert any(not torch.equal(between[name], after[name]) for name in moved)
    assert not Path("out/ref").exists()


def test_the_same_command_again_does_nothing(run: Any, monkeypatch: pytest.MonkeyPatch):
    run(**BOTH)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    monkeypatch.setattr(running, "score_samples", None)
    result, said = run(**BOTH)
    assert (result.already_complete, dict(result.selected), said) == (True, {"instructions": 8, "preferences": 6}, "")
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch, run: Any) -> Any:
    """`killed(stage, step, **settings)`: an alignment that dies in a stage after a step."""

    def dies(stage: str, step: int, **raw: Any) -> None:
        """Once."""

        def on_step_begin(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Dies before the next step."""
            if (self.stage, state.global_step) == (stage, step):
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(stages._Watch, "on_step_begin", on_step_begin)
            with pytest.raises(Killed):
                run(**raw)

    return dies


@pytest.mark.parametrize(
    ("stage", "step", "use_peft"), [("sft", 3, False), ("dpo", 0, False), ("dpo", 2, False), ("dpo", 2, True)]
)
def test_a_stage_that_was_stopped_goes_on_to_the_very_same_weights(
    run: Any, killed: Any, monkeypatch: pytest.MonkeyPatch, stage: str, step: int, use_peft: bool
):
    raw = {**BOTH, "save_steps": 1, "use_peft": use_peft}
    run(**{**raw, "output_dir": "through"})
    killed(stage, step, **raw)
    done = list(state()["stages"])
    assert done == ([] if stage == "sft" else ["sft"])
    # The selection is not made again, and neither is what was trained.
    monkeypatch.setattr(running, "score_samples", None)
    run(**raw)
    assert equal(weights("through"), weights("out"))
    found = state()["stages"]
    assert found[stage]["resumed_from"] == (step or None)
    assert found[stage]["losses"] == state("through")["stages"][stage]["losses"]
    assert rows() == rows("through")


def test_what_a_kill_left_before_the_selection_was_recorded_is_made_again(run: Any):
    run(**SFT, output_dir="other")
    Path("out").mkdir()
    for name in ("selection.jsonl", "config.yaml", "align.json.partial"):
        (Path("out") / name).write_text("half", encoding="utf-8")
    run(**SFT)
    assert rows() == rows("other")
    assert equal(weights("out"), weights("other"))


def test_a_checkpoint_that_is_not_whole_does_not_count(run: Any, killed: Any):
    raw = {**BOTH, "save_steps": 1}
    killed("sft", 3, **raw)
    (Path("out/.work/sft/checkpoint-3/optimizer.pt")).write_bytes(b"cut off")
    run(**raw)
    assert state()["stages"]["sft"]["resumed_from"] == 2


def test_a_folder_of_another_alignment_is_refused(run: Any, place: Path):
    run(**SFT)
    with pytest.raises(ConfigError) as caught:
        run(**{**SFT, "instruction_count": 7, "selection": "random"})
    text = str(caught.value)
    assert "instruction_count: 8 in the folder, 7 now." in text
    assert "selection: 'perplexity' in the folder, 'random' now." in text
    with pytest.raises(CheckpointError, match=r"chat_template: .*content differs"):
        run(**{**SFT, "chat_template": "plain"})
    lines = (place / "i.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (place / "i.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"instructions: .*content differs"):
        run(**SFT)


def test_what_cannot_begin_leaves_nothing_behind(run: Any, place: Path):
    for raw, error, says in (
        ({**SFT, "max_length": 16}, DataError, r"instructions: none of 14 can be used .*'too_long': 13.*16"),
        ({**SFT, "max_length": 999}, ConfigError, "max_length: 999"),
        ({**SFT, "quotas": {"x.jsonl": 3}}, ConfigError, r"quotas.x.jsonl: .*There are i.jsonl\."),
        ({**SFT, "instructions": ["nothing.jsonl"]}, DataError, "nothing.jsonl"),
        ({**SFT, "model_name_or_path": "./none"}, CheckpointError, "model_name_or_path"),
        ({**SFT, "chat_template": None}, ConfigError, "chat_template: missing"),
        ({**SFT, "output_dir": "i.jsonl"}, ConfigError, "output_dir: 'i.jsonl' is a file"),
        ({**SFT, "output_dir": "model"}, ConfigError, "output_dir: 'model' is not empty"),
    ):
        with pytest.raises(error, match=says):
            run(**raw)
    assert sorted(path.name for path in place.iterdir()) == ["i.jsonl", "model", "p.jsonl", "template.jinja"]


@pytest.mark.parametrize("adapter", [False, True])
def test_another_configuration_is_refused(run: Any, place: Path, adapter: bool):
    file, changes = ("adapter_config.json", {"lora_alpha": 99}) if adapter else ("config.json", {"rms_norm_eps": 0.5})
    shutil.copytree((place / "model").resolve(), "given")
    if adapter:
        run(**SFT, use_peft=True, model_name_or_path="given", output_dir="first")
    given = Path("first" if adapter else "given")
    run(**SFT, model_name_or_path=str(given))
    told = json.loads((given / file).read_text())
    (given / file).write_text(json.dumps({**told, **changes}))
    with pytest.raises(CheckpointError, match=r"config\.json: the alignment in 'out' has another"):
        run(**SFT, model_name_or_path=str(given))
    # An alignment that does not say its configuration may be continued.
    known = state()
    del known["content"]["config.json"]
    Path("out/align.json").write_text(json.dumps(known))
    assert run(**SFT, model_name_or_path=str(given))[0].already_complete


def test_a_damaged_state_is_told(run: Any):
    run(**SFT)
    Path("out/align.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"out/align.json: cannot be read"):
        run(**SFT)


def test_quotas_hold_for_the_sources_of_their_kind(run: Any, place: Path):
    lines = (place / "i.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:12]
    (place / "i.jsonl").write_text("".join(lines[:6]), encoding="utf-8")
    (place / "more-i.jsonl").write_text("".join(lines[6:]), encoding="utf-8")
    files = {"instructions": ["i.jsonl", "more-i.jsonl"], "preferences": ["p.jsonl"]}
    run(**{**SFT, **DPO, **files}, quotas={"more_i.jsonl": 0.25, "p.jsonl": 2})
    kept = [(row["kind"], row["source"]) for row in rows() if row["selected"]]
    assert {place: kept.count(place) for place in kept} == {
        ("instructions", "more-i.jsonl"): 2,
        ("instructions", "i.jsonl"): 6,
        ("preferences", "p.jsonl"): 2,
    }


def test_an_aligned_run_is_measured_against_the_model_before_the_run(run: Any, place: Path):
    # As `afterword adapt` leaves it.
    shutil.copytree((place / "model").resolve(), "adapted")
    was = {"model_name_or_path": "model", "documents": ["docs.jsonl"], "language": "de", "output_dir": "adapted"}
    Path("adapted/config.yaml").write_text(yaml.safe_dump(was), encoding="utf-8")
    run(**SFT, model_name_or_path="adapted")
    assert has_result(Path("out"))
    completed = measuring._completed(EvaluateSettings(), "out", measuring._run_settings(Path("out")))
    assert (completed.reference, completed.documents, completed.language) == ("model", ("docs.jsonl",), "de")
    assert started_from("out")["output_dir"] == "out"
    # A model that is no run is its own reference.
    assert started_from("model") == {"model_name_or_path": "model"}


def test_python_takes_the_settings_of_the_command_line(place: Path) -> None:
    more = {"chat_template": "plain", "instruction_count": 3, "sft_batch_size": 3}
    result = align("model", instructions="i.jsonl", output_dir=place / "python", **more)
    assert (result.selected, result.already_complete) == ({"instructions": 3}, False)
    assert json.loads((place / "python/align.json").read_text())["command"] == "afterword.align(…)"
    assert align("model", instructions="i.jsonl", output_dir=place / "python", **more).already_complete


def test_a_result_is_saved_in_the_precision_that_keeps_what_was_trained(place: Path, capsys: Any) -> None:
    load_model("model", dtype=torch.bfloat16).save_pretrained(place / "half")
    load_tokenizer("model").save_pretrained(place / "half")
    more = {"chat_template": "plain", "preference_count": 4, "preferences": "p.jsonl", "dpo_batch_size": 1}
    more |= {"dpo_learning_rate": 1e-6, "dpo_epochs": 2}
    moved, dtypes = [], []
    for precision in ("auto", "model", "float32"):
        align("half", output_dir=place / f"as-{precision}", **more, save_precision=precision)
        before, after = weights("half"), weights(f"as-{precision}")
        others = sum(int((before[name] != value).sum()) for name, value in after.items())
        moved.append(others / sum(value.numel() for value in after.values()))
        dtypes.append(json.loads((place / f"as-{precision}" / "config.json").read_text())["dtype"])
    assert dtypes == ["float32", "bfloat16", "float32"]
    assert moved[1] < 0.05 < 0.5 < moved[0] == moved[2]
    saved = [state(f"as-{precision}")["stages"]["dpo"]["saved"] for precision in ("auto", "model", "float32")]
    assert [each["choice"] for each in saved] == ["float32", "as it came", "float32"]
    # By the loss of the pairs, which is ln 2 before the first step.
    assert saved[0]["loss_before_nats"] == pytest.approx(math.log(2), abs=1e-6)
    assert saved[0]["loss_trained_nats"] < saved[0]["loss_before_nats"]
    assert saved[1]["nearest"]["changed_frac"] == pytest.approx(moved[1])
    assert saved[2]["nearest"] is None
    said = " ".join(capsys.readouterr().err.split())
    for each in saved:
        assert each["sentence"] in said
    assert "Warning: saved in bf16, as asked for" in saved[1]["sentence"]
    with pytest.raises(ConfigError, match=r"save_precision: bf16 is for whole models, .* Leave it out"):
        align("half", output_dir=place / "adapter", **more, use_peft=True, save_precision="bf16")


def test_an_alignment_from_before_there_was_a_choice_goes_on(place: Path) -> None:
    more = {"chat_template": "plain", "instruction_count": 3, "sft_batch_size": 3, "instructions": "i.jsonl"}
    align("model", output_dir=place / "old", **more)
    file = place / "old/align.json"
    record = json.loads(file.read_text())
    assert record["settings"]["save_precision"] == "auto"
    record["settings"]["save_precision"] = None
    file.write_text(json.dumps(record))
    assert align("model", output_dir=place / "old", **more).already_complete
