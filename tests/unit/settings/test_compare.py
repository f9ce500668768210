"""Arms in both their forms, and every problem of every arm in one message."""

from pathlib import Path

import pytest

from afterword.comparison.grid import arms_of, cells_of
from afterword.errors import ConfigError
from afterword.settings.adapt import read_settings
from afterword.settings.compare import CompareSettings
from afterword.settings.yaml_files import load_yaml, to_yaml

ROOT = Path(__file__).parents[3]
GIVEN = {"model_name_or_path": "m", "documents": ["d"], "suite": "s", "output_dir": "o", "learning_rates": "1e-5"}


def settings(**raw):
    return read_settings({**GIVEN, **raw}, CompareSettings)


def problems(**raw):
    with pytest.raises(ConfigError) as caught:
        read_settings(raw, CompareSettings)
    return list(caught.value.problems)


def test_the_command_lines_form():
    made = settings(methods="disc,finetune,disc:strategy=all:use_peft=true", learning_rates="1e-5, 3e-5", seeds=["0,1"])
    assert made.learning_rates == (1e-5, 3e-5)
    assert made.seeds == (0, 1)
    arms = {arm.name: dict(arm.settings) for arm in arms_of(made)}
    assert arms == {
        "disc": {"method": "disc"},
        "finetune": {"method": "finetune"},
        "disc:strategy=all:use_peft=true": {"method": "disc", "strategy": "all", "use_peft": True},
    }


def test_the_files_form_with_rates_and_seeds_of_its_own(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "model-name-or-path: m\ndocuments: [d]\nsuite: s\noutput_dir: o\nlearning_rates: [1e-5, 3e-5]\nseeds: [0, 1]\n"
        "adapt: {num_train_epochs: 2, strategy: middle}\n"
        "arms:\n  plain: {method: disc}\n"
        "  lora: {method: disc, use-peft: true, strategy: all, learning-rates: [1e-4], seeds: 7}\n",
        encoding="utf-8",
    )
    made = read_settings(load_yaml(path), CompareSettings)
    cells = {(c.arm, c.learning_rate, c.seed): c.settings for c in cells_of(made)}
    assert set(cells) == {("lora", 1e-4, 7)} | {("plain", rate, seed) for rate in (1e-5, 3e-5) for seed in (0, 1)}
    lora, plain = cells["lora", 1e-4, 7], cells["plain", 3e-5, 1]
    # What an arm says wins over what all are told.
    assert (lora.use_peft, lora.strategy, lora.learning_rate, lora.seed, lora.num_train_epochs) == (
        True,
        "all",
        1e-4,
        7,
        2,
    )
    assert (plain.use_peft, plain.strategy, plain.learning_rate, plain.seed) == (False, "middle", 3e-5, 1)


def test_a_file_gives_back_what_was_written_to_it(tmp_path):
    made = settings(
        methods="disc", arms={"b": {"method": "finetune", "learning_rates": ["2e-5"]}}, adapt=["max_steps=3"]
    )
    (tmp_path / "grid.yaml").write_text(to_yaml(made), encoding="utf-8")
    assert read_settings(load_yaml(tmp_path / "grid.yaml"), CompareSettings) == made


def test_every_seed_shows_all_arms_before_the_next():
    cells = cells_of(settings(methods="disc,finetune", seeds="0,1"))
    assert [(c.arm, c.seed) for c in cells] == [("disc", 0), ("finetune", 0), ("disc", 1), ("finetune", 1)]
    assert cells[0].folder.as_posix() == "o/cells/disc-lr1e-05-seed0"


def test_every_problem_is_reported_at_once_with_its_arm():
    found = problems(
        suite="s",
        output_dir="o",
        seeds="one",
        methods="discc,disc:strategy",
        arms={
            "a": {"method": "disc", "strategy": "sentense", "learning_rates": [-1]},
            "b": {"method": "finetune", "learning_rate": 1e-5, "temperature": 2.0, "learning_rates": [1e-5]},
        },
        adapt={"max_stepz": 3, "output_dir": "x"},
        evaluate={"sampels": 3, "suite": "s"},
    )
    text = "\n".join(found)
    for part in (
        "model_name_or_path: missing",
        "documents: missing",
        "seeds.0: ",
        "adapt.output_dir: decided by output_dir",
        "adapt.max_stepz: no such setting. Did you mean max_steps?",
        "methods discc.method: 'discc' is not known. Did you mean disc?",
        "methods disc:strategy: must be METHOD:SETTING=VALUE",
        "arms.a.strategy: ",
        "arms.a.learning_rates.0: ",
        "arms.b.learning_rate: decided by learning_rates",
        "arms.b.temperature: ",
        "evaluate.suite: decided by suite",
        "learning_rates: missing, and the arm 'discc' has none",
    ):
        assert part in text, text
    # What is wrong for every arm is said once.
    assert text.count("max_stepz") == 1


def test_two_arms_cannot_share_a_folder():
    (only,) = problems(**GIVEN, arms={"a/b": {"method": "disc"}, "a:b": {"method": "disc"}})
    assert "arms.a:b: has the folder name of the arm 'a/b'" in only


@pytest.mark.parametrize(
    "wrong", [{"reference_point": "1,0"}, {"reference_point": "0"}, {"learning_metric": "nll_nats"}]
)
def test_what_is_read_of_the_scores_is_checked(wrong):
    (only,) = problems(**{**GIVEN, "methods": "disc", **wrong})
    assert only.split(":")[0].split(".")[0] == next(iter(wrong))


def test_no_suite_is_needed_where_exams_and_tasks_are():
    without = {name: value for name, value in GIVEN.items() if name != "suite"} | {"methods": "disc"}
    exams = {"kup": {"file": "kup.jsonl"}}
    assert read_settings({**without, "evaluate": {"exams": exams, "tasks": ["ifeval"]}}, CompareSettings).suite == ""
    (problem,) = problems(**without, evaluate={"exams": exams})
    assert problem.startswith("suite: missing")
    (problem,) = problems(**GIVEN, methods="disc", evaluate={"exams": {"kup": {"samples": 0, "file": "k"}}})
    assert problem.startswith("evaluate.exams.kup.samples")


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_grid_of_every_recipe_can_be_read(recipe, monkeypatch):
    # Candidates are declared there.
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    given = load_yaml(recipe)
    if "arms" in given:
        assert read_settings(given, CompareSettings).arm_settings()
