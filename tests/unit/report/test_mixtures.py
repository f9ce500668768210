"""The tables of what was read of every source and what its tokens cost."""

from __future__ import annotations

from typing import Any

from afterword.report.mixtures import held_out_losses, mixture_rows, source_losses, with_general_text

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


def test_what_was_skipped_of_general_text_stands_after_what_was_of_the_documents() -> None:
    def skipped(source: str) -> dict[str, str]:
        return {"source": source, "location": "line 1", "reason": "duplicate", "detail": "same text as 0"}

    def files(source: str) -> dict[str, Any]:
        return {"source": source, "documents": 4, "characters": 99, "skipped": {"duplicate": 1}}

    documents = {"sources": [], "skipped_rows": [], "skipped_total": None}
    chats = {"sources": [files("a.jsonl")], "skipped_rows": [skipped("a.jsonl")], "skipped_total": 3}
    rows = [{"source": "documents", **documents}, {"source": "chats", **chats}]
    given = {"sources": [files("d.jsonl")], "skipped": [skipped("d.jsonl")], "skipped_total": 2, "mixture": rows}
    merged = with_general_text(given)
    assert merged["sources"] == [files("d.jsonl"), files("chats: a.jsonl")]
    assert merged["skipped"] == [skipped("d.jsonl"), skipped("chats: a.jsonl")]
    assert merged["skipped_total"] == 5
    assert with_general_text({**given, "mixture": []}) == {**given, "mixture": []}


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


def test_held_out_text_is_told_by_source_in_the_first_and_the_last_evaluation() -> None:
    def evaluation(loss: float) -> dict[str, float]:
        name = "eval_source/chats"
        return {"eval/loss_nats": 1.0, f"{name}/replay_positions": 7, f"{name}/replay_forward_kl_nats": loss}

    trained = {"train/loss_nats": 1.0, "source/chats/replay_positions": 3, "source/chats/replay_forward_kl_nats": 9.0}
    metrics = [trained, evaluation(0.25), trained, evaluation(0.5), trained, evaluation(0.75)]
    (row,) = held_out_losses(metrics)
    assert (row["source"], row["positions"]) == ("chats", "7")
    assert (row["first"], row["last"]) == ("0.250", "0.750")
    (row,) = source_losses(metrics)
    assert (row["positions"], row["last"]) == ("9", "9.000")
    assert held_out_losses([trained]) == []
