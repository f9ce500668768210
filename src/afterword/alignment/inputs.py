"""What an alignment is made of besides weights: the tokenizer with its template, samples as tokens, quotas.

The one rule: what can be found wrong without the model's weights is found here, before anything is loaded or trained.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afterword import models
from afterword.alignment import selection as selecting
from afterword.alignment import stages, templates
from afterword.alignment.samples import Sample, usable_samples
from afterword.corpus import Corpus, CorpusOptions, Kind, read_corpus
from afterword.errors import AfterwordError, CheckpointError, ConfigError, DataError
from afterword.settings.adapt import AdaptSettings
from afterword.settings.align import AlignSettings, joiner_of
from afterword.storage.hashes import text_sha256
from afterword.types import Skipped


@dataclass(frozen=True)
class Given:
    """The tokenizer with its template, and the samples as they were read."""

    tokenizer: Any
    template: str
    joiner: str
    """Stands between the turns of a dialogue without the template."""
    corpora: Mapping[Kind, Corpus]

    def content(self, model: Any) -> dict[str, str]:
        """By hash, by the settings that they belong to: paths may move, this may not change."""
        template = text_sha256(str(self.tokenizer.chat_template))[:16]
        samples = {str(kind): corpus.content_sha256 for kind, corpus in self.corpora.items()}
        return {"model_name_or_path": models.weights_fingerprint(model), "chat_template": template, **samples}


@dataclass(frozen=True)
class Usable:
    """The samples of one kind that can be trained on, and what leads from them to a selection."""

    samples: list[Sample]
    left_out: list[Skipped]
    reasons: Counter[str]
    """How many rows were left out, by reason; those included that were no dialogue."""
    quotas: Mapping[str, float]
    """Of the sources of this kind."""


def check(settings: AlignSettings, run: AdaptSettings) -> None:
    """ConfigError, with the run's names, where the alignment that is to follow a run could not begin.

    Everything that it needs but the run's weights is looked at, on the model that the run begins with: the machine,
    the tokenizer and its template, every sample, the quotas. CheckpointError where the model has no such tokenizer.
    """
    errors, own = list[AfterwordError](), list[AfterwordError]()
    with _noted(errors):
        stages.refuse_machine()
    with _noted(own):
        refuse_save_precision(settings, adapter=settings.use_peft or run.use_peft)
    with tempfile.TemporaryDirectory(prefix="afterword-align-") as scratch, _noted(own):
        given = read_given(settings, Path(scratch), run.model_name_or_path, run.mixture)
        length = models.context_length(models.load_config(run.model_name_or_path), settings.max_length)
        usable_of(given, settings, length)
    problems = [*_problems(errors), *(f"align.{problem}" for problem in _problems(own))]
    if problems:
        raise ConfigError(problems)


def refuse_save_precision(settings: AlignSettings, *, adapter: bool) -> None:
    """ConfigError where a precision is asked for of an adapter, which has its own."""
    if settings.save_precision != "auto" and adapter:
        problem = f"save_precision: {settings.save_precision} is for whole models, and the result is an adapter"
        raise ConfigError(f"{problem}, which is saved in float32. Leave it out.")


def read_given(settings: AlignSettings, scratch: Path, name: str, mixture: Mapping[str, Any] | None) -> Given:
    """The tokenizer of the model `name` with the template, and all samples, read to `scratch`.

    `mixture` is the general text of the run before. CheckpointError for the tokenizer; of everything else every
    problem at once, in the error of its kind where there is one alone.
    """
    tokenizer = models.load_tokenizer(name)
    if tokenizer.eos_token is None:
        problem = f"the tokenizer of {name!r} has no EOS token, so no response would end"
        raise CheckpointError(f"model_name_or_path: {problem}. Set eos_token in its tokenizer_config.json.")
    errors, template, joiner, corpora = list[AfterwordError](), "", "", dict[Kind, Corpus]()
    with _noted(errors):
        template = templates.use_template(tokenizer, settings.chat_template)
    with _noted(errors):
        joiner = joiner_of(settings, mixture)
    for kind, files in settings.samples().items():
        with _noted(errors):
            corpora[kind] = _read(kind, files, scratch / kind, settings)
    _raise(errors)
    return Given(tokenizer, template, joiner, corpora)


def usable_of(given: Given, settings: AlignSettings, max_length: int) -> dict[Kind, Usable]:
    """The samples by kind. DataError where none of a kind can be used, ConfigError for a template or a quota."""
    errors, found = list[AfterwordError](), dict[Kind, tuple[list[Sample], list[Skipped]]]()
    for kind, corpus in given.corpora.items():
        with _noted(errors):
            found[kind] = usable_samples(
                corpus,
                kind,
                given.tokenizer,
                given.template,
                max_length=max_length,
                joiner=given.joiner,
                lenient=settings.skip_bad_rows,
            )
    _raise(errors)
    sources = [each.source for parts in found.values() for part in parts for each in part]
    with _noted(errors):
        quotas = selecting.quotas_of(settings.quotas, sources)
    usable = dict[Kind, Usable]()
    for kind, parts in found.items():
        with _noted(errors):
            usable[kind] = _usable(kind, parts, quotas if not errors else {}, given, settings, max_length)
    _raise(errors)
    return usable


def _usable(
    kind: Kind,
    parts: tuple[list[Sample], list[Skipped]],
    quotas: Mapping[str, float],
    given: Given,
    settings: AlignSettings,
    max_length: int,
) -> Usable:
    samples, left_out = parts
    reasons = Counter(skipped.reason for skipped in left_out)
    for source in given.corpora[kind].sources:
        reasons.update(source.skipped)
    if not samples:
        problem = f"none of {reasons.total()} can be used ({dict(reasons)}) with max_length: {max_length}"
        raise DataError(f"{kind}: {problem} and chat_template: {given.template!r}. Give others, or raise max_length.")
    there = {sample.source for sample in samples}
    own = {source: quota for source, quota in quotas.items() if source in there}
    # Which samples are drawn follows from scores; whether the quotas can be kept does not.
    drawn = selecting.drawn(samples, settings.count_of(kind), own)
    stages.refuse_uneven(settings, "sft" if kind == "instructions" else "dpo", len(drawn))
    return Usable(samples, left_out, reasons, own)


def _read(kind: Kind, files: tuple[str, ...], scratch: Path, settings: AlignSettings) -> Corpus:
    options = CorpusOptions(kind=kind, skip_bad_rows=settings.skip_bad_rows)
    try:
        return read_corpus(list(files), cache_dir=scratch, options=options)
    except DataError as error:
        raise DataError(f"{kind}: {error}") from error


@contextlib.contextmanager
def _noted(errors: list[AfterwordError]) -> Iterator[None]:
    """What is wrong with settings or samples is kept for later, so that a person mends everything at once."""
    try:
        yield
    except (ConfigError, DataError) as error:
        errors.append(error)


def _problems(errors: list[AfterwordError]) -> list[str]:
    return [p for error in errors for p in (error.problems if isinstance(error, ConfigError) else (str(error),))]


def _raise(errors: list[AfterwordError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigError(_problems(errors))
