"""Runs with general text: what is read of its files, what is not, and that both are said."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from afterword import report
from afterword.errors import ConfigError, DataError
from afterword.settings.adapt import read_settings
from afterword.training.run import run_adaptation

THINGS = ("Rain", "The bus", "A small dog", "The long road to the sea", "Coffee", "Bread", "A cold winter")
ASKED = [{"instruction": f"What of {thing}?", "input": "", "output": f"{thing} comes."} for thing in THINGS]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def adapted(model_folder: Path, documents: Any, tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """A run of two steps with one source of general text, `general`; its folder, and what was said at its start."""
    rows = [{"headline": row["title"], "text": row["text"]} for row in documents]
    file = write(tmp_path / "documents.jsonl", rows)

    def adapt(source: dict[str, Any], **settings: Any) -> tuple[Path, str]:
        given = {"model_name_or_path": str(model_folder), "documents": [file], "output_dir": str(tmp_path / "run")}
        given |= {"method": "cpt", "learning_rate": 1e-3, "max_length": 64, "documents_per_step": 5, "max_steps": 2}
        said = io.StringIO()
        console = Console(file=said, width=500)
        run = run_adaptation(read_settings({**given, "mixture": {"general": source}, **settings}), console=console)
        return run.path, said.getvalue()

    return adapt


def data_of(run: Path) -> Any:
    return json.loads((run / "data.json").read_text())


def test_the_documents_columns_are_not_those_of_general_text(adapted: Any, tmp_path: Path) -> None:
    asked = {"files": write(tmp_path / "asked.jsonl", ASKED), "kind": "instructions", "tokens": 0.2}
    run, _ = adapted(asked, title_column="headline", text_column="text")
    assert data_of(run)["mixture"][1]["documents"] == len(ASKED)


def test_general_text_may_name_its_own_columns(adapted: Any, tmp_path: Path) -> None:
    rows = [
        {"text": "No.", "body": f"{thing} comes.", "key": f"k-{i}", "name": thing} for i, thing in enumerate(THINGS)
    ]
    named = {"text_column": "body", "id_column": "key", "title_column": "name"}
    source = {"files": write(tmp_path / "named.jsonl", rows), "tokens": 0.2}
    with pytest.raises(DataError, match="could all be the text"):
        adapted(source)
    run, _ = adapted({**source, **named}, output_dir=str(tmp_path / "named"))
    assert data_of(run)["mixture"][1]["documents"] == len(THINGS)

    with pytest.raises(DataError, match="id_column = 'keys': no such column"):
        adapted({**source, **named, "id_column": "keys"}, output_dir=str(tmp_path / "other"))


def test_rows_that_are_skipped_of_general_text_are_counted_and_shown(
    adapted: Any, afterword: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "asked.jsonl", [*ASKED, *ASKED[:3]])
    run, _ = adapted({"files": file, "kind": "instructions", "tokens": 0.2})
    row = data_of(run)["mixture"][1]
    assert (row["documents"], row["windows"], row["skipped_total"]) == (len(ASKED), len(ASKED), 3)
    (files,) = row["sources"]
    assert (files["source"], files["files"], files["skipped"]) == (file, 1, {"duplicate": 3})
    assert [(it["location"], it["reason"]) for it in row["skipped_rows"]] == [
        (f"line {number}", "duplicate") for number in (8, 9, 10)
    ]
    report.write_pages(run)
    for page in ("report.html", "report.md"):
        text = (run / page).read_text()
        assert f"general: {file}" in text
        assert "3 duplicate" in text
        assert "line 10" in text
    words = f"adapt --config {run}/config.yaml -o {tmp_path}/again --dry-run".split()
    assert "skipped        3 duplicate of general (listed in data.json)" in afterword(*words).out.splitlines()


def test_a_source_that_runs_out_is_announced_everywhere(adapted: Any, afterword: Any, tmp_path: Path) -> None:
    source = {"files": write(tmp_path / "asked.jsonl", ASKED[:2]), "kind": "instructions", "tokens": 0.6}
    run, said = adapted({**source, "max_epochs": 2}, max_steps=None, num_train_epochs=1)
    row = data_of(run)["mixture"][1]
    share = f"{100 * row['token_share']:.1f} %"
    note = f"mixture.general: {share} of all tokens are read of it, not 60.0 %, because it gives no more after"
    assert row["token_share"] < 0.2
    assert row["epochs"] == 2
    assert row["note"].startswith(note)
    assert said.splitlines()[0] == row["note"]
    report.write_pages(run)
    assert all(note in (run / page).read_text() for page in ("report.html", "report.md"))
    words = f"adapt --config {run}/config.yaml -o {tmp_path}/again --dry-run".split()
    assert f"note           {row['note']}" in afterword(*words).out.splitlines()


def test_a_source_that_lasts_is_not_announced(adapted: Any, tmp_path: Path) -> None:
    run, said = adapted({"files": write(tmp_path / "asked.jsonl", ASKED), "kind": "instructions", "samples": 0.3})
    assert "note" not in data_of(run)["mixture"][1]
    assert "mixture" not in said


def test_general_text_may_move_before_a_run_is_resumed(adapted: Any, tmp_path: Path) -> None:
    asked = {"files": write(tmp_path / "asked.jsonl", ASKED), "kind": "instructions", "tokens": 0.2}
    run, _ = adapted(asked)
    moved = {**asked, "files": write(tmp_path / "moved" / "asked.jsonl", ASKED)}
    assert adapted(moved)[0] == run
    with pytest.raises(ConfigError, match=r"mixture\.general\.tokens: 0\.2 in the run, 0\.3 now"):
        adapted({**moved, "tokens": 0.3})


def test_an_endless_stream_of_general_text_is_read_as_far_as_is_said(
    adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def endless() -> Iterator[dict[str, str]]:
        number = 0
        while True:
            yield {"text": f"{THINGS[number % 7]} comes at {number}."}
            number += 1

    stream = datasets.IterableDataset.from_generator(endless)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **how: stream if how["streaming"] else None)
    run, _ = adapted({"files": "some/texts:train", "streaming": True, "max_documents": 9, "tokens": 0.2})
    row = data_of(run)["mixture"][1]
    assert (row["documents"], row["stopped_at_max_documents"]) == (9, True)


REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
REFUSES += "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}"


@pytest.mark.parametrize("skip", [True, False])
def test_rows_that_the_chat_template_refuses(skip: bool, adapted: Any, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, folder := tmp_path / "model")
    (folder / "chat_template.jinja").write_text(REFUSES)
    plain = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello there."}]
    chats: Any = [{"messages": each} for each in [plain, [{"role": "system", "content": "Be brief."}, *plain]] * 3]
    source = {"files": write(tmp_path / "chats.jsonl", chats), "kind": "instructions", "format": "chat", "once": True}
    settings = {"model_name_or_path": str(folder), "skip_bad_rows": skip}
    if not skip:
        with pytest.raises(DataError, match=r"template refuses .* \(System role not supported\).*skip_bad_rows: true"):
            adapted(source, **settings)
        return
    told = data_of(adapted(source, **settings)[0])["mixture"][1]
    assert told["skipped_windows"] == {"refused_by_template": 1}
    assert told["windows"] == 1
