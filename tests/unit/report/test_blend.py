"""The page of a blend: its table and its figure, the pick or the reason why there is none, and what is no blend."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import CheckpointError
from afterword.report.blend import write_blend


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "interval_95": [value - 0.05, value + 0.05]}


def point(share: float, lost: float) -> dict[str, Any]:
    """Half of λ is learned, a tenth of it lost."""
    learning = {"before": estimate(0.0), "after": estimate(share / 2)}
    retention = {"before": estimate(0.9), "after": estimate(0.9 - share / 10)}
    split = {"learning": learning, "retention": retention, "losses_points": {"reading": lost, "lists": 0.0}}
    return {"lambda": share, "dev": split, "test": split}


def blend(**more: Any) -> dict[str, Any]:
    points = [point(0.6, 4.25), point(0.2, 1.0), point(1.0, 9.0)]
    settings = {"base": "<b>base</b>", "adapted": "runs/docs", "max_loss_points": 5.0, "suite": "s.jsonl"}
    pick = {**points[0], "kept_on_test": True}
    about = {"format": 1, "command": "afterword blend --trainer hub_token=secret", "settings": settings}
    return {**about, "points": points, "pick": pick, **more}


@pytest.fixture
def written(tmp_path: Path, afterword: Any) -> Any:
    """`written(**more)`: the page that `afterword report` makes of a blend's folder."""

    def page(**more: Any) -> str:
        """Once."""
        (tmp_path / "blend.json").write_text(json.dumps(blend(**more)), encoding="utf-8")
        # As a blend with a pick has it, beside which it is no run.
        (tmp_path / "config.yaml").write_text("method: blend\n", encoding="utf-8")
        said = afterword("report", str(tmp_path))
        assert (said.code, said.out.replace("\n", "")) == (0, f"Wrote {tmp_path / 'blend.html'}."), said.all
        return (tmp_path / "blend.html").read_text(encoding="utf-8")

    return page


def test_the_page_has_every_share_and_the_pick(written: Any):
    page = written()
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", page, re.DOTALL)
    cells = [re.sub("<[^>]*>", " ", row).split() for row in rows]
    base = ["0", "(base)", "0.0%", "0.0%", "[−5.0,", "5.0]", "90.0%", "[85.0,", "95.0]", "–"]
    assert cells[0] == base
    assert cells[1] == ["0.6,", "picked", "30.0%", "30.0%", "[25.0,", "35.0]", "84.0%", "[79.0,", "89.0]", "4.2"]
    assert [row[0] for row in cells] == ["0", "0.6,", "0.2", "1"]
    assert "Picked on dev: λ = 0.6" in page
    assert "On test it loses" not in page
    assert "&lt;b&gt;base&lt;/b&gt;" in page
    assert "secret" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert written() == page


def test_the_figure_goes_from_the_base_to_the_adapted_model_in_order(written: Any):
    page = written()
    assert "Learning on test by λ: 0.0% at 0, 10.0% at 0.2, 30.0% at 0.6, 50.0% at 1." in page
    assert "Retention on test by λ: 90.0% at 0, 88.0% at 0.2, 84.0% at 0.6, 80.0% at 1." in page
    assert "var(--accent)" in page


def test_a_pick_that_is_none_or_lost_on_test_is_said(written: Any):
    assert "No λ keeps them. No model was saved." in written(pick={"reason": "No λ keeps them."})
    lost = {**point(1.0, 9.0), "kept_on_test": False}
    assert "On test it loses 9.0 points on a skill." in written(pick=lost)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"settings": {}, "points": [], "pick": {}, "command": ""}'])
def test_what_is_no_blend_is_refused(tmp_path: Path, text: str):
    with pytest.raises(CheckpointError, match=r"blend.json: cannot be read .* Run `afterword blend` first"):
        write_blend(tmp_path)
    (tmp_path / "blend.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"blend.json: broken"):
        write_blend(tmp_path)
