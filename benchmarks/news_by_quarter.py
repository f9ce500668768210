"""Dated documents and their questions, cut into the quarters of the year: the corpora of recipes/news-by-quarter.yaml.

python benchmarks/news_by_quarter.py DATA/documents/world_news_2025.jsonl \\
    DATA/questions/world_news_2025.jsonl runs/quarters
afterword sequence --config recipes/news-by-quarter.yaml --method finetune -o runs/news-finetune
python benchmarks/news_by_quarter.py --table runs/news-finetune runs/news-disc

A document is of the quarter of its `date`, the last day that it tells of; a question of that of its document. With
--table, sequences that were run, side by side: of each quantity the mean over corpora at the end, what was learned,
and transfer.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from afterword.report.sequence import build_sequence

Row = Mapping[str, Any]


def quarter_of(date: str) -> str:
    """The quarter of a day as ISO writes it.

    >>> quarter_of("2025-03-31"), quarter_of("2025-12-01")
    ('2025-q1', '2025-q4')
    """
    year, month = date.split("-")[:2]
    return f"{year}-q{(int(month) + 2) // 3}"


def by_quarter(documents: Iterable[Row], questions: Iterable[Row]) -> dict[str, tuple[list[Row], list[Row]]]:
    """Documents and questions of every quarter, the earliest first, each in the order given.

    ValueError for a question about a document that is not there, so that none is lost without a word.
    """
    found, of_document = defaultdict[str, tuple[list[Row], list[Row]]](lambda: ([], [])), dict[str, str]()
    for document in documents:
        of_document[document["id"]] = quarter_of(document["date"])
        found[of_document[document["id"]]][0].append(document)
    for question in questions:
        if (document := question["document"]) not in of_document:
            raise ValueError(f"a question is about {document!r}, which is no document of the file")
        found[of_document[document]][1].append(question)
    return dict(sorted(found.items()))


def main() -> None:
    """Cut, or tell of what was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="DOCUMENTS QUESTIONS FOLDER; or with --table, sequences")
    parser.add_argument("--table", action="store_true", help="a table of sequences that were run")
    asked = parser.parse_args()
    if asked.table:
        print(table_of(asked.paths))
        return
    if len(asked.paths) != 3:
        parser.error("give DOCUMENTS QUESTIONS FOLDER")
    documents, questions, folder = asked.paths
    folder.mkdir(parents=True, exist_ok=True)
    for name, (texts, asked_of) in by_quarter(_rows(documents), _rows(questions)).items():
        _write(folder / f"{name}.jsonl", texts)
        _write(folder / f"{name}-questions.jsonl", asked_of)
        print(f"{name}: {len(texts)} documents, {len(asked_of)} questions")


def table_of(folders: Sequence[Path]) -> str:
    """A row in Markdown for every sequence and quantity, each with its 95 % interval over questions or documents."""
    lines = ["| sequence | quantity | at the end | learned | forward | backward |", "|---|---|--:|--:|--:|--:|"]
    for folder in folders:
        for matrix in build_sequence(folder)["matrices"]:
            end = f"{matrix['end']['value']} {matrix['end']['interval']}"
            rest = [row["shown"][-1] for row in matrix["transfer"]]
            lines.append(f"| {folder.name} | {matrix['title']} | {' | '.join([end, *rest])} |")
    return "\n".join(lines)


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
