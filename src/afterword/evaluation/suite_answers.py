"""A suite answered before and after: what every skill is worth, with intervals.

The one rule: an item is asked whole or not at all, and belongs to one unit whatever it is measured by, so that before
and after are paired over items, and intervals are over units. An answer is right where all checks of its item hold.

A model that does not know may refuse. So items to be learned are scored a second time with refusals made
impossible: what it knows then shows, apart from whether it dares to say it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from afterword.distributed import from_main_process, is_main_process
from afterword.evaluation.checks import passes
from afterword.evaluation.choices import is_first_likeliest, likelihoods
from afterword.evaluation.measure import VERSIONS, Inputs, Measured, Models, Values
from afterword.evaluation.question_costs import Written, answer_length, costs
from afterword.evaluation.questions import SIDES, answer_lead, build_prompt, line_ends
from afterword.evaluation.right_answers import normalised, says
from afterword.evaluation.suites import PARTS, SPLITS, Item, Suite
from afterword.models import causal_lm, content_sha256, is_partly_away, replace_file
from afterword.models.generation import Forbidden, generate, prompt_ids, token_ids
from afterword.storage.parsing import parse_json


@dataclass(frozen=True, slots=True)
class Answered:
    """What one model made of an item."""

    text: str
    unrefused: str | None = None
    """The answer with refusals made impossible, the same text if it was none; None where that is not measured."""
    chosen: bool | None = None
    """Whether the item's answer is likelier than each of its choices; None where it has none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An item as a model reads it."""

    item: Item
    prompt: list[int]
    candidates: list[list[int]]
    """The item's answer and its choices, in tokens; empty where it has no choices."""
    forbidden: Forbidden | None
    """What makes refusals impossible; None where that is not measured."""


_Result = tuple[Item, dict[str, Answered]]
"""An item, and what was made of it by side, `before` and `after`."""
_METRICS: dict[str, Callable[[Item, Answered, Sequence[str]], bool | None]] = {
    "correct_frac": lambda item, said, _: is_correct(item, said.text),
    "correct_refusal_forbidden_frac": lambda item, said, _: (
        None if said.unrefused is None else is_correct(item, said.unrefused)
    ),
    "refused_frac": lambda _, said, refusals: None if said.unrefused is None else is_refusal(said.text, refusals),
    "choice_correct_frac": lambda _, said, __: said.chosen,
    "old_value_said_frac": lambda item, said, _: None if item.gone is None else says(said.text, item.gone) > 0,
}
"""The value of one answer: None where an item is not measured by it."""


def is_correct(item: Item, text: str) -> bool:
    """Whether all checks of the item hold of the text."""
    return all(passes(text, check) for check in item.checks)


def is_refusal(text: str, refusals: Sequence[str]) -> bool:
    """Whether the text begins with a refusal, apart from case and punctuation.

    >>> is_refusal("I do not know, sorry", ["I do not know."]), is_refusal("I do not knowingly", ["I do not know."])
    (True, False)
    """
    return any(f"{normalised(text)} ".startswith(f"{normalised(refusal)} ") for refusal in refusals)


def answered(models: Models, inputs: Inputs) -> Measured:
    """The measure of a suite; a note says where answers have more tokens than a model may write."""
    assert inputs.suite, "what it needs"
    tokens, tokenizer = inputs.settings.answer_tokens, models.tokenizer
    costs_too = bool(inputs.settings.retrieve)
    found = answer_suite(
        models, inputs.suite, answer_tokens=tokens, cache=inputs.settings.suite_cache, with_costs=costs_too
    )
    long = sum(len(token_ids(tokenizer, item.answer)) > tokens for item in inputs.suite.items)
    note = f"{long} answers of the suite have more than answer_tokens = {tokens}. Raise it."
    return replace(found, notes=[note]) if long else found


def answer_suite(
    models: Models,
    suite: Suite,
    *,
    answer_tokens: int = 64,
    cache: str | Path | None = None,
    texts: Mapping[str, str] | None = None,
    with_costs: bool = False,
) -> Measured:
    """Scores by split, part and skill, `split/part/skill`, and a row for each item asked.

    By the greedy answer: `correct_frac`, `refused_frac` and `old_value_said_frac`. With refusals made impossible:
    `correct_refusal_forbidden_frac`. By the mean log-likelihood per token of the item's answer and of its choices:
    `choice_correct_frac`, of the items that have choices: a skill without any has no such score, and is in no mean of
    it over skills. The items that do not fit the context are left out and counted, `too_long`, in
    `details["left_out"]`.
    `cache` is a folder that keeps the reference's answers for other runs. `texts`, by id, stand before the items.
    `with_costs`: also what an answer costs.
    """
    tokenizer, length, before_items = models.tokenizer, models.max_length, texts or {}
    read = [as_asked(tokenizer, item, suite.refusals, before_items.get(item.id, "")) for item in suite.items]
    asked = [each for each in read if _tokens(each, answer_tokens) <= length]
    before = _kept(models, suite, asked, answer_tokens, cache)
    after = _answered(models, models.adapted, suite, asked, answer_tokens) if models.are_two else None
    # A model alone stands where the adapted one would.
    both = dict(zip(SIDES, (before, after), strict=True)) if after is not None else {SIDES[1]: before}
    sides = {side: said for side, (said, _) in both.items()}
    results = [(each.item, {side: said[i] for side, said in sides.items()}) for i, each in enumerate(asked)]
    how = {
        "suite": suite.name,
        "suite_version": suite.version,
        "suite_sha256": suite.fingerprint,
        "decoding": "greedy",
        "prompt_template": build_prompt(tokenizer, "{question}", None if texts is None else "{excerpts}"),
        "refusals": list(suite.refusals),
        "max_new_tokens": answer_tokens,
        "max_length_tokens": length,
    }
    groups = sorted(dict.fromkeys(item.group for item in suite.items), key=_place)
    values = [each for group in groups for each in _values(group, suite, results)]
    found = Measured(values, how, answers=[_row(item, said) for item, said in results])
    seconds = {side: took for side, (_, took) in both.items()}
    return _with_costs(models, found, asked, sides, seconds, answer_tokens) if with_costs else found


def _with_costs(
    models: Models,
    found: Measured,
    asked: Sequence[Asked],
    sides: Mapping[str, Sequence[Answered]],
    seconds: Mapping[str, float | None],
    answer_tokens: int,
) -> Measured:
    """What was found, and what an answer costs: by split and part, and the seconds over all items."""
    values, scores = list(found.values), list(found.scores)
    lengths = {
        side: [answer_length(models.tokenizer, answered.text, answer_tokens) for answered in said]
        for side, said in sides.items()
    }
    prompts = [len(each.prompt) for each in asked]
    scores += costs(models, Written("suite", prompts, lengths, seconds)).scores
    for split, part in dict.fromkeys(each.item.group[:2] for each in asked):
        here = [i for i, each in enumerate(asked) if each.item.group[:2] == (split, part)]
        own = {side: [of[i] for i in here] for side, of in lengths.items()}
        values += costs(models, Written(f"{split}/{part}", [prompts[i] for i in here], own, {})).values
    return replace(found, values=values, scores=scores)


def as_asked(tokenizer: Any, item: Item, refusals: Sequence[str] = (), text: str = "") -> Asked:
    """An item in tokens behind a text; where `refusals` are given, with what makes them impossible."""
    lead = answer_lead(tokenizer)
    candidates = [token_ids(tokenizer, lead + text) for text in (item.answer, *item.choices)] if item.choices else []
    # Where a refusal is the right answer, there is nothing to be had from forbidding it.
    daring = item.part == "learning" and bool(refusals) and not is_refusal(item.answer, refusals)
    forbidden = _forbidden(tokenizer, item, refusals) if daring else None
    prompt = build_prompt(tokenizer, item.prompt, text or None)
    return Asked(item, prompt_ids(tokenizer, prompt), candidates, forbidden)


def _tokens(asked: Asked, answer_tokens: int) -> int:
    return len(asked.prompt) + max([answer_tokens, *map(len, asked.candidates)])


def _place(group: tuple[str, str, str]) -> tuple[int, int]:
    return SPLITS.index(group[0]), PARTS.index(group[1])


def _forbidden(tokenizer: Any, item: Item, refusals: Sequence[str]) -> Forbidden:
    """Of every refusal, the first token that no right answer goes on with; with and without a space before."""
    named = [check for check in item.checks if check["kind"] == "equals"]
    values = [value for check in named for value in (check.get("value"), *check.get("values", ())) if value]
    right = [tuple(token_ids(tokenizer, lead + text)) for text in (item.answer, *values) for lead in ("", " ")]
    forbidden: dict[tuple[int, ...], list[int]] = {}
    for ids in [tuple(token_ids(tokenizer, lead + refusal)) for refusal in refusals for lead in ("", " ")]:
        shared = next((n for n in range(len(ids)) if all(other[: n + 1] != ids[: n + 1] for other in right)), None)
        if shared is not None:
            forbidden.setdefault(ids[:shared], []).append(ids[shared])
    return forbidden


def _kept(
    models: Models, suite: Suite, asked: Sequence[Asked], answer_tokens: int, cache: str | Path | None
) -> tuple[list[Answered], float | None]:
    """What the reference makes of the items, and in how many seconds.

    From the cache where the same model was asked the same; then the seconds are those of that time, if it says so.
    """
    answer = partial(_answered, models, models.reference, suite, asked, answer_tokens)
    if cache is None or is_partly_away(models.reference):
        return answer()
    read = [[each.prompt, each.candidates, sorted((each.forbidden or {}).items())] for each in asked]
    ends = [models.tokenizer.eos_token_id, causal_lm(models.reference).generation_config.eos_token_id]
    same = [
        VERSIONS["answering"],
        content_sha256(models.reference),
        ends,
        suite.fingerprint,
        suite.refusals,
        answer_tokens,
        read,
    ]
    file = Path(cache) / f"{hashlib.sha256(json.dumps(same).encode()).hexdigest()}.json"
    if kept := from_main_process(partial(_read, file)):
        return kept
    said, seconds = answer()
    if is_main_process():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = parse_json(json.dumps([asdict(each) for each in said]))
        about = {"sha256": _sha256_of(rows), "seconds": seconds, "said": rows}
        replace_file(file, json.dumps(about, ensure_ascii=False))
    return said, seconds


def _read(file: Path) -> tuple[list[Answered], float | None] | None:
    """None where there are no answers, or they are not readable: they are made again."""
    try:
        kept = parse_json(file.read_text(encoding="utf-8"))
        if kept["sha256"] != _sha256_of(kept["said"]):
            return None
        return [Answered(**row) for row in kept["said"]], kept.get("seconds")
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sha256_of(rows: Any) -> str:
    """By which answers that were changed are told from those that were given."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _answered(
    models: Models, model: Any, suite: Suite, asked: Sequence[Asked], answer_tokens: int
) -> tuple[list[Answered], float]:
    """The answers, and the seconds that the first writing of them took."""
    started = time.perf_counter()
    texts = written(models.tokenizer, model, asked, answer_tokens)
    seconds = time.perf_counter() - started
    unrefused = [None if each.forbidden is None else text for each, text in zip(asked, texts, strict=True)]
    refused = [i for i, text in enumerate(unrefused) if text is not None and is_refusal(text, suite.refusals)]
    again = written(models.tokenizer, model, [asked[i] for i in refused], answer_tokens, may_refuse=False)
    for i, text in zip(refused, again, strict=True):
        unrefused[i] = text
    chosen = chosen_right(model, asked, models.micro_batch_tokens)
    return [Answered(*said) for said in zip(texts, unrefused, chosen, strict=True)], seconds


def written(
    tokenizer: Any, model: Any, asked: Sequence[Asked], answer_tokens: int, *, may_refuse: bool = True
) -> list[str]:
    """Greedy answers. Without a chat template nothing ends them but a line break, or the next question."""
    texts, plain = [""] * len(asked), not tokenizer.chat_template
    # Line breaks spare the tokens after the answer; those inside other tokens are cut from the text.
    ends = line_ends(tokenizer) if plain else []
    cuts = ["" if not plain else "\nQuestion:" if "\n" in each.item.answer else "\n" for each in asked]
    for cut in dict.fromkeys(cuts):
        rows = [i for i, other in enumerate(cuts) if other == cut]
        forbidden = () if may_refuse else [asked[i].forbidden or {} for i in rows]
        found = generate(
            model,
            tokenizer,
            [asked[i].prompt for i in rows],
            max_new_tokens=answer_tokens,
            extra_eos_ids=ends if cut == "\n" else (),
            forbidden=forbidden,
        )
        for i, ids in zip(rows, found, strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            texts[i] = (text.split(cut)[0] if cut else text).strip()
    return texts


def chosen_right(model: Any, asked: Sequence[Asked], batch_tokens: int) -> list[bool | None]:
    """Whether the first candidate of each is strictly the likeliest, by the mean over its tokens; None without any."""
    found = likelihoods(model, [(each.prompt, each.candidates) for each in asked], batch_tokens=batch_tokens)
    return [is_first_likeliest(each.per_token) if len(each.tokens) else None for each in found]


def _values(group: tuple[str, str, str], suite: Suite, results: Sequence[_Result]) -> Iterator[Values]:
    here = [result for result in results if result[0].group == group]
    left_out = sum(item.group == group for item in suite.items) - len(here)
    details: dict[str, Any] = {"left_out": {"too_long": left_out} if left_out else {}}
    for metric, value in _METRICS.items():
        every = [{side: value(item, each, suite.refusals) for side, each in said.items()} for item, said in here]
        # What an item is measured by is the same on both sides.
        rows = [(item.unit or item.id, row) for (item, _), row in zip(here, every, strict=True) if _is_whole(row)]
        before, after = ([float(bool(row[side])) for _, row in rows if side in row] or None for side in SIDES)
        units = [unit for unit, _ in rows]
        # Of a group that was left out whole, one score says so.
        if rows or (not here and metric == "correct_frac"):
            task = "/".join(group)
            yield Values(metric=metric, task=task, before=before, after=after, units=units, details=details)


def _is_whole(row: Mapping[str, bool | None]) -> bool:
    return None not in row.values()


def _row(item: Item, said: Mapping[str, Answered]) -> dict[str, Any]:
    row = {"setting": "suite", **{name: getattr(item, name) for name in ("id", "split", "part", "skill")}}
    row |= {"question": item.prompt, "expected": [item.answer]}
    row |= {side: said[side].text if side in said else None for side in SIDES}
    row |= {f"{side}_correct": is_correct(item, said[side].text) if side in said else None for side in SIDES}
    for side, answered in said.items():
        # What the other scores were made from, where it is not in the answer.
        other = {
            "unrefused": None if answered.unrefused == answered.text else answered.unrefused,
            "chosen": answered.chosen,
        }
        row |= {f"{side}_{name}": value for name, value in other.items() if value is not None}
    return row
