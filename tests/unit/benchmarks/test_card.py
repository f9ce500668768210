"""benchmarks/on_a_gpu.sh: no part stops another or runs on; what was found is told, and what must be brought named."""

from __future__ import annotations

import importlib
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, run_command

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "benchmarks"
COMMAND = SCRIPTS / "on_a_gpu.sh"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("card")


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("needs")


def python(card: Any, code: str, until: float = 1.0) -> Any:
    return card.Command((sys.executable, "-c", code), until)


def part_of(card: Any, *commands: Any, told: Any = None) -> Any:
    return card.Part("b", "a part", commands, told or (lambda rows, out: [str(row["n"]) for row in rows]))


def noting(out: Path, n: int) -> str:
    """Code that writes down a row, as the programs of the parts do."""
    return f"open({str(out / 'b.rows')!r}, 'a').write('{{\"n\": {n}}}\\n')"


# ---- running


def test_a_command_that_fails_does_not_stop_the_next_and_what_was_found_is_kept(card: Any, tmp_path: Path) -> None:
    commands = (python(card, f"{noting(tmp_path, 1)}; print('lost'); 1 / 0"), python(card, noting(tmp_path, 2)))
    result = card.run_part(part_of(card, *commands), tmp_path, 60)
    assert (result.status, result.found) == ("failed", ["1", "2"])
    written = json.loads((tmp_path / "b.json").read_text())
    assert (written["status"], written["rows"]) == ("failed", [{"n": 1}, {"n": 2}])
    log = (tmp_path / "b.log").read_text()
    assert "lost" in log
    assert "ZeroDivisionError" in log
    assert not (tmp_path / "b.rows").exists()


def test_what_takes_too_long_is_ended_with_all_that_it_started_and_the_rest_has_its_time(
    card: Any, tmp_path: Path
) -> None:
    mark = tmp_path / "still there"
    child = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    waits = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); {noting(tmp_path, 1)}"
    slow = python(card, f"{waits}; import time; time.sleep(600)", until=0.4)
    began = time.monotonic()
    result = card.run_part(part_of(card, slow, python(card, noting(tmp_path, 2))), tmp_path, 5)
    assert time.monotonic() - began < 60
    assert (result.status, result.found) == ("timed out", ["1", "2"])
    time.sleep(2)
    assert not mark.exists()


def test_a_part_that_comes_to_its_end_is_ok(card: Any, tmp_path: Path) -> None:
    result = card.run_part(part_of(card, python(card, noting(tmp_path, 3))), tmp_path, 60)
    assert (result.status, result.found) == ("ok", ["3"])


def test_old_findings_are_not_told_again(card: Any, tmp_path: Path) -> None:
    (tmp_path / "b.rows").write_text('{"n": 1}\n')
    assert card.run_part(part_of(card, python(card, "pass")), tmp_path, 60).found == []


@pytest.mark.parametrize("tiny", [True, False])
def test_the_parts_run_programs_that_are_there_with_options_that_they_have(
    card: Any, tiny: bool, tmp_path: Path
) -> None:
    made = card.parts(tmp_path, "cpu", tiny)
    assert [part.name for part in made] == list("abcdef")
    for part in made:
        assert [command.until for command in part.commands] == sorted(command.until for command in part.commands)
        assert part.commands[-1].until == 1.0
        for command in part.commands:
            options = {word for word in command.words if word.startswith("--")}
            if part.name != "a":
                source = Path(command.words[1]).read_text()
                assert all(f'"{option}"' in source for option in options)
    assert len([word for word in made[0].commands[0].words if word.endswith(".py")]) >= 4


# ---- what is told


def junit(tmp_path: Path, *cases: str) -> None:
    (tmp_path / "a.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")


def test_the_first_tests_that_failed_are_named(card: Any, tmp_path: Path) -> None:
    failed = [f'<testcase name="test_{n}"><failure/></testcase>' for n in range(5)]
    junit(tmp_path, *failed, '<testcase name="test_good"/>', '<testcase name="test_not"><skipped/></testcase>')
    told = card.told_of_tests([], tmp_path)
    assert told[0] == "1 passed, 5 failed, 1 skipped"
    assert told[1:] == [f"first to fail: test_{n}" for n in range(3)]


def test_tests_that_all_skip_are_said_to(card: Any, tmp_path: Path) -> None:
    junit(tmp_path, *['<testcase name="test_a"><skipped/></testcase>'] * 7)
    assert card.told_of_tests([], tmp_path) == ["all 7 skipped: there is no GPU here"]


def test_tests_that_did_not_end_are_read_from_the_log(card: Any, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("..F\nFAILED tests/x.py::test_it - boom\n")
    assert card.told_of_tests([], tmp_path) == ["not at their end; failed: tests/x.py::test_it"]


def test_ratios_of_steps_stand_beside_the_counted_ones(card: Any, tmp_path: Path) -> None:
    step = {"table": "steps", "tokens_per_second": 1000.0}
    rows = [
        step | {"name": "trl, bfd", "seconds": 4.0, "flops": 8.0},
        step | {"name": "trl, padded", "seconds": 2.0, "flops": 8.0},
        step | {"name": "disc", "seconds": 3.0, "flops": 10.0, "mfu": 0.4},
        {"table": "steps", "name": "authors", "missed": "not enough memory"},
        {"table": "attention", "kernel": "sdpa", "states": 0.004, "gradient": None, "seconds": 0.1},
    ]
    told = card.told_of_steps(rows, tmp_path)
    assert "disc: 1,000 tokens a second, MFU 40 %" in told
    assert "disc / trl, padded: 1.50 of the time, counted 1.25" in told  # the faster of TRL's
    assert "authors: not enough memory" in told
    assert "packed beside alone, sdpa: states 0.004, no backward here, 100 ms" in told


@pytest.mark.parametrize(("gib", "mfu", "said"), [(79.0, 0.46, "met"), (81.0, 0.44, "missed")])
def test_the_goals_of_the_8b_plan_are_judged(card: Any, tmp_path: Path, gib: float, mfu: float, said: str) -> None:
    row = {"table": "ways", "counted_gib": 54.0, "gib": gib, "mfu": mfu, "tokens_per_second": 9.0, "seconds": 1.0}
    step = {"table": "step", "seconds": 1.25, "gib": 50.04}
    told = card.told_of_eight([{"table": "estimate", "shape": "8b", "estimated_gib": 55.0}, step, row], tmp_path)
    assert told[:2] == ["dry run, 8b: 55 GiB", "a step: 1.25 s, 50.0 GiB at most so far"]
    assert f"held {gib:.1f} GiB (goal at most 80: {said})" in told
    assert f"MFU {100 * mfu:.1f} % (goal 45 %: {said})" in told


def test_losses_are_told_by_size_and_who_is_not_there_is_named(card: Any, tmp_path: Path) -> None:
    speed = {"table": "speed", "positions": 2048, "case": "bfloat16, frozen head"}
    speed |= {"ours": {"seconds": 0.0123, "mib": 512.4}, "trl": {"missed": "not there: no trl"}}
    error = {"table": "errors", "dtype": "bfloat16", "trained": True, "name": "ours", "kls": [5e-4]}
    told = card.told_of_loss([speed, error | {"errors": [[0.0019, 0.0021, 1e-6]]}], tmp_path)
    assert told == [
        "N = 2,048, bfloat16, frozen head, ms / MiB: ours 12.3 / 512; trl not there: no trl",
        "gradient off, bfloat16, KL 0.0005, on states / on a trained head: ours 0.19 % / 0.21 %",
    ]


def test_several_processes_are_told_beside_one_and_one_gpu_is_said(card: Any, tmp_path: Path) -> None:
    row = {"table": "processes", "adapt_seconds": 12.4, "evaluate_seconds": 8.0}
    row |= {"name": "4 processes, FSDP2", "losses_apart": 2e-5, "scores_apart": 0.005}
    missed = {"table": "processes", "missed": "one GPU here: nothing to compare"}
    told = card.told_of_processes([row, missed], tmp_path)
    seconds, apart = "adapt 12 s, evaluate 8 s", "losses 2e-05 apart, scores 0.005"
    assert told == [f"4 processes, FSDP2: {seconds}; {apart}", "one GPU here: nothing to compare"]


def test_what_differs_between_one_process_and_several_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    several = importlib.import_module("several_gpus")
    one = several.Outcome([2.0, 1.0], {"learning/said_frac": 0.5, "drift/kl_nats": 0.1}, 10.0, 5.0)
    near = several.Outcome([2.0, 1.0005], {"learning/said_frac": 0.51, "drift/kl_nats": 0.3}, 20.0, 6.0)
    far = several.Outcome([2.0, 1.01], {"learning/said_frac": 0.5, "drift/kl_nats": 0.1}, 20.0, 6.0)
    other = several.Outcome([2.0, 1.0], {"learning/said_frac": 0.6, "drift/kl_nats": 0.1}, 20.0, 6.0)
    asked = several.argparse.Namespace(json=None, tolerance=1e-3)
    same = [several.compared({"one process": one, "2 processes": each}, asked) for each in (near, far, other)]
    assert same == [True, False, False]
    assert "| 2 processes | 20.0 | 6.0 | 0.0005 | 0.010 |" in capsys.readouterr().out
    assert several.apart(one, far) == (pytest.approx(0.01), 0.0)


def test_the_table_takes_its_place_on_the_page_and_takes_it_again(card: Any) -> None:
    page = card.PAGE.read_text("utf-8")
    once = card.filled(page, "| first |\n")
    twice = card.filled(once, "| second |\n")
    assert "| first |" in once
    assert "| first |" not in twice
    assert twice.startswith(page.split(card.BEGIN)[0])
    assert twice.endswith(page.split(card.END)[1])


def test_a_bar_in_what_was_found_does_not_break_the_table(card: Any) -> None:
    result = card.Result("b", "the loss", "failed", 3.2, ["a | b", "c"], [], [])
    assert card.table([result], "a machine", 10).splitlines()[-1] == "| b | the loss | failed | 3 | a / b<br>c |"


# ---- what is brought


def test_what_torch_and_transformers_bring_is_not_brought_again(needs: Any) -> None:
    brought = needs.needs({})
    assert not {"torch", "transformers", "accelerate", "numpy", "packaging"} & set(brought)
    assert {"pydantic", "pydantic-core", "datasets", "sentencex", "trl", "liger-kernel", "pytest"} <= set(brought)
    exact = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"datasets=={brought['datasets']}" in exact


def test_what_the_machine_has_is_not_brought_and_its_versions_are_looked_at(needs: Any) -> None:
    has = needs.listed("Package Version\n------- -------\npeft 0.20.0\nhuggingface_hub 0.36.0\nPandas\n")
    brought = needs.needs(has)
    assert not {"peft", "pandas"} & set(brought)
    problems = needs.conflicts(brought, has)
    assert any(problem.startswith("datasets ") and "0.36.0 is there" in problem for problem in problems)
    assert not any("peft" in problem for problem in problems)
    too_old = needs.conflicts(brought, needs.listed("peft==0.1"))
    assert any(problem.startswith("afterword asks for peft") for problem in too_old)


def shell(*words: str, **environment: str) -> Ended:
    how = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    return run_command(["bash", COMMAND, *words], environment=how, cwd=ROOT, seconds=540, check=False)


def test_needs_are_a_file_that_pip_reads() -> None:
    done = shell("--needs")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "pip download --no-deps" in lines[1]
    assert all(line.startswith("#") or "==" in line for line in lines)


def test_wheels_are_used_without_being_installed(tmp_path: Path) -> None:
    about = {"METADATA": "Metadata-Version: 2.1\nName: brought-here\nVersion: 1.0\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "brought_here-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought_here.py", "SAID = 'brought'\n")
        for name, text in about.items():
            wheel.writestr(f"brought_here-1.0.dist-info/{name}", text)
    # In the place of the program of the parts, one that looks for what was brought.
    other = tmp_path / "python"
    looks = "import brought_here; print(brought_here.SAID, brought_here.__file__)"
    other.write_text(
        f'#!/bin/sh\ncase "$1" in -m) exec {sys.executable} "$@";; esac\nexec {sys.executable} -c "{looks}"\n'
    )
    other.chmod(0o755)
    done = shell("out", "--wheels", str(tmp_path / "wheels"), PYTHON=str(other))
    assert done.code == 0, done.err
    said, place = done.out.split()
    assert said == "brought"
    assert not Path(place).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--wheels", "nowhere", "out"), "no *.whl in 'nowhere'"),
        (("out", "--wheels"), "give the folder"),
        ((), "required: out"),
        (("out", "--seconds", "0"), "--seconds: 0 is no time"),
        (("out", "--only", "x"), "invalid choice"),
        (("README.md",), "is a file"),
    ],
)
def test_what_is_typed_wrong_is_said(words: tuple[str, ...], said: str) -> None:
    done = shell(*words)
    assert done.code == 2
    assert said in done.err


@pytest.mark.slow
def test_a_part_of_it_runs_on_a_processor(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell(str(out), "--device", "cpu", "--tiny", "--only", "e")
    assert done.code == 0, done.err
    result = json.loads((out / "e.json").read_text())
    assert result["status"] == "ok"
    assert all(row["tokens_per_second"] > 0 for row in result["rows"])
    table = (out / "table.md").read_text()
    assert table in done.out
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] == ["| e"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_command_runs_on_a_processor(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell(str(out), "--device", "cpu", "--tiny", "--seconds", "600")
    results = {letter: json.loads((out / f"{letter}.json").read_text()) for letter in "abcdef"}
    expected = {"a": "skipped", "b": "ok", "c": "ok", "d": "ok", "e": "ok", "f": "ok"}
    assert {letter: result["status"] for letter, result in results.items()} == expected, done.err
    assert done.code == 0
    assert "skipped: there is no GPU here" in results["a"]["found"][0]
    assert {row["table"] for row in results["b"]["rows"]} == {"speed", "errors"}
    errors = {row["name"]: row["errors"][0] for row in results["b"]["rows"] if row["table"] == "errors"}
    for name in ("ours", "ours, compiled"):
        assert max(errors[name]) < 0.01
    assert {"finetune", "mixcpt", "disc", "authors"} <= {row.get("name") for row in results["c"]["rows"]}
    packed = {row["kernel"]: row for row in results["c"]["rows"] if row["table"] == "attention"}
    assert packed["sdpa"]["gradient"] < 1e-4
    assert packed["flex_attention"]["states"] < 1e-4
    assert [row["table"] for row in results["d"]["rows"]] == ["estimate", "step", "step", "step", "ways"]
    assert results["d"]["rows"][-1]["tokens_per_second"] > 0
    assert all(row["tokens_per_second"] > 0 for row in results["e"]["rows"])
    table = (out / "table.md").read_text()
    assert table in done.out
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] == [f"| {letter}" for letter in "abcde"]
