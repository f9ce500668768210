"""What tasks and metrics are called on a page, their units and meanings. Unknown names stay as they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric in words: a label for tables, and a sentence for the glossary."""

    label: str
    meaning: str


TASKS = {
    "learning/trained": "The documents themselves",
    "learning/held_out": "Held-out text",
    "questions/closed_book": "Questions, from memory",
    "questions/open_book": "Questions, with the document",
    "drift/own_samples": "Text the base model wrote",
    "drift/general": "General text",
}

MEASURES = {
    "target_nll_nats": Measure(
        "Loss without the document",
        "How much the text surprises the model when it cannot look anything up: the mean negative "
        "log-likelihood per token. Lower means that the text is better known.",
    ),
    "target_nll_with_context_nats": Measure(
        "Base model’s loss with the document",
        "The same loss while the base model can read the document. It shows how much there is to gain.",
    ),
    "kl_from_context_nats": Measure(
        "Gap to reading the document (KL)",
        "KL divergence per token between the base model that can read the document and the model that "
        "cannot. Lower means that more of what reading would tell is already known; merely adopting the "
        "style of the documents lowers it little.",
    ),
    "share_of_context_gain_frac": Measure(
        "Share of the gain from context",
        "How much of the gain that reading the document would give is there without reading it. Given only "
        "where that gain is at least 0.2 nats and its interval excludes 0.",
    ),
    "exact_match_frac": Measure(
        "Correct answers (exact match)",
        "Share of questions whose answer equals an expected one, apart from case, punctuation and articles.",
    ),
    "token_f1_frac": Measure(
        "Words in common (token F1)",
        "Overlap of words between given and expected answers; answers that are partly right get credit.",
    ),
    "kl_nats": Measure(
        "Drift from the base model (KL, 0 = none)",
        "KL divergence per token from the base model to the adapted one. 0 means unchanged; it cannot be "
        "negative, so what counts is its size. More drift means that more forgetting is to be expected.",
    ),
    "bits_per_byte": Measure(
        "Loss on text that was not taught",
        "Bits needed to predict a byte of text. Unlike the loss per token, it can be compared between tokenizers.",
    ),
}

# The measures that a reader needs first, in this order. The rest is in the table of all scores.
LEARNED = (
    ("questions/closed_book", "exact_match_frac"),
    ("learning/held_out", "target_nll_nats"),
    ("learning/held_out", "kl_from_context_nats"),
    ("learning/trained", "target_nll_nats"),
    ("learning/trained", "kl_from_context_nats"),
)
# Reading a document in the prompt is a skill that the base model had, so it belongs to what can be lost.
LOST = (
    ("drift/own_samples", "kl_nats"),
    ("drift/general", "kl_nats"),
    ("drift/general", "bits_per_byte"),
    ("questions/open_book", "exact_match_frac"),
)

_UNITS = {
    "_nats": "nats per token",
    "_frac": "%",
    "bits_per_byte": "bits per byte",
    "_bits": "bits",
    "_tokens": "tokens",
    "_seconds": "seconds",
    "_gib": "GiB",
}


def task_label(task: str) -> str:
    """The task in words; a benchmark (`tasks/…`) by its own name."""
    return TASKS.get(task, task.removeprefix("tasks/"))


def metric_label(metric: str) -> str:
    """The metric in words, or its raw name where it is not one of ours."""
    return MEASURES[metric].label if metric in MEASURES else metric


def unit(metric: str) -> str:
    """The unit that the name's suffix stands for; empty where it carries none."""
    return next((word for suffix, word in _UNITS.items() if metric.endswith(suffix)), "")
