"""Settings of general text beside the documents: its sources, and how much of each is read."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

from afterword.corpus.dialogues import Kind, Responses
from afterword.errors import ConfigError
from afterword.settings.base import Settings, key_values, setting, underscored, validated

_AMOUNTS = ("tokens", "samples", "once")
OWN_SAMPLES = "own_samples"
"""The setting of `afterword adapt` that has the model's own samples replayed, and the name of their source."""
_USUAL_OWN = 128
_ENDLESS_EPOCHS = 1e6


class SourceSettings(Settings):
    """One source of general text in `mixture`."""

    # Their content is compared by hash, so their paths may change.
    files: tuple[str, ...] = setting((), "What", "Files, folders, globs or data-set ids.", weights=False)
    own: int | None = setting(
        None, "What", "Samples that the model writes of itself before training, in place of files.", ge=1
    )
    kind: Kind = setting("documents", "What", "Kind of text: documents, instructions or preferences.")
    text_column: str | None = setting(None, "What", "Column that holds the text of documents (default: detected).")
    title_column: str | None = setting(None, "What", "Column that holds the title.")
    id_column: str | None = setting(None, "What", "Column that holds the id.")
    responses: Responses = setting("chosen", "What", "Of preferences: read the chosen one, or both as two samples.")
    tokens: float | None = setting(None, "How much", "Share of all tokens that are read.", gt=0, lt=1)
    samples: float | None = setting(None, "How much", "Share of all samples that are read.", gt=0, lt=1)
    once: bool = setting(False, "How much", "All of it, once in every pass over the documents.")
    max_epochs: float = setting(4.0, "How much", "Most passes over it in a run.", gt=0)
    format: Literal["plain", "chat"] = setting("plain", "What", "Conversations as plain text, or by the chat template.")
    joiner: str = setting("\n\n", "What", "Text between the turns of a conversation in plain text.")
    max_documents: int | None = setting(None, "What", "Most documents that are read.", ge=1)
    streaming: bool = setting(False, "What", "Read data-set ids as streams, without downloading them first.")
    objective: Literal["prediction", "kl", "reverse_kl", "swap"] | None = setting(
        None, "What", "What to do with it, as `replay` (default: what the method does)."
    )
    weight: float | None = setting(None, "What", "Factor of that objective (default: 1).", gt=0)
    eval_files: tuple[str, ...] = setting((), "What", "More of it, to evaluate on and not to train.", weights=False)

    def relations(self) -> Iterator[str]:
        """Problems between settings that are each fine alone."""
        if not self.files and not self.own:
            yield "files: missing, and there is no default. Give files, folders, globs or data-set ids."
        if self.files and self.own:
            yield f"own: {self.own} samples are written in place of files, and there are files. Give one of them."
        amounts = [name for name in _AMOUNTS if getattr(self, name)]
        if len(amounts) != 1:
            found = " and ".join(amounts) or "neither"
            yield f"tokens: how much of it is said by one of tokens, samples and once, and here by {found}. Give one."
        if self.format == "chat" and self.kind == "documents":
            yield "format: 'chat' needs kind: instructions or preferences, not documents."
        if self.text_column is not None and self.kind != "documents":
            yield f"text_column: {self.kind} have no text column, got {self.text_column!r}. Leave it out."
        if self.responses == "both" and self.kind != "preferences":
            yield f"responses: 'both' is read of preferences, not of {self.kind}. Leave it out."
        if self.weight is not None and self.objective is None:
            yield f"weight: {self.weight:g} is the factor of its own objective, and there is none. Give objective."
        if self.streaming and self.max_documents is None:
            yield "max_documents: missing, and a stream may have no end. Say how many of it are read."


def sources_of(mixture: Mapping[str, Any]) -> dict[str, SourceSettings]:
    """The sources of general text by name. Every problem of all of them is in the one ConfigError."""
    problems: list[str] = []
    sources: dict[str, SourceSettings] = {}
    for name, given in mixture.items():
        try:
            sources[name] = validated(_source_of(given), SourceSettings)
        except (ConfigError, ValueError) as error:
            found = error.problems if isinstance(error, ConfigError) else (f"{error}.",)
            problems += [f"mixture.{name}.{problem}" for problem in found]
    for unit in ("tokens", "samples"):
        whole = sum(getattr(source, unit) or 0.0 for source in sources.values())
        if whole >= 1:
            problems.append(f"mixture: the shares of {unit} sum to {whole:g}, and the documents need some. Lower them.")
    if problems:
        raise ConfigError(problems)
    return sources


def with_own_samples(mixture: Mapping[str, Any], share: float | None) -> dict[str, Any]:
    """The mixture, with the model's own samples as this share of all tokens; None: as it is.

    They are read as often as the share takes: what counts is what the model says on them, and not their words.
    """
    own = {"own": _USUAL_OWN, "tokens": share, "max_epochs": _ENDLESS_EPOCHS}
    return dict(mixture) if share is None else {**mixture, OWN_SAMPLES: own}


def with_amounts(mixture: Mapping[str, Any], share: Callable[[], float | None]) -> dict[str, Any]:
    """The mixture, with equal parts of a share of all tokens for the sources of which nobody says how much is read.

    `share` is asked for where there are any; None: they stay as they are.
    """
    silent = [name for name, given in mixture.items() if _names_no_amount(given)]
    tokens = share() if silent else None
    if tokens is None:
        return dict(mixture)
    parts = {name: {**_source_of(mixture[name]), "tokens": tokens / len(silent)} for name in silent}
    return {**mixture, **parts}


def _names_no_amount(given: Any) -> bool:
    try:
        source = _source_of(given)
    except ValueError:
        return False  # It is told when the source is read.
    return not any(source.get(name) for name in _AMOUNTS)


def _source_of(given: Any) -> dict[str, Any]:
    """A source as a mapping, from one or from `FILE,kind=…,tokens=…`."""
    if isinstance(given, Mapping):
        return underscored(cast("Mapping[Any, Any]", given))
    file, *pairs = str(given).split(",")
    return {"files": (file,), **key_values(pairs)}
