"""Settings of `afterword sequence`: corpora one after another. Every problem is told before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import field_validator

from afterword.errors import nearest
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.base import Settings, key_values, listed, setting, underscored
from afterword.settings.compare import arm_folder, evaluate_problems, problems_of


class CorpusSettings(Settings):
    """A corpus of a sequence. Beside these it takes the settings of a run, for its stage."""

    documents: tuple[str, ...] = setting((), "What", "Files, folders, globs or data-set ids.")
    questions: str | None = setting(None, "What", "JSON-lines file of questions about them.")
    held_out: tuple[str, ...] = setting((), "What", "Documents of the same kind that are not taught.")


class SequenceSettings(Settings):
    """Everything that `afterword sequence` can be told beside `afterword adapt`'s own, which count for every stage."""

    model_name_or_path: str = setting("", "What", "First model: folder, GGUF file, hub id or name.")
    corpora: dict[str, Any] = setting(
        {}, "What", "Corpora in their order. In YAML: NAME: {documents: …, questions: …, held_out: …, SETTING: …}."
    )
    questions: tuple[str, ...] = setting((), "What", "Questions: a JSON-lines file for each corpus, in their order.")
    reference: str | None = setting(
        None, "What", "Frozen model: teacher, and what is lost is measured against it (default: the first model)."
    )
    output_dir: str = setting("", "What", "Folder of the stages, what was measured, and the page.")
    suite: str | None = setting(None, "Retention", "Suite that is answered after every stage.")
    tasks: tuple[str, ...] = setting((), "Retention", "Tasks of lm-evaluation-harness, after every stage.")
    tasks_path: str | None = setting(None, "Retention", "Folder with more tasks.")
    general: tuple[str, ...] = setting((), "Retention", "General text, on which drift is measured after every stage.")
    evaluate: dict[str, Any] = setting({}, "Retention", "A setting of `afterword evaluate`: KEY=VALUE.")
    adapt: dict[str, Any] = setting(
        {}, "Every stage", "A setting of `afterword adapt`: KEY=VALUE. Each has an option and a key of its own, too."
    )

    @field_validator("corpora", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_corpora(cast("Sequence[str]", value)) if isinstance(value, list | tuple) else value

    def relations(self) -> Iterator[str]:
        """Problems between settings, and those of every corpus, with the corpus named."""
        for name in ("model_name_or_path", "corpora", "output_dir"):
            if not getattr(self, name):
                yield f"{name}: missing, and it has no default. Give it in the YAML file or on the command line."
        yield from self._question_problems()
        yield from _decided("", self.adapt)
        yield from dict.fromkeys(self._corpus_problems())
        yield from evaluate_problems(self.evaluate, _OF_EVALUATE)

    def _question_problems(self) -> Iterator[str]:
        if not self.questions:
            return
        if len(self.questions) != len(self.corpora):
            counted = f"{len(self.questions)} files for {len(self.corpora)} corpora"
            rule = "Give one for each, in their order, or name those there are under corpora in a YAML file"
            yield f"questions: {counted}. {rule}."
        if any(isinstance(each, Mapping) and "questions" in each for each in self.corpora.values()):
            yield "questions: are given here and under corpora. Give them in one place."

    def _corpus_problems(self) -> Iterator[str]:
        folders = dict[str, str]()
        for name, given in self.corpora.items():
            place = f"corpora.{name}"
            if (other := folders.setdefault(arm_folder(name), name)) != name:
                yield f"{place}: has the folder name of {other!r}. Give one of them another name."
            if not isinstance(given, Mapping):
                yield f"{place}: must be a mapping with documents, got {given!r}."
                continue
            about, own = split(underscored(cast("Mapping[Any, Any]", given)), CorpusSettings)
            yield from (f"{place}.{problem}" for problem in problems_of(about, CorpusSettings))
            if not about.get("documents"):
                yield f"{place}.documents: missing, and there is no default. Give files, folders or globs."
            yield from _decided(f"{place}.", own)
            for problem in problems_of(self.stage_settings(name, "given", "given"), AdaptSettings):
                shared = problem.split(":")[0].split(".")[0] in set(underscored(self.adapt)) - set(own)
                # What nobody said is wrong of the stages alike.
                yield problem if shared or problem.split(":")[0] not in own else f"{place}.{problem}"

    def corpus(self, name: str) -> CorpusSettings:
        """What is to be read of a corpus."""
        about, _ = split(underscored(self.corpora[name]), CorpusSettings)
        if self.questions:
            about["questions"] = self.questions[list(self.corpora).index(name)]
        return read_settings(about, CorpusSettings)

    def stage_settings(self, name: str, model: str, output_dir: str, *, held_to: str | None = None) -> dict[str, Any]:
        """What `afterword adapt` is told for the stage of a corpus. What the corpus says wins over what counts for all.

        Where a budget is in points, they are of the suite and tasks of the sequence. An adapter is also merged: the
        next stage begins with the model that it makes.
        """
        about, own = split(underscored(self.corpora[name]), CorpusSettings)
        told = {**underscored(self.adapt), **own}
        measured = {"suite": self.suite, "tasks": list(self.tasks), "tasks_path": self.tasks_path}
        points = {n: v for n, v in measured.items() if v} if "point" in str(told.get("forgetting_budget")) else {}
        merge = {"merge_adapter": True} if str(told.get("use_peft", False)).lower() in ("true", "1", "yes") else {}
        ours = {"model_name_or_path": model, "output_dir": output_dir, "reference": held_to}
        return {**points, **told, **merge, **ours, "documents": listed(about.get("documents", ()))}


_DECIDED = {
    **{name: name for name in ("model_name_or_path", "output_dir", "reference")},
    **{name: f"{name} of the sequence" for name in ("suite", "tasks", "tasks_path")},
    "documents": "corpora",
    "merge_adapter": "use_peft, which merges after every stage",
}
"""Settings of adapt that a stage gets from the sequence, and from which of its own."""
_ELSEWHERE = {
    "then": "a sequence aligns nothing. Run `afterword align` on a stage's folder",
    "align": "a sequence aligns nothing. Run `afterword align` on a stage's folder",
    "push_to_hub": "a sequence pushes nothing. Push the folder of the stage that you want",
}
_OF_EVALUATE = {
    **{name: name for name in ("suite", "tasks", "tasks_path", "general", "reference")},
    **dict.fromkeys(("documents", "held_out", "questions"), "corpora"),
    "suite_cache": "output_dir",
}


def read_sequence(raw: Mapping[str, Any]) -> SequenceSettings:
    """Settings from a raw tree, in which those of `afterword adapt` may stand beside the sequence's own.

    Every problem is in the one ConfigError.
    """
    own, others = split(raw, SequenceSettings)
    unknown = {name for name in others if name not in AdaptSettings.model_fields and _is_near(name)}
    every = {name: value for name, value in others.items() if name not in unknown}
    own |= {name: others[name] for name in unknown}
    if every:
        # A value that is no settings stays as it is, to be told.
        own["adapt"] = _both(own.get("adapt", {}), every)
    return read_settings(own, SequenceSettings)


def _both(adapt: Any, every: Mapping[str, Any]) -> Any:
    """What was said of every stage as KEY=VALUE or as a mapping, with what was said by keys of its own over it."""
    if isinstance(adapt, list | tuple):
        texts = cast("Sequence[str]", adapt)
        return {**key_values(texts), **every} if all("=" in str(text) for text in texts) else texts
    return {**underscored(cast("Mapping[Any, Any]", adapt)), **every} if isinstance(adapt, Mapping) else adapt


def split(raw: Mapping[str, Any], kind: type[Settings]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a raw tree that are of a kind, and the others."""
    own = {name: value for name, value in raw.items() if name in kind.model_fields}
    return own, {name: value for name, value in raw.items() if name not in own}


def named_corpora(given: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Corpora that were given as files or folders alone, by the names of those; a name that is there gets a number.

    >>> named_corpora(["news/spring.jsonl", "news/summer/", "old/spring.jsonl"])
    {'spring': {'documents': ['news/spring.jsonl']}, 'summer': {'documents': ['news/summer/']}, \
'spring-2': {'documents': ['old/spring.jsonl']}}
    """
    found = dict[str, dict[str, list[str]]]()
    for text in map(str, given):
        stem = Path(text).stem or text
        names = (stem, *(f"{stem}-{number}" for number in range(2, len(given) + 1)))
        found[next(name for name in names if name not in found)] = {"documents": [text]}
    return found


def _is_near(name: str) -> bool:
    """Whether an unknown name is nearer to one of the sequence's than to any of a run's."""
    return bool(nearest(name, SequenceSettings.model_fields)) and not nearest(name, AdaptSettings.model_fields)


DECIDED = frozenset({*_DECIDED, *_ELSEWHERE, *CorpusSettings.model_fields})
"""Settings of adapt that a sequence is not told on the command line."""


def _decided(place: str, given: Mapping[str, Any]) -> Iterator[str]:
    for name in underscored(given):
        if name in _DECIDED:
            yield f"{place}{name}: decided by {_DECIDED[name]}. Leave it out here."
        if name in _ELSEWHERE:
            yield f"{place}{name}: {_ELSEWHERE[name]}."
