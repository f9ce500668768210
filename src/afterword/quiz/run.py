"""A quiz from beginning to end: answers, questions, what the model says to them, and the files.

The one rule: nothing falls in silence. Every wording that was drafted is kept, or counted at the first filter that it
does not pass; every text is in the writer's store, so that the same command goes on where it was stopped.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from afterword.corpus import CorpusOptions, read_corpus
from afterword.data.views import Writer
from afterword.errors import ConfigError, DataError, number_of
from afterword.models import load_tokenizer
from afterword.quiz import drafts, files
from afterword.quiz.choices import pool_of, with_choices
from afterword.quiz.facts import Fact, Wording, candidates_of, paragraph_of
from afterword.quiz.reading import Put, Rule, others_in, passing
from afterword.quiz.rules import RULES, Rarity, ruled
from afterword.settings.quiz import QuizSettings
from afterword.settings.workers import workers_of
from afterword.storage.atomic import replace_file
from afterword.storage.paths import unwritable
from afterword.types import Document, Sampling
from afterword.writing import GeneratorChoice, Spread, open_writer, prompt
from afterword.writing.opening import VLLM, load_to_write

FILTERS = {
    **RULES,
    "not_read": "The model that reads the paragraph does not agree with itself on the answer.",
    "known": "The model answers it without the text.",
    "one_wording": "Its answer has no second wording that passed.",
    "enough": "Its answer has enough wordings, or its document enough answers.",
}
"""Why a wording is left out, in the order of the filters, and what that means."""
_REPLY_TOKENS = 16
_SAYS = "Answer briefly."
"""Behind a question to a chat model."""


@dataclass(frozen=True, slots=True)
class QuizResult:
    """What was made."""

    path: Path
    """The suite."""
    facts: int
    questions: int
    """Of all facts."""
    documents: int
    """That were read."""
    dev: int
    test: int
    """Facts on each side."""
    left_out: dict[str, int]
    """Wordings by the filter at which they fell."""

    @property
    def questions_path(self) -> Path:
        """The same questions with the ids of their documents."""
        return files.beside(self.path, "questions.jsonl")


def make_quiz(settings: QuizSettings, *, command: str = "", console: Console | None = None) -> QuizResult:
    """Write the suite, the questions and the record. What is wrong with a setting is said before a model is loaded."""
    console = console or Console(stderr=True)
    path = _checked(settings)
    name, choice = settings.model_name_or_path, _choice(settings)
    tokenizer, documents = load_tokenizer(name), _documents(settings)
    console.print(cost_of(settings, documents), highlight=False, markup=False, soft_wrap=True)
    spread = Spread(workers_of(settings), name)
    with open_writer(partial(load_to_write, name), tokenizer, choice, spread=spread) as writer:
        facts, fell = checked_facts(writer, documents, settings)
        instruction = _SAYS if writer.tokenizer.chat_template else ""
    if not facts:
        raise DataError(_nothing_left(len(documents), fell))
    splits = files.split_of(facts, settings.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = Counter(splits)
    result = QuizResult(
        path, len(facts), sum(len(f.wordings) for f in facts), len(documents), sides["dev"], sides["test"], dict(fell)
    )
    # The record first: by it the files of a quiz are known again that was stopped between them.
    record = _record(settings, result, facts, splits, command)
    replace_file(files.beside(path, "json"), json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    header = {"suite": {"name": path.name.removesuffix(".jsonl"), "version": 1}}
    files.write_rows(path, [header, *files.items_of(facts, splits, instruction)])
    files.write_rows(result.questions_path, files.questions_of(facts, splits))
    return result


def _nothing_left(documents: int, fell: Counter[str]) -> str:
    """Why there is no quiz."""
    if not fell.total():
        problem = f"documents: in {documents:,} of them, no name, number or date was found that could be asked for"
        return f"{problem}. Give others, or let the model choose: own_questions."
    counts = ", ".join(f"{count:,} {name}" for name, count in fell.items() if count)
    problem = f"documents: not one question of {number_of(documents, 'document')} passed every filter ({counts})"
    return f"{problem}. Give more documents, raise tries, lower agree, or let a larger model write."


def _documents(settings: QuizSettings) -> list[Document]:
    options = CorpusOptions(max_documents=settings.max_documents)
    with tempfile.TemporaryDirectory(prefix="afterword-quiz-") as folder:
        return list(read_corpus(list(settings.documents), cache_dir=Path(folder), options=options))


def _checked(settings: QuizSettings) -> Path:
    """Where the suite goes. ConfigError where nothing can be written there."""
    path = Path(settings.output)
    if path.is_dir() or (parent := unwritable(path.parent)):
        reason = "is a folder" if path.is_dir() else f"cannot be written ({parent} is not writable)"
        raise ConfigError(f"output: {settings.output!r} {reason}. Give the name of a file, as quiz.jsonl.")
    if taken := files.not_of_a_quiz(path):
        raise ConfigError(f"output: {str(taken)!r} is there, and no quiz wrote it. Give another name, or move it.")
    return path


def _choice(settings: QuizSettings) -> GeneratorChoice:
    """What writes: vLLM runs the model that is asked, unless another is named."""
    default = settings.model_name_or_path if settings.generator == VLLM else None
    return GeneratorChoice(
        generator=settings.generator,
        generator_model=settings.generator_model or default,
        generator_requests=settings.generator_requests,
        written_folder=settings.written_folder,
    )


def cost_of(settings: QuizSettings, documents: Sequence[Document]) -> str:
    """What a quiz will ask of the model, at most."""
    words = sum(len(document.text.split()) for document in documents)
    answers = settings.tries * len(documents)
    wordings = 2 * settings.drafts * answers
    replies = 2 * settings.samples * (wordings + answers)
    told = f"{number_of(len(documents), 'document')}, {words:,} words: at most {answers:,} answers tried"
    return f"{told}, {wordings:,} questions written, {replies:,} replies to them."


def checked_facts(
    writer: Writer, documents: Sequence[Document], settings: QuizSettings
) -> tuple[list[Fact], Counter[str]]:
    """The facts that passed every filter, with their wordings and choices, and how many wordings fell at which."""
    language, words, fell = settings.language, settings.excerpt_words, Counter(dict.fromkeys(FILTERS, 0))
    rarity = Rarity.of(document.text for document in documents)
    by_form = candidates_of(documents, tries=settings.tries, words=words, seed=settings.seed, language=language)
    facts = drafts.asked_for(writer, by_form, drafts=settings.drafts)
    if settings.own_questions:
        own = drafts.own_facts(writer, documents, count=settings.own_questions, words=words, language=language)
        facts = _joined([*facts, *own])
    judge = _Judge(writer, settings, rarity, set[str](), fell)
    facts = judge.passed(facts)
    if settings.gaps:
        # A sentence with a gap is never a fact's only question: asked is what a reader would ask.
        lacking = [fact for fact in facts if 0 < len(fact.wordings) < settings.wordings]
        bare = judge.passed([drafts.with_gap(replace(fact, wordings=())) for fact in lacking])
        more = {fact.id: fact.wordings for fact in bare}
        facts = [replace(fact, wordings=(*fact.wordings, *more.get(fact.id, ()))) for fact in facts]
    facts = _enough(facts, settings, fell)
    return with_choices(facts, pool_of(documents, by_form, language), settings.seed), fell


def _joined(facts: Sequence[Fact]) -> list[Fact]:
    """Facts with the same answer of the same document as one, with the wordings of all."""
    found: dict[str, Fact] = {}
    for fact in facts:
        key = fact.id.casefold()
        first = found.setdefault(key, replace(fact, wordings=()))
        found[key] = replace(first, wordings=(*first.wordings, *fact.wordings))
    return list(found.values())


@dataclass(frozen=True)
class _Judge:
    """Every filter that looks at one wording, the cheapest first."""

    writer: Writer
    settings: QuizSettings
    rarity: Rarity
    seen: set[str]
    fell: Counter[str]

    def passed(self, facts: Sequence[Fact]) -> list[Fact]:
        """The facts with the wordings that pass; the others are counted."""
        facts, by_rule = ruled(facts, self.rarity, self.seen)
        self.fell.update(by_rule)
        s = self.settings
        sampling = Sampling(max_new_tokens=_REPLY_TOKENS, temperature=s.temperature)
        closed = Rule(samples=s.samples, needed=s.may_know + 1, sampling=sampling)
        open_ = Rule(samples=s.samples, needed=s.agree, sampling=sampling)
        facts = self._kept(facts, "not_read", open_, "reading the text", right=True)
        return self._kept(facts, "known", closed, "without the text", right=False)

    def _kept(self, facts: Sequence[Fact], name: str, rule: Rule, what: str, *, right: bool) -> list[Fact]:
        pairs = [(number, wording) for number, fact in enumerate(facts) for wording in fact.wordings]
        put = [self._put(facts[number], wording, with_text=right) for number, wording in pairs]
        fine: list[list[Wording]] = [[] for _ in facts]
        for (number, wording), passes in zip(pairs, passing(self.writer, put, rule, what), strict=True):
            if passes == right:
                fine[number].append(wording)
            else:
                self.fell[name] += 1
        return [replace(fact, wordings=tuple(own)) for fact, own in zip(facts, fine, strict=True)]

    def _put(self, fact: Fact, wording: Wording, *, with_text: bool) -> Put:
        answer = fact.span.answer
        if not with_text:
            return Put(wording.question, answer)
        read = paragraph_of(fact)
        return Put(wording.question, answer, read, others_in(read, answer, fact.span.kind))


def _enough(facts: Sequence[Fact], settings: QuizSettings, fell: Counter[str]) -> list[Fact]:
    """The facts that have all their wordings, at most so many of a document, and of each at most so many wordings."""
    kept, of_document = list[Fact](), Counter[str]()
    for fact in facts:
        if len(fact.wordings) < settings.wordings:
            fell["one_wording"] += len(fact.wordings)
        elif of_document[fact.document] >= settings.per_document:
            fell["enough"] += len(fact.wordings)
        else:
            fell["enough"] += len(fact.wordings) - settings.wordings
            of_document[fact.document] += 1
            kept.append(replace(fact, wordings=_different(fact.wordings, settings.wordings)))
    return kept


def _different(wordings: Sequence[Wording], count: int) -> tuple[Wording, ...]:
    """So many of the wordings, of which each begins in its own way as far as there are such."""
    first = {wording.question.split()[0]: wording for wording in reversed(wordings)}
    order = sorted(wordings, key=lambda wording: first[wording.question.split()[0]] is not wording)
    return tuple(order[:count])


def _record(
    settings: QuizSettings, result: QuizResult, facts: Sequence[Fact], splits: Sequence[str], command: str
) -> dict[str, Any]:
    """What the page is made of."""
    return {
        "command": command,
        "settings": settings.model_dump(mode="json"),
        "facts": result.facts,
        "documents": result.documents,
        "dev": result.dev,
        "test": result.test,
        "filters": [
            {"name": name, "meaning": meaning, "left_out": result.left_out[name]} for name, meaning in FILTERS.items()
        ],
        "kinds": dict(Counter(fact.span.kind for fact in facts)),
        "written_as": dict(Counter(wording.how for fact in facts for wording in fact.wordings)),
        "prompts": [
            {"name": name, "version": asked.version, "turns": [list(turn) for turn in asked.turns]}
            for name in drafts.PROMPTS
            for asked in [prompt(name)]
        ],
        "questions": [
            {
                "document": fact.document,
                "split": split,
                "kind": fact.span.kind,
                "answer": fact.span.answer,
                "choices": list(fact.choices),
                "wordings": [[wording.question, wording.how] for wording in fact.wordings],
                "sentence": fact.span.sentence,
            }
            for fact, split in zip(facts, splits, strict=True)
        ],
    }
