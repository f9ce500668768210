"""What the pages say, independent of how they look: HTML and Markdown are filled from the same values."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afterword.report.figures import draw_changes, draw_training
from afterword.report.labels import load_table, task_label
from afterword.report.readings import Rows, grouped, headline, rows_of
from afterword.report.run_folder import load_run


def build_page(path: Path) -> dict[str, Any]:
    """Everything that the report and the model card print of a run folder."""
    run = load_run(path)
    measured = run["measured"] or {"scores": [], "answers": []}
    rows = rows_of(measured["scores"])
    return {
        "run": run,
        "base": run["settings"].get("model_name_or_path") or "unknown model",
        "method": run["settings"].get("method") or "unknown method",
        "folder": run["settings"].get("output_dir") or str(path),
        "rows": rows,
        "columns": headline(rows),
        "drawings": [drawing for drawing in (draw_changes(rows), draw_training(run["metrics"])) if drawing],
        "questions": _questions(measured["answers"]),
    }


def _questions(answers: Sequence[Mapping[str, Any]]) -> dict[str, Rows]:
    """Every question with the word that tells what became of it, by setting."""
    marks = load_table("words.yaml")["marks"]
    marked = ({**answer, "mark": marks[answer["before_correct"]][answer["after_correct"]]} for answer in answers)
    return {task_label(f"questions/{setting}"): group for setting, group in grouped(marked, "setting").items()}


def printed_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text: strings as they are, everything else as JSON, unset and empty ones left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in settings.items()
        if value not in (None, "", [], {})
    }
