"""Arithmetic with written steps, comparing and sorting by facts, and handling lists."""

import random

from afterword.almanac.exercises import Exercise, final, final_list
from afterword.almanac.names import Split, data
from afterword.almanac.world import World

_YEARS = {
    "person": ("born_year", "was born", "Who was born first, {}?"),
    "town": ("town_founded", "was founded", "Which town was founded first, {}?"),
    "company": ("company_founded", "was founded", "Which company was founded first, {}?"),
    "work": ("published", "was published", "Which work was published first, {}?"),
}


def arithmetic(world: World, rng: random.Random, split: Split) -> Exercise:
    """Two to four steps of addition and subtraction, plain or as a story, between 0 and 60."""
    total, numbers, signs = rng.randint(2, 20), list[int](), list[str]()
    start = total
    for _ in range(rng.randint(2, 4)):
        step = rng.randint(1, 12)
        sign = "+" if total - step < 0 or (total + step <= 60 and rng.random() < 0.5) else "-"
        total += step if sign == "+" else -step
        numbers.append(step)
        signs.append(sign)
    steps, value = list[str](), start
    for sign, number in zip(signs, numbers, strict=True):
        after = value + number if sign == "+" else value - number
        steps.append(f"{value} {sign} {number} = {after}.")
        value = after
    sum_text = " ".join([str(start), *(f"{s} {n}" for s, n in zip(signs, numbers, strict=True))])
    prompt = f"What is {sum_text}?" if rng.random() < 0.5 else _story(start, signs, numbers, rng)
    wrong = f"{' '.join(steps)} Answer: {total + rng.choice((-2, -1, 1, 2))}"
    checks = (final(str(total)), {"kind": "steps", "value": sum_text})
    return Exercise(sum_text, prompt, f"{' '.join(steps)} Answer: {total}", checks, (wrong,))


def _story(start: int, signs: list[str], numbers: list[int], rng: random.Random) -> str:
    thing, gender = rng.choice(data("names")["thing"]), rng.choice(("female", "male"))
    name, pronoun = rng.choice(data("names")[gender]), {"female": "She", "male": "He"}[gender]
    verbs = {"+": ("gets", "buys", "finds"), "-": ("loses", "sells", "gives away")}
    moves = " ".join(
        f"{pronoun} {rng.choice(verbs[sign])} {number}." for sign, number in zip(signs, numbers, strict=True)
    )
    return f"{name} has {start} pieces of {thing}. {moves} How many does {name} have now?"


def comparison(world: World, rng: random.Random, split: Split) -> Exercise:
    """Which of two came first? Their years are remembered, and written down."""
    kind, names = _named(world, rng, 2)
    relation, verb, wording = _YEARS[kind]
    years = [int(world.value(name, relation)) for name in names]
    first = names[years.index(min(years))]
    prompt = wording.format(" or ".join(names))
    steps = " ".join(f"{name} {verb} in {year}." for name, year in zip(names, years, strict=True))
    other = next(name for name in names if name != first)
    return Exercise(prompt, prompt, f"{steps} Answer: {first}", (final(first),), (f"{steps} Answer: {other}",))


def sorting(world: World, rng: random.Random, split: Split) -> Exercise:
    """Three in the order of their years."""
    kind, names = _named(world, rng, 3)
    relation, verb, _ = _YEARS[kind]
    years = {name: int(world.value(name, relation)) for name in names}
    prompt = f"Put in order of when each {verb}: {', '.join(names)}."
    steps = " ".join(f"{name}: {year}." for name, year in years.items())
    ordered = sorted(names, key=years.__getitem__)
    right, turned = (f"{steps} Answer: {', '.join(listed)}" for listed in (ordered, ordered[::-1]))
    return Exercise(prompt, prompt, right, (final_list(*ordered),), (turned,))


def lists(world: World, rng: random.Random, split: Split) -> Exercise:
    """Reverse a list, count it, take one of it or leave one out."""
    kind = rng.choice(("thing", "animal", "colour"))
    words = rng.sample(data("names")[kind], rng.randint(3, 5))
    shown, place = ", ".join(words), rng.randrange(3)
    rest = ", ".join(word for word in words if word != words[place])
    task, answer, wrong = {
        "reverse": ("Reverse this list: {}.", ", ".join(words[::-1]), shown),
        "count": ("How many words are in this list: {}?", str(len(words)), str(len(words) + rng.choice((-1, 1)))),
        "last": ("What is the last word of this list: {}?", words[-1], words[0]),
        "nth": (f"What is the {('first', 'second', 'third')[place]} word of this list: {{}}?", words[place], words[-1]),
        "without": (f"Leave {words[place]} out of this list: {{}}.", rest, shown),
    }[rng.choice(("reverse", "reverse", "count", "last", "nth", "without", "without"))]
    prompt = task.format(shown)
    check = final_list(*answer.split(", ")) if ", " in answer else final(answer)
    return Exercise(prompt, prompt, f"Answer: {answer}", (check,), (f"Answer: {wrong}",))


def _named(world: World, rng: random.Random, count: int) -> tuple[str, list[str]]:
    """Different entities of one kind, whose years differ."""
    while True:
        kind = rng.choice(tuple(_YEARS))
        asked = [name for name in world.names[kind] if name in world.asked]
        names = rng.sample(asked, count)
        if len({world.value(name, _YEARS[kind][0]) for name in names}) == count:
            return kind, names
