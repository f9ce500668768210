"""`afterword align` as a person types it, and the page that it writes."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from afterword import adapt
from afterword.errors import CheckpointError, ConfigError
from afterword.models import has_result
from afterword.report.alignment import selection_figure, write_alignment

pytestmark = pytest.mark.usefixtures("unseen")


@pytest.fixture
def typed(afterword):
    return partial(afterword, "align")


BOTH = ("--instructions", "i.jsonl", "--preferences", "p.jsonl", "-o", "out", "--chat-template", "plain")
FEW = ("--instruction-count", "6", "--preference_count", "4", "--sft-batch-size", "3", "--quotas", "i.jsonl=0.5")


def test_from_the_command_line_to_the_page(place: Path, typed: Any):
    code, out, err = typed("model", *BOTH, *FEW, "--selection", "format_score")
    assert (code, out) == (0, "out holds the aligned model. Wrote align.html. Next: afterword evaluate out\n")
    assert "instructions: 3 of 12 selected by format_score; left out: 1 too_long, 1 duplicate" in err
    assert "dpo: 1 steps" in err
    page = (place / "out/align.html").read_text(encoding="utf-8")
    assert "afterword align model --instructions i.jsonl" in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    code, out, _ = typed("model", *BOTH, *FEW, "--selection", "format_score")
    assert (code, "out was complete; nothing was trained" in out) == (0, True)
    assert (place / "out/align.html").read_text(encoding="utf-8") == page


def test_settings_from_a_file_and_what_is_wrong_at_once(place: Path, typed: Any):
    (place / "a.yaml").write_text("selection: best\nsft-batch-size: 0\n", encoding="utf-8")
    code, _, err = typed("model", "--config", "a.yaml", "--dpo-beta", "x")
    assert code == 2
    for name in ("selection", "sft_batch_size", "dpo_beta", "output_dir", "instructions"):
        assert f"- {name}: " in err
    assert not (place / "out").exists()


def rows() -> list[dict[str, Any]]:
    """Losses 0 … 9 of two kinds; the four lowest are selected. One of either kind was left out."""
    scored = [
        {"id": str(i), "source": "a", "kind": kind, "selected": i < 4, "templated_nll_nats": float(i)}
        for kind in ("instructions", "preferences")
        for i in range(10)
    ]
    out = {"id": "x", "source": "b", "kind": "preferences", "selected": False, "left_out": "too_long"}
    return [*scored, out]


def test_the_figure_shows_all_and_the_selected():
    figure = selection_figure(rows(), "perplexity")
    said = "median 4.500 of all 10, 1.500 of the 4 selected."
    assert figure["description"] == f"instructions: {said} preferences: {said}"
    assert figure["svg"].startswith("<svg viewBox")
    assert "var(--accent)" in figure["svg"]
    # The same bytes for the same rows.
    assert selection_figure(rows(), "perplexity") == figure


def test_the_page_counts_by_source_and_escapes_what_people_named(tmp_path: Path):
    stage = {"samples": 4, "steps": 2, "seconds": 3.0, "losses": {"1": 2.0, "2": 1.5}}
    state = {"settings": {"model_name_or_path": "<b>m</b>", "selection": "perplexity"}, "chat_template": "plain"}
    state |= {"stages": {"sft": stage}, "command": "afterword align --trainer hub_token=secret"}
    (tmp_path / "align.json").write_text(json.dumps(state), encoding="utf-8")
    (tmp_path / "selection.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    page = write_alignment(tmp_path).read_text(encoding="utf-8")
    assert "&lt;b&gt;m&lt;/b&gt;" in page
    assert "secret" not in page
    cells = [
        re.sub("<[^>]*>", " ", line).split() for line in page.splitlines() if line.startswith('<tr><th scope="row"')
    ]
    assert cells[:3] == [
        ["a", "instructions", "4", "10", "0"],
        ["a", "preferences", "4", "10", "0"],
        ["b", "preferences", "0", "0", "1"],
    ]
    assert cells[3][:3] == ["SFT", "4", "2"]
    assert "2.000 nats" in page


def test_the_page_shows_some_of_the_selected_samples(tmp_path: Path):
    said = {"messages": [{"role": "user", "content": "Where <i>?"}, {"role": "assistant", "content": "In Oslo."}]}
    more = [said | ({"rejected": "Nowhere."} if row["kind"] == "preferences" else {}) for row in rows()]
    written = [{**row, **(more[i] if row["selected"] else {})} for i, row in enumerate(rows())]
    state = {"settings": {"model_name_or_path": "m", "selection": "perplexity"}, "chat_template": "plain"}
    (tmp_path / "align.json").write_text(json.dumps({**state, "stages": {}, "command": ""}), encoding="utf-8")
    (tmp_path / "selection.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    page = write_alignment(tmp_path).read_text(encoding="utf-8")
    assert page.count("<h4>user: Where &lt;i&gt;?</h4>") == page.count("In Oslo.") == 6
    assert page.count("<b>Rejected</b>Nowhere.") == page.count("<b>Response</b>") == 3
    # A folder that was written without them has a page, too.
    (tmp_path / "selection.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    assert "Some of the selected" not in write_alignment(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_an_alignment_is_told(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"align.json: cannot be read"):
        write_alignment(tmp_path)
    (tmp_path / "align.json").write_text("{}", encoding="utf-8")
    (tmp_path / "selection.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"broken .KeyError"):
        write_alignment(tmp_path)


def test_both_stages_in_one_run_that_resumes(place: Path, afterword: Any):
    (place / "docs.txt").write_text("Mara Lind was born in Oslo. She moved to Bergen. The bakery sells bread.")
    aligned = ("--then", "align", "--align", "instructions=i.jsonl", "--align", "chat_template=plain")
    few = ("--align", "instruction-count=3", "--align", "sft_batch_size=3")
    words = ("adapt", "model", "docs.txt", "-o", "run", "--preset", "mixcpt-paper", "--max-steps", "2", *aligned, *few)
    said = afterword(*words)
    assert (said.code, "run/aligned holds the aligned model" in said.out) == (0, True)
    state = json.loads((place / "run/aligned/align.json").read_text(encoding="utf-8"))
    assert state["settings"]["model_name_or_path"] == "run"
    # Stage 2 anew where only stage 1 is there; both are left as they are once they are.
    shutil.rmtree(place / "run/aligned")
    again = afterword(*words)
    assert "run is complete (2 steps); nothing was trained" in again.out
    assert "run/aligned holds the aligned model" in again.out
    assert "run/aligned was complete" in afterword(*words).out
    # Another second stage is refused before the first is looked at again.
    said = afterword(*words, "--align", "sft_epochs=2")
    assert (said.code, "sft_epochs: 1.0 in the folder, 2.0 now." in said.err, said.out) == (2, True, "")


def test_report_knows_what_a_folder_holds(tmp_path: Path, afterword: Any):
    state = {"settings": {"model_name_or_path": "m", "selection": "perplexity"}, "chat_template": "plain"}
    (tmp_path / "align.json").write_text(json.dumps({**state, "stages": {}, "command": ""}), encoding="utf-8")
    (tmp_path / "selection.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    assert f"Wrote {tmp_path / 'align.html'}." in afterword("report", str(tmp_path)).out.replace("\n", "")
    assert (tmp_path / "align.html").is_file()


TEXTS = ["Mara was born in Oslo. She moved."]


def test_python_does_both_stages_too_and_goes_on_where_it_stopped(place: Path, monkeypatch: Any):
    second = {"instructions": "i.jsonl", "chat_template": "plain", "instruction_count": 3, "sft_batch_size": 3}
    how = {"method": "finetune", "max_steps": 2, "output_dir": "run", "then": "align", "align": second}
    with pytest.raises(ConfigError, match=r"align\.instructions: gone\.jsonl"):
        adapt("model", TEXTS, **{**how, "align": {"instructions": "gone.jsonl"}})
    assert not (place / "run").exists()
    result = adapt("model", TEXTS, **how)
    assert (result.path, result.aligned, result.steps) == (Path("run"), Path("run/aligned"), 2)
    assert has_result(Path("run/aligned"))
    assert json.loads(Path("run/aligned/align.json").read_text())["command"] == "afterword.adapt(…)"
    # The second stage anew where only the first is there.
    shutil.rmtree("run/aligned")
    again = adapt("model", TEXTS, **how)
    assert (again.already_complete, again.aligned) == (True, Path("run/aligned"))
    assert has_result(Path("run/aligned"))
    fixed = {"learning_rate": 1e-4, "lr_scheduler_type": "linear", "max_steps": 1}
    alone = adapt("model", TEXTS, output_dir="alone", **fixed)
    assert alone.aligned is None


def test_scores_are_of_the_text_that_the_first_stage_read(place: Path, afterword: Any):
    (place / "docs.txt").write_text("Mara Lind was born in Oslo. She moved to Bergen. The bakery sells bread.")
    source = "g=i.jsonl,kind=instructions,tokens=0.3,joiner= "
    aligned = ("--then", "align", "--align", "instructions=i.jsonl", "--align", "chat_template=plain")
    words = (
        "adapt",
        "model",
        "docs.txt",
        "-o",
        "run",
        "--preset",
        "mixcpt-paper",
        "--max-steps",
        "2",
        "--mixture",
        source,
    )
    assert afterword(*words, *aligned).code == 0
    assert afterword("align", "run", "--instructions", "i.jsonl", "--chat-template", "plain", "-o", "out").code == 0
    more = ("--instructions", "i.jsonl", "--chat-template", "plain", "--joiner", "\n\n", "-o", "other")
    assert afterword("align", "run", *more).code == 0
    found = {}
    for folder in ("run/aligned", "out", "other"):
        lines = (place / folder / "selection.jsonl").read_text(encoding="utf-8").splitlines()
        found[folder] = [json.loads(line).get("plain_nll_nats") for line in lines]
        found[folder].append(json.loads((place / folder / "align.json").read_text(encoding="utf-8"))["joiner"])
    assert found["run/aligned"] == found["out"]
    assert (found["out"][-1], found["other"][-1]) == (" ", "\n\n")
    assert found["out"][0] != found["other"][0]
