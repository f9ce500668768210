"""The demo's invented event as studies read documents and questions: JSON lines, beside the real sets.

python benchmarks/ferry_rows.py FOLDER
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afterword.demo.ferry_lessons import load_documents, load_questions, options


def main() -> None:
    """Write documents.jsonl, and questions.jsonl as the questions were written first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = [{"id": str(each.number), "title": each.title, "text": each.text} for each in load_documents()]
    asked = [
        {"id": each.id, "question": each.question, "answer": each.answer, "choices": options(each)}
        | {"document": str(each.documents[0])}
        for each in load_questions()
    ]
    _write(folder / "documents.jsonl", texts)
    _write(folder / "questions.jsonl", asked)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
