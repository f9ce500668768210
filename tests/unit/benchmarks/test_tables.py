"""Programs that make tables of rows: what they say of a file that has none."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize("program", ["first_run_table", "real_small_table"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "rows.jsonl: No such file or directory. Give the rows.jsonl"),
        ("{", "rows.jsonl: Expecting property name"),
        ("", "rows.jsonl: holds no rows of a study"),
        ("[1]", "rows.jsonl: holds no rows of a study"),
    ],
)
def test_a_file_without_rows_is_said_in_a_sentence(
    program: str,
    content: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    file = tmp_path / "rows.jsonl"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(sys, "argv", [program, str(file)])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(program).main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
