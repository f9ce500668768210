"""Suites are read whole or refused with file and line, and drawn with every skill's share."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from afterword.errors import ConfigError, DataError
from afterword.evaluation import register_suite, suites
from afterword.evaluation.suites import Item, Suite, drawn_suite, find_suite, load_suite

ROW: dict[str, Any] = {
    "id": "a",
    "part": "learning",
    "skill": "direct",
    "split": "dev",
    "prompt": "Wo liegt es?",
    "answer": "Köln",
    "checks": [{"kind": "equals", "value": "Köln"}],
}
HEADER = {"suite": {"name": "towns", "version": 3, "refusals": ["I do not know."], "texts": ["Once."]}}


def _write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _item(i: int, **changes: Any) -> Item:
    return Item(**{**ROW, "id": str(i), "checks": tuple(ROW["checks"]), **changes})


def test_questions_given_for_a_suite_are_told_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds questions, and a suite is wanted"):
        load_suite(_write(tmp_path / "quiz.questions.jsonl", {"question": "Wo?", "answers": ["Köln"]}))


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_a_suite_is_read_plain_and_compressed(tmp_path: Path, name: str):
    full = {"id": "b", "part": "retention", "split": "test", "gone": "Trier", "unit": "where of it"}
    suite = load_suite(_write(tmp_path / name, HEADER, b"", ROW, {**ROW, **full, "choices": ["Bonn"]}))
    assert suite == Suite(
        (_item(0, id="a"), _item(1, **full, choices=("Bonn",))),
        refusals=("I do not know.",),
        texts=("Once.",),
        name="towns",
        version=3,
    )
    bare = load_suite(_write(tmp_path / name, {**ROW, "choices": [], "gone": None, "unit": None}))
    assert (bare.items, bare.refusals, bare.texts, bare.name) == ((_item(0, id="a"),), (), (), name)


def test_the_fingerprint_is_of_the_items_and_the_version(tmp_path: Path):
    shuffled, unnamed = dict(reversed(ROW.items())), {"suite": {"version": 3}}
    suite = load_suite(_write(tmp_path / "s.jsonl", HEADER, ROW))
    assert suite.fingerprint == load_suite(_write(tmp_path / "t.jsonl", unnamed, shuffled)).fingerprint
    assert suite.fingerprint == Suite((_item(0, id="a"),), version=3).fingerprint
    assert len(suite.fingerprint) == 64
    others = [{"prompt": "?"}, {"choices": ("Bonn",)}, {"gone": "Bonn"}, {"checks": ({"kind": "quoted"},)}]
    others += [{"unit": "where of it"}]
    changed = [Suite((_item(0, **{"id": "a", **change}),), version=3).fingerprint for change in others]
    versions = [Suite((_item(0, id="a"),), version=version).fingerprint for version in (1, 2)]
    assert len({suite.fingerprint, *changed, *versions}) == 8


def test_a_first_version_has_the_fingerprint_that_it_had_before_versions_counted():
    sha256 = "293fb2c43ccab0e242754556f67e61dbab0fa76e2cbd33ab78ddba72dd40bbfe"
    assert Suite((_item(0, id="a"),)).fingerprint == sha256


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b'{"id": ', "broken JSON"),
        (b'{"id": "\xff"}', "not valid UTF-8"),
        (["a"], "not an object"),
        ({**ROW, "promt": "?"}, 'has no "promt". Did you mean prompt'),
        ({**ROW, "prompt": " "}, '"prompt" is missing, empty or not text'),
        ({**ROW, "id": 3}, '"id" is missing, empty or not text'),
        ({**ROW, "part": "learn"}, "must be learning or retention, not 'learn'"),
        ({**ROW, "split": ["dev"]}, "must be dev or test, not ['dev']"),
        ({**ROW, "skill": "a/b"}, "slash"),
        ({**ROW, "checks": []}, '"checks" is missing, or an empty list'),
        ({**ROW, "checks": [{"kind": "equal", "value": "x"}]}, "Did you mean equals?"),
        ({**ROW, "checks": [{"kind": "final"}]}, 'needs "value"'),
        ({**ROW, "choices": "Bonn"}, '"choices" must be a list'),
        ({**ROW, "choices": ["Köln"]}, 'other than "answer"'),
        ({**ROW, "gone": 3}, '"gone" must be text'),
        ({**ROW, "unit": " "}, '"unit" must be text'),
        ({**ROW, "answer": "Bonn"}, "'Bonn' does not pass its own check {'kind': 'equals'"),
        ({**ROW, "gone": "köln"}, "says what is \"gone\", 'köln'"),
        ({**ROW, "id": "first"}, "\"id\" 'first' is that of"),
        (HEADER, 'has no "suite"'),
    ],
)
def test_a_bad_item_is_named_by_file_and_line(tmp_path: Path, row: Any, problem: str):
    path = _write(tmp_path / "s.jsonl", HEADER, {**ROW, "id": "first"}, row)
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        ({"suite": "towns"}, "must be the only key"),
        ({**HEADER, "id": "a"}, "must be the only key"),
        ({"suite": {"refusal": ["No."]}}, "Did you mean refusals?"),
        ({"suite": {"refusals": "No."}}, '"refusals" of "suite" must not be \'No.\''),
        ({"suite": {"version": "1"}}, '"version" of "suite"'),
        ({"suite": {"texts": [""]}}, '"texts" of "suite"'),
    ],
)
def test_a_bad_first_line_is_named(tmp_path: Path, about: Any, problem: str):
    path = _write(tmp_path / "s.jsonl", about, ROW)
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("missing.jsonl", None, "cannot be read"),
        ("empty.jsonl", b"\n \n", "holds no items"),
        ("only.jsonl", json.dumps(HEADER).encode(), "holds no items"),
        ("plain.jsonl.gz", b"{}", "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, problem: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_suite(tmp_path / name)


def test_registered_suites_are_found_by_name_and_files_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suites, "_REGISTERED", {})
    with pytest.raises(ConfigError, match=r"no suite 'towns'\. There are: almanac, everyday\. Or give a \.jsonl"):
        find_suite("towns")
    register_suite("towns", lambda: Suite((_item(0),), refusals=("No.",)))
    assert find_suite("towns") == Suite((_item(0),), refusals=("No.",), name="towns")
    with pytest.raises(ConfigError, match=r"Did you mean towns\?"):
        find_suite("town")
    with pytest.raises(ConfigError, match="There are: almanac, everyday, towns"):
        find_suite("qqq")
    path = _write(tmp_path / "towns.jsonl", ROW)
    assert find_suite(str(path)) == load_suite(path)
    with pytest.raises(DataError, match="cannot be read"):
        find_suite(str(tmp_path / "gone.jsonl"))


def test_several_suites_are_asked_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = Item("k", "retention", "sums", "dev", "1 + 1?", "2", ({"kind": "contains", "value": "2"},))
    towns = Suite((_item(0),), refusals=("No.",), texts=("A text.",), version=3)
    monkeypatch.setattr(suites, "_REGISTERED", {"towns": lambda: towns, "sums": lambda: Suite((kept,), ("No.", "Oh."))})
    joined = find_suite("towns, sums")
    assert joined == Suite((_item(0), kept), ("No.", "Oh."), ("A text.",), name="towns,sums", version=3)
    assert len({joined.fingerprint, towns.fingerprint, find_suite("sums").fingerprint}) == 3
    with pytest.raises(DataError, match=r"suite: towns and .*again\.jsonl both have an item with the id '0'\. Suites"):
        find_suite(f"towns,{_write(tmp_path / 'again.jsonl', {**ROW, 'id': '0'})}")
    with pytest.raises(ConfigError, match=r"there is no suite 'town'\. Did you mean towns\?"):
        find_suite("sums,town")
    with pytest.raises(ConfigError, match="suite: sums is named more than once"):
        find_suite("sums,towns,sums")
    with_comma = _write(tmp_path / "a,b.jsonl", ROW)
    assert find_suite(str(with_comma)) == load_suite(with_comma), "a file may have a comma in its name"


def test_a_suite_of_an_installed_package_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch):
    points = {
        name: EntryPoint(name, value, "afterword.suites")
        for name, value in {
            "old": "afterword.almanac.files:embedded_suite",
            "gone": "afterword.almanac.files:no",
        }.items()
    }
    monkeypatch.setattr(suites.plugins, "added", lambda kind: points)
    assert find_suite("old").name == "old"
    with pytest.raises(ConfigError, match=r"suites: 'gone' is added by an installed package as afterword.*cannot be"):
        find_suite("gone")


def test_items_are_drawn_by_split_and_by_every_skills_share():
    kinds = [("dev", "direct")] * 40 + [("dev", "sums")] * 20 + [("test", "direct")] * 40
    suite = Suite(tuple(_item(i, split=split, skill=skill) for i, (split, skill) in enumerate(kinds)))
    assert drawn_suite(suite) == suite
    assert drawn_suite(suite, split="test").items == suite.items[60:]
    drawn = drawn_suite(suite, max_items=10, seed=1)
    assert Counter((item.split, item.skill) for item in drawn.items) == {
        ("dev", "direct"): 4,
        ("dev", "sums"): 2,
        ("test", "direct"): 4,
    }
    places = [int(item.id) for item in drawn.items]
    assert places == sorted(set(places)), "in the order of the file"
    assert drawn == drawn_suite(suite, max_items=10, seed=1) != drawn_suite(suite, max_items=10, seed=2)
    assert len(drawn_suite(suite, split="dev", max_items=1_000).items) == 60
    with pytest.raises(ConfigError, match=r"split: .* no item of the split 'test'"):
        drawn_suite(Suite(suite.items[:60]), split="test")
