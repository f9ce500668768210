"""What a source of the mixture can say of itself: an objective, an amount that the method declares, held-out text."""

import typing

import pytest

from afterword.errors import ConfigError
from afterword.methods import METHODS
from afterword.methods.method import REPLAYS
from afterword.settings.adapt import read_settings
from afterword.settings.mixture import SourceSettings, sources_of


def settings(**given):
    return read_settings({"model_name_or_path": "m", "documents": ["d"], **given})


def problems(**given):
    with pytest.raises(ConfigError) as caught:
        settings(**given)
    return caught.value.problems


def test_objectives_are_those_of_replay():
    names, _ = typing.get_args(SourceSettings.model_fields["objective"].annotation)
    assert typing.get_args(names) == tuple(REPLAYS)


def test_a_source_chooses_its_objective_and_its_weight():
    mixture = ["instructions=a.json,tokens=0.2,objective=prediction,weight=0.5", "chats=c.json,tokens=0.2,objective=kl"]
    method = settings(method="finetune", mixture=mixture).configured_method()
    own, *of_sources = method.terms(general=("instructions", "chats"))
    assert (own.documents, own.sources) == (True, ())
    assert [(term.sources, term.objective, term.weight) for term in of_sources] == [
        (("instructions",), REPLAYS["prediction"], 0.5),
        (("chats",), REPLAYS["kl"], 1.0),
    ]


def test_a_source_without_an_objective_keeps_the_methods_own():
    mixture = {"a": {"files": "a", "tokens": 0.2}, "b": {"files": "b", "tokens": 0.2, "objective": "kl"}}
    own, of_b = settings(method="mixcpt", mixture=mixture).configured_method().terms(general=mixture)
    assert (own.documents, own.sources, of_b.sources) == (True, ("a",), ("b",))
    (problem,) = problems(method="finetune", mixture=mixture)
    assert problem.startswith("mixture: the method finetune says nothing of general text. Set replay")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"objective": "k"}, "objective: should be 'prediction', 'kl', 'reverse_kl' or 'swap'"),
        ({"weight": 0.5}, "weight: 0.5 is the factor of its own objective, and there is none"),
        ({"objective": "kl", "weight": 0}, "weight: "),
        ({"eval_files": ["held"]}, "eval_files: are evaluated on every eval_steps, which is missing"),
    ],
)
def test_what_a_source_cannot_say(given, problem):
    (found,) = problems(method="cpt", mixture={"g": {"files": "g", "tokens": 0.2, **given}})
    assert found.startswith(f"mixture.g.{problem}")


def test_an_evaluation_may_be_of_general_text_alone():
    mixture = {"g": {"files": "g", "tokens": 0.2, "eval_files": "held"}}
    assert settings(method="cpt", mixture=mixture, eval_steps=5).training_settings()["eval_steps"] == 5


def test_a_method_may_declare_how_much_general_text_there_is():
    assert METHODS["mol"].general_tokens == 0.5  # one to one

    def read(method, **mixture):
        """Tokens of every source."""
        return {n: s.tokens for n, s in sources_of(settings(method=method, mixture=mixture).mixture).items()}

    assert read("mol", a="a.jsonl") == {"a": 0.5}
    assert read("mol", a="a.jsonl", b={"files": ["b"], "kind": "instructions"}) == {"a": 0.25, "b": 0.25}
    assert read("mol", a="a.jsonl,tokens=0.1") == {"a": 0.1}
    assert read("mol", a={"files": "a", "once": True}, b="b.jsonl") == {"a": None, "b": 0.5}
    (problem,) = problems(method="cpt", mixture={"a": "a.jsonl"})
    assert problem.startswith("mixture.a.tokens: how much of it is said by one of tokens, samples and once")


def test_what_was_declared_stands_in_the_resolved_settings():
    given = settings(method="mol", mixture={"a": "a.jsonl"})
    assert given.mixture == {"a": {"files": ("a.jsonl",), "tokens": 0.5}}
    assert read_settings(given.model_dump(mode="json")).mixture == {"a": {"files": ["a.jsonl"], "tokens": 0.5}}


@pytest.mark.parametrize(("given", "share"), [(True, 0.92), ("true", 0.92), ("0.9", 0.9), (False, None), (None, None)])
def test_a_bare_ema_keeps_the_papers_share(given, share):
    assert settings(ema=given).ema == share


def test_own_samples_are_a_source_that_stays_near_the_model_as_it_was():
    method = settings(method="finetune", own_samples=0.25).configured_method()
    own, of_samples = method.terms(general=("own_samples",))
    assert (own.documents, own.sources) == (True, ())
    assert (of_samples.sources, of_samples.objective) == (("own_samples",), REPLAYS["kl"])


@pytest.mark.parametrize(("method", "replay"), [("mol", {}), ("finetune", {"replay": "reverse_kl"})])
def test_a_replay_that_was_declared_or_asked_for_holds_for_own_samples(method, replay):
    terms = settings(method=method, own_samples=0.25, **replay).configured_method().terms(general=("own_samples",))
    assert [term.objective for term in terms if term.sources == ("own_samples",)] == [REPLAYS["reverse_kl"]]


@pytest.mark.parametrize(
    ("given", "share"),
    [({}, 0.25), ({"own_samples": 0.4}, 0.4), ({"mixture": {"a": {"files": "a", "tokens": 0.5}}}, None)],
)
def test_a_method_says_how_much_of_the_models_own_it_reads_where_nobody_says_it(given, share):
    rehearsal = settings(method="rehearse", **given)
    assert rehearsal.own_samples == share
    assert set(rehearsal.sources()) == ({"own_samples"} if share else {"a"})
    assert settings(method="finetune").own_samples is None


def test_own_samples_count_among_the_shares():
    (problem,) = problems(method="cpt", own_samples=0.6, mixture={"a": {"files": "a", "tokens": 0.5}})
    assert problem.startswith("mixture: the shares of tokens sum to 1.1")


def test_own_samples_have_a_name_of_their_own():
    (problem,) = problems(method="cpt", own_samples=0.2, mixture={"own_samples": {"files": "a", "tokens": 0.5}})
    assert problem == "own_samples: the mixture has a source of this name. Leave one of them out."


def test_samples_of_its_own_are_in_place_of_files():
    (problem,) = problems(method="cpt", mixture={"a": {"files": "a", "own": 4, "tokens": 0.5}})
    assert problem.startswith("mixture.a.own: 4 samples are written in place of files, and there are files")
