"""Settings are refused politely and completely, and a file gives back what was written to it."""

import dataclasses
import importlib.util
import json
import re
import tempfile

import pytest
import yaml

import afterword
from afterword.data import STRATEGIES
from afterword.errors import ConfigError
from afterword.settings import trainer_arguments
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.mixture import sources_of
from afterword.settings.yaml_files import load_yaml, to_yaml
from afterword.training.run_folder import differences

FIELDS = AdaptSettings.model_fields


def settings(**raw):
    return read_settings({"model_name_or_path": "m", **raw})


def problems(**raw):
    with pytest.raises(ConfigError) as caught:
        settings(**raw)
    return list(caught.value.problems)


def written(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_unknown_name_is_refused_with_the_nearest_one():
    assert problems(learning_rat=1e-5) == ["learning_rat: no such setting. Did you mean learning_rate?"]


def test_a_name_like_no_other_is_sent_to_the_trainers_own_fields():
    assert problems(zzzzzz=1) == ["zzzzzz: no such setting. A field of TrainingArguments belongs under trainer."]


def test_every_problem_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        read_settings(
            {
                "seed": "one",
                "learning_rat": 1,
                "lora_dropout": 2,
                "documents_per_step": 4,
                "step_tokens": 100,
                "strategy": "sentense",
                "trainer": {"adam_beta": 1},
            }
        )
    named = [problem.split(":")[0] for problem in caught.value.problems]
    expected = ["lora_dropout", "model_name_or_path", "seed", "learning_rat", "step_tokens", "strategy"]
    assert sorted(named) == sorted([*expected, "trainer.adam_beta"])


def test_a_setting_is_told_about_once():
    (only,) = problems(model_name_or_path=3)
    assert only.startswith("model_name_or_path: ")
    assert only.endswith("got 3.")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"seed": "one"}, "seed: .*got 'one'"),
        ({"learning_rate": 0}, "learning_rate: should be greater than 0, got 0"),
        ({"learning_rate": "inf"}, "learning_rate: should be a finite number, got 'inf'"),
        ({"weight_decay": float("nan")}, "weight_decay: .*got nan"),
        ({"window_overlap": 0.8}, "window_overlap: should be less than or equal to 0.75, got 0.8"),
        ({"targets": 0}, "targets: should be greater than or equal to 1, got 0"),
        (
            {"method": "disc", "suffix_tokens": 1, "strategy": "random_token_suffix"},
            "suffix_tokens: should be greater than or equal",
        ),
        ({"max_steps": 1.5}, "max_steps: .*got 1.5"),
        ({"averaging": "sum"}, "averaging: should be 'document' or 'token', got 'sum'"),
        ({"use_peft": "perhaps"}, "use_peft: .*got 'perhaps'"),
        ({"documents": 3}, "documents: .*got 3"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(raw, problem):
    with pytest.raises(ConfigError, match=problem):
        settings(**raw)
    assert len(problems(**raw)) == 1


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"model_name_or_path": ""}, "model_name_or_path: missing"),
        ({"step_tokens": 100, "documents_per_step": 2}, "step_tokens: 100 contradicts documents_per_step: 2"),
        ({"eval_steps": 5}, "eval_steps: 5 needs eval_documents"),
        ({"max_length": 512, "micro_batch_tokens": 256}, "micro_batch_tokens: 256 is less than max_length: 512"),
        ({"precision": "bf16", "teacher_precision": "float32"}, "teacher_precision: float32 with precision: bf16"),
        ({"merge_adapter": True}, "merge_adapter: true has no adapter to merge"),
        ({"method": "disc", "suffix_tokens": 9}, "suffix_tokens: 9 is read by strategy random_token_suffix"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(raw, problem):
    (only,) = problems(**raw)
    assert only.startswith(problem)


@pytest.mark.parametrize(
    "raw",
    [
        {"step_tokens": 100},
        {"eval_steps": 5, "eval_documents": ["held.jsonl"]},
        {"max_length": 256, "micro_batch_tokens": 256},
        {"precision": "bf16", "teacher_precision": "bf16"},
        {"merge_adapter": True, "use_peft": True},
        {"method": "disc", "suffix_tokens": 9, "strategy": "random_token_suffix"},
    ],
)
def test_settings_that_fit_together_are_taken(raw):
    settings(**raw)


def test_a_setting_that_the_method_does_not_have_is_refused():
    (only,) = problems(method="finetune", temperature=2.0)
    assert only.startswith("temperature: 2.0 has no meaning for ")
    assert "Settings of finetune: averaging, bos, join" in only


def test_a_setting_of_other_methods_is_refused_with_their_names():
    (only,) = problems(method="recite", strategy="all")
    assert only.startswith("strategy: 'all' has no meaning for recite. Leave it out. ")
    assert only.endswith(" Or set method to one that has it: disc, disc_mixcpt.")
    (only,) = problems(method="recite", suffix_tokens=9)
    assert only.endswith(" Or set method to one that has it: disc, disc_mixcpt.")


def test_an_unknown_method_is_refused_with_the_nearest_one():
    (only,) = problems(method="finetun")
    assert only.startswith("method: 'finetun' is not known. Did you mean finetune?")


def test_an_unknown_strategy_is_refused_with_the_nearest_one():
    (only,) = problems(strategy="sentense")
    assert only.startswith("strategy: ")
    assert "'sentense'" in only
    assert "Did you mean sentence?" in only


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_taken(strategy):
    assert settings(method="disc", strategy=strategy).strategy == strategy


def test_text_from_the_command_line_becomes_what_the_setting_is():
    read = settings(learning_rate="1e-6", seed="3", use_peft="true", max_length="512", window_overlap="0.5")
    assert (read.learning_rate, read.seed, read.use_peft, read.max_length) == (1e-6, 3, True, 512)
    assert read.window_overlap == 0.5


@pytest.mark.parametrize("name", ["documents", "eval_documents", "lora_target_modules", "report_to"])
def test_one_value_is_a_list_of_one(name):
    raw = {name: "notes"}
    assert getattr(settings(**raw), name) == ("notes",)


EXAMPLES = (
    {},
    {"learning_rate": "1e-6", "documents": ["a", "ä.txt", "b: c"], "trainer": {"adam_beta2": 0.95}},
    {"method": "finetune", "averaging": "token", "use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]},
    {
        "method": "disc",
        "strategy": "random_token_suffix",
        "suffix_tokens": 8,
        "num_train_epochs": 2.5,
        "warmup_steps": 0.03,
    },
    {"eval_documents": "held", "eval_steps": 2, "report_to": ["wandb"], "max_grad_norm": 0, "save_total_limit": 0},
)


@pytest.mark.parametrize("raw", EXAMPLES)
def test_a_file_gives_back_the_settings_written_to_it(raw, tmp_path):
    before = settings(**raw)
    path = written(tmp_path, to_yaml(before))
    assert read_settings(load_yaml(path)) == before
    assert differences(load_yaml(path), before) == []


def test_the_resolved_file_holds_every_setting():
    assert list(yaml.safe_load(to_yaml(settings()))) == list(FIELDS)


def test_dashes_in_a_files_names_are_underscores(tmp_path):
    path = written(tmp_path, "model-name-or-path: m\nlearning-rate: 1e-6\n")
    assert load_yaml(path) == {"model_name_or_path": "m", "learning_rate": "1e-6"}
    assert read_settings(load_yaml(path)).learning_rate == 1e-6


def test_a_bare_off_in_yaml_is_the_choice_off(tmp_path):
    path = written(tmp_path, "model_name_or_path: m\ndocuments: d\npacking: off\n")
    assert read_settings(load_yaml(path)).packing == "off"
    with pytest.raises(ConfigError, match="packing"):
        read_settings({**load_yaml(path), "packing": True})


def test_an_empty_file_sets_nothing(tmp_path):
    assert load_yaml(written(tmp_path, "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"), [("- a\n- b\n", "holds a list"), ("a: [1,\n", "is not YAML"), ("just words\n", "holds a str")]
)
def test_a_file_that_holds_no_settings_is_refused(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        load_yaml(written(tmp_path, text))


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("model: Zürich".encode("utf-16"))
    with pytest.raises(ConfigError, match="is not YAML"):
        load_yaml(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config: .*missing.yaml'.*Give a YAML file"):
        load_yaml(tmp_path / "missing.yaml")


OTHER = {
    "model_name_or_path": "elsewhere",
    "reference": "elsewhere",
    "documents": ["elsewhere"],
    "output_dir": "elsewhere",
    "merge_adapter": True,
    "eval_documents": ["held"],
    "eval_steps": 7,
    "save_steps": 7,
    "save_total_limit": 7,
    "report_to": ["wandb"],
    "push_to_hub": True,
    "dataloader_num_workers": 2,
    "then": "align",
    "align": {"instructions": "chats.jsonl"},
    "teacher_cache": "elsewhere",
    "generator_requests": 3,
    "written_folder": "elsewhere",
}


def test_what_does_not_change_the_weights_makes_no_difference():
    # With everything fixed, because nothing is chosen for an adapter that is held to another model.
    fixed = {"use_peft": True, "learning_rate": 1e-4, "num_train_epochs": 1, "lr_scheduler_type": "linear"}
    before = settings(**fixed).model_dump(mode="json")
    assert differences(before, read_settings({**fixed, **OTHER})) == []


def test_differences_name_the_setting_and_both_values():
    before = settings(seed=1, learning_rate=1e-6).model_dump(mode="json")
    assert differences(before, settings(seed=2, learning_rate=1e-6)) == ["seed: 1 in the run, 2 now."]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"generator": "http://localhost:1/v1"}, "generator_model: missing. Give the name that the endpoint has"),
        ({"generator_model": "a"}, "generator_model: 'a' is read with generator: vllm or an address. Give one"),
        ({"generator": "small", "generator_model": "a"}, "generator_model: 'a' is read with generator: vllm or"),
        ({"generator_requests": 0}, "generator_requests: "),
    ],
)
def test_a_generator_and_its_model_belong_together(given, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        settings(**given)
    settings(generator="vllm", generator_model="a")


def test_a_setting_that_an_older_run_did_not_know_has_its_default():
    before = settings().model_dump(mode="json")
    del before["lora_r"], before["lora_target_modules"]
    assert differences(before, settings()) == []
    assert differences(before, settings(lora_r=8)) == ["lora_r: 16 in the run, 8 now."]


def test_where_a_run_reads_and_logs_does_not_change_its_weights():
    assert {name for name, field in FIELDS.items() if not field.json_schema_extra["weights"]} == set(OTHER)


@pytest.mark.parametrize("kind", [AdaptSettings, EvaluateSettings])
def test_the_schema_lists_every_setting_with_a_description(kind):
    schema = kind.model_json_schema()
    json.dumps(schema)
    assert list(schema["properties"]) == list(kind.model_fields)
    assert all(entry["description"].strip() for entry in schema["properties"].values())
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("kind", [AdaptSettings, EvaluateSettings])
def test_every_setting_has_a_panel_on_the_command_line(kind):
    panels = {"Model", "Documents", "Method", "General text", "Budget", "Step", "Optimizer", "LoRA", "Run", "What"}
    panels |= {"How much", "Machines", "Tasks", "Writing"}
    assert {field.json_schema_extra["panel"] for field in kind.model_fields.values()} <= panels


def test_evaluation_refuses_like_adaptation():
    with pytest.raises(ConfigError) as caught:
        read_settings({"max_question": 3, "samples": -1}, EvaluateSettings)
    first, second = sorted(caught.value.problems)
    assert first == "max_question: no such setting. Did you mean max_questions?"
    assert second.startswith("samples: should be greater than or equal to 0")
    assert read_settings({"tasks": "ifeval"}, EvaluateSettings).tasks == ("ifeval",)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("output_dir", "output_dir"),
        ("per_device_train_batch_size", "documents_per_step"),
        ("bf16", "precision"),
        ("learning_rate", "the setting learning_rate itself"),
        ("save_steps", "the setting save_steps itself"),
        ("remove_unused_columns", "nothing"),
    ],
)
def test_a_trainer_field_that_is_decided_elsewhere_is_refused_with_the_place(name, better):
    (only,) = problems(trainer={name: 1})
    assert only.startswith(f"trainer.{name}: decided by {better}")


def test_an_unknown_trainer_field_is_refused_with_the_nearest_one():
    (only,) = problems(trainer={"adam_beta_1": 0.9})
    assert only == "trainer.adam_beta_1: no such field of TrainingArguments. Did you mean adam_beta1?"


def test_any_other_trainer_field_is_taken():
    assert settings(trainer={"adam_beta1": 0.8, "dataloader_prefetch_factor": 2}).trainer["adam_beta1"] == 0.8


@pytest.mark.parametrize(
    ("name", "value"), [("label_smoothing_factor", 0.3), ("data_seed", 1), ("per_device_eval_batch_size", 4)]
)
def test_a_trainer_field_without_effect_is_refused_and_its_off_value_is_taken(name, value):
    (only,) = problems(trainer={name: value})
    assert only.startswith(f"trainer.{name}: {value} would have no effect: ")
    assert settings(trainer={name: 0}).trainer == {name: 0}


def test_a_trainer_field_that_needs_a_package_says_so():
    if importlib.util.find_spec("liger_kernel"):
        pytest.skip("the package is there")
    (only,) = problems(trainer={"use_liger_kernel": True})
    assert "pip install liger-kernel" in only


def test_the_fields_are_those_of_transformers():
    from transformers import TrainingArguments

    taken = {field.name: field.init for field in dataclasses.fields(TrainingArguments)}
    assert set(trainer_arguments._fields()) == {name for name, init in taken.items() if init}
    told = {*trainer_arguments._WITHOUT_EFFECT, *trainer_arguments._DECIDED_ELSEWHERE, *trainer_arguments._PACKAGES}
    assert told <= set(taken)


@pytest.mark.parametrize("given", ["logging_steps=[", "report_to=@x"])
def test_a_value_that_is_no_yaml_is_one_sentence(given):
    (only,) = problems(trainer=[given])
    assert only.startswith("trainer: ")
    assert given.split("=")[1] in only
    assert "quotes" in only


def test_lists_are_taken_with_commas_and_names_with_commas_stay_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.txt", "c.txt"):
        (tmp_path / name).touch()
    given = {
        "documents": "a,b.txt",
        "eval_documents": ["c.txt,a,b.txt", "hub/id"],
        "lora_target_modules": "q_proj, v_proj",
        "report_to": ("wandb,tensorboard",),
    }
    asked = settings(**given, eval_steps=2)
    assert asked.documents == ("a,b.txt",)
    assert asked.eval_documents == ("c.txt", "a,b.txt", "hub/id")
    assert asked.lora_target_modules == ("q_proj", "v_proj")
    assert asked.report_to == ("wandb", "tensorboard")
    monkeypatch.setenv("HOME", "/home/me")
    assert settings(documents="~/a,~/b").documents == ("/home/me/a", "/home/me/b")
    measured = read_settings({"tasks": ["one,two"], "held_out": "x,a,*.txt", "general": "y,z"}, EvaluateSettings)
    assert (measured.tasks, measured.held_out, measured.general) == (("one", "two"), ("x", "a,*.txt"), ("y", "z"))


def test_trainer_fields_of_the_command_line_are_keys_and_values():
    given = settings(trainer=["adam_beta1=0.8", "dataloader-persistent-workers=true", "run_name=a=b"])
    assert given.trainer == {"adam_beta1": 0.8, "dataloader_persistent_workers": True, "run_name": "a=b"}
    assert "has no '='" in problems(trainer=["adam_beta1"])[0]


def test_only_what_was_given_overrides_the_methods_declaration():
    given = settings(method="disc", learning_rate=1e-6, temperature=1.0)
    assert given.method_settings() == {"temperature": 1.0}
    optional = ("learning_rate", "num_train_epochs", "max_steps", "lr_scheduler_type", "warmup_steps", "weight_decay")
    assert [name for name in optional if name in given.training_settings()] == ["learning_rate"]
    assert settings(max_grad_norm=0).training_settings()["max_grad_norm"] == 0


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValueError, match="frozen"):
        settings().seed = 3


def test_a_source_of_general_text_is_a_mapping_or_a_line():
    line = {"chats": "chats.jsonl,kind=instructions,tokens=0.25,format=chat"}
    mapping = {"chats": {"files": ["chats.jsonl"], "kind": "instructions", "tokens": 0.25, "format": "chat"}}
    assert sources_of(line) == sources_of(mapping)
    (source,) = sources_of(line).values()
    assert (source.files, source.tokens, source.samples, source.once, source.max_epochs) == (
        ("chats.jsonl",),
        0.25,
        None,
        False,
        4.0,
    )


def test_every_problem_of_every_source_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        sources_of({"a": "a.jsonl", "b": {"tokens": 0.5}, "c": {"files": "c", "format": "chat", "once": True}})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "mixture.a.tokens",
        "mixture.b.files",
        "mixture.c.format",
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"kind": "instructions", "text_column": "body"}, "text_column: instructions have no text column"),
        (
            {"kind": "instructions", "responses": "both"},
            "responses: 'both' is read of preferences, not of instructions",
        ),
        ({"kind": "preferences", "responses": "worse"}, "responses: "),
        ({"streaming": True}, "max_documents: missing, and a stream may have no end"),
    ],
)
def test_what_a_source_of_general_text_cannot_be(given, problem):
    with pytest.raises(ConfigError) as caught:
        sources_of({"g": {"files": "g.jsonl", "tokens": 0.1, **given}})
    (found,) = caught.value.problems
    assert found.startswith(f"mixture.g.{problem}")


def test_settings_that_came_later_change_no_recorded_fingerprint():
    from afterword.comparison.grid import weights_settings

    given = {"model_name_or_path": "m", "method": "disc", "learning_rate": 1e-5}
    before = weights_settings(read_settings(given))
    assert not {"mixture", "replay", "alpha", "ema"} & set(before)
    after = weights_settings(read_settings({**given, "ema": 0.9, "replay": "kl", "replay_documents": 1.0}))
    assert set(after) - set(before) >= {"ema", "replay", "replay_documents"}


@pytest.mark.parametrize("kernel", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_of_float32_is_refused_before_the_first_step(kernel):
    (problem,) = problems(attn_implementation=kernel, precision="float32")
    assert problem.startswith(f"attn_implementation: {kernel} reads in half precision, and precision is float32. Use")
    assert settings(attn_implementation=kernel, precision="bf16_mixed").attn_implementation == kernel
    assert settings(attn_implementation="sdpa", precision="float32").attn_implementation == "sdpa"


def test_no_temporary_folder_is_made_where_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError):
        afterword.adapt("nowhere", "nothing.txt", method="no such method", output_dir=str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
