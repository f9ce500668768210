"""The verdict: classes from size and interval, worked out by hand; never praise for what nobody notices."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from afterword.report.display import load_table
from afterword.report.verdict import verdict_of


def estimate(value: float, half: float | None = 0.02) -> dict[str, Any]:
    return {"value": value, "interval_95": None if half is None else [value - half, value + half]}


def row(task, metric, before=None, after=None, half: float | None = 0.02, *, better="higher", n=100) -> dict[str, Any]:
    sides = {"before": before, "after": after}
    score: dict[str, Any] = {"task": task, "metric": metric, "n": n, "better": better, "details": {}, "change": None}
    score |= {side: None if value is None else estimate(value) for side, value in sides.items()}
    if before is not None and after is not None:
        score["change"] = estimate(after - before, half)
    return score


def questions(metric, before, after, ceiling, half=0.02):
    return [
        row("questions/closed_book", metric, before, after, half),
        row("questions/open_book", metric, ceiling, ceiling),
    ]


def kept(before=0.5, after=0.5, half: float | None = 0.01):
    return [row(f"test/retention/{skill}", "correct_frac", before, after, half) for skill in ("sums", "words")]


def share(value, half: float | None = 0.02):
    score = row("learning/trained", "share_of_context_gain_frac", None, value)
    return [score | {"after": estimate(value, half)}]


@pytest.mark.parametrize(
    ("after", "half", "kind", "percent"),
    [
        (0.252, 0.001, "nothing", "0.3 %"),  # 0.002 of 0.6
        (0.2, 0.01, "nothing", "−8.3 %"),
        (0.3, 0.02, "little", "8.3 %"),
        (0.3, 0.06, "unclear", "8.3 %"),  # the interval includes 0
        (0.5, 0.05, "part", "41.7 %"),
        (0.7, 0.05, "most", "75.0 %"),
        (0.8, 0.05, "all", "91.7 %"),
        (0.8, None, "unclear", "91.7 %"),
    ],
)
def test_learning_is_a_share_of_what_reading_gives(after, half, kind, percent):
    found = verdict_of(questions("choice_correct_frac", 0.25, after, 0.85, half))
    assert found is not None
    assert found.learned_class == kind
    assert f"{percent} of what reading the document gives (choices right from memory 25.0 %" in found.learned


def test_nothing_learned_says_so_and_what_to_do():
    found = verdict_of([*questions("choice_correct_frac", 0.25, 0.2512, 0.85, 0.001), *kept()])
    assert found is not None
    assert found.learned.startswith("Practically nothing was learned: 0.2 % of what reading the document gives")
    assert (found.learned_class, found.lost_class) == ("nothing", "nothing")
    assert found.then.startswith("Raise the learning rate or the number of passes")


def test_what_was_chosen_is_not_taken_for_what_is_said():
    choice, said = questions("choice_correct_frac", 0.25, 0.7, 0.85), questions("said_frac", 0.0, 0.1, 0.5)
    both, alone = verdict_of([*choice, *said]), verdict_of(choice)
    assert both is not None
    assert alone is not None
    assert both.learned.endswith(". In its own words it says 10.0 % of the answers (50.0 % with the document).")
    assert "own words" not in alone.learned
    only_said = verdict_of(said)
    assert only_said is not None
    assert "own words" not in only_said.learned


def test_choices_come_before_what_is_said_and_that_before_losses():
    choice, said = questions("choice_correct_frac", 0.25, 0.4, 0.85), questions("said_frac", 0.0, 0.5, 0.5)
    suite = [row("test/learning/direct", "correct_frac", 0.0, 0.5)]
    for scores, words in (
        ([*said, *choice, *share(0.7), *suite], "25.0 % of what reading the document gives (choices"),
        ([*said, *share(0.7), *suite], "100.0 % of what reading the document gives (answers said"),
        ([*share(0.7), *suite], "50.0 points more of the questions are answered right (1 skill of the suite"),
        (share(0.7), "70.0 % of what reading the document gives (loss of single sentences"),
    ):
        found = verdict_of(scores)
        assert found is not None
        assert words in found.learned


def test_of_a_suite_choices_come_first_and_what_is_said_is_told_beside_them():
    said = [row(f"test/learning/{skill}", "correct_frac", 0.0, after) for skill, after in (("date", 0.1), ("sum", 0.0))]
    chosen = row("test/learning/date", "choice_correct_frac", 0.25, 0.45, 0.1, n=30)
    found = verdict_of([*share(0.7), *said, chosen | {"details": {"units": 15}}])
    assert found is not None
    assert found.learned == (
        "A part was learned: 20.0 points more of the questions are chosen right "
        "(1 skill of the suite, n = 30, 15 units; 95 % interval 10.0 to 30.0). "
        "In its own words it answers 5.0 % right (0.0 % before)."
    )
    assert found.learned_class == "part"
    fewer = verdict_of([row("test/learning/date", "choice_correct_frac", 0.25, 0.2, 0.1, n=30)])
    assert fewer is not None
    assert "5.0 points fewer of the questions are chosen right" in fewer.learned


def test_without_room_between_floor_and_ceiling_a_share_says_nothing():
    found = verdict_of([*questions("choice_correct_frac", 0.80, 0.85, 0.88), *share(0.3)])
    assert found is not None
    assert "30.0 % of what reading" in found.learned


@pytest.mark.parametrize(
    ("after", "half", "kind", "words"),
    [
        (0.497, 0.01, "nothing", "Nothing noticeable was lost: 0.3 points (2 skills of the suite, n = 200"),
        (
            0.52,
            0.01,
            "nothing",
            "Nothing noticeable was lost: changed by +2.0 points (2 skills of the suite, n = 200; 95 %",
        ),
        (0.5001, 0.01, "nothing", "Nothing noticeable was lost: 0.0 points"),
        (0.497, 0.12, "unclear", "Too few questions to tell what was lost: 0.3 points"),  # up to 8.8 points
        (0.48, 0.01, "little", "A little was lost: 2.0 points"),
        (0.48, 0.04, "little", "No loss beyond chance was seen: 2.0 points"),
        (0.44, 0.01, "some", "Something was lost: 6.0 points"),
        (0.44, 0.1, "unclear", "No loss beyond chance was seen: 6.0 points"),
        (0.3, 0.05, "much", "Much was lost: 20.0 points"),
        (0.5, None, "unclear", "Too few questions to tell"),
    ],
)
def test_what_was_lost_in_points(after, half, kind, words):
    found = verdict_of([*questions("said_frac", 0.0, 0.5, 0.6), *kept(0.5, after, half)])
    assert found is not None
    assert (found.lost_class, found.lost.startswith(words)) == (kind, True), found.lost


def test_the_worse_of_suite_and_benchmarks_counts_and_the_worst_skill_is_named():
    scores = [*share(0.7), *kept(0.5, 0.499), row("tasks/arc", "acc_norm,none", 0.5, 0.38, 0.05)]
    found = verdict_of([*scores, row("tasks/piqa", "acc,none", 0.6, 0.6, 0.05)])
    assert found is not None
    # (−12 + 0) / 2 points, ± sqrt(5² + 5²) / 2
    assert found.lost.startswith("Something was lost: 6.0 points (2 benchmarks, n = 200; 95 % interval 2.5 to 9.5).")
    assert found.lost.endswith("Most in arc: 12.0 points.")


@pytest.mark.parametrize(("drift", "kind"), [(0.005, "nothing"), (0.05, "little"), (0.2, "some"), (0.5, "much")])
def test_drift_tells_where_nothing_else_does(drift, kind):
    found = verdict_of([*share(0.7), row("drift/own_samples", "kl_nats", None, drift, better="lower")])
    assert found is not None
    assert found.lost_class == kind
    assert f"{drift:g} nats per token" in found.lost


def test_a_loss_with_nothing_to_hold_it_against_is_told_and_not_judged():
    found = verdict_of([row("learning/trained", "target_nll_nats", 3.0, 2.5, better="lower", n=8)])
    assert found is not None
    assert (found.learned_class, found.lost) == ("unknown", "What was lost was not measured.")
    assert found.learned.endswith("the loss of single sentences went from 3.000 to 2.500 nats per token (n = 8).")


def test_a_benchmark_without_an_interval_decides_nothing_beside_others():
    scores = [row("tasks/arc", "acc,none", 0.5, 0.5, 0.01), row("tasks/odd", "acc,none", 0.5, 0.1, None)]
    found = verdict_of([*share(0.7), *scores])
    assert found is not None
    assert found.lost.startswith("Nothing noticeable was lost: 0.0 points (1 benchmark, n = 100")


def test_a_model_alone_and_no_scores_have_no_verdict():
    assert verdict_of([]) is None
    assert verdict_of([row("questions/closed_book", "said_frac", None, 0.3)]) is None


def test_every_pair_of_classes_has_something_to_do_next():
    said = {
        verdict_of([*questions("said_frac", 0.0, after, 0.8, half), *lost]).then  # pyright: ignore
        for (after, half), lost in itertools.product(
            [(0.0, 0.01), (0.1, 0.2), (0.1, 0.01), (0.4, 0.01), (0.6, 0.01), (0.8, 0.01)],
            [[], kept(), kept(0.5, 0.48), kept(0.5, 0.44), kept(0.5, 0.2), kept(half=0.3)],
        )
    } | {verdict_of(kept()).then}  # pyright: ignore
    assert said == set(load_table("words.yaml")["next"].values())


@pytest.mark.parametrize(
    ("task", "share", "kind"),
    [
        ("learning/trained", 1.1, "all"),
        ("learning/trained", 3.9, "heart"),
        # Other text cannot be known by heart.
        ("learning/held_out", 3.9, "all"),
    ],
)
def test_text_that_is_known_by_heart_is_not_called_knowledge(task, share, kind):
    score = {"task": task, "metric": "share_of_context_gain_frac", "n": 12, "better": "higher", "details": {}}
    score |= {"before": None, "after": estimate(share, 0.2), "change": None}
    found = verdict_of([score])
    assert found is not None
    assert found.learned_class == kind
    assert ("by heart" in found.learned) == (kind == "heart")
    heart = "That is memory; what the model knows of it, only questions tell."
    assert found.learned.endswith(heart) == (task == "learning/trained")
    assert ("of the text" in found.learned) == (kind == "all" and task == "learning/trained")
    assert ("--questions" in found.then) == (kind == "heart")
