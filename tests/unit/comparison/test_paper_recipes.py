"""Recipes of the papers' tables: every published row is there, is a valid grid, and is dry-run on stand-ins."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afterword.comparison.grid import Cell, cells_of
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.align import following
from afterword.settings.compare import CompareSettings
from afterword.settings.yaml_files import load_yaml
from afterword.training import dry_run

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(
    [*(ROOT / "recipes" / "disc-paper").glob("*.yaml"), *(ROOT / "recipes" / "mixcpt-paper").glob("*.yaml")]
)
PUBLISHED = {
    "kup": {"qwen2.5-7b": 1e-5, "qwen2.5-3b": 1e-5, "llama-3.1-8b": 4e-6, "qwen3-8b": 1.5e-5},
    "bioasq": {"qwen2.5-7b": 5e-6, "qwen2.5-3b": 1e-5, "llama-3.1-8b": 1e-6, "qwen3-8b": 5e-6},
}
"""Rates of fine-tuning that adapt most, as the authors say them."""
ROWS = {"FT", "FT + KL", "FT + LoRA", "FT + Rephrase", "FT + TALR", "CD-base", "DiSC"}
SPLITS = {"sentence", "middle", "uniform_sentence", "random_token", "uniform_token", "random_token_suffix"}


def grid(path: Path) -> CompareSettings:
    return read_settings(load_yaml(path), CompareSettings)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recipe_is_a_grid_that_says_what_it_needs(path: Path) -> None:
    assert cells_of(grid(path))
    top = path.read_text("utf-8").split("model_name_or_path")[0]
    assert all(
        word in top for word in ("Needs: one GPU with", "GB", "ours", "Data: data/" if "kup" in top else "Data: ")
    )
    assert f"--config recipes/{path.parent.name}/{path.name}" in top


def test_the_recipes_are_what_the_program_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    made = dict(importlib.import_module("paper_recipes").recipes())
    assert made == {f"{path.parent.name}/{path.name}": path.read_text("utf-8") for path in RECIPES}


def test_every_row_of_discs_table_is_there_at_its_published_rate() -> None:
    for corpus, rates in PUBLISHED.items():
        for model, rate in rates.items():
            cells = cells_of(grid(ROOT / "recipes" / "disc-paper" / f"{corpus}-{model}.yaml"))
            found = {(cell.arm, cell.learning_rate) for cell in cells}
            assert {arm for arm, _ in found} == ROWS
            of_fine_tuning = {("FT", rate), ("FT + KL", rate), ("FT + TALR", rate), ("FT + Rephrase", rate)}
            assert found >= of_fine_tuning | {("DiSC", 3e-6), ("FT + LoRA", 5e-5), ("CD-base", 4e-6)}
            # And lower ones, for the pick.
            assert all(len({rate for arm, rate in found if arm == row}) > 1 for row in ROWS)
    splits = cells_of(grid(ROOT / "recipes" / "disc-paper" / "ablation-splits.yaml"))
    assert {cell.settings.method_settings()["strategy"] for cell in splits} == SPLITS


def test_the_optimizer_is_that_of_the_authors() -> None:
    for cell in cells_of(grid(ROOT / "recipes" / "disc-paper" / "kup-qwen2.5-7b.yaml")):
        made, precision = cell.settings, "bf16_mixed" if cell.arm == "DiSC" else "float32"
        assert (made.num_train_epochs, made.lr_scheduler_type, made.documents_per_step) == (1, "constant", 1)
        assert (made.precision, made.is_guided) == (precision, False)


def _different() -> Iterator[Any]:
    """One cell of every way of training that any recipe has, whatever its model, rate and files."""
    seen = set[str]()
    for path in RECIPES:
        for cell in cells_of(grid(path)):
            same = {"model_name_or_path": "", "output_dir": "", "learning_rate": 0.0, "documents": [], "align": {}}
            same |= {} if cell.arm == "DiSC" else {"text_column": None, "text_after": None, "then": None}
            told = json.dumps(cell.settings.model_dump(mode="json") | same, sort_keys=True)
            if told not in seen:
                seen.add(told)
                yield pytest.param(cell, id=f"{path.parent.name}-{cell.arm}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the same form as those that the recipes name."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        importlib.import_module("exam_stand_ins").write_stand_ins(folder, 4)
    turn = {"prompt": "Where is Oslo?", "completion": "In Norway."}
    pair = {"prompt": turn["prompt"], "chosen": turn["completion"], "rejected": "Away."}
    for name, row in (("instructions", turn), ("preferences", pair), ("text", {"text": "It rained. The cat slept."})):
        (folder / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 4, encoding="utf-8")
    return folder


@pytest.mark.parametrize("cell", list(_different()))
def test_every_way_of_training_is_dry_run_on_stand_ins(cell: Cell, data: Path, model_folder: Path) -> None:
    settings = cell.settings
    stand_in = "kup" if settings.text_column == "evidence_news" else "bioasq" if settings.text_after else "text"
    given = settings.model_dump(exclude_unset=True) | {"model_name_or_path": str(model_folder), "output_dir": ""}
    given |= {"documents": [str(data / f"{stand_in}.jsonl")], "precision": "float32", "teacher_precision": "float32"}
    given["mixture"] = {
        name: source | {"files": [str(data / f"{name}.jsonl")]} for name, source in (settings.mixture or {}).items()
    } or None
    assert following(settings.model_copy(update={"output_dir": "run"})) is None or settings.then
    found = dry_run(read_settings(given, AdaptSettings))
    assert found.steps > 0
    assert found.totals["trained_positions"] > 0
