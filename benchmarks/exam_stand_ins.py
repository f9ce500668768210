"""Small files of the same form as KUP's and BioASQ's, about things that do not exist: to try the recipes without them.

    python benchmarks/exam_stand_ins.py stand-ins

writes kup.jsonl (documents and questions, in one file, as KUP has them), bioasq.jsonl (documents) and bioasq_mcq.jsonl
(questions). They show that everything runs; what a model scores on them says nothing of the published sets.
"""

import argparse
import json
from pathlib import Path

PLACES = ("Averholm", "Brinsted", "Calvary Reach", "Dunmere", "Eskwater", "Fenwick Bay", "Garrow", "Hollin Head")
CHANGES = ("closed its old harbour", "moved its market to Sundays", "sold its tram line", "opened a school of glass")
CAUSES = ("kelvase", "brolatin", "sermidol", "tarovine")


def kup_rows(count: int) -> list[dict[str, object]]:
    """Entities of whom one fact changed, with the news of it and a question of four statements."""
    rows = list[dict[str, object]]()
    for number in range(count):
        place, right = f"{PLACES[number % len(PLACES)]} {1 + number // len(PLACES)}", (number * 3) % 4
        change = CHANGES[right]
        news = (
            f"{place} made the news this week. After a long debate the council decided that {place} {change}. "
            f"Many people had asked for it for years. The mayor said that it was a good day for all of them. "
            f"Others in the town are still against it. What follows will be decided in the spring."
        )
        statements = [f"{letter}: {place} {text}." for letter, text in zip("ABCD", CHANGES, strict=True)]
        question = "\n".join(["Question: Which of the following statements is True?", *statements, "Answer:"])
        about = {"entity_id": 100 + number, "entity": place, "category": "places"}
        rows.append({**about, "question": question, "answer": "ABCD"[right], "evidence_news": news})
    return rows


def bioasq_rows(count: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Documents with question and answer before them, and the same questions with four options."""
    documents, questions = list[dict[str, object]](), list[dict[str, object]]()
    for number in range(count):
        right = number % 4
        question = f"Which enzyme is blocked in the disease of {PLACES[number % len(PLACES)]} type {number}?"
        context = (
            f"The disease of {PLACES[number % len(PLACES)]} type {number} was described in one family. "
            f"In all of its members the enzyme {CAUSES[right]} was blocked. Other enzymes were as in healthy people. "
            f"The symptoms began in the third year. A diet without milk helped."
        )
        documents.append({"question": question, "text": f"<answer> {CAUSES[right]} <context> {context}"})
        meta = {"answer": CAUSES[right], "context": context, "id": number}
        questions.append({"question": question, "options": list(CAUSES), "correct_index": right, "meta": meta})
    return documents, questions


def write_stand_ins(folder: Path, count: int = 12) -> None:
    """All three files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    documents, questions = bioasq_rows(count)
    for name, rows in (("kup", kup_rows(count)), ("bioasq", documents), ("bioasq_mcq", questions)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12, help="documents and questions of each")
    told = parser.parse_args()
    write_stand_ins(told.folder, told.count)
