"""How hard a response is for a model with and without the chat template.

Both are the mean negative log-likelihood of the response given the prompt, in nats per token (Mix-CPT,
arXiv:2407.10804, and METHODS §2):

    templated    the dialogue as SFT trains it, the end of the turn included
    plain        the same texts joined without a template, as stage 1 reads them

The one rule: losses come from hidden states through `hidden_losses`, as in training, and are summed in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from afterword.alignment.samples import Sample
from afterword.data.batching import micro_batches, to_device
from afterword.data.views import scored_text
from afterword.distributed import own_share, put_together
from afterword.models import check_head, head_of, packing_for, packs_cleanly, trained_states
from afterword.objectives import Prediction, hidden_losses
from afterword.progress import Progress

_LEAST_NATS = 1e-6
"""What a plain loss counts as at least, so that a response known by heart has a ratio."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one sample, under the model that is to be aligned."""

    plain_nats: float
    templated_nats: float

    @property
    def format_score(self) -> float:
        """Templated over plain loss: how much the template costs what the model would know to say without it.

        The right-hand side of Mix-CPT's equations 8 and 9 is not readable: this ratio is ours (METHODS §2).
        """
        return self.templated_nats / max(self.plain_nats, _LEAST_NATS)

    def to_json(self, sample: Sample) -> dict[str, Any]:
        """What selection.jsonl says of the sample beside where it is from."""
        size = {"response_tokens": len(sample.chat.ids) - sample.chat.start}
        losses = {"plain_nll_nats": self.plain_nats, "templated_nll_nats": self.templated_nats}
        return {**size, **losses, "format_score": self.format_score}


@torch.inference_mode()
def score_samples(model: Any, samples: Sequence[Sample], *, micro_batch_tokens: int | None = None) -> list[Scores]:
    """Scores of every sample, in their order. The model is in evaluation mode, on the device that scores.

    Packed by length into micro-batches of `micro_batch_tokens` where the model keeps packed texts apart, else padded.
    """
    assert not model.training, "dropout would be in the scores"
    check_head(model)
    packing = packing_for(model, micro_batch_tokens, layout="packed" if packs_cleanly(model) else "padded")
    forms = [form for sample in samples for form in (sample.plain, sample.chat)]
    examples = [scored_text(unit, form.ids, form.start) for unit, form in enumerate(forms)]
    sums, head, nll = np.zeros(len(forms)), head_of(model), Prediction()
    by_length = sorted(examples, key=lambda e: len(e.segments[0].student_ids))
    tokens = sum(len(form.ids) for form in forms)
    found = dict[int, tuple[np.ndarray, np.ndarray]]()
    with Progress("samples scored", len(samples), cost=f"{tokens:,} tokens") as progress:
        for number, cpu_batch in own_share(list(enumerate(micro_batches(by_length, packing)))):
            batch = to_device(cpu_batch, model.device)
            losses = hidden_losses(nll, (trained_states(model, batch.student), head), None, batch.target_ids)
            found[number] = (cpu_batch.sources.numpy(), losses.double().cpu().numpy())
            # A sample has two forms, each an example of its own.
            progress.advance(len(cpu_batch.sources.unique()) / 2)
    for _, (of_forms, losses) in sorted(put_together(found).items()):
        np.add.at(sums, of_forms, losses)
    means = sums / [len(form.ids) - form.start for form in forms]
    return [Scores(*pair) for pair in means.reshape(-1, 2).tolist()]
