"""Exact checks of a text, by kind: what an answer must be, say or look like.

The one rule: a check is a pure function of the text, so a score can be made again from the answers alone. The
functions' parameters are the fields of the check: {"kind": "times", "value": "Oslo", "count": 2}.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from afterword.errors import nearest
from afterword.evaluation.right_answers import normalised, plain_marks, says, words_of
from afterword.storage.parsing import parse_json

KINDS: dict[str, Callable[..., bool]] = {}
"""Every check by the name of its kind."""
_Marker = Literal["-", "1."]
_Scalar = str | int | float
_TEXT = ("text that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))
_COUNT = ("a whole number, 0 or more", lambda value: type(value) is int and value >= 0)
_TEXTS = ("a list of texts", lambda value: isinstance(value, list) and bool(value) and all(map(_TEXT[1], value)))
_FIELDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((str, str | None), _TEXT),
    **dict.fromkeys((int, int | None), _COUNT),
    **dict.fromkeys((list[str], list[str] | None), _TEXTS),
    _Marker: ('"-" or "1."', lambda value: value in get_args(_Marker)),
    _Scalar: ("text or a number", lambda value: isinstance(value, _Scalar) and value != ""),
}
"""What a field of each annotation must be, in words and as a test."""


def passes(text: str, check: Mapping[str, Any]) -> bool:
    """Whether a check holds of a text.

    >>> passes("OSLO", {"kind": "upper"}), passes("Oslo", {"kind": "upper"})
    (True, False)
    """
    return KINDS[check["kind"]](text, **{name: value for name, value in check.items() if name != "kind"})


def problem_of(check: Any) -> str | None:
    """What is wrong with a check that was read from a file, with the remedy; None where it is fine.

    >>> problem_of({"kind": "contain", "value": "Oslo"})
    "no check has the kind 'contain'. Did you mean contains?"
    >>> problem_of({"kind": "final"})
    'a check of kind "final" needs "value": text that is not empty'
    """
    if not isinstance(check, Mapping) or not isinstance(check.get("kind"), str):
        return 'a check must be an object with a "kind"'
    kind = check["kind"]
    if kind not in KINDS:
        return f"no check has the kind {kind!r}. {nearest(kind, KINDS) or 'There are: ' + ', '.join(KINDS)}".rstrip()
    what, fields = f'a check of kind "{kind}"', dict(inspect.signature(KINDS[kind]).parameters)
    del fields["text"]
    for name in sorted(check.keys() - fields.keys() - {"kind"}):
        return f'{what} has no "{name}". {nearest(name, fields)}'.rstrip()
    for name, field in fields.items():
        rule, fits = _FIELDS[field.annotation]
        if name in check and not fits(check[name]):
            return f'"{name}" of {what} must be {rule}, not {check[name]!r}'
        if name not in check and field.default is field.empty:
            return f'{what} needs "{name}": {rule}'
    # The kinds that have only optional fields need one of them.
    return f"{what} needs one of {', '.join(fields)}" if fields and len(check) == 1 else None


def _kind(name: str) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    def register(check: Callable[..., bool]) -> Callable[..., bool]:
        KINDS[name] = check
        return check

    return register


@_kind("equals")
def equals(text: str, *, value: str | None = None, values: list[str] | None = None) -> bool:
    """The whole text is the value, or one of the values, normalised.

    >>> equals("The gold-leaf.", value="Gold-Leaf"), equals("gold leaf", value="gold-leaf")
    (True, False)
    """
    return normalised(text) in map(normalised, [*(values or ()), *([value] if value else ())])


@_kind("final")
def final(text: str, *, value: str) -> bool:
    """What stands after the last `Answer:` is the value, normalised.

    >>> final("3 + 4 = 7. Answer: 7.", value="7"), final("7", value="7")
    (True, False)
    """
    _, found, answer = text.rpartition("Answer:")
    return bool(found) and normalised(answer) == normalised(value)


@_kind("final_list")
def final_list(text: str, *, values: list[str]) -> bool:
    """What stands after the last `Answer:` is the values in exactly this order, with commas between; see `list`.

    >>> [final_list(text, values=["Oslo", "Rome"]) for text in ("Answer: Oslo, Rome.", "Answer: Oslo Rome")]
    [True, False]
    """
    _, found, answer = text.rpartition("Answer:")
    return bool(found) and listed(answer, values=values)


@_kind("steps")
def steps(text: str, *, value: str) -> bool:
    """Before the last `Answer:` the sum is worked out from left to right, each step written as `a ± b = c` and true.

    >>> steps("7 + 5 = 12. 12 - 3 = 9. Answer: 9", value="7 + 5 - 3"), steps("Answer: 9", value="7 + 5 - 3")
    (True, False)
    """
    expected, total = [], 0
    for sign, number in re.findall(r"([+-]?)\s*(\d+)", value):
        expected.append((total, sign, int(number), total := total + int(f"{sign}{number}")))
    written = text.replace("−", "-").rpartition("Answer:")[0]
    found = re.findall(r"(-?\d+)\s*([+-])\s*(\d+)\s*=\s*(-?\d+)", written)
    return [(int(a), sign, int(b), int(c)) for a, sign, b, c in found] == expected[1:]


@_kind("contains")
def contains(text: str, *, value: str | None = None, values: list[str] | None = None) -> bool:
    """The value, or one of the values, is said, as whole words in any case; see `says`.

    >>> contains("It is in OSLO.", value="Oslo"), contains("Oslofjord", values=["Oslo", "Bergen"])
    (True, False)
    """
    return any(says(text, each) for each in [*(values or ()), *([value] if value else ())])


@_kind("only")
def only(text: str, *, value: str) -> bool:
    """Has no word that the value has not, in any case: with `contains`, nothing is said beside or against it.

    >>> only("It is OSLO!", value="is it oslo"), only("Oslo or Rome", value="is it oslo")
    (True, False)
    """
    return words_of(text) <= words_of(value)


@_kind("excludes")
def excludes(text: str, *, value: str) -> bool:
    """The value is not said as whole words.

    >>> excludes("Oslofjord", value="Oslo"), excludes("In oslo.", value="Oslo")
    (True, False)
    """
    return not says(text, value)


@_kind("upper")
def upper(text: str) -> bool:
    """Says something, and has no letter in lower case.

    >>> upper("OSLO, 7."), upper("Oslo"), upper("7"), upper("")
    (True, False, True, False)
    """
    return any(map(str.isalnum, text)) and not any(map(str.islower, text))


@_kind("lower")
def lower(text: str) -> bool:
    """Says something, and has no letter in upper case.

    >>> lower("oslo, 7."), lower("Oslo"), lower("7"), lower("")
    (True, False, True, False)
    """
    return any(map(str.isalnum, text)) and not any(map(str.isupper, text))


@_kind("json")
def json_object(text: str, *, key: str, value: _Scalar) -> bool:
    """The whole text is one JSON object that has the value, normalised, under the key.

    >>> json_object('{"city": "oslo"}', key="city", value="Oslo"), json_object('"Oslo"', key="city", value="Oslo")
    (True, False)
    """
    try:
        found = parse_json(text)
    except (ValueError, RecursionError):
        return False
    said = found.get(key) if isinstance(found, dict) else None
    return isinstance(said, _Scalar) and normalised(str(said)) == normalised(str(value))


@_kind("starts")
def starts(text: str, *, value: str) -> bool:
    """The text, without space around it, begins with exactly the value.

    >>> starts(" Well, Oslo.", value="Well,"), starts("well, Oslo", value="Well,")
    (True, False)
    """
    return text.strip().startswith(value.strip())


@_kind("ends")
def ends(text: str, *, value: str) -> bool:
    """The text, without space around it, ends with exactly the value.

    >>> ends("Oslo. Good day. ", value="Good day."), ends("Oslo. Good day", value="Good day.")
    (True, False)
    """
    return text.strip().endswith(value.strip())


@_kind("quoted")
def quoted(text: str) -> bool:
    """The whole text stands in one pair of double quotes.

    >>> quoted('"Oslo."'), quoted('"Oslo".'), quoted('"Oslo" or "Bergen"')
    (True, False, False)
    """
    return re.fullmatch(r'"[^"]*[^"\s][^"]*"', plain_marks(text).strip()) is not None


@_kind("items")
def items(text: str, *, count: int, marker: _Marker) -> bool:
    """So many lines and no others, each an item behind its marker: a dash, or its number from 1 on.

    >>> items("- Oslo\\n- Bergen", count=2, marker="-"), items("1. Oslo\\n1. Bergen", count=2, marker="1.")
    (True, False)
    """
    lines = _lines(text)
    markers = ["-" if marker == "-" else f"{i}." for i in range(1, len(lines) + 1)]
    each = zip(markers, lines, strict=True)
    return len(lines) == count and all(re.match(rf"{re.escape(mark)}\s+\S", line) for mark, line in each)


@_kind("item")
def item(text: str, *, index: int, value: str) -> bool:
    """The line with this index, from 0 on, is the value, normalised and without its marker.

    >>> item("1. Oslo\\n2. Bergen", index=1, value="Bergen"), item("- Oslo", index=1, value="Oslo")
    (True, False)
    """
    lines = [re.sub(r"^(-|\d+\.)\s+", "", line) for line in _lines(text)]
    return index < len(lines) and normalised(lines[index]) == normalised(value)


@_kind("times")
def times(text: str, *, value: str, count: int) -> bool:
    """The value is said exactly so many times, as whole words.

    >>> times("Oslo, oslo", value="Oslo", count=2), times("Oslo, Oslo, Oslo", value="Oslo", count=2)
    (True, False)
    """
    return says(text, value) == count


@_kind("words")
def words(text: str, *, min: int | None = None, max: int | None = None) -> bool:
    """At least `min` and at most `max` words; what has no letter and no digit is none.

    >>> words("in Oslo - by the sea", max=5), words("Oslo", min=2)
    (True, False)
    """
    count = sum(re.search(r"\w", word) is not None for word in text.split())
    return (min is None or count >= min) and (max is None or count <= max)


@_kind("sentence")
def sentence(text: str) -> bool:
    """Begins in upper case, ends with a full stop and has at least four words.

    >>> sentence("It lies in Oslo."), sentence("it lies in Oslo."), sentence("In Oslo.")
    (True, False, False)
    """
    text = text.strip()
    return text[:1].isupper() and text.endswith(".") and words(text, min=4)


@_kind("list")
def listed(text: str, *, values: list[str]) -> bool:
    """The values in exactly this order, with commas between, normalised.

    >>> listed("Oslo, bergen.", values=["Oslo", "Bergen"]), listed("Bergen, Oslo", values=["Oslo", "Bergen"])
    (True, False)
    """
    return [normalised(part) for part in text.split(",")] == [normalised(value) for value in values]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
