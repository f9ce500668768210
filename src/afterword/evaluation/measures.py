"""The registry: every measure is a declaration, from what it needs to its rows on the page.

Others are added by packages (entry points of the group `afterword.measures`), named as `package.module:NAME`, or given
as objects from Python. Nothing here imports torch before something is measured.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from afterword import plugins
from afterword.errors import ConfigError, nearest
from afterword.evaluation.measure import VERSIONS, Inputs, Measure, Measured, Metric, Models, unit_of
from afterword.evaluation.suites import SPLITS
from afterword.settings.exams import ExamName
from afterword.types import ShownAs


def _sentences(part: Literal["documents", "held_out"], models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.losses import learning

    return learning(models, inputs, part)


def _questions(setting: Literal["closed_book", "open_book"], models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.questions import closed_book, open_book

    return {"closed_book": closed_book, "open_book": open_book}[setting](models, inputs)


def _exam(name: ExamName, models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.exams import taken

    return taken(name, models, inputs)


def _suite(models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.suite_answers import answered

    return answered(models, inputs)


def _retrieved_questions(models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.retrieved import retrieved_questions

    return retrieved_questions(models, inputs)


def _retrieved_suite(models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.retrieved import retrieved_suite

    return retrieved_suite(models, inputs)


def _drift(on: Literal["own_samples", "general", "suite_texts"], models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.losses import drift_on_general, drift_on_own_samples, drift_on_suite_texts

    texts = {"own_samples": drift_on_own_samples, "general": drift_on_general, "suite_texts": drift_on_suite_texts}
    return texts[on](models, inputs)


def _tasks(models: Models, inputs: Inputs) -> Measured:
    from afterword.evaluation.tasks import benchmarks

    return benchmarks(models, inputs)


_OF_SENTENCES = (
    Metric(
        "target_nll_nats",
        "Loss without the document",
        "lower",
        meaning="How much the text surprises the model when it cannot look anything up: the mean negative "
        "log-likelihood per token. Lower means that the text is better known.",
    ),
    Metric(
        "target_nll_with_context_nats",
        "Base model’s loss with the document",
        meaning="The same loss while the base model can read the document. It shows how much there is to gain.",
    ),
    Metric(
        "kl_from_context_nats",
        "Gap to reading the document (KL)",
        "lower",
        meaning="KL divergence per token between the base model that can read the document and the model that "
        "cannot. Lower means that more of what reading would tell is already known; merely adopting the style of "
        "the documents lowers it little.",
    ),
    Metric("kl_from_context_relative_frac", "Gap to reading the document, relative to before", "lower"),
    Metric(
        "share_of_context_gain_frac",
        "Share of the gain from context",
        "higher",
        meaning="How much of the gain that reading the document would give is there without reading it. Given only "
        "where that gain is at least 0.2 nats and its interval excludes 0.",
    ),
)
_CHOICE = Metric(
    "choice_correct_frac",
    "Right choice among the given answers",
    "higher",
    meaning="Share of questions whose right answer is likelier, by the mean over its tokens, than each of the wrong "
    "ones that it offers. It shows what is known before it is said; guessing among four gives 25 %.",
)
_OF_ANSWERS = (
    Metric(
        "said_frac",
        "Answers that say what is right",
        "higher",
        meaning="Share of answers that say an expected answer as whole words, in a sentence or not, and none of the "
        "wrong answers that the question offers.",
    ),
    Metric(
        "exact_match_frac",
        "Correct answers (exact match)",
        "higher",
        meaning="Share of questions whose answer equals an expected one, apart from case, punctuation and articles.",
    ),
    Metric(
        "token_f1_frac",
        "Words in common (token F1)",
        "higher",
        meaning="Overlap of words between given and expected answers; answers that are partly right get credit.",
    ),
    _CHOICE,
)
_ANSWER_FOUND = Metric(
    "answer_found_frac",
    "Questions whose answer is in what was found",
    "higher",
    headline=None,
    meaning="Share of the questions of which the excerpts say an expected answer as whole words.",
)
_OF_WHAT_WAS_FOUND = (
    Metric(
        "document_found_frac",
        "Questions whose document was found",
        "higher",
        headline=None,
        meaning="Share of the questions that name a document that was searched of which it is among the excerpts. What "
        "is missed here is the search’s failure; no model has a part in it.",
    ),
    _ANSWER_FOUND,
)
_BY_WHAT_WAS_FOUND = tuple(
    Metric(f"{name}_where_{found}_frac", f"{label}, where the document was {found}", "higher", headline=None)
    for found in ("found", "missed")
    for name, label in (("said", "Answers that say what is right"), ("choice_correct", "Right choice"))
)
_INDEX = Metric(
    "index_seconds",
    "Time to build the index",
    "lower",
    headline=None,
    meaning="Cutting the documents into excerpts and counting their words, once for all questions; n excerpts.",
)
_COSTS = (
    Metric(
        "prompt_tokens",
        "Tokens of a prompt",
        "lower",
        headline=None,
        meaning="What is read before the first token of an answer is written: the question, what stands before it, and "
        "what the chat template adds.",
    ),
    Metric(
        "answer_gflops",
        "Work for an answer",
        "lower",
        unit="GFLOPs",
        headline=None,
        meaning="Billions of floating-point operations: 2 for each parameter and token that is read, heads at the "
        "tokens that are written, attention’s own products left out.",
    ),
    Metric(
        "answer_seconds",
        "Time for an answer",
        "lower",
        headline=None,
        meaning="On the machine that measured, with the questions in batches: the time of all of them, shared among "
        "them. Choosing among given answers is not in it; searching is.",
    ),
)
"""What an answer costs, where it is asked what retrieval costs: beside closed book's."""
_OF_ITEMS = (
    Metric("correct_frac", "Right answers", "higher"),
    Metric("correct_refusal_forbidden_frac", "Right answers where none may be refused", "higher"),
    Metric("refused_frac", "Refused answers", "lower"),
    _CHOICE,
    Metric("old_value_said_frac", "Answers that say the old value", "lower"),
)
_OF_EXAMS = (
    Metric(
        "correct_frac",
        "Right by vote",
        "higher",
        meaning="Share of questions whose right option is what most of the model’s answers to it choose; what a tie "
        "counts as, each exam says itself. Guessing among four gives about 25 %.",
    ),
    Metric("sample_correct_frac", "Single answers that are right", "higher"),
    Metric(
        "unparsed_frac",
        "Answers without a choice",
        "lower",
        meaning="Share of answers in which no option could be found. Where there are many, the model does not follow "
        "the form that it is asked for, and what is right by vote says little of what it knows.",
    ),
    Metric("tied_frac", "Tied votes"),
)
_OF_DRIFT = (
    Metric(
        "kl_nats",
        "Drift from the base model (KL, 0 = none)",
        "lower",
        meaning="KL divergence per token from the base model to the adapted one. 0 means unchanged; it cannot be "
        "negative, so what counts is its size. More drift means that more forgetting is to be expected.",
    ),
    Metric(
        "bits_per_byte",
        "Loss on text that was not taught",
        "lower",
        meaning="Bits needed to predict a byte of text. Unlike the loss per token, it can be compared between "
        "tokenizers.",
    ),
)


_EXAMS: tuple[tuple[ExamName, str], ...] = (("kup", "KUP, from memory"), ("bioasq", "BioASQ, from memory"))


def _placed(metrics: tuple[Metric, ...], **places: int) -> tuple[Metric, ...]:
    """The metrics, some of them in the headline of a page."""
    return tuple(replace(metric, headline=places.get(metric.name)) for metric in metrics)


_DECLARED = (
    Measure(
        name="learning/trained",
        label="The documents themselves",
        shows="learned",
        metrics=_placed(_OF_SENTENCES, target_nll_nats=6, kl_from_context_nats=7),
        measure=partial(_sentences, "documents"),
        needs=("documents",),
        version=VERSIONS["losses"],
    ),
    Measure(
        name="learning/held_out",
        label="Held-out text",
        shows="learned",
        metrics=_placed(_OF_SENTENCES, target_nll_nats=4, kl_from_context_nats=5),
        measure=partial(_sentences, "held_out"),
        needs=("held_out",),
        version=VERSIONS["losses"],
    ),
    Measure(
        name="questions/closed_book",
        label="Questions, from memory",
        shows="learned",
        metrics=(*_placed(_OF_ANSWERS, choice_correct_frac=1, said_frac=2, exact_match_frac=3), *_COSTS),
        measure=partial(_questions, "closed_book"),
        needs=("questions",),
        pairs_by="question",
        version=VERSIONS["questions"],
    ),
    Measure(
        name="questions/open_book",
        label="Questions, with the document",
        # Reading a document in the prompt is a skill that the base model had, so it belongs to what can be lost.
        shows="kept",
        metrics=(*_placed(_OF_ANSWERS, choice_correct_frac=4, said_frac=5), *_COSTS),
        measure=partial(_questions, "open_book"),
        needs=("questions",),
        pairs_by="question",
        version=VERSIONS["questions"],
    ),
    *(
        Measure(
            name=f"exams/{name}",
            label=label,
            shows="learned",
            metrics=_placed(_OF_EXAMS, correct_frac=1),
            measure=partial(_exam, name),
            needs=(name,),
            pairs_by="question",
            version=VERSIONS["exams"],
            in_verdict=True,
        )
        for name, label in _EXAMS
    ),
    Measure(
        name="questions/retrieved",
        label="Questions, with what was found",
        # As open book: reading is what the base model could do.
        shows="kept",
        metrics=(
            *_placed(_OF_ANSWERS, choice_correct_frac=6, said_frac=7),
            *_OF_WHAT_WAS_FOUND,
            *_BY_WHAT_WAS_FOUND,
            *_COSTS,
            _INDEX,
        ),
        measure=_retrieved_questions,
        needs=("questions", "retrieve"),
        pairs_by="question",
        version=VERSIONS["retrieval"],
    ),
    Measure(
        name="suite",
        shows="kept",
        metrics=(*_placed(_OF_ITEMS), *_COSTS),
        measure=_suite,
        needs=("suite",),
        pairs_by="item",
        version=VERSIONS["answering"],
    ),
    Measure(
        name="suite_retrieved",
        shows="kept",
        metrics=(*_placed(_OF_ITEMS), _ANSWER_FOUND, *_COSTS, _INDEX),
        measure=_retrieved_suite,
        needs=("suite", "retrieve"),
        pairs_by="item",
        version=VERSIONS["retrieval"],
    ),
    Measure(
        name="drift/suite_texts",
        label="Texts of the suite",
        shows="drift",
        metrics=_placed(_OF_DRIFT),
        measure=partial(_drift, "suite_texts"),
        needs=("suite",),
        pairs_by="text",
        version=VERSIONS["losses"],
    ),
    Measure(
        name="drift/own_samples",
        label="Text the base model wrote",
        shows="drift",
        metrics=_placed(_OF_DRIFT, kl_nats=1),
        measure=partial(_drift, "own_samples"),
        needs=("reference",),
        pairs_by="sample",
        version=VERSIONS["losses"],
    ),
    Measure(
        name="drift/general",
        label="General text",
        shows="drift",
        metrics=_placed(_OF_DRIFT, kl_nats=2, bits_per_byte=3),
        measure=partial(_drift, "general"),
        needs=("general",),
        pairs_by="window",
        version=VERSIONS["losses"],
    ),
    # The harness names the metrics of each task.
    Measure(name="tasks", shows="kept", measure=_tasks, needs=("tasks",), version=VERSIONS["tasks"]),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _DECLARED}
"""Those that come with the package, in the order in which they are made."""
_FIRST_WORDS = {name.split("/")[0] for name in MEASURES} | set(SPLITS)


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
    """Those of the package, then those that are asked for beside them.

    ConfigError where two have one name, or one begins as the package's do, which pages and verdict go by.
    """
    added = [get_measure(each) if isinstance(each, str) else _own(repr(each), each) for each in asked]
    names = [*MEASURES, *(measure.name for measure in added)]
    for measure in added:
        if names.count(measure.name) > 1:
            raise ConfigError(f"measures: there are two of the name {measure.name!r}. Give your own another name.")
        if (first := measure.name.split("/")[0]) in _FIRST_WORDS:
            rule = f"Afterword's own begin with {first!r}. Begin yours with another word"
            raise ConfigError(f"measures: {measure.name!r} cannot be told apart. {rule}.")
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
