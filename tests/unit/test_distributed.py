"""Two commands in one folder, and what ends a command from outside."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import line_of

from afterword import cli
from afterword.errors import is_disk_full, is_out_of_memory
from afterword.models import replace_file
from afterword.storage.locks import sole
from afterword.training.callbacks import StopAtSigterm, trim_metrics

HOLD = "import sys, time; from pathlib import Path; from afterword.storage.locks import sole\n"
HOLD += "with sole(Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(float(sys.argv[2]))"


def holding(folder: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert line_of(process) == "held\n"
    return process


def test_a_second_process_waits_for_the_first_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("afterword.storage.locks.SILENT_SECONDS", 0.2)
    process, began = holding(tmp_path / "run", 1.5), time.monotonic()
    with sole(tmp_path / "run", "works in the same run folder"):
        assert time.monotonic() - began > 1
    assert "Waiting: another process works in the same run folder" in caplog.text
    process.wait(timeout=30)


def test_the_lock_of_a_process_that_was_killed_is_gone(tmp_path):
    process = holding(tmp_path / "run", 60)
    process.kill()
    process.wait(timeout=30)
    with sole(tmp_path / "run", "works"):
        pass


def test_a_folder_that_was_only_made_for_the_lock_goes(tmp_path):
    with sole(tmp_path / "run", "works"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_made_anew_is_locked_anew(tmp_path):
    import shutil

    folder = tmp_path / "run"
    process = holding(folder, 1)
    shutil.rmtree(folder)
    folder.mkdir()
    with sole(folder, "works"):
        assert folder.is_dir()
    process.wait(timeout=30)


def test_where_no_folder_can_be_made_the_command_says_it_itself(tmp_path):
    (tmp_path / "file").write_text("")
    with sole(tmp_path / "file" / "run", "works"):
        pass


def test_small_files_are_written_by_several_at_once(tmp_path):
    texts = [json.dumps({"number": i, "long": "x" * 20_000}) for i in range(8)]

    def write(text: str) -> None:
        for _ in range(20):
            replace_file(tmp_path / "scores.json", text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "scores.json").exists():
            assert (tmp_path / "scores.json").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_what_a_killed_process_had_begun_to_write_goes(tmp_path):
    stale = tmp_path / ".scores.json.1-2.partial"
    stale.write_text("half")
    os.utime(stale, (0, 0))
    replace_file(tmp_path / "scores.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_the_first_sigterm_asks_and_the_second_ends():
    ended = list[int]()
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        stop = StopAtSigterm()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
            assert not ended
            os.kill(os.getpid(), signal.SIGTERM)
            assert ended
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("damage", ['{"step": 3, "ep\n', "\0" * 200 + "\n", "[1]\n", "null\n", "\udcff\n"])
def test_damaged_rows_of_metrics_are_left_out_and_told(damage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = '{"step": 1}\n' + damage + '{"step": 2}\n{"step": 3}\n'
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: 1 damaged rows are left out"):
        trim_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EFBIG, "File too large", "scores.json"),
    RuntimeError(
        "[enforce fail at inline_container.cc:820] . PytorchStreamWriter failed writing file: file write failed"
    ),
    ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_one_sentence_under_every_command(error, monkeypatch, capsys):
    assert is_disk_full(error)

    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "_interrupted_by_sigterm", list)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "disk is full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "Out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "Out of memory"),
        (OSError(errno.EROFS, "Read-only file system", "/x/scores.json"), "/x/scores.json: Read-only file system"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/gone/x"), "/gone/x: No such file"),
    ],
)
def test_what_the_machine_does_not_give_is_one_sentence(error, says, monkeypatch, capsys):
    assert is_out_of_memory(error) == ("memory" in says)

    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "_interrupted_by_sigterm", list)
    with pytest.raises(SystemExit):
        cli.main()
    assert says in capsys.readouterr().err


def test_an_error_of_our_own_making_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: [][1])
    monkeypatch.setattr(cli, "_interrupted_by_sigterm", list)
    with pytest.raises(IndexError):
        cli.main()
