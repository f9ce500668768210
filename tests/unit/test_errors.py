"""Errors keep every problem, survive a pickle, and are what a caller of Python would expect to catch."""

import pickle

import pytest

from afterword.errors import AfterwordError, CheckpointError, ConfigError, DataError, TrainingError, number_of
from afterword.training import Interrupted

ERRORS = (ConfigError, DataError, CheckpointError, TrainingError, Interrupted)


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_survive_a_pickle(kind):
    again = pickle.loads(pickle.dumps(kind("seed: must be a number.")))
    assert type(again) is kind
    assert str(again) == str(kind("seed: must be a number."))


def test_a_config_error_survives_a_pickle_with_all_its_problems():
    again = pickle.loads(pickle.dumps(ConfigError(["a: wrong.", "b: wrong too."])))
    assert again.problems == ("a: wrong.", "b: wrong too.")


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_an_afterword_error(kind):
    assert issubclass(kind, AfterwordError)


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError])
def test_wrong_input_is_a_value_error(kind):
    assert issubclass(kind, ValueError)


def test_a_stopped_run_is_a_runtime_error():
    assert issubclass(TrainingError, RuntimeError)


def test_the_message_of_a_config_error_lists_every_problem_on_a_line():
    error = ConfigError(problem for problem in ("a: wrong.", "b: wrong too.", "c: wrong."))
    assert str(error).splitlines() == ["  - a: wrong.", "  - b: wrong too.", "  - c: wrong."]


def test_one_problem_is_not_taken_apart_into_letters():
    assert ConfigError("a: wrong.").problems == ("a: wrong.",)


@pytest.mark.parametrize(("count", "said"), [(0, "0 texts"), (1, "1 text"), (2, "2 texts"), (12_000, "12,000 texts")])
def test_a_count_is_said_with_its_noun(count, said):
    assert number_of(count, "text") == said
