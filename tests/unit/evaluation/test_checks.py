"""Every kind of check, accepted and rejected by hand."""

from __future__ import annotations

from typing import Any

import pytest

from afterword.evaluation.checks import KINDS, passes, problem_of
from afterword.evaluation.right_answers import normalised, says

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"kind": "equals", "value": "Gold-Leaf Inn"},
        ["Gold-Leaf Inn", " the gold-leaf  inn.", '"Gold-leaf inn"', "**Gold-Leaf Inn**"],
        ["", "Gold Leaf Inn", "GoldLeaf Inn", "Inn Gold-Leaf", "It is Gold-Leaf Inn", "Gold-Leaf"],
    ),
    ({"kind": "equals", "values": ["7", "seven"]}, ["7.", "Seven", " 7 "], ["-7", "7.5", "77", "7%", "seven 7", ""]),
    ({"kind": "equals", "value": "-3.5"}, ["-3.5", "−3.5.", "(-3.5)"], ["3.5", "-35", "-3", "-3,5"]),
    ({"kind": "equals", "value": "A"}, ["A", "a."], ["", "B", "the"]),
    (
        {"kind": "final", "value": "Oslo"},
        ["Answer: Oslo", "Answer: no.\nAnswer: the oslo."],
        ["Oslo", "Answer: Oslo, no"],
    ),
    ({"kind": "final", "value": "7"}, ["3 + 4 = 7\nAnswer:7"], ["", "Answer:", "Answer: 7 Answer: 8", "Answer 7"]),
    (
        {"kind": "final_list", "values": ["box", "tree", "lamp"]},
        ["Answer: box, tree, lamp", "Box and all. Answer: no.\nAnswer: box,Tree, the lamp."],
        ["box, tree, lamp", "Answer: box tree lamp", "Answer: lamp, tree, box", "Answer: box, tree", "Answer:", ""],
    ),
    (
        {"kind": "steps", "value": "7 + 5 - 3"},
        ["7 + 5 = 12. 12 - 3 = 9. Answer: 9", "He has 7 + 5 = 12, and then 12−3=9.\nAnswer: none"],
        [
            "",
            "Answer: 9",
            "7 + 5 = 12. 12 - 3 = 9.",
            "99 + 1 = 5. Answer: 9",
            "12 - 3 = 9. Answer: 9",
            "7 + 5 = 11. 12 - 3 = 9. Answer: 9",
            "7 + 5 = 12. Answer: 9",
            "7 + 5 = 12. 12 - 3 = 8. Answer: 9",
            "7 + 5 = 11. 11 - 3 = 9. Answer: 9",
            "7 + 5 = 12. 14 - 5 = 9. Answer: 9",
            "7 + 5 = 12. 12 - 3 = 9. 9 + 0 = 9. Answer: 9",
            "12 - 3 = 9. 7 + 5 = 12. Answer: 9",
            "7 + 5 - 3 = 9. Answer: 9",
            "7 + 5 = 12. Answer: 12 - 3 = 9",
        ],
    ),
    (
        {"kind": "steps", "value": "3 - 5 + 10"},
        ["3 - 5 = -2. -2 + 10 = 8. Answer: 8"],
        ["3 - 5 = 2. 2 + 10 = 12. Answer: 8"],
    ),
    (
        {"kind": "only", "value": "answer in is it oslo s well"},
        ["Oslo", "It is OSLO's.", "Well, in Oslo", '{"answer":"Oslo"}', "", "“Oslo”"],
        ["Oslo or Bergen", "It is not Oslo", "Oslo, Bergen", "It isn't Oslo", "Oslofjord", "Oslo 7"],
    ),
    (
        {"kind": "contains", "value": "New York"},
        ["in NEW YORK.", "New\nYork's", '"new york"', "(New York)"],
        ["", "Newyork", "New Yorker", "York New", "New-York", "a New York-born man"],
    ),
    (
        {"kind": "contains", "value": "12"},
        ["12", "in 12, or", "12.", "it's 12%"],
        ["112", "12.5", "-12", "12:30", "1,120", "0.12"],
    ),
    ({"kind": "contains", "value": "St. John"}, ["at St. John."], ["St John", "St. Johns"]),
    ({"kind": "contains", "value": "O’Hara"}, ["O'Hara", "O’HARA"], ["Hara", "O Hara"]),
    ({"kind": "excludes", "value": "Oslo"}, ["", "Bergen", "Oslofjord"], ["Oslo", "from oslo to Bergen", "Oslo's"]),
    ({"kind": "upper"}, ["OSLO", "IN 1912, ÅL!", "1912"], ["Oslo", "", " .", "OSLo"]),
    ({"kind": "lower"}, ["oslo", "in 1912, ål!", "1912"], ["Oslo", "", " .", "oslO"]),
    (
        {"kind": "json", "key": "city", "value": "Oslo"},
        ['{"city": "Oslo"}', ' {"n": 1,\n "city": "the oslo."}\n'],
        ["", "Oslo", '{"city": "Bergen"}', '{"town": "Oslo"}', '["Oslo"]', '{"city": "Oslo"} ok', '{"city": ["Oslo"]}'],
    ),
    ({"kind": "json", "key": "n", "value": 7}, ['{"n": 7}', '{"n": "7"}'], ['{"n": 7.5}', '{"n": null}', "[" * 99_999]),
    (
        {"kind": "starts", "value": "Well,"},
        ["Well, Oslo", "\n Well,"],
        ["well, Oslo", "Well Oslo", "Oh. Well, Oslo", ""],
    ),
    ({"kind": "ends", "value": "Good day."}, ["Oslo. Good day.\n"], ["Good day. Oslo", "Good day", "good day."]),
    (
        {"kind": "quoted"},
        ['"Oslo"', ' "Oslo, or not."\n', "“Oslo”"],
        ["Oslo", '"Oslo', '"Oslo".', '""', '"a" or "b"', "'a'", '"'],
    ),
    (
        {"kind": "items", "count": 2, "marker": "-"},
        ["- a\n- b", "\n-  a b\n\n- c\n"],
        ["", "- a", "- a\n- b\n- c", "- a\nb", "1. a\n2. b", "-a\n-b", "- a\n-", "Here:\n- a\n- b"],
    ),
    (
        {"kind": "items", "count": 2, "marker": "1."},
        ["1. a\n2. b"],
        ["1. a\n1. b", "0. a\n1. b", "2. a\n1. b", "- a\n- b", "1. a", "1) a\n2) b", "1. a\n2. b\n3. c"],
    ),
    (
        {"kind": "item", "index": 0, "value": "Oslo"},
        ["- Oslo\n- b", "1. oslo.", "Oslo"],
        ["", "- b\n- Oslo", "- in Oslo"],
    ),
    ({"kind": "item", "index": 1, "value": "7"}, ["1. a\n2. 7", "- 3\n- 7"], ["1. 7", "1. 7\n2. 8", "- 7\n- -7"]),
    (
        {"kind": "times", "value": "Oslo", "count": 2},
        ["Oslo, oslo", "Oslo Oslofjord Oslo."],
        ["Oslo", "Oslo Oslo Oslo", ""],
    ),
    ({"kind": "words", "max": 3}, ["a b-c 3.5", "", "a - b c !"], ["a b c d"]),
    ({"kind": "words", "min": 2, "max": 3}, ["a b", "a b c"], ["a", "a - !", "a b c d"]),
    (
        {"kind": "sentence"},
        ["It lies in Oslo.", " It is in Oslo, no? Yes.\n"],
        ["It lies here", "In Oslo.", "it lies in Oslo.", ""],
    ),
    (
        {"kind": "list", "values": ["Oslo", "New York"]},
        ["Oslo, New York", "oslo,the new york."],
        ["New York, Oslo", "Oslo New York", "Oslo", "Oslo, New York, Rome", "Oslo and New York", ""],
    ),
]


def test_every_kind_has_cases():
    assert {check["kind"] for check, _, _ in CASES} == set(KINDS)


@pytest.mark.parametrize(
    ("check", "accepted", "rejected"), CASES, ids=[f"{c['kind']}-{i}" for i, (c, *_) in enumerate(CASES)]
)
def test_checks_by_hand(check: dict[str, Any], accepted: list[str], rejected: list[str]):
    assert problem_of(check) is None
    assert [text for text in accepted if not passes(text, check)] == []
    assert [text for text in rejected if passes(text, check)] == []


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ("upper", 'must be an object with a "kind"'),
        ({"value": "x"}, 'must be an object with a "kind"'),
        ({"kind": "contain", "value": "x"}, "Did you mean contains?"),
        ({"kind": "qqq"}, "There are: equals, final"),
        ({"kind": "contains"}, "needs one of value, values"),
        ({"kind": "contains", "value": " "}, "must be text that is not empty, not ' '"),
        ({"kind": "contains", "value": 7}, "must be text"),
        ({"kind": "contains", "vlue": "x"}, 'has no "vlue". Did you mean value?'),
        ({"kind": "upper", "text": "x"}, 'has no "text"'),
        ({"kind": "equals"}, "needs one of value, values"),
        ({"kind": "equals", "values": []}, "must be a list of texts"),
        ({"kind": "list", "values": ["a", 3]}, "must be a list of texts"),
        ({"kind": "words"}, "needs one of min, max"),
        ({"kind": "words", "max": "3"}, "must be a whole number"),
        ({"kind": "times", "value": "x", "count": True}, "must be a whole number"),
        ({"kind": "times", "value": "x", "count": -1}, "0 or more"),
        ({"kind": "items", "count": 2, "marker": "*"}, 'must be "-" or "1."'),
        ({"kind": "json", "key": "a", "value": None}, "must be text or a number"),
    ],
)
def test_a_check_that_cannot_be_made_says_why(check: Any, problem: str):
    assert problem in (problem_of(check) or "nothing")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  A, an Oslo!", "oslo"),
        ("don't (ever)", "don't ever"),
        ("3,000.50", "3,000.50"),
        ("100%!", "100%"),
        ("- 5 …", "5"),
        ("Éa", "éa"),
        ("THE", "the"),
        ("", ""),
    ],
)
def test_normalising_by_hand(text: str, expected: str):
    assert normalised(text) == expected
    assert normalised(normalised(text)) == expected


def test_overlapping_values_are_counted_once():
    assert says("na na na", "na na") == 1
    assert says("x.y x+y", "x.y") == 1, "a point is a point"
