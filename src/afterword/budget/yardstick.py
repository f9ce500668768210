"""What was learned and what was lost, measured again and again while a run goes on.

Everything of the model as it was given is measured once and kept: of another state of the weights only its own
forward passes are left to do. The one rule: the same texts, in the same batches, for every state of one run.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afterword import models
from afterword.data import WindowSettings, read_document, special_tokens
from afterword.data.batching import Packing, micro_batches, to_device
from afterword.data.views import scored_text
from afterword.distributed import device_type
from afterword.errors import ConfigError, DataError
from afterword.evaluation.everyday_suite import everyday_prompts
from afterword.evaluation.losses import VIEW
from afterword.evaluation.question_file import load_questions, of_split
from afterword.evaluation.questions import answer_lead, build_prompt
from afterword.evaluation.suite_answers import as_asked, chosen_right, is_correct, written
from afterword.evaluation.suites import Item, drawn_suite, find_suite
from afterword.evaluation.task_answers import answer_tasks, tasks_to_keep
from afterword.evaluation.task_loading import LoadedTasks
from afterword.models.generation import Sample, prompt_ids, token_ids, user_turn
from afterword.models.kept_samples import kept_own_samples, kept_replies
from afterword.objectives import Distillation, Head, Prediction, forward_kl, hidden_losses
from afterword.settings.adapt import AdaptSettings
from afterword.settings.evaluate import EvaluateSettings
from afterword.training.student import as_begun
from afterword.types import Batch, Document, Example, Segment

MOST_WINDOWS = 64
"""Of the documents, that learning is measured on."""
SAMPLES, SAMPLE_TOKENS = 32, 64
"""Text of the model's own that drift is measured on: half of what `afterword evaluate` takes."""
REPLIES, REPLY_TOKENS = 64, 40
"""Everyday questions that a chat model's drift is measured on, too, and how much of a reply is."""
MOST_ITEMS = 200
"""Of each part of a suite, and of the questions."""
_ANSWER_TOKENS = 32
_CPU = torch.device("cpu")
_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Standing:
    """Where one state of the weights stands against the model as it was given."""

    learned_nats: float
    """How much likelier what is to be learned has become, per token: sentences of the documents read alone, or the
    right answers to questions about them."""
    lost: float
    """In the unit of the budget; in nats the larger of both drifts."""
    drift_nats: float
    """On text that the model wrote of itself."""
    replies_drift_nats: float | None = None
    """On what it replied to everyday questions; None for a model without a chat template."""


@dataclass(frozen=True)
class _Texts:
    """Batches that are read, and what the model as it was given makes of them."""

    batches: tuple[Batch, ...]
    nll_nats: float
    """Its mean loss."""
    states: tuple[Tensor, ...]
    """Its hidden states [N, H] at the scored positions of every batch, on the CPU; empty where only losses are read."""


@dataclass(frozen=True)
class Kept:
    """Questions and tasks that must go on being answered."""

    items: tuple[Item, ...] = ()
    tasks: LoadedTasks | None = None

    def answered(self, model: Any, tokenizer: Any) -> dict[str, list[float]]:
        """By skill and task, how far a model has each right, from 0 to 1."""
        by_skill: dict[str, list[float]] = {}
        for item, right in zip(self.items, answered_right(model, tokenizer, self.items), strict=True):
            by_skill.setdefault(item.skill, []).append(float(right))
        if self.tasks:
            found = answer_tasks(model, tokenizer, self.tasks)
            by_skill |= {f"tasks/{name}": values for name, values in found.items()}
        return by_skill


@dataclass(frozen=True)
class Yardstick:
    """Texts and questions, with what the model as it was given makes of them."""

    tokenizer: Any
    sentences: _Texts
    """Sentences of the documents, alone."""
    with_document_nats: float
    """The loss of these sentences under the model as it was given, each with its document before it."""
    samples: _Texts
    """Text that the model itself wrote."""
    replies: _Texts | None
    """What it replies to everyday questions, which no run trains on: replay of a model's own text takes drift on such
    text down, and not what is lost. None for a model without a chat template."""
    head: Head
    """The head of the model as it was given, on the CPU."""
    answers: _Texts | None
    """Right answers to questions about the documents, where there are any."""
    kept: Kept | None
    """What must go on being answered; None where the budget is in nats."""
    right: Mapping[str, Sequence[float]]
    """By skill or task, how far it answers each question right."""

    def standing(self, model: Any, autocast: Callable[[], AbstractContextManager[Any]]) -> Standing:
        """Where a model stands, computed under `autocast`, in the mode and precision that it is in."""
        with models.only_reading(model), autocast():
            learned = self.answers or self.sentences
            nll, _ = _losses(model, learned)
            _, drift = _losses(model, self.samples, self.head)
            _, of_replies = _losses(model, self.replies, self.head) if self.replies else (0.0, None)
            lost = max(drift, of_replies or 0.0) if not self.kept else self._points_lost(model)
        return Standing(learned.nll_nats - nll, lost, drift, of_replies)

    def _points_lost(self, model: Any) -> float:
        """Per cent of the questions that are no longer answered right, the mean over skills and tasks."""
        assert self.kept, "asked for"
        now = self.kept.answered(model, self.tokenizer)
        return 100 * float(np.mean([np.mean(self.right[skill]) - np.mean(now[skill]) for skill in now]))


def build_yardsticks(
    settings: AdaptSettings,
    documents: Sequence[Sequence[Document]],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> list[Yardstick]:
    """Measure the model as it was given, or the reference, once for every list of documents to be learned of.

    The model is loaded for that, and gone afterwards but for its head.
    """
    name, device = settings.held_to, torch.device(device_type())
    kept = kept_by(settings)
    tokenizer, dtype = models.load_tokenizer(name), models.saved_dtype(models.load_config(name))
    # What it writes is only text to measure on, so the precision that it came in is good enough, and faster. In 4 bits
    # it is what the run begins with, which cannot be made wider afterwards; merged, an adapter would be rounded.
    exact = settings.load_in_4bit or models.is_adapter(models.model_folder(name))
    dtype = torch.float32 if exact and device.type == "cpu" else dtype
    reference = as_begun(settings, dtype).eval().to(device)
    models.refuse_foreign_tokenizer(tokenizer, reference, name)
    # As many as an evaluation takes, which then finds them.
    count = int(EvaluateSettings.model_fields["samples"].default)
    written = kept_own_samples(reference, tokenizer, count=count, new_tokens=SAMPLE_TOKENS, seed=settings.seed)
    length = models.context_length(models.causal_lm(reference).config, settings.max_length)
    replied = _replied(reference, tokenizer, length) if tokenizer.chat_template else []
    reference = reference.float() if device.type == "cpu" and dtype != torch.float32 else reference
    window_settings = WindowSettings(max_length=length, language=settings.language)
    with models.only_reading(reference), autocast():
        own = [scored_text(i, np.array(it.token_ids, np.int64), 1) for i, it in enumerate(written[:SAMPLES])]
        samples = _texts(reference, own, states=True)
        spoken = [scored_text(i, np.array(it.token_ids, np.int64), len(it.prompt_ids)) for i, it in enumerate(replied)]
        replies = _texts(reference, spoken, states=True) if spoken else None
        right = kept.answered(reference, tokenizer) if kept else {}
        head = _on(models.head_of(reference), _CPU)
        sticks = list[Yardstick]()
        for some in documents:
            alone, in_document = _sentences(some, tokenizer, window_settings, settings.seed)
            asked = _asked(settings, tokenizer, some)
            sticks.append(
                Yardstick(
                    tokenizer=tokenizer,
                    sentences=_texts(reference, alone),
                    with_document_nats=_texts(reference, in_document).nll_nats,
                    samples=samples,
                    replies=replies,
                    head=head,
                    answers=_texts(reference, asked) if asked else None,
                    kept=kept,
                    right=right,
                )
            )
    return sticks


def _replied(reference: Any, tokenizer: Any, length: int) -> list[Sample]:
    """What a model replies to everyday questions that fit into `length`; without those where it says nothing."""
    prompts = everyday_prompts(REPLIES)
    sizes = [len(prompt_ids(tokenizer, user_turn(tokenizer, prompt))) for prompt in prompts]
    fitting = [prompt for prompt, size in zip(prompts, sizes, strict=True) if size + REPLY_TOKENS <= length]
    replies = kept_replies(reference, tokenizer, fitting, new_tokens=REPLY_TOKENS)
    return [reply for reply in replies if len(reply.token_ids) > len(reply.prompt_ids)]


def answered_right(model: Any, tokenizer: Any, items: Sequence[Item]) -> list[bool]:
    """Which questions a model answers right: by choice among four where there are choices, else by what it says."""
    asked = [as_asked(tokenizer, item) for item in items]
    chosen = chosen_right(model, asked, _BATCH_TOKENS)
    said = [each for each, right in zip(asked, chosen, strict=True) if right is None]
    texts = iter(written(tokenizer, model, said, _ANSWER_TOKENS))
    return [
        is_correct(each.item, next(texts)) if right is None else right
        for each, right in zip(asked, chosen, strict=True)
    ]


def _asked(settings: AdaptSettings, tokenizer: Any, documents: Sequence[Document]) -> list[Example]:
    """Right answers behind their questions: none of the test split, nor of a document that is not among these."""
    named, pairs = {document.id for document in documents}, list[tuple[str, str]]()
    if settings.questions:
        questions = of_split(load_questions(settings.questions), "dev")
        pairs += [(q.question, q.expected[0]) for q in questions if q.document is None or q.document in named]
    if settings.suite:
        pairs += [(item.prompt, item.answer) for item in _items(settings, "learning")]
    chosen = sorted(np.random.default_rng(settings.seed).permutation(len(pairs))[:MOST_ITEMS])
    lead, examples = answer_lead(tokenizer), list[Example]()
    for number, (question, answer) in enumerate(pairs[i] for i in chosen):
        prompt = prompt_ids(tokenizer, build_prompt(tokenizer, question))
        ids = np.array([*prompt, *token_ids(tokenizer, lead + answer)], np.int64)
        examples.append(scored_text(number, ids, len(prompt)))
    return examples


def kept_by(settings: AdaptSettings) -> Kept | None:
    """What a run is held to. ConfigError for tasks that cannot be asked, and for points of nothing."""
    if settings.budget().unit != "points":
        return None
    items = tuple(_items(settings, "retention"))
    if not items and not settings.tasks:
        problem = f"suite: {settings.suite!r} has no dev items of retention, and the budget is in points of them"
        raise ConfigError(f"{problem}. Give a suite with some, tasks, or a budget in nats: 0.1nats.")
    return Kept(items, tasks_to_keep(settings.tasks, tasks_path=settings.tasks_path) if settings.tasks else None)


def _items(settings: AdaptSettings, part: str) -> list[Item]:
    """Items of the suite to choose by: those of dev, at most MOST_ITEMS, every skill by its share."""
    if not settings.suite:
        return []
    suite = find_suite(settings.suite)
    own = [item for item in suite.items if item.part == part and item.split == "dev"]
    if not own:
        return []
    return list(drawn_suite(replace(suite, items=tuple(own)), max_items=MOST_ITEMS, seed=settings.seed).items)


def _sentences(
    documents: Sequence[Document], tokenizer: Any, window_settings: WindowSettings, seed: int
) -> tuple[list[Example], list[Example]]:
    """Five sentences of each of some documents, alone; and the same, each with its document before it.

    A document of one sentence stands for itself on both sides. DataError where no document has a second token.
    """
    special = special_tokens(tokenizer, "auto", "document")
    windows = [
        w for document in documents for w in read_document(document, 0, tokenizer, special, window_settings).windows
    ]
    fitting = [window for window in windows if len(window.token_ids) > 1][:MOST_WINDOWS]
    if not fitting:
        problem = "documents: none has a second token, so what is learned of them cannot be measured"
        raise DataError(f"{problem}. Give longer documents.")
    alone, in_document = list[Example](), list[Example]()
    for number, window in enumerate(fitting):
        if VIEW.skip_reason(window) is not None:
            whole = scored_text(number, window.token_ids, 1)
            alone.append(whole)
            in_document.append(whole)
            continue
        example = VIEW.build(window, special, np.random.default_rng((seed, number)))
        alone.append(Example(example.document, number, None, example.segments))
        assert example.teacher_ids is not None, "a split context has a document"
        places = np.concatenate([segment.teacher_positions for segment in example.segments])
        targets = np.concatenate([segment.target_ids for segment in example.segments])
        read = Segment(example.teacher_ids, places, places, targets, np.ones(len(places), np.float32))
        in_document.append(Example(example.document, number, None, (read,)))
    return alone, in_document


def _texts(model: Any, examples: Sequence[Example], *, states: bool = False) -> _Texts:
    longest = max((len(segment.student_ids) for each in examples for segment in each.segments), default=1)
    packing = Packing(max(_BATCH_TOKENS, longest), "padded", real_share=0.9)
    packing = replace(packing, alone_beyond=models.alone_beyond(models.causal_lm(model).config))
    ordered = sorted(examples, key=lambda each: len(each.segments[0].student_ids))
    found = _Texts(tuple(micro_batches(ordered, packing)), 0.0, ())
    nll, _ = _losses(model, found)
    kept = tuple(_states(model, batch).cpu() for batch in found.batches) if states else ()
    return _Texts(found.batches, nll, kept)


def _losses(model: Any, texts: _Texts, head: Head | None = None) -> tuple[float, float]:
    """The mean loss of a token; and the mean KL from what `head` makes of the states that were kept, 0 without."""
    nll = kl = count = 0.0
    own, device = models.head_of(model), models.causal_lm(model).device
    given = head and _on(head, device)
    for number, cpu_batch in enumerate(texts.batches):
        batch = to_device(cpu_batch, device)
        here = (_states(model, batch), own)
        if given is None:
            nll += float(hidden_losses(Prediction(), here, None, batch.target_ids).double().sum())
        else:
            before = (texts.states[number].to(device), given)
            kl += float(hidden_losses(Distillation(forward_kl), here, before, batch.target_ids).double().sum())
        count += len(batch.target_ids)
    return nll / count, kl / count


def _on(head: Head, device: torch.device) -> Head:
    """A head on a device."""
    weight = head.weight.detach().to(device)
    return Head(weight, None if head.bias is None else head.bias.detach().to(device), head.scale, head.softcap)


def _states(model: Any, batch: Batch) -> Tensor:
    return models.trained_states(model, to_device(batch, models.causal_lm(model).device).student)
