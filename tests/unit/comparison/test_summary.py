"""Rows → numbers: means over skills, intervals over seeds or items, what is chosen on dev and shown on test."""

import pytest

from afterword.comparison.summary import read_rows, split_summaries, summary_of
from afterword.errors import CheckpointError, ConfigError

METRICS = {"learning": "correct_frac", "retention": "correct_frac"}


@pytest.fixture
def summary(by_hand):
    return lambda rows, **more: summary_of(by_hand.asked(rows, **more), rows)


def arm_of(summary, name="a"):
    return next(arm for arm in summary["arms"] if arm["name"] == name)


def test_learning_and_retention_are_means_over_their_skills(by_hand):
    test = split_summaries(by_hand.scores(test=(0.4, by_hand.retention(0.9, 0.5))), METRICS)["test"]
    assert test["learning"]["after"]["value"] == pytest.approx(0.4)
    assert test["retention"]["after"]["value"] == pytest.approx(0.7)
    assert test["retention"]["before"]["value"] == 1.0
    assert (test["learning"]["n"], test["retention"]["n"]) == (100, 100)
    low, high = test["learning"]["after"]["interval_95"]
    assert high - low == pytest.approx(2 * (0.1**2 + 0.1**2) ** 0.5 / 2)


def test_other_scores_do_not_count(by_hand):
    rows = by_hand.scores(test=(0.4, by_hand.retention(1, 1)), dev=(0.2, by_hand.retention(1, 1)))
    estimate = {"value": 0.9, "interval_95": None}
    for task, metric in (("drift/own_samples/x", "correct_frac"), ("test/learning/direct", "old_value_said_frac")):
        rows.append({"task": task, "metric": metric, "n": 9, "before": estimate, "after": estimate})
    assert set(split_summaries(rows, METRICS)) == {"test", "dev"}
    assert split_summaries(rows, METRICS)["test"]["learning"]["after"]["value"] == pytest.approx(0.4)


def test_two_seeds_give_an_interval_over_seeds_and_one_gives_that_of_its_items(by_hand, summary):
    kept = by_hand.retention(1.0, 1.0)
    rows = [by_hand.row("a", 1e-5, seed, by_hand.scores(test=(0.4 + 0.1 * seed, kept))) for seed in (0, 1)]
    rows.append(by_hand.row("a", 3e-5, 0, by_hand.scores(test=(0.6, kept))))
    two, one = arm_of(summary(rows))["points"]
    assert (two["interval_over"], two["seeds"], one["interval_over"], one["seeds"]) == ("seeds", 2, "items", 1)
    # t(1) = 12.706; s = 0.0707; half width 0.635, cut at 0 and 1.
    assert two["learning"] == {"value": pytest.approx(0.45), "interval_95": [0.0, 1.0]}
    assert one["learning"]["interval_95"] == pytest.approx([0.6 - 0.0707107, 0.6 + 0.0707107])


def test_hypervolume_is_of_every_seeds_own_points(by_hand, summary):
    rows = [
        by_hand.row("a", rate, seed, by_hand.scores(test=(learned, by_hand.retention(kept, kept))))
        for seed, rate, learned, kept in (
            (0, 1e-5, 0.2, 0.8),
            (0, 3e-5, 0.6, 0.5),
            (1, 1e-5, 0.4, 0.9),
            (1, 3e-5, 0.4, 0.8),
        )
    ]
    area = arm_of(summary(rows))["hypervolume"]
    assert area["by_seed"] == {0: pytest.approx(0.2 * 0.8 + 0.4 * 0.5), 1: pytest.approx(0.36)}
    assert (area["value"], area["seeds"]) == (pytest.approx(0.36), 2)
    away = arm_of(summary(rows, reference_point=[0.1, 0.5]))["hypervolume"]["by_seed"]
    assert away == {0: pytest.approx(0.1 * 0.3), 1: pytest.approx(0.3 * 0.4)}
    assert summary(rows)["notes"] == []


def test_a_seed_that_lacks_a_rate_has_no_hypervolume_and_is_told(by_hand):
    kept = by_hand.retention(1.0, 1.0)
    places = ((0, 1e-5, 0.3), (0, 3e-5, 0.6), (0, 9e-5, 0.2), (1, 1e-5, 0.1), (1, 3e-5, 0.9), (1, 9e-5, 0.9))
    rows = [by_hand.row("a", rate, seed, by_hand.scores(test=(x, kept))) for seed, rate, x in places]
    failed = by_hand.row("a", 3e-5, 1, None)
    made = summary_of(by_hand.asked(rows), [*rows[:4], failed])
    area = arm_of(made)["hypervolume"]
    assert (area["by_seed"], area["value"], area["interval_95"]) == ({0: pytest.approx(0.6)}, pytest.approx(0.6), None)
    told = "Seeds begun that lack a learning rate of their arm, and are left out of its hypervolume"
    assert made["notes"][-1] == f"{told}: a: 1 of 2."
    # Its finished cell is a point all the same.
    assert [point["seeds"] for point in arm_of(made)["points"]] == [2, 1, 1]
    none = summary_of(by_hand.asked(rows), [rows[0], rows[3]])
    assert arm_of(none)["hypervolume"] is None
    assert none["notes"][-1] == f"{told}: a: 2 of 2."


def test_points_of_all_arms_and_the_base_can_dominate(by_hand, summary):
    best, worse = (
        by_hand.scores(test=(0.5, by_hand.retention(0.9, 0.9))),
        by_hand.scores(test=(0.4, by_hand.retention(0.8, 0.8))),
    )
    nothing = by_hand.scores(test=(0.0, by_hand.retention(0.5, 0.5)))
    made = summary([by_hand.row("a", 1e-5, 0, best), by_hand.row("b", 1e-5, 0, worse)])
    assert [arm["points"][0]["dominated"] for arm in made["arms"]] == [False, True]
    assert arm_of(summary([by_hand.row("a", 1e-5, 0, nothing)]))["points"][0]["dominated"]


def test_the_pick_is_chosen_on_dev_though_test_would_choose_otherwise(by_hand, summary):
    kept, lost = by_hand.retention(1.0, 0.98), by_hand.retention(1.0, 0.7)
    rows = [
        # On dev 3e-5 learns most and keeps everything; on test 1e-5 would.
        by_hand.row("a", 1e-5, 0, by_hand.scores(dev=(0.3, kept), test=(0.9, kept))),
        by_hand.row("a", 3e-5, 0, by_hand.scores(dev=(0.5, kept), test=(0.4, lost))),
        # Learns more still, and loses too much on dev.
        by_hand.row("a", 9e-5, 0, by_hand.scores(dev=(0.8, lost), test=(0.8, kept))),
    ]
    chosen = arm_of(summary(rows))["pick"]
    assert chosen["learning_rate"] == 3e-5
    assert chosen["test"]["learning"]["value"] == pytest.approx(0.4)
    assert chosen["dev"]["losses_points"] == {"reading": 0, "arithmetic": pytest.approx(2)}
    assert chosen["test"]["losses_points"]["arithmetic"] == pytest.approx(30)
    assert chosen["kept_on_test"] is False


def test_losses_are_means_over_seeds(by_hand, summary):
    rows = [
        by_hand.row(
            "a", 1e-5, seed, by_hand.scores(dev=(0.3, by_hand.retention(1, kept)), test=(0.3, by_hand.retention(1, 1)))
        )
        for seed, kept in enumerate((0.92, 0.98))
    ]
    assert arm_of(summary(rows))["pick"]["learning_rate"] == 1e-5
    assert "reason" in arm_of(summary(rows, max_loss_points=4.9))["pick"]


def test_there_is_no_pick_without_dev_items_and_the_reason_is_given(by_hand, summary):
    kept = by_hand.retention(1, 1)
    test = summary([by_hand.row("a", 1e-5, 0, by_hand.scores(test=(0.3, kept)))])
    assert "no dev items" in arm_of(test)["pick"]["reason"]
    dev = summary([by_hand.row("a", 1e-5, 0, by_hand.scores(dev=(0.3, kept)))])
    assert "no test items" in arm_of(dev)["pick"]["reason"]
    assert dev["split"] == "dev"


def test_a_rate_that_failed_at_a_seed_is_not_picked(by_hand, summary):
    kept = by_hand.retention(1, 1)
    rows = [by_hand.row("a", 1e-5, s, by_hand.scores(dev=(0.3, kept), test=(0.3, kept))) for s in (0, 1)]
    rows += [
        by_hand.row("a", 9e-5, 0, by_hand.scores(dev=(0.9, kept), test=(0.9, kept))),
        by_hand.row("a", 9e-5, 1, None),
    ]
    made = summary(rows)
    assert arm_of(made)["pick"]["learning_rate"] == 1e-5
    assert any(note.startswith("Failed cells: 1.") for note in made["notes"])


def test_old_and_missing_rows_are_told_and_left_out(by_hand):
    kept = by_hand.retention(1, 1)
    rows = [by_hand.row("a", rate, 0, by_hand.scores(test=(0.3, kept))) for rate in (1e-5, 3e-5, 9e-5)]
    grid = by_hand.asked(rows[:2])
    made = summary_of(grid, [rows[0], rows[2]])
    assert [point["learning_rate"] for point in made["arms"][0]["points"]] == [1e-5]
    assert made["notes"] == [
        "1 row of rows.jsonl is of other settings, model, documents, suite or scorers, and left out.",
        "Cells not run yet: 1. The same command runs them.",
        "Seeds begun that lack a learning rate of their arm, and are left out of its hypervolume: a: 1 of 1.",
    ]


def test_the_latest_row_of_a_cell_counts(by_hand, summary):
    done = by_hand.row("a", 1e-5, 0, by_hand.scores(test=(0.3, by_hand.retention(1, 1))))
    made = summary_of(by_hand.asked([done]), [by_hand.row("a", 1e-5, 0, None), done])
    assert [cell["status"] for cell in made["cells"]] == ["complete"]


def test_a_grid_where_nothing_is_finished_is_a_summary_too(by_hand, summary):
    made = summary([by_hand.row("a", 1e-5, 0, None)])
    assert (made["split"], made["base"], made["finished"]) == (None, {}, 0)
    assert arm_of(made)["points"] == []


def test_a_metric_that_the_suite_does_not_measure_is_refused(by_hand, summary):
    rows = [by_hand.row("a", 1e-5, 0, by_hand.scores(test=(0.3, by_hand.retention(1, 1))))]
    with pytest.raises(ConfigError, match=r"choice_frac.*Measured by the suite: correct_frac"):
        summary(rows, learning_metric="choice_frac")


def test_half_a_row_at_the_end_is_none_and_a_broken_one_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"fingerprint": "x"}\n{"finge')
    assert [row["fingerprint"] for row in read_rows(tmp_path)] == ["x"]
    (tmp_path / "rows.jsonl").write_text('{"fingerprint": "x"}\nnone\n')
    with pytest.raises(CheckpointError, match="line 2 is no row"):
        read_rows(tmp_path)


def with_tasks(rows, **splits):
    """A row's scores with a benchmark task: what is kept of it by split; the base has half of it right."""
    for split, values in splits.items():
        for name, (metric, kept) in values.items():
            half, now = ({"value": value, "interval_95": None} for value in (0.5, kept))
            about = {"task": f"{split}/retention/tasks/{name}", "metric": metric, "n": 50}
            rows.append({**about, "before": half, "after": now, "change": None})
    return rows


def test_a_task_is_a_retention_skill_by_whatever_metric_it_has(by_hand):
    rows = with_tasks(by_hand.scores(test=(0.4, by_hand.retention(0.9, 0.6))), test={"piqa": ("acc_norm", 0.3)})
    kept = split_summaries(rows, METRICS)["test"]["retention"]
    assert kept["after"]["value"] == pytest.approx((0.9 + 0.6 + 0.3) / 3)
    assert kept["skills"]["tasks/piqa"] == {"n": 50, "before": 0.5, "after": 0.3}
    # A suite that has learning alone is enough beside it.
    alone = [row for row in rows if "retention/" not in row["task"] or "tasks/" in row["task"]]
    assert split_summaries(alone, METRICS)["test"]["retention"]["after"]["value"] == pytest.approx(0.3)


def test_the_pick_looks_at_tasks_on_dev_but_for_those_that_a_preset_leaves_out(by_hand):
    def cell(rate, learned, dev, test):
        kept = by_hand.retention(1.0, 1.0)
        rows = by_hand.scores(dev=(learned, kept), test=(learned, kept))
        values = {split: {"piqa": ("acc", kept)} for split, kept in (("dev", dev), ("test", test))}
        return by_hand.row("a", rate, 0, with_tasks(rows, **values))

    # The faster one loses 10 points of the task on dev, and none on test, which nothing is chosen by.
    rows = [cell(1e-5, 0.3, 0.48, 0.3), cell(3e-5, 0.9, 0.4, 0.5)]
    picked = arm_of(summary_of(by_hand.asked(rows), rows))["pick"]
    assert picked["learning_rate"] == 1e-5
    assert picked["dev"]["losses_points"]["tasks/piqa"] == pytest.approx(2.0)
    assert picked["test"]["losses_points"]["tasks/piqa"] == pytest.approx(20.0)
    assert not picked["kept_on_test"]
    asked = {**by_hand.asked(rows), "outside_pick": ["tasks/piqa"]}
    picked = arm_of(summary_of(asked, rows))["pick"]
    assert (picked["learning_rate"], "tasks/piqa" in picked["dev"]["losses_points"]) == (3e-5, False)
