"""Every registered method is complete, and refuses settings that it does not have."""

import dataclasses

import pytest

from afterword.errors import ConfigError
from afterword.methods import DEFAULT_METHOD, METHODS, get_method
from afterword.objectives import Distillation, Prediction, forward_kl

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


@ALL
def test_a_declaration_says_what_it_is_and_where_it_comes_from(method):
    assert method.summary.endswith(".")
    assert method.paper.startswith("https://") or method.deviations.startswith("Ours, in no paper.")
    assert method.defaults["learning_rate"] > 0
    assert METHODS[method.name] is method


@ALL
def test_defaults_are_fields_of_training_arguments(method):
    from transformers import TrainingArguments

    assert set(method.defaults) <= {item.name for item in dataclasses.fields(TrainingArguments)}


@ALL
def test_settings_are_fields_of_the_view_and_the_objective(method):
    for name, value in method.settings().items():
        parts = [method.view, method.objective]
        if name.startswith("replay_"):
            name, parts = name.removeprefix("replay_"), [method.replay, method.replay.objective]
        assert [getattr(part, name) for part in parts if hasattr(part, name)] == [value]


@ALL
def test_settings_can_be_given_to_the_command_line(method):
    from afterword.settings.adapt import AdaptSettings

    assert set(method.settings()) <= set(AdaptSettings.model_fields)


@ALL
def test_what_makes_a_method_what_it_is_is_no_setting(method):
    assert not set(method.settings()) & {"divergence", "needs_teacher", "has_teacher", "needs_eos", "anchored"}
    with pytest.raises(ConfigError):
        method.configured(needs_teacher=False)


@ALL
def test_configured_changes_what_was_asked_for_and_nothing_else(method):
    before = method.settings()
    other = "token" if before["averaging"] == "document" else "document"
    assert method.configured(averaging=other, bos="never").settings() == {**before, "averaging": other, "bos": "never"}
    assert method.configured() == method
    assert method.settings() == before


@ALL
def test_an_unknown_setting_is_refused_with_the_nearest_one(method):
    with pytest.raises(ConfigError, match=r"averagin: 'token' has no meaning.*Did you mean averaging\?"):
        method.configured(averagin="token")


@ALL
def test_every_unknown_setting_is_named_at_once(method):
    with pytest.raises(ConfigError) as caught:
        method.configured(nonsense=1, rubbish=2)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["nonsense", "rubbish"]


def test_a_setting_of_another_method_is_refused():
    with pytest.raises(ConfigError, match=r"temperature: 2\.0 has no meaning for .*finetune"):
        METHODS["finetune"].configured(temperature=2.0)


def test_an_unknown_method_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"'dics' is not known. Did you mean disc\?"):
        get_method("dics")
    with pytest.raises(ConfigError, match=f"Known: {', '.join(METHODS)}"):
        get_method("zzzzz")


def test_the_default_method_is_registered():
    from afterword.settings.adapt import AdaptSettings

    assert get_method(DEFAULT_METHOD).name == DEFAULT_METHOD == AdaptSettings().method == "finetune"


def test_disc_is_as_its_authors_run_it():
    method = METHODS["disc"]
    assert method.objective == Distillation(forward_kl, temperature=2.0)
    assert (method.view.strategy, method.view.targets, method.view.averaging) == ("sentence", 5, "document")
    assert method.defaults["learning_rate"] == 3e-6


def test_fine_tuning_predicts_every_token_of_the_document_and_its_end():
    method = METHODS["finetune"]
    assert method.objective == Prediction()
    assert method.view.needs_eos
    assert method.defaults["learning_rate"] == 1e-5


@ALL
def test_the_optimizer_is_the_authors_of_disc(method):
    expected = {
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.01,
        "max_grad_norm": 0.0,
        "num_train_epochs": 1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
    }
    # SDFT has a schedule of its own.
    own = {"lr_scheduler_type": "cosine", "warmup_steps": 0.1} if method.name == "on_policy" else {}
    assert (expected | own).items() <= method.defaults.items()
    assert method.decay_all_parameters


def test_the_settings_of_disc_reach_its_view_and_its_objective():
    method = METHODS["disc"].configured(temperature=1.0, targets=3, strategy="anchor")
    assert method.objective.temperature == 1.0
    assert (method.view.targets, method.view.anchored) == (3, True)


def test_settings_of_a_replay_are_of_general_text_alone():
    """The documents keep the objective that the method declares for general text, as it declares it."""
    declared = METHODS["disc_mixcpt"]
    method = declared.configured(replay="kl", replay_documents=1.0, replay_temperature=2.0)
    _, general, documents = method.terms(general=("chats",))
    assert (general.sources, general.objective) == (("chats",), Distillation(forward_kl, temperature=2.0))
    assert (documents.documents, documents.objective) == (True, declared.replay.objective)


def test_what_a_person_cannot_change_is_refused():
    with pytest.raises(ConfigError, match=r"replay_alpha: 0\.3 has no meaning for disc_mixcpt"):
        METHODS["disc_mixcpt"].configured(replay="kl", replay_documents=1.0, replay_alpha=0.3)
    # Without another replay there is one objective, for general text and for the documents.
    method = METHODS["disc_mixcpt"].configured(replay_documents=1.0, replay_alpha=0.3)
    assert [term.objective.alpha for term in method.terms(general=("chats",))[1:]] == [0.3, 0.3]


def test_an_objective_is_of_a_source_that_there_is_and_one_of_those_known():
    method = METHODS["finetune"].with_sources({"chats": ("kl", 1.0)})
    assert method.problem_with(general=("chats",)) is None
    assert "mixture: the method finetune says nothing" in method.problem_with(general=("chats", "other"))
    assert "mixture.chats: has an objective, and there is no such source" in method.problem_with(general=("other",))
    with pytest.raises(ConfigError, match=r"mixture.chats.objective: 'kll' is not known. Did you mean kl\?"):
        METHODS["finetune"].with_sources({"chats": ("kll", 1.0)})


def test_a_teacher_is_read_where_a_source_needs_one():
    method = METHODS["finetune"]
    assert not method.needs_teacher(general=())
    assert method.with_sources({"chats": ("kl", 1.0)}).needs_teacher(general=("chats",))
    assert not method.with_sources({"chats": ("prediction", 1.0)}).needs_teacher(general=("chats",))


@pytest.mark.parametrize("name", METHODS)
def test_what_is_written_about_documents_is_not_the_documents(name):
    """Replay on the documents reads them whole, which windows of passages do not have."""
    method = METHODS[name].configured(replay="kl", replay_documents=1.0)
    found = method.problem_with(general=())
    assert (found is not None and found.startswith("replay_documents: ")) == method.view.reads_passages
