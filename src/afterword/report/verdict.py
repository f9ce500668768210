"""The verdict that heads the console, the page and the card: what was learned, what was lost, and what to do next.

The one rule: a class follows from the size of an effect *and* from its interval, by thresholds that stand here. What
a reader would not notice is never praised, and what so few questions cannot tell is not called safe. Everything
follows from the scores, which are measured on what is served.

What was learned is held against what reading the document gives: 0 is the model as it was, 1 the model as it was with
the document before it. By choices where questions have them, else by what is said. A suite is asked without documents,
so it tells points: by choices where it has them, else by what is said. Where nothing was asked, it is how likely
sentences of the documents have become.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from afterword.errors import number_of
from afterword.report import display
from afterword.report.display import Estimate, Score

SHARES = ((0.05, "nothing"), (0.25, "little"), (0.6, "part"), (0.9, "most"))
"""Of what reading gives, what was learned: practically nothing below 5 %, little below 25 %, a part below 60 %, most
below 90 %, nearly all from there on."""
POINTS_LEARNED = ((0.02, "nothing"), (0.1, "little"), (0.3, "part"), (0.6, "most"))
"""The same in points of questions right, where there is nothing to hold them against."""
POINTS_LOST = ((0.01, "nothing"), (0.03, "little"), (0.1, "some"))
"""Points of what was right before: nobody notices one, three are a little, ten are some, and more is much."""
DRIFT_NATS = ((0.01, "nothing"), (0.15, "little"), (0.3, "some"))
"""KL per token on text of the model's own: below 0.01 nobody sees a difference, above 0.3 it is another model. On a
small real model, without replay, written answers lost 2 to 4 points below 0.1 nats, ten and more from 0.175 on."""
_CERTAIN = {"nothing": 0.05, "little": 0.1}
"""The most points that the interval may reach up to where a loss is called so small."""
BY_HEART = 1.2
"""Of what reading gives: where trained sentences have become so much likelier, they are known by heart. What the model
knows of what they say, only questions or other wordings tell (METHODS §5)."""
LEAST_ROOM = 0.1
"""Between what is known before and what reading gives: with less, a share of it says nothing."""
_CHOSEN = "choices right"
_MEMORY = " That is memory; what the model knows of it, only questions tell."
_NOTICED = 0.05
"""Points that a single skill must lose, beyond chance, to be named."""


@dataclass(frozen=True)
class Verdict:
    """Three sentences, and the classes that they follow from."""

    learned: str
    lost: str
    then: str
    learned_class: str
    """nothing, little, part, most, all; heart: the trained text is known by heart; unclear: chance may have done it;
    unknown: not measured."""
    lost_class: str
    """nothing, little, some, much; unclear: so few questions cannot tell; unknown: not measured."""

    @property
    def lines(self) -> dict[str, str]:
        """By what they are about."""
        return {"Learned": self.learned, "Lost": self.lost, "Next": self.then}


@dataclass(frozen=True)
class _Found:
    """An effect: its size, its interval, and what it is a change of."""

    value: float
    interval: tuple[float, float] | None
    of: str
    n: int
    units: int
    """What the interval is over: fewer than n where several questions are about one thing."""
    of_trained_text: bool = False
    """Whether it is of the very text that was trained, which can be learned without being understood."""

    @property
    def count(self) -> str:
        """How much it is of, as it is printed."""
        return f"{self.n:,}" + (f", {number_of(self.units, 'unit')}" if self.units < self.n else "")


_Sizes = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class _Learned:
    """An effect on what is learned, the sentence that tells it, and what sizes of it are called."""

    found: _Found
    told: str
    sizes: _Sizes
    own_words: str = ""
    """What is said, where the effect is of what is chosen."""

    @classmethod
    def of_reading(cls, found: _Found, own_words: str = "") -> "_Learned":
        """A share of what reading gives."""
        return cls(found, f"{_percent(found.value)} of what reading the document gives", SHARES, own_words)

    @classmethod
    def in_points(cls, found: _Found, right: str, own_words: str = "") -> "_Learned":
        """Points of questions that are right in some way."""
        more = "more" if found.value >= 0 else "fewer"
        told = f"{_points_of(abs(found.value))} points {more} of the questions are {right}"
        return cls(found, told, POINTS_LEARNED, own_words)


def verdict_of(scores: Sequence[Score]) -> Verdict | None:
    """The verdict on scores as scores.json has them; None where nothing was measured both before and after."""
    changed = [score for score in scores if score["change"] or _is_one_sided(score)]
    if not any(score["after"] for score in changed):
        return None
    by_name = {(score["task"], score["metric"]): score for score in scores}
    learned_class, learned, asked = _learned(by_name)
    lost_class, lost = _lost(by_name)
    words = display.load_table("words.yaml")["next"]
    return Verdict(learned, lost, words[_next(learned_class, lost_class, asked)], learned_class, lost_class)


def _is_one_sided(score: Score) -> bool:
    """Whether a score has one side though it compares two models."""
    return score["metric"] in ("share_of_context_gain_frac", "kl_from_context_relative_frac", "kl_nats")


def _learned(by_name: Mapping[tuple[str, str], Score]) -> tuple[str, str, bool]:
    """The class of what was learned, the sentence, and whether it says more than how well trained text is known."""
    best = next(_ways(by_name), None)
    if best is None:
        return "unknown", _without_measure(by_name), False
    found, kind, own_words = best.found, _class(best.found.value, best.sizes, "all"), best.own_words
    asked = not found.of_trained_text
    if found.of_trained_text and found.value > BY_HEART:
        kind = "heart"
    low = found.interval[0] if found.interval else None
    certain = "no interval" if low is None else f"95 % interval {_range(found)}"
    shown = f"{best.told} ({found.of}, n = {found.count}; {certain})"
    if kind != "nothing" and (low is None or low <= 0):
        return "unclear", f"Chance may have done it: {shown}.{own_words}", asked
    own_words += _MEMORY if found.of_trained_text and kind not in ("nothing", "little") else ""
    words = display.load_table("words.yaml")["learned_text" if found.of_trained_text else "learned"]
    return kind, f"{words[kind]}: {shown}.{own_words}", asked


def _ways(by_name: Mapping[tuple[str, str], Score]) -> Iterator[_Learned]:
    """In which ways it was measured, the best first: what was asked before what was only read."""
    for found in _of_questions(by_name):
        yield _Learned.of_reading(found, _in_own_words(by_name) if found.of.startswith(_CHOSEN) else "")
    if found := _points(by_name, "learning", "choice_correct_frac"):
        yield _Learned.in_points(found, "chosen right", _said_of_suite(by_name))
    if found := _points(by_name, "learning") or _points_of_others(by_name):
        yield _Learned.in_points(found, "answered right")
    for found in _of_sentences(by_name):
        yield _Learned.of_reading(found)


def _in_own_words(by_name: Mapping[tuple[str, str], Score]) -> str:
    """How many answers the model also says: what is chosen among four may be far from being said."""
    closed, opened = (by_name.get((f"questions/{book}_book", "said_frac")) for book in ("closed", "open"))
    if not closed or not closed["after"]:
        return ""
    with_it = f" ({_percent(_mean(opened, 'before'))} with the document)" if opened and opened["before"] else ""
    return f" In its own words it says {_percent(_mean(closed, 'after'))} of the answers{with_it}."


def _said_of_suite(by_name: Mapping[tuple[str, str], Score]) -> str:
    """The same of a suite, whose answers are checked: the mean over its skills."""
    said = _skills(by_name, "learning", "correct_frac")
    if not said:
        return ""
    before, after = (_percent(sum(_mean(score, side) for score in said) / len(said)) for side in ("before", "after"))
    return f" In its own words it answers {after} right ({before} before)."


def _without_measure(by_name: Mapping[tuple[str, str], Score]) -> str:
    """Where a loss changed, and there is nothing to hold that against, the change alone."""
    for task in ("learning/trained", "learning/held_out"):
        loss = by_name.get((task, "target_nll_nats"))
        if loss and loss["change"]:
            before, after = (display.value("nll_nats", side, 3) for side in _sides(loss))
            moved = f"the loss of single sentences went from {before} to {after} nats per token"
            little = "What reading the documents gives is too little to hold the change against"
            return f"{little}: {moved} (n = {display.counted(loss)})."
    return "What was learned was not measured."


def _of_questions(by_name: Mapping[tuple[str, str], Score]) -> Iterator[_Found]:
    """What was learned by questions as a share of what reading gives, the best measure first."""
    for metric, what in (("choice_correct_frac", _CHOSEN), ("said_frac", "answers said")):
        closed, opened = by_name.get(("questions/closed_book", metric)), by_name.get(("questions/open_book", metric))
        room = _mean(opened, "before") - _mean(closed, "before") if closed and opened else 0.0
        if closed and closed["change"] and room >= LEAST_ROOM:
            before, after, with_it = (_percent(x) for x in (*_sides(closed), _mean(opened, "before")))
            of = f"{what} from memory {before} → {after}, with the document {with_it}"
            yield _scaled(closed["change"], room, of, closed)


def _of_sentences(by_name: Mapping[tuple[str, str], Score]) -> Iterator[_Found]:
    """The same by how likely sentences have become."""
    for task in ("learning/trained", "learning/held_out"):
        share = by_name.get((task, "share_of_context_gain_frac"))
        if share and share["after"]:
            of = "loss of single sentences" + (" that were not trained" if task.endswith("held_out") else "")
            yield replace(_scaled(share["after"], 1.0, of, share), of_trained_text=task.endswith("trained"))


def _points(by_name: Mapping[tuple[str, str], Score], part: str, metric: str = "correct_frac") -> _Found | None:
    """The change in points of a suite's part: the mean over skills."""
    return _mean_change(_skills(by_name, part, metric), "skill", " of the suite")


def _skills(by_name: Mapping[tuple[str, str], Score], part: str, metric: str) -> list[Score]:
    """The scores of a suite's part by skill, of test where there is one."""
    tasks = [task for task, own in by_name if own == metric and f"/{part}/" in task]
    return [by_name[task, metric] for task in tasks if task.startswith("test/")] or [by_name[t, metric] for t in tasks]


def _points_of_others(by_name: Mapping[tuple[str, str], Score]) -> _Found | None:
    """The change in points of what measures of others show to be learned."""
    # Of a task with several metrics, the one that it is known by first.
    others = dict[str, Score]()
    for (task, _), score in by_name.items():
        if _is_of_others(score, "learned") and score["better"] == "higher":
            others.setdefault(task, score)
    return _mean_change(list(others.values()), "measure")


def _lost(by_name: Mapping[tuple[str, str], Score]) -> tuple[str, str]:
    """The class of what was lost, and the sentence."""
    # The harness gives several metrics of a task, the one that it is known by first.
    benchmarks = dict[str, Score]()
    for (task, _), score in by_name.items():
        if _is_benchmark(score):
            benchmarks.setdefault(task, score)
    kept = [found for found in (_points(by_name, "retention"), _of_benchmarks(list(benchmarks.values()))) if found]
    drift = by_name.get(("drift/own_samples", "kl_nats"))
    moved = f" It drifted by {drift['after']['value']:.3g} nats per token." if drift and drift["after"] else ""
    if not kept:
        if not drift or not drift["after"]:
            return "unknown", "What was lost was not measured."
        kind = _class(drift["after"]["value"], DRIFT_NATS, "much")
        says = display.load_table("words.yaml")["drifted"][kind]
        nats = f"{drift['after']['value']:.3g} nats per token on text of its own"
        return kind, f"{says}: {nats} (n = {display.counted(drift)})."
    worst = min(kept, key=lambda found: found.value)
    loss, high = -worst.value, -worst.interval[0] if worst.interval else None
    # A gain is told as a change, with its sign; a loss as the points that were lost.
    gained = (changed := display.change("share_frac", worst.value, 1)).startswith("+")
    certain = "no interval" if high is None else f"95 % interval {_range(worst, 1 if gained else -1)}"
    moved_by = f"changed by {changed}" if gained else f"{_points_of(loss)} points"
    shown, named = f"{moved_by} ({worst.of}, n = {worst.count}; {certain})", _worst_skill(by_name)
    kind = _class(loss, POINTS_LOST, "much")
    words = display.load_table("words.yaml")["lost"]
    if high is None or high > _CERTAIN.get(kind, 1.0):
        return "unclear", f"{words['unclear']}: {shown}.{named}{moved}"
    if kind != "nothing" and worst.interval and -worst.interval[1] <= 0:
        return "little" if kind == "little" else "unclear", f"{words['chance']}: {shown}.{named}{moved}"
    return kind, f"{words[kind]}: {shown}.{named}{moved}"


def _is_benchmark(score: Score) -> bool:
    """Whether points lost of it count by themselves: of the harness's tasks, and of others' measures that say so."""
    own = score["task"].startswith("tasks/") or _is_of_others(score, "kept")
    return own and bool(score["change"]) and score["better"] == "higher"


def _is_of_others(score: Score, kind: str) -> bool:
    """Whether it is a share of what was learned or kept, of a measure of others that is to count here."""
    shown = score.get("shown")
    if not shown or not shown.get("in_verdict"):
        return False
    return score["metric"].endswith("_frac") and shown["shows"] == kind


def _of_benchmarks(scores: Sequence[Score]) -> _Found | None:
    harness = all(score["task"].startswith("tasks/") for score in scores)
    return _mean_change(scores, "benchmark" if harness else "measure")


def _worst_skill(by_name: Mapping[tuple[str, str], Score]) -> str:
    """The skill or benchmark that lost most, where it lost more than a reader overlooks and more than chance."""
    measured = [s for (task, metric), s in by_name.items() if "/retention/" in task and metric == "correct_frac"]
    measured += [score for score in by_name.values() if _is_benchmark(score)]
    changes = [(score, change) for score in measured if (change := score["change"])]
    lost = [(change["value"], score) for score, change in changes if (change["interval_95"] or (0, 0))[1] < 0]
    change, worst = min(lost, key=lambda found: found[0], default=(0.0, None))
    if worst is None or change > -_NOTICED:
        return ""
    return f" Most in {display.shown(worst)['task']}: {_points_of(-change)} points."


def _next(learned: str, lost: str, asked: bool) -> str:
    """The key of what to do next."""
    few, lost_much = learned in ("nothing", "little"), lost in ("some", "much")
    if learned in ("unknown", "heart"):
        return "measure_learned"
    if learned == "unclear":
        return "ask_more"
    if few:
        return "other_way" if lost_much else "teach_more"
    if lost_much:
        return "keep_more"
    if lost in ("unknown", "unclear"):
        return "measure_lost"
    if not asked:
        return "measure_learned"
    return "more_passes" if learned == "part" else "serve"


def _mean_change(scores: Sequence[Score], noun: str, behind: str = "") -> _Found | None:
    """The mean of several changes; its interval as of independent measures, from the widths of theirs."""
    measured = [(change, score) for score in scores if (change := score["change"])]
    # Of what has no interval nothing is concluded, where there is something else.
    measured = [found for found in measured if found[0]["interval_95"]] or measured
    if not measured:
        return None
    changes = [(change["value"], change["interval_95"]) for change, _ in measured]
    n, units = (sum(how_many(score) for _, score in measured) for how_many in (itemgetter("n"), display.units_of))
    mean, of = sum(value for value, _ in changes) / len(changes), number_of(len(changes), noun) + behind
    apart = [(value - bounds[0], bounds[1] - value) for value, bounds in changes if bounds]
    if not apart:
        return _Found(mean, None, of, n, units)
    below, above = (sum(width**2 for width in side) ** 0.5 / len(changes) for side in zip(*apart, strict=True))
    return _Found(mean, (mean - below, mean + above), of, n, units)


def _scaled(estimate: Estimate, room: float, of: str, score: Score) -> _Found:
    bounds = estimate["interval_95"]
    interval = (bounds[0] / room, bounds[1] / room) if bounds else None
    return _Found(estimate["value"] / room, interval, of, score["n"], display.units_of(score))


def _class(value: float, sizes: _Sizes, beyond: str) -> str:
    return next((name for below, name in sizes if value < below), beyond)


def _sides(score: Score) -> tuple[float, float]:
    return _mean(score, "before"), _mean(score, "after")


def _mean(score: Score | None, side: str) -> float:
    return score[side]["value"] if score and score[side] else 0.0


def _percent(share: float) -> str:
    return f"{display.value('share_frac', share, 1)[:-1]} %"


def _points_of(share: float) -> str:
    return display.value("share_frac", share, 1)[:-1]


def _range(found: _Found, sign: int = 1) -> str:
    assert found.interval is not None, "asked for where there is one"
    return " to ".join(_points_of(bound) for bound in sorted(sign * bound for bound in found.interval))
