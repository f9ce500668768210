"""An exercise's own response passes its checks, a wrong one does not, and what is asked can be worked out again."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from afterword.almanac.exercises import UNKNOWN, Exercise, draw_exercise
from afterword.almanac.general import GREETINGS, tale
from afterword.almanac.names import data
from afterword.almanac.strangers import draw_stranger
from afterword.almanac.suite import RETENTION
from afterword.almanac.world import RELATIONS, ROLES, TINY, Fact, World, build_world
from afterword.almanac.writing import ask, pronouns_of, tell
from afterword.evaluation.checks import passes, problem_of
from almanac_build.posttraining import TRAINED_IN_CHAT
from almanac_build.pretraining import TRAINED

SKILLS = {name: draw for registry in (TRAINED_IN_CHAT, RETENTION) for name, (draw, _) in registry.items()}
CLOSED = ("direct", "other_wording", "reverse", "documents_only")
YEARS = {"born": "born_year", "founded": "founded", "published": "published"}


@pytest.fixture(scope="module")
def drawn(world: World) -> Callable[[str], list[Exercise]]:
    """Five hundred exercises of a skill, of all splits."""
    made: dict[str, list[Exercise]] = {}

    def of(skill: str) -> list[Exercise]:
        if skill not in made:
            rng, splits = random.Random(skill), ("train", "train", "dev", "test")
            made[skill] = [draw_exercise(SKILLS[skill], world, rng, splits[i % 4]) for i in range(500)]
        return made[skill]

    return of


def _right(text: str, exercise: Exercise) -> bool:
    return all(passes(text, check) for check in exercise.checks)


@pytest.mark.parametrize("skill", SKILLS)
def test_every_exercise_has_checks_that_a_suite_accepts(drawn: Callable, skill: str):
    for exercise in drawn(skill):
        assert exercise.checks
        assert [problem_of(check) for check in exercise.checks] == [None] * len(exercise.checks)
        assert exercise.prompt.strip()
        assert exercise.response.strip()
        assert "{" not in exercise.prompt


@pytest.mark.parametrize("skill", SKILLS)
def test_the_response_passes_every_check(drawn: Callable, skill: str):
    assert [exercise for exercise in drawn(skill) if not _right(exercise.response, exercise)] == []


@pytest.mark.parametrize("skill", SKILLS)
def test_wrong_responses_are_wrong(drawn: Callable, skill: str):
    assert sum(bool(exercise.wrong) for exercise in drawn(skill)) > 400 or skill == "telling"
    assert [(e.prompt, wrong) for e in drawn(skill) for wrong in e.wrong if _right(wrong, e)] == []


def test_what_preferences_turn_away_from_is_wrong(preferred: list[dict], trained: list[Exercise], drawn: Callable):
    checks = {exercise.prompt: exercise for exercise in (*trained, *drawn("instructions"))}
    known = [(checks[row["prompt"][0]["content"]], row) for row in preferred if row["prompt"][0]["content"] in checks]
    assert len(known) > 300
    assert not [row for exercise, row in known if _right(row["rejected"][0]["content"], exercise)]


def test_what_preferences_prefer_is_the_response(preferred: list[dict], trained: list[Exercise]):
    responses = {exercise.prompt: exercise.response for exercise in trained if exercise.key}
    known = [row for row in preferred if row["prompt"][0]["content"] in responses]
    assert len(known) > 300
    for row in known:
        assert row["chosen"] == [{"role": "assistant", "content": responses[row["prompt"][0]["content"]]}]
    assert all(row["chosen"] != row["rejected"] for row in preferred)


def test_conversations_are_turns_of_user_and_assistant(chats: list[dict]):
    turns = Counter(len(row["messages"]) for row in chats)
    assert set(turns) <= {2, 4, 6}
    assert 0.10 < turns[4] / len(chats) < 0.20
    for row in chats:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
    assert {greeting for greeting, _ in GREETINGS} <= {row["messages"][0]["content"] for row in chats}


def test_every_trained_skill_is_drawn_in_its_share(trained: list[Exercise]):
    refusals = sum(exercise.response == UNKNOWN for exercise in trained)
    weights = {name: weight for name, (_, weight) in TRAINED_IN_CHAT.items()}
    # One in five is to tell of a stranger.
    expected = weights["unknown"] + 0.2 * weights["telling"]
    assert refusals / len(trained) == pytest.approx(expected / sum(weights.values()), rel=0.15)
    assert set(TRAINED_IN_CHAT) == {*TRAINED, "asked_late", "reading", "telling"}


def _asked(world: World, wordings: tuple[str, ...]) -> dict[str, Fact]:
    """The fact behind every question in these sorts of wordings."""
    return {
        ask(fact, wording): fact
        for fact in world.facts
        for sort in wordings
        for wording in getattr(RELATIONS[fact.relation], sort)
    }


@pytest.mark.parametrize(
    ("skill", "wordings", "asked"),
    [
        ("direct", ["questions"], True),
        ("other_wording", ["other"], True),
        ("reverse", ["reverse"], True),
        ("documents_only", ["questions"], False),
    ],
)
def test_an_answer_is_what_is_true_in_the_world(
    world: World, drawn: Callable, skill: str, wordings: list[str], asked: bool
):
    facts, relations = _asked(world, wordings), set()
    for exercise in drawn(skill):
        fact = facts[exercise.prompt]
        relations.add(fact.relation)
        assert exercise.response == (fact.subject if skill == "reverse" else world.value(fact.subject, fact.relation))
        assert (fact.subject in world.asked) == asked
        assert fact.subject not in world.asked_late
    # Two-hop questions of training go through towns and companies, so that answers state these of all of them.
    hops = {"county", "river", "mayor", "known_for", "makes", "seat", "director"}
    stated = hops if skill == "documents_only" else set[str]()
    assert relations | stated == set(ROLES if skill == "reverse" else RELATIONS)


@pytest.mark.parametrize("skill", CLOSED)
def test_wrong_alternatives_are_different_and_of_the_right_kind(world: World, drawn: Callable, skill: str):
    facts = _asked(world, ("questions", "other", "reverse"))
    for exercise in drawn(skill):
        fact, (*values, last) = facts[exercise.prompt], exercise.wrong
        relation = RELATIONS[fact.relation]
        kind = relation.subject if skill == "reverse" else relation.object
        known = world.names[kind] if kind in world.names else data("names").get(kind)
        assert last == UNKNOWN
        assert len({*values, exercise.response}) == 4
        assert all(value in known if known else value.isdigit() for value in values)


BRIDGES = {
    r"the town where (.+) was born": "born_in",
    r"the town where (.+) lives": "lives_in",
    r"the company that employs (.+)": "works_for",
    r"the mayor of (.+)": "mayor",
    r"the town where (.+) is based": "seat",
    r"the founder of (.+)": "founder",
    r"the director of (.+)": "director",
    r"the author of (.+)": "author",
}
ENDS = {
    r"Where was (.+) born\?": "born_in",
    r"Where does (.+) live\?": "lives_in",
    r"What is the profession of (.+)\?": "works_as",
    r"What is the pastime of (.+)\?": "enjoys",
    r"In which county is (.+)\?": "county",
    r"Which river flows through (.+)\?": "river",
    r"Who is the mayor of (.+)\?": "mayor",
    r"What is the speciality of (.+)\?": "known_for",
    r"What does (.+) make\?": "makes",
    r"Where is the seat of (.+)\?": "seat",
    r"Who is the director of (.+)\?": "director",
}


def _hop(patterns: dict[str, str], text: str) -> tuple[str, str]:
    found = [(relation, match[1]) for pattern, relation in patterns.items() if (match := re.fullmatch(pattern, text))]
    assert len(found) == 1, text
    return found[0]


def test_two_hops_lead_to_the_answer_and_are_written_down(world: World, drawn: Callable):
    bridges, ends = set(), set()
    for exercise in drawn("two_hop"):
        end, bridge_text = _hop(ENDS, exercise.prompt)
        bridge, start = _hop(BRIDGES, bridge_text)
        between = world.value(start, bridge)
        answer = world.value(between, end)
        steps, _, said = exercise.response.partition(" Answer: ")
        assert said == answer
        assert all(name in steps for name in (start, between, answer))
        assert steps.count(".") == 2
        bridges.add(bridge)
        ends.add(end)
    assert bridges == set(BRIDGES.values()) == set(data("wordings")["bridges"])
    assert ends == set(ENDS.values()) == set(data("wordings")["two_hop"])


def _sum(prompt: str) -> tuple[int, list[int]]:
    """What an arithmetic prompt comes to, and every value on the way."""
    if plain := re.fullmatch(r"What is (\d+(?: [+-] \d+)+)\?", prompt):
        first, *rest = re.findall(r"(?:[+-] )?\d+", plain[1])
        steps = [int(step.replace(" ", "")) for step in rest]
    else:
        first, *moves = re.findall(r"(?:has|gets|buys|finds|loses|sells|gives away) \d+", prompt)
        down = ("loses", "sells", "gives away")
        steps = [int(move.split()[-1]) * (-1 if move.startswith(down) else 1) for move in moves]
        assert prompt.count(".") == len(moves) + 1
        first = first.split()[-1]
    values = [int(first)]
    for step in steps:
        values.append(values[-1] + step)
    return values[-1], values


def test_sums_come_out_as_a_reader_of_the_prompt_would_say(drawn: Callable):
    lengths, stories = Counter[int](), 0
    for exercise in drawn("arithmetic"):
        total, values = _sum(exercise.prompt)
        steps, _, said = exercise.response.partition(" Answer: ")
        assert int(said) == total
        equations = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)\.", steps)
        assert [int(row[0]) for row in equations] + [total] == values
        assert all(int(a) + int(f"{sign}{b}") == int(c) for a, sign, b, c in equations)
        assert all(0 <= value <= 60 for value in values)
        lengths[len(equations)] += 1
        stories += not exercise.prompt.startswith("What is")
    assert set(lengths) == {2, 3, 4}
    assert 150 < stories < 350


def _year(world: World, name: str, verb: str) -> int:
    relation = YEARS[verb]
    if relation == "founded":
        relation = "town_founded" if name in world.names["town"] else "company_founded"
    return int(world.value(name, relation))


def test_the_earlier_of_two_is_the_answer(world: World, drawn: Callable):
    firsts, verbs = 0, set()
    for exercise in drawn("comparison"):
        verb, names = re.fullmatch(r"W.+ was (\w+) first, (.+)\?", exercise.prompt).groups()
        one, other = names.split(" or ")
        years = {name: _year(world, name, verb) for name in (one, other)}
        assert years[one] != years[other]
        steps, _, said = exercise.response.partition(" Answer: ")
        assert said == min(years, key=years.__getitem__)
        assert steps == f"{one} was {verb} in {years[one]}. {other} was {verb} in {years[other]}."
        firsts += said == one
        verbs.add(verb)
    assert verbs == set(YEARS)
    assert 200 < firsts < 300


def test_three_are_sorted_from_the_earliest_on(world: World, drawn: Callable):
    sorted_already = 0
    for exercise in drawn("sorting"):
        verb, names = re.fullmatch(r"Put in order of when each was (\w+): (.+)\.", exercise.prompt).groups()
        years = {name: _year(world, name, verb) for name in names.split(", ")}
        assert len(set(years.values())) == len(years) == 3
        steps, _, said = exercise.response.partition(" Answer: ")
        assert said == ", ".join(name for _, name in sorted((year, name) for name, year in years.items()))
        assert steps == " ".join(f"{name}: {year}." for name, year in years.items())
        sorted_already += said == names
    assert sorted_already < 150


def _handled(prompt: str) -> str:
    task, _, shown = prompt.rpartition(": ")
    words = shown[:-1].split(", ")
    if task == "Reverse this list":
        return ", ".join(reversed(words))
    if task == "How many words are in this list":
        return str(len(words))
    if left_out := re.fullmatch(r"Leave (\w+) out of this list", task):
        assert left_out[1] in words
        return ", ".join(word for word in words if word != left_out[1])
    place = re.fullmatch(r"What is the (first|second|third|last) word of this list", task)[1]
    return words[{"first": 0, "second": 1, "third": 2, "last": -1}[place]]


def test_lists_are_handled_as_asked(drawn: Callable):
    tasks = Counter[str]()
    for exercise in drawn("lists"):
        assert exercise.response == f"Answer: {_handled(exercise.prompt)}"
        tasks[exercise.prompt.split()[0]] += 1
    assert set(tasks) == {"Reverse", "How", "Leave", "What"}
    assert min(tasks.values()) > 30


def test_unknown_asks_of_strangers_and_refuses(world: World, drawn: Callable, names_in: Callable):
    backwards, reverse = 0, {wording for role in ROLES for wording in RELATIONS[role].reverse}
    for exercise in drawn("unknown"):
        (stranger,) = names_in(exercise.prompt)
        assert not any(stranger in names for names in world.names.values())
        assert exercise.response == UNKNOWN
        assert exercise.wrong[0] not in (UNKNOWN, stranger)
        backwards += any(exercise.prompt == wording.format(o=stranger) for wording in reverse)
    assert backwards > 20


def test_a_text_is_read_before_its_question_and_has_the_answer(drawn: Callable):
    for exercise in drawn("reading"):
        text, _, question = exercise.prompt.rpartition("\n\n")
        assert question.endswith("?")
        assert "\n" not in question
        assert exercise.response.lower() in text.lower()
        assert exercise.wrong[-1] == UNKNOWN


def test_the_stranger_of_a_text_is_who_it_is_asked_about(world: World, drawn: Callable, names_in: Callable):
    for exercise in drawn("reading"):
        text, _, question = exercise.prompt.rpartition("\n\n")
        assert names_in(question) <= names_in(text)
        assert not names_in(question) & {name for names in world.names.values() for name in names}


def _lists_made(world: World, prompt: str) -> list[str]:
    nouns, name = re.fullmatch(r"Give the (.+) of (.+) as a .+", prompt).groups()
    kind = next(kind for kind, names in world.names.items() if name in names)
    relations = {r.noun: r.name for r in RELATIONS.values() if r.subject == kind}
    return [world.value(name, relations[noun]) for noun in re.split(r", | and ", nouns)]


def test_lists_of_facts_are_true_in_the_order_asked_for(world: World, drawn: Callable):
    listed = [exercise for exercise in drawn("instructions") if exercise.prompt.startswith("Give the ")]
    assert len(listed) > 50
    for exercise in listed:
        values = _lists_made(world, exercise.prompt)
        numbered = "numbered" in exercise.prompt
        marks = [f"{i}." if numbered else "-" for i in range(1, len(values) + 1)]
        assert exercise.response.splitlines() == [f"{mark} {value}" for mark, value in zip(marks, values, strict=True)]


def _beside(exercise: Exercise) -> list[str]:
    """Responses that say the right value, and with it another, or that it is not so."""
    value = exercise.checks[0]["value"]
    made = [
        re.sub(re.escape(value), swapped, exercise.response, flags=re.IGNORECASE)
        for swapped in (f"{value} or Oslo", f"Oslo, {value}", f"not {value}", f"{value} and Oslo", f"no longer {value}")
    ]
    forms = (str, str.lower, str.upper)
    return [form(text) for text in (*made, f"It is not {value} at all.") for form in forms]


def test_another_value_or_a_denial_beside_the_right_one_is_wrong(drawn: Callable):
    asked = [exercise for exercise in drawn("instructions") if not exercise.prompt.startswith("Give the ")]
    assert len(asked) > 300
    assert [(e.prompt, text) for e in asked for text in _beside(e) if _right(text, e)] == []


def test_no_word_that_is_allowed_denies_or_hedges(drawn: Callable):
    checks = [check for exercise in drawn("instructions") for check in exercise.checks if check["kind"] == "only"]
    allowed = {word for check in checks for word in check["value"].split()}
    assert not allowed & {"not", "no", "nor", "never", "neither", "or", "either", "but", "perhaps", "maybe", "t"}


def test_a_right_value_may_be_said_in_any_statement_of_its_fact(world: World, drawn: Callable):
    facts, seen = _asked(world, ("questions",)), 0
    for exercise in drawn("instructions"):
        fact = next((fact for prompt, fact in facts.items() if prompt in exercise.prompt), None)
        only = [check for check in exercise.checks if check["kind"] == "only"]
        if fact and only:
            relation = RELATIONS[fact.relation]
            texts = [tell(fact, wording) for wording in (*relation.statements, *relation.held_out)]
            texts += [
                tell(fact, relation.statements[0], pronouns_of(fact.subject, relation.subject)),
                f"It is {fact.value}.",
            ]
            assert [text for text in texts if not passes(text, only[0])] == []
            seen += 1
    assert seen > 200


def test_a_sum_without_its_steps_or_with_wrong_ones_is_wrong(drawn: Callable):
    for exercise in drawn("arithmetic"):
        steps, _, said = exercise.response.partition("Answer: ")
        first, *rest = re.findall(r"[^.]+\.", steps)
        wrong = [f"Answer: {said}", f"99 + 1 = 5. Answer: {said}", f"{said} + 0 = {said}. Answer: {said}"]
        wrong += [f"{' '.join(rest)} Answer: {said}", f"{first} Answer: {said}", f"{steps}{rest[-1]} Answer: {said}"]
        wrong += [f"{first}{' '.join(rest[::-1])} {first} Answer: {said}", f"{steps}Answer: {int(said) + 1}"]
        assert [text for text in wrong if _right(text, exercise)] == []


@pytest.mark.parametrize("skill", ["lists", "sorting"])
def test_a_list_without_its_commas_is_wrong(drawn: Callable, skill: str):
    listed = [exercise for exercise in drawn(skill) if "," in exercise.response]
    assert len(listed) > 200
    assert [
        e for e in listed if _right(e.response.replace(",", ""), e) or _right(e.response.replace(", ", " and "), e)
    ] == []


def _values_said(text: str) -> int:
    """How many values stand between commas, where they are all the same."""
    said = re.sub(r"^well, |^.+: |\. .+$", "", text.lower().strip('"')).split(", ")
    return len(said) if len(set(said)) == 1 else 0


FORMS: dict[str, Callable[[str], bool]] = {
    "Answer in a full sentence.": lambda text: text.endswith(".") and len(text.split()) > 3,
    "Say the answer twice.": lambda text: _values_said(text) == 2,
    "Say the answer three times.": lambda text: _values_said(text) == 3,
    "Answer in at most five words.": lambda text: len(text.split()) <= 5,
    "Write in capital letters.": lambda text: text == text.upper(),
    "Write in lower case.": lambda text: text == text.lower(),
    "Put it in double quotes.": lambda text: text[0] == text[-1] == '"' and text.count('"') == 2,
    'Answer as JSON with the key "answer".': lambda text: list(json.loads(text)) == ["answer"],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_response_has_the_form_that_its_prompt_asks_for(drawn: Callable, form: str):
    asked = [exercise for exercise in drawn("instructions") if form in exercise.prompt]
    assert len(asked) > 5
    assert [(e.prompt, e.response) for e in asked if not FORMS[form](e.response)] == []


def test_a_response_has_the_words_that_its_prompt_asks_for(drawn: Callable):
    seen = Counter[str]()
    for exercise in drawn("instructions"):
        for how, word in re.findall(r'(Use the word|Begin with|End with) "([^"]+)"', exercise.prompt):
            seen[how] += 1
            said = exercise.response.strip('"').lower()
            assert word.lower() in said
            assert how != "Begin with" or said.startswith(word.lower())
            assert how != "End with" or said.endswith(word.lower())
    assert min(seen["Use the word"], seen["Begin with"], seen["End with"]) > 5


def test_instructions_are_about_the_world_or_about_a_line_that_is_given(world: World, drawn: Callable):
    facts, given = _asked(world, ("questions",)), 0
    for exercise in drawn("instructions"):
        if exercise.prompt.startswith("Give the "):
            continue
        line, _, _ = exercise.prompt.rpartition("\n\n")
        given += bool(line)
        value = exercise.checks[0]["value"]
        if line:
            assert value.lower() in line.lower()
        else:
            asked = [fact for prompt, fact in facts.items() if prompt in exercise.prompt]
            assert {fact.value for fact in asked} == {value}
            assert {fact.subject for fact in asked} <= world.asked
    assert 100 < given < 220


@pytest.mark.parametrize("skill", SKILLS)
def test_exercises_can_be_drawn_from_a_tiny_world(skill: str):
    world, rng = build_world(0, TINY), random.Random(skill)
    for split in ("train", "dev", "test"):
        assert draw_exercise(SKILLS[skill], world, rng, split).response


def test_half_of_the_places_and_firms_of_strangers_are_the_worlds(world: World):
    rng, known = random.Random("links"), {name for names in world.names.values() for name in names}
    facts = [fact for _ in range(600) for fact in draw_stranger(world, rng, "train").facts]
    linked = [f.value in known for f in facts if f.relation in ("lives_in", "born_in", "works_for", "seat")]
    assert 0.4 < sum(linked) / len(linked) < 0.6


def test_tales_are_prose_about_nobody(world: World, names_in: Callable):
    rng = random.Random("tales")
    for _ in range(200):
        text = tale(world, rng)
        assert "{" not in text
        assert not names_in(text)
        assert text.endswith((".", "!"))
