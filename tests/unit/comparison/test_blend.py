"""From a model to its adapted self: the pick by hand-made rows, a path that was stopped, what is saved and refused."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from afterword import evaluation, models
from afterword.comparison import blend as blending
from afterword.comparison import run as running
from afterword.errors import CheckpointError, ConfigError, TrainingError
from afterword.models import LoraSettings, has_result, load_adapted, load_model, save_result, with_lora
from afterword.settings.adapt import read_settings
from afterword.settings.compare import BlendSettings

GIVEN = {"base": "model", "adapted": "adapted", "suite": "suite.jsonl", "output_dir": "out", "lambdas": "0.2,0.6,1.0"}
GIVEN |= {"evaluate": {"samples": 0, "answer_tokens": 4}}


def settings(**raw):
    return read_settings({**GIVEN, **raw}, BlendSettings)


def problems(**raw):
    with pytest.raises(ConfigError) as caught:
        read_settings(raw, BlendSettings)
    return list(caught.value.problems)


@pytest.fixture
def here(place, build_model, perturb, tokenizer):
    """The working folder with `adapted`, a model that every weight of `model` was moved for."""
    save_result(perturb(build_model("llama")), tokenizer, _made(place / "adapted"), dtype=torch.float32)
    return place


def _made(folder):
    folder.mkdir()
    return folder


@pytest.fixture
def measured(monkeypatch, by_hand):
    """Evaluation by hand: the λ of every folder that was measured. What is learned and lost grows with λ."""
    shares = []

    def measure(run, given, command):
        assert has_result(run)
        shares.append(share := yaml.safe_load((run / "config.yaml").read_text())["lambda"])
        kept = by_hand.retention(1.0, 1.0 - 0.1 * share)
        return {"scores": by_hand.scores(dev=(share / 2, kept), test=(share / 2, kept)), "notes": []}

    monkeypatch.setattr(running, "measure", measure)
    return shares


def saved(folder="out"):
    return load_model(str(folder)).state_dict()


def written_shares():
    return [json.loads(line)["lambda"] for line in Path("out/rows.jsonl").read_text().splitlines()]


def between(share):
    start, end = load_model("model").state_dict(), load_model("adapted").state_dict()
    return {name: torch.lerp(start[name], end[name], share) for name in start}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def rows_of(by_hand, **shares):
    return [{"lambda": float(name[1:]) / 10, "scores": by_hand.scores(**splits)} for name, splits in shares.items()]


def test_the_pick_is_chosen_on_dev_though_test_would_choose_otherwise(by_hand):
    kept, some, lost = by_hand.retention(1.0, 1.0), by_hand.retention(1.0, 0.95), by_hand.retention(1.0, 0.9)
    rows = rows_of(
        by_hand,
        L2={"dev": (0.2, kept), "test": (0.9, kept)},
        L6={"dev": (0.5, some), "test": (0.4, lost)},
        # Learns more still, and loses too much of one skill.
        L10={"dev": (0.8, lost), "test": (0.8, kept)},
    )
    pick = blending.summary_of(settings(), rows)["pick"]
    assert (pick["lambda"], pick["kept_on_test"]) == (0.6, False)
    assert pick["dev"]["losses_points"] == {"reading": 0, "arithmetic": pytest.approx(5)}
    assert pick["test"]["learning"]["after"]["value"] == pytest.approx(0.4)
    assert pick["test"]["losses_points"]["arithmetic"] == pytest.approx(10)
    assert blending.summary_of(settings(max_loss_points=10), rows)["pick"]["lambda"] == 1.0
    assert blending.summary_of(settings(max_loss_points=0), rows)["pick"]["lambda"] == 0.2


def test_of_equals_the_nearest_to_the_base_is_picked(by_hand):
    both = {name: (0.4, by_hand.retention(1.0, 1.0)) for name in ("dev", "test")}
    summary = blending.summary_of(settings(), rows_of(by_hand, L6=both, L2=both))
    assert (summary["pick"]["lambda"], summary["pick"]["kept_on_test"]) == (0.2, True)
    assert [point["lambda"] for point in summary["points"]] == [0.6, 0.2]


def test_no_pick_has_a_reason(by_hand):
    both = {name: (0.4, by_hand.retention(1.0, 0.9)) for name in ("dev", "test")}
    pick = blending.summary_of(settings(), rows_of(by_hand, L2=both, L6=both))["pick"]
    least = "The least that the worst skill lost is 10.0."
    assert pick == {"reason": f"No λ keeps every retention skill within 5 points on dev. {least}"}


def test_what_the_suite_does_not_measure_is_refused(by_hand):
    both = {name: (0.4, by_hand.retention(1.0, 1.0)) for name in ("dev", "test")}
    with pytest.raises(ConfigError, match=r"choice_correct_frac.*Measured by the suite: correct_frac"):
        blending.summary_of(settings(retention_metric="choice_correct_frac"), rows_of(by_hand, L2=both))
    with pytest.raises(ConfigError, match="not every split has both"):
        blending.summary_of(settings(), rows_of(by_hand, L2={"dev": both["dev"]}))


def test_the_pick_is_an_ordinary_model_that_evaluate_compares_with_its_base(here):
    found = blending.blend(settings(), command="afterword blend")
    assert written_shares() == [0.2, 0.6, 1.0]
    # Nobody knows an answer: nothing is learned, nothing is lost, and the first of equals is taken.
    assert found == json.loads(Path("out/blend.json").read_text())
    assert (found["pick"]["lambda"], found["command"]) == (0.2, "afterword blend")
    assert_same(saved(), between(0.2))
    scores = evaluation.evaluate("out", suite="suite.jsonl", samples=0, answer_tokens=4)
    assert scores.reference == "model"
    assert all(score.before and score.after for score in scores.scores)
    # What was measured of the cells stays, and their weights go; the base answered once.
    left = {path.name for path in (here / "out/cells/lambda-0.6").iterdir()}
    assert "scores.json" in left
    assert not [name for name in left if name.endswith(".safetensors")]
    assert len(list((here / "out/reference").glob("*.json"))) == 1


def test_every_cell_is_the_model_of_its_share(here, by_hand, monkeypatch):
    kept, seen = by_hand.retention(1.0, 1.0), {}

    def measure(run, given, command):
        seen[run.name] = saved(run)
        return {"scores": by_hand.scores(dev=(0.5, kept), test=(0.5, kept)), "notes": []}

    monkeypatch.setattr(running, "measure", measure)
    blending.blend(settings(lambdas="0.6, 1"))
    assert seen.keys() == {"lambda-0.6", "lambda-1"}
    assert_same(seen["lambda-0.6"], between(0.6))
    assert_same(seen["lambda-1"], load_model("adapted").state_dict())


def test_two_adapters_have_no_way_between_them(here, perturb, tokenizer):
    for name in ("lora", "more"):
        adapter = perturb(with_lora(load_model("model"), LoraSettings(r=4, alpha=8), seed=0))
        save_result(adapter, tokenizer, _made(here / name), dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"base: 'lora' and 'more' are both adapters.*Give '[^']*model', the model"):
        blending.blend(settings(base="lora", adapted="more"))
    assert not (here / "out").exists()


def test_an_adapter_stays_one(here, measured, perturb, tokenizer):
    adapter = perturb(with_lora(load_model("model"), LoraSettings(r=4, alpha=8), seed=0))
    save_result(adapter, tokenizer, _made(here / "lora"), dtype=torch.float32)
    assert blending.blend(settings(adapted="lora", lambdas="0.4"))["pick"]["lambda"] == 0.4
    blend = load_adapted("out")
    for name, weight in adapter.named_parameters():
        expected = 0.4 * weight if "lora_B" in name else weight
        assert torch.equal(blend.state_dict()[name], expected), name
    # Nothing of the adapter is left where a whole model takes its place.
    blending.blend(settings(lambdas="0.2"))
    assert not (here / "out/adapter_config.json").exists()
    assert_same(saved(), between(0.2))


def test_a_stopped_path_continues_where_it_stopped(here, measured, monkeypatch):
    class Killed(BaseException):
        pass

    real = running.measure

    def die_at_the_second(run, given, command):
        if measured:
            raise Killed
        return real(run, given, command)

    with monkeypatch.context() as patch:
        patch.setattr(running, "measure", die_at_the_second)
        with pytest.raises(Killed):
            blending.blend(settings())
    assert (measured, (here / "out/blend.json").exists(), has_result(here / "out")) == ([0.2], False, False)
    (here / "out/blend.json.partial").write_text("{")
    assert len(blending.blend(settings())["points"]) == 3
    assert measured == [0.2, 0.6, 1.0]
    # Once more there is nothing to measure and nothing to save; another λ is measured alone.
    written = (here / "out/model.safetensors").stat().st_mtime_ns
    blending.blend(settings())
    assert (here / "out/model.safetensors").stat().st_mtime_ns == written
    blending.blend(settings(lambdas="0.6,0.7"))
    assert measured == [0.2, 0.6, 1.0, 0.7]


def test_other_models_and_another_evaluation_are_measured_again(here, measured, build_model, perturb, tokenizer):
    blending.blend(settings(lambdas="0.2"))
    blending.blend(settings(lambdas="0.2", evaluate={"samples": 0, "answer_tokens": 5}))
    shutil.rmtree("adapted")
    save_result(perturb(build_model("llama"), seed=2), tokenizer, _made(here / "adapted"), dtype=torch.float32)
    blending.blend(settings(lambdas="0.2"))
    assert measured == [0.2, 0.2, 0.2]
    assert_same(saved(), between(0.2))
    # The same weights, used otherwise.
    config = json.loads(Path("adapted/config.json").read_text())
    Path("adapted/config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    blending.blend(settings(lambdas="0.2"))
    assert measured == [0.2, 0.2, 0.2, 0.2]
    assert models.load_config("out").rms_norm_eps == 0.5


def test_the_folder_holds_the_model_of_the_last_pick_or_none(here, measured):
    # A share λ loses 10 · λ points.
    assert blending.blend(settings(max_loss_points=7))["pick"]["lambda"] == 0.6
    assert_same(saved(), between(0.6))
    (here / "out/scores.json").write_text("{}")
    assert blending.blend(settings(max_loss_points=10))["pick"]["lambda"] == 1.0
    assert_same(saved(), between(1.0))
    assert not (here / "out/scores.json").exists()
    assert "reason" in blending.blend(settings(max_loss_points=1))["pick"]
    assert not list((here / "out").glob("*.safetensors"))
    with pytest.raises(CheckpointError, match=r"no config\.json, so it holds no model"):
        load_model("out")
    assert len(measured) == 3


def test_the_command_from_beginning_to_end(here, afterword):
    how = ("--suite", "suite.jsonl", "--evaluate", "samples=0", "--evaluate", "answer_tokens=4")
    code, out, err = afterword("blend", "model", "adapted", "-o", "out", "--lambda", "0.5,1", *how)
    assert (code, "λ 1/2: 0.5" in err) == (0, True)
    table = [line.split() for line in out.splitlines()]
    assert [row[0] for row in table if row[1:2] == ["0.0%"] or row[:1] == ["0"]] == ["0", "0.5", "1"]
    assert "Picked on dev: λ = 0.5. Wrote it and blend.html to out." in out
    assert_same(saved(), between(0.5))
    assert afterword("evaluate", "out", *how[:2], "--samples", "0")[0] == 0
    # Nothing trains in its folder.
    (here / "docs.txt").write_text("It rains. It pours.")
    code, _, err = afterword("adapt", "model", "docs.txt", "-o", "out")
    assert (code, "'blend' in the run" in err) == (2, True)


def test_the_command_says_when_nothing_was_kept(here, measured, afterword):
    words = ("blend", "model", "adapted", "-o", "out", "--suite", "suite.jsonl")
    code, out, err = afterword(*words, "--max-loss-points", "1.5")
    # The λ that are measured by default, each with its loss.
    assert [(line.split()[0], line.split()[-1]) for line in out.splitlines()[2:7]] == [
        ("0.2", "2.0"),
        ("0.4", "4.0"),
        ("0.6", "6.0"),
        ("0.8", "8.0"),
        ("1", "10.0"),
    ]
    assert code == 1
    reason = "No λ keeps every retention skill within 1.5 points on dev. The least that the worst skill lost is 2.0."
    assert f"{reason} No model was saved." in err
    assert not list((here / "out").glob("*.safetensors"))
    assert measured == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_loss_on_test_is_told(here, by_hand, monkeypatch, afterword):
    kept, lost = by_hand.retention(1.0, 1.0), by_hand.retention(0.8, 1.0)
    scores = by_hand.scores(dev=(0.5, kept), test=(0.5, lost))
    monkeypatch.setattr(running, "measure", lambda *given: {"scores": scores, "notes": []})
    code, out, _ = afterword("blend", "model", "adapted", "-o", "out", "--suite", "suite.jsonl", "--lambda", "0.5")
    assert (code, "Note: on test it loses 20.0 points on a skill." in out) == (0, True)


def test_every_problem_is_reported_at_once():
    found = problems(lambdas="0.5,1.6", evaluate={"reference": "x", "split": "dev"}, learning_metric="nll_nats")
    expected = {"lambdas.1", "base", "adapted", "suite", "output_dir", "learning_metric"}
    assert {problem.split(": ")[0] for problem in found} == expected | {"evaluate.reference", "evaluate.split"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"lambdas": "0.5,0.5"}, "each once"),
        ({"lambdas": ""}, "lambdas.0"),
        ({"lambdas": "half"}, "lambdas.0"),
        ({"lambdas": "-0.1"}, "lambdas.0"),
        ({"output_dir": "adapted/."}, "'adapted/.' is adapted, which the pick would replace"),
        ({"output_dir": "model"}, "'model' is base"),
        ({"evaluate": {"sampels": 3}}, "evaluate.sampels: no such setting. Did you mean samples?"),
    ],
)
def test_settings_that_cannot_be_run(wrong, named):
    (only,) = problems(**{**GIVEN, **wrong})
    assert named in only


def test_the_end_points_are_allowed():
    assert settings(lambdas="0,1.5").lambdas == (0.0, 1.5)


def test_what_cannot_be_blended_is_refused_before_anything_is_written(here, build_model, tokenizer, perturb):
    save_result(build_model("qwen3"), tokenizer, _made(here / "other"), dtype=torch.float32)
    with pytest.raises(CheckpointError, match="Qwen3ForCausalLM"):
        blending.blend(settings(adapted="other"))
    with pytest.raises(CheckpointError, match="nowhere"):
        blending.blend(settings(adapted="./nowhere"))
    assert not (here / "out").exists()


@pytest.mark.parametrize("left_out", ["dev", "test"])
def test_a_suite_needs_items_to_choose_by_and_items_to_show(left_out, here):
    lines = Path("suite.jsonl").read_text().splitlines(keepends=True)
    Path("suite.jsonl").write_text("".join(line for line in lines if f'"id": "{left_out}-retention' not in line))
    with pytest.raises(ConfigError, match=f"has no {left_out} items of retention"):
        blending.blend(settings())
    assert not (here / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(here, measured):
    (here / "out").mkdir()
    (here / "out/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and holds no blend"):
        blending.blend(settings())
    assert [path.name for path in (here / "out").iterdir()] == ["notes.txt"]
    Path("file").write_text("")
    with pytest.raises(ConfigError, match="output_dir: 'file' cannot be written"):
        blending.blend(settings(output_dir="file"))
    assert measured == []


def test_a_full_disk_is_told(here, monkeypatch):
    def save(*given, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(models, "save_result", save)
    with pytest.raises(TrainingError, match=r"output_dir: the disk of 'out/cells/lambda-0\.2' is full"):
        blending.blend(settings())
