"""The registry: every measure is a declaration, from what it needs to its rows on the page.

Others are added by packages (entry points of the group `afterword.measures`), named as `package.module:NAME`, or given
as objects from Python. Nothing here imports torch before something is measured.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from afterword import plugins
from afterword.errors import ConfigError, nearest
from afterword.evaluation.measure import VERSIONS, Inputs, Measure, Measured, Metric, Models, Need, unit_of
from afterword.evaluation.suites import SPLITS
from afterword.types import ShownAs


def _learning(part: Literal["documents", "held_out"], name: str, label: str, place: int) -> Measure:
    def measured(models: Models, inputs: Inputs) -> Measured:
        from afterword.evaluation import losses

        return losses.learning(models, inputs, part)

    metrics = (
        Metric(
            name="target_nll_nats",
            label="Loss without the document",
            better="lower",
            headline=place,
            meaning="How much the text surprises the model when it cannot look anything up: the mean negative "
            "log-likelihood per token. Lower means that the text is better known.",
        ),
        Metric(
            name="target_nll_with_context_nats",
            label="Base model’s loss with the document",
            better=None,
            headline=None,
            meaning="The same loss while the base model can read the document. It shows how much there is to gain.",
        ),
        Metric(
            name="kl_from_context_nats",
            label="Gap to reading the document (KL)",
            better="lower",
            headline=place + 1,
            meaning="KL divergence per token between the base model that can read the document and the model that "
            "cannot. Lower means that more of what reading would tell is already known; merely adopting the style of "
            "the documents lowers it little.",
        ),
        Metric(
            name="kl_from_context_relative_frac",
            label="Gap to reading the document, relative to before",
            better="lower",
            headline=None,
        ),
        Metric(
            name="share_of_context_gain_frac",
            label="Share of the gain from context",
            better="higher",
            headline=None,
            meaning="How much of the gain that reading the document would give is there without reading it. Given only "
            "where that gain is at least 0.2 nats and its interval excludes 0.",
        ),
    )
    return Measure(
        name=name,
        label=label,
        shows="learned",
        metrics=metrics,
        measure=measured,
        needs=(part,),
        version=VERSIONS["losses"],
    )


_CHOICE = Metric(
    name="choice_correct_frac",
    label="Right choice among the given answers",
    better="higher",
    headline=None,
    meaning="Share of questions whose right answer is likelier, by the mean over its tokens, than each of the wrong "
    "ones that it offers. It shows what is known before it is said; guessing among four gives 25 %.",
)


def _questions(setting: Literal["closed_book", "open_book"], label: str, *places: int | None) -> Measure:
    def measured(models: Models, inputs: Inputs) -> Measured:
        from afterword.evaluation import questions

        return (questions.closed_book if setting == "closed_book" else questions.open_book)(models, inputs)

    chosen, said, matched = places
    metrics = (
        Metric(
            name="said_frac",
            label="Answers that say what is right",
            better="higher",
            headline=said,
            meaning="Share of answers that say an expected answer as whole words, in a sentence or not, and none of "
            "the wrong answers that the question offers.",
        ),
        Metric(
            name="exact_match_frac",
            label="Correct answers (exact match)",
            better="higher",
            headline=matched,
            meaning="Share of questions whose answer equals an expected one, apart from case, punctuation and articles.",
        ),
        Metric(
            name="token_f1_frac",
            label="Words in common (token F1)",
            better="higher",
            headline=None,
            meaning="Overlap of words between given and expected answers; answers that are partly right get credit.",
        ),
        replace(_CHOICE, headline=chosen),
    )
    return Measure(
        name=f"questions/{setting}",
        label=label,
        # Reading a document in the prompt is a skill that the base model had, so it belongs to what can be lost.
        shows="learned" if setting == "closed_book" else "kept",
        metrics=metrics,
        measure=measured,
        needs=("questions",),
        pairs_by="question",
        version=VERSIONS["questions"],
    )


def _suite(models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation import suite_answers

    return suite_answers.answered(models, inputs)


def _tasks(models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation import tasks

    return tasks.benchmarks(models, inputs)


def _drift(on: Literal["own_samples", "general", "suite_texts"], label: str, *places: int | None) -> Measure:
    def measured(models: Models, inputs: Inputs) -> Measured:
        from afterword.evaluation import losses

        drift = {
            "own_samples": losses.drift_on_own_samples,
            "general": losses.drift_on_general,
            "suite_texts": losses.drift_on_suite_texts,
        }
        return drift[on](models, inputs)

    divergence, bits = places
    metrics = (
        Metric(
            name="kl_nats",
            label="Drift from the base model (KL, 0 = none)",
            better="lower",
            headline=divergence,
            meaning="KL divergence per token from the base model to the adapted one. 0 means unchanged; it cannot be "
            "negative, so what counts is its size. More drift means that more forgetting is to be expected.",
        ),
        Metric(
            name="bits_per_byte",
            label="Loss on text that was not taught",
            better="lower",
            headline=bits,
            meaning="Bits needed to predict a byte of text. Unlike the loss per token, it can be compared between "
            "tokenizers.",
        ),
    )
    needs: dict[str, Need] = {"own_samples": "reference", "general": "general", "suite_texts": "suite"}
    return Measure(
        name=f"drift/{on}",
        label=label,
        shows="drift",
        metrics=metrics,
        measure=measured,
        needs=(needs[on],),
        pairs_by="sample" if on == "own_samples" else "text",
        version=VERSIONS["losses"],
    )


_DECLARED = (
    _learning("documents", "learning/trained", "The documents themselves", 6),
    _learning("held_out", "learning/held_out", "Held-out text", 4),
    _questions("closed_book", "Questions, from memory", 1, 2, 3),
    _questions("open_book", "Questions, with the document", 4, 5, None),
    Measure(
        name="suite",
        shows="kept",
        metrics=(
            Metric(name="correct_frac", better="higher", headline=None),
            Metric(name="correct_refusal_forbidden_frac", better="higher", headline=None),
            Metric(name="refused_frac", better="lower", headline=None),
            _CHOICE,
            Metric(name="old_value_said_frac", better="lower", headline=None),
        ),
        measure=_suite,
        needs=("suite",),
        pairs_by="item",
        version=VERSIONS["answering"],
    ),
    _drift("suite_texts", "", None, None),
    _drift("own_samples", "Text the base model wrote", 1, None),
    _drift("general", "General text", 2, 3),
    Measure(name="tasks", shows="kept", measure=_tasks, needs=("tasks",), version=VERSIONS["tasks"]),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _DECLARED}
"""Those that come with the package, in the order in which they are made."""


def known_measures() -> list[str]:
    """Names of all that can be asked for by a name."""
    return [*MEASURES, *(name for name in plugins.added("measures") if name not in MEASURES)]


def get_measure(name: str) -> Measure:
    """The declaration of a measure that is not one of the package's: by its name, or from `package.module:NAME`.

    ConfigError for an unknown name, with the nearest known one, and for what is no Measure.
    """
    if name in plugins.added("measures"):
        return _own(name, plugins.load("measures", name))
    if ":" in name:
        return _own(name, plugins.imported("measures", name))
    added = list(plugins.added("measures"))
    there = f"{nearest(name, added)}Installed: {', '.join(added)}; or" if added else "Give"
    always = " It is made wherever what it needs is given." if name in MEASURES else ""
    problem = f"measures: {name!r} is not known as one to add.{always}"
    raise ConfigError(f"{problem} {there} package.module:NAME of your own.")


def chosen_measures(asked: Sequence[str | Measure]) -> list[Measure]:
    """Those of the package, and those that are asked for beside them. ConfigError where two have one name."""
    added = [get_measure(each) if isinstance(each, str) else _own(repr(each), each) for each in asked]
    names = [*MEASURES, *(measure.name for measure in added)]
    for measure in added:
        if names.count(measure.name) > 1:
            raise ConfigError(f"measures: there are two of the name {measure.name!r}. Give your own another name.")
    return [*MEASURES.values(), *added]


def shown_as(task: str, metric: str) -> ShownAs:
    """How a score is shown that does not say so itself, as in a file of an earlier version."""
    first = task.split("/")[0]
    known = MEASURES.get(task) or MEASURES.get("suite" if first in SPLITS else first)
    return known.shown_as(metric, task) if known else ShownAs(task=task, metric=metric, unit=unit_of(metric))


def _own(place: str, found: object) -> Measure:
    if isinstance(found, Measure):
        return found
    problem = f"measures: {place!r} is of the type {type(found).__name__}, not a Measure"
    raise ConfigError(f"{problem}. Give an object made by afterword.evaluation.Measure(…).")
