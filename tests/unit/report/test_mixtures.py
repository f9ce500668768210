"""The tables of what was read of every source and what its tokens cost."""

from __future__ import annotations

from typing import Any

from afterword.report.mixtures import mixture_rows, source_losses

READ: dict[str, Any] = {"samples": 1200, "tokens": 34567, "epochs": 0.5, "token_share": 0.25, "sample_share": 0.4}


def test_what_was_asked_for_stands_beside_what_was_read() -> None:
    asked = [
        {},
        {"tokens": 0.25, "samples": None, "max_epochs": 4.0},
        {"tokens": None, "samples": 0.4, "max_epochs": 2.0},
        {"tokens": None, "samples": None, "max_epochs": 4.0},
    ]
    rows = mixture_rows([{"source": f"s{i}", "asked": each, **READ} for i, each in enumerate(asked)])
    assert [row["asked"] for row in rows] == [
        "the documents, once a pass",
        "25% of tokens, at most 4 passes",
        "40% of samples, at most 2 passes",
        "all of it, once a pass",
    ]
    numbers = ("samples", "tokens", "epochs", "token_share", "sample_share")
    assert [rows[0][name] for name in numbers] == ["1,200", "34,567", "0.50", "25.0%", "40.0%"]


def test_losses_of_a_source_are_weighted_by_its_positions() -> None:
    def row(count: int, loss: float, **more: float) -> dict[str, float]:
        name = "source/a/b.jsonl"
        return {"train/loss_nats": 1.0, f"{name}/positions": count, f"{name}/prediction_nats": loss, **more}

    replay = {"source/chats/replay_positions": 3, "source/chats/replay_teacher_top1_frac": 0.5}
    steps = [row(1, 4.0), row(3, 2.0, **replay), *[row(5, 9.0)] * 16, row(2, 1.0), row(2, 0.5)]
    plain, replayed = source_losses([{"eval/loss_nats": 3.0}, *steps])
    assert plain["source"] == "a/b.jsonl"
    # (1 · 4 + 3 · 2) / 4, and (2 · 1 + 2 · 0.5) / 4; 88 positions in all.
    assert (plain["first"], plain["last"], plain["positions"]) == ("2.500", "0.750", "88")
    assert (replayed["source"], replayed["first"], replayed["last"]) == ("chats", "50.0%", "–")
    assert replayed["part"].endswith("(replay)")
