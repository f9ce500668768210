"""In which precision a trained model is saved: decided by what saving would lose of what was gained.

A model is trained in float32 and usually came in bfloat16. Rounding to the nearest value drops every update that is
smaller than half the distance of two values: at small learning rates, nearly all of them. So saving is measured: the
loss of the model as it was given, as it was trained, and as it would be saved.

    gain kept = (loss given − loss saved) / (loss given − loss trained)

The one rule: under `auto`, what is saved is within a hundredth of the gain of what was trained. The model's own
precision where rounding to the nearest value is; else the same precision, rounded stochastically, where that is; else
float32. A gain that rounding adds counts as one that it takes: it is noise, and on other text it has the other sign.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from afterword.models import stochastic_rounding
from afterword.models.stored_precision import Precisions, StoredModel, pieces, stored_precisions

SavePrecision = Literal["auto", "model", "float32", "bf16"]
Choice = Literal["as it came", "rounded stochastically", "float32", "bf16"]
Rule = Literal["nothing is rounded", "gain", "update", "asked for"]
Losses = Callable[[], float]
"""The loss, in nats, of the model as it is at the moment."""
BaseTensors = Callable[[str, Sequence[Tensor]], Iterable[tuple[Tensor, tuple[Tensor, ...]]]]
"""Of several values of a named tensor: every part of it as it was before, with the same part of each of the values."""
KEPT_FRAC = 0.99
"""Of the gain in loss, and no more than as much above all of it; where no gain can be measured, of the update's
direction and of its length along it."""
LEAST_GAIN_NATS = 1e-4
"""A smaller gain is too near to the noise of float32 sums to be divided into hundredths."""
_TINY = 1e-30
_NEARLY_NONE = 5e-4


@dataclass(frozen=True)
class Kept:
    """What one way of saving keeps of what was trained."""

    loss_nats: float | None
    gain_frac: float | None
    """Of the gain in loss; None where none was measured."""
    cosine: float
    """Between the trained update and the one that is left."""
    along_frac: float
    """Length of the one that is left along the trained one, over the length of the trained one."""
    changed_frac: float
    """Of the weights, those that differ from the model before."""

    def is_enough(self, rule: Rule) -> bool:
        """Whether `auto` may save so."""
        if rule == "gain":
            return self.gain_frac is not None and _is_whole(self.gain_frac)
        return self.cosine >= KEPT_FRAC and _is_whole(self.along_frac)


@dataclass(frozen=True)
class Saving:
    """In which precision a model is saved, and from what that follows."""

    asked: SavePrecision
    choice: Choice
    rule: Rule
    came_in: str
    """The precision of the model as it was given, by torch's name."""
    saved_in: str
    loss_before_nats: float | None = None
    loss_trained_nats: float | None = None
    update_norm: float | None = None
    """Of all weights; the trained update before anything is rounded."""
    nearest: Kept | None = None
    """Rounded to the nearest value of the model's own precision."""
    stochastic: Kept | None = None
    """Rounded stochastically; None where it was not tried."""
    why_no_gain: str = ""
    """Why the update decided, and not the gain in loss."""

    @property
    def kept(self) -> Kept | None:
        """What is left in the saved model; None where nothing was rounded."""
        return {"rounded stochastically": self.stochastic, "float32": None}.get(self.choice, self.nearest)

    def to_json(self) -> dict[str, Any]:
        """As data.json keeps it: the figures, and the sentence that says what they come to."""
        return {**asdict(self), "sentence": self.sentence()}

    def sentence(self) -> str:
        """What was done and why, for a person to read."""
        return _sentence(self)


@dataclass(frozen=True)
class Trained:
    """A trained model, and what saving it is measured by."""

    model: Any
    base: BaseTensors
    """The weights before."""
    precisions: Precisions
    """Of every tensor, as the model came."""
    loss: Losses | None = None
    loss_before: float | None = None
    why_no_loss: str = "no loss was measured"


def base_on_disk(model: Any, stored: StoredModel) -> BaseTensors:
    """The weights before, read from the model's files one tensor at a time."""

    def parts(name: str, values: Sequence[Tensor]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Every stored tensor that a trained one ends in, with its part of each of the values."""
        taken_apart = [pieces(model, name, value, stored) for value in values]
        for key in taken_apart[0]:
            yield stored.tensor(key), tuple(found[key] for found in taken_apart)

    return parts


def base_in_memory(tensors: Mapping[str, Tensor]) -> BaseTensors:
    """The weights before, as a state that is held."""
    return lambda name, values: [(tensors[name].cpu(), tuple(values))] if name in tensors else []


def trained_from(model: Any, stored: StoredModel, **measure: Any) -> Trained:
    """A model that was trained from the one on the disk; `measure`: how its loss is, as `Trained` has it."""
    return Trained(model, base_on_disk(model, stored), stored_precisions(model, stored), **measure)


def rounds(model: Any, precisions: Precisions) -> bool:
    """Whether anything of a model in memory would be rounded where it is saved in these precisions."""
    return bool(_rounded(model, precisions))


@torch.no_grad()
def settle(trained: Trained, asked: SavePrecision = "auto", *, seed: int = 0) -> tuple[Saving, Precisions]:
    """Decide, and leave the model with exactly the values that are to be saved, in the precision it is held in.

    A copy of the weights that are rounded is in the machine's memory meanwhile; nothing is copied or measured where
    nothing is rounded. The seed is that of stochastic stochastic_rounding.
    """
    came_in, float32 = _name(trained.precisions.main), Precisions(torch.float32)
    if asked == "float32":
        return Saving(asked, "float32", "asked for", came_in, "float32"), float32
    to = _in_bf16(trained.precisions) if asked == "bf16" else trained.precisions
    choice: Choice = "bf16" if asked == "bf16" else "as it came"
    saving = Saving(asked, choice, "nothing is rounded", came_in, _name(to.main))
    rounding_off = _Rounding(trained, to)
    if not rounding_off.originals:
        return saving, to
    saving = _by_gain_or_update(trained, saving)
    rounding_off.to_nearest()
    saving = replace(saving, nearest=rounding_off.kept(saving), update_norm=rounding_off.update_norm)
    assert saving.nearest, "measured"
    if asked != "auto":
        return replace(saving, rule="asked for"), to
    if saving.nearest.is_enough(saving.rule):
        return saving, to
    if rounding_off.stochastically(seed):
        saving = replace(saving, stochastic=rounding_off.kept(saving))
        if saving.stochastic and saving.stochastic.is_enough(saving.rule):
            return replace(saving, choice="rounded stochastically"), to
    rounding_off.undo()
    return replace(saving, choice="float32", saved_in="float32"), float32


class _Rounding:
    """The weights of a model that a precision rounds: rounded in place, with what they were kept beside."""

    def __init__(self, trained: Trained, to: Precisions):
        self.trained, self.to = trained, to
        weights = distinct(trained.model)
        self.weights = {name: weights[name] for name in _rounded(trained.model, to)}
        self.originals = {name: value.detach().to("cpu", copy=True) for name, value in self.weights.items()}
        self.update_norm = 0.0

    def to_nearest(self) -> None:
        for name, value in self.originals.items():
            self.weights[name].copy_(stochastic_rounding.nearest(value, self.to.of(name, value)))

    def stochastically(self, seed: int) -> bool:
        """False where a precision has no neighbours that are known."""
        dtypes = {name: self.to.of(name, value) for name, value in self.originals.items()}
        if not all(map(stochastic_rounding.can_round_stochastically, dtypes.values())):
            return False
        for name, value in self.originals.items():
            self.weights[name].copy_(stochastic_rounding.stochastic(value.float(), dtypes[name], seed=seed, name=name))
        return True

    def undo(self) -> None:
        for name, value in self.originals.items():
            self.weights[name].copy_(value)

    def kept(self, saving: Saving) -> Kept:
        """What is left of the update, and of the gain where that can be measured."""
        sums = torch.zeros(4, dtype=torch.float64)
        compared = 0
        for name, original in self.originals.items():
            for before, (was, now) in self.trained.base(name, (original, self.weights[name].cpu())):
                compared += before.numel()
                sums += _sums(before, was, now)
        trained, left, both, changed = sums.tolist()
        self.update_norm = math.sqrt(trained)
        cosine, along = both / max(math.sqrt(trained * left), _TINY), both / max(trained, _TINY)
        if compared and not trained:
            # Nothing was trained, so nothing of it can be lost.
            cosine = along = 1.0
        loss = self.trained.loss() if saving.rule == "gain" and self.trained.loss else None
        gain = None if loss is None else (_before(saving) - loss) / _gain(saving)
        return Kept(loss, gain, cosine, along, changed / max(compared, 1))


def distinct(model: Any) -> dict[str, Tensor]:
    """The tensors of a model's state, each once however many names it has."""
    found = dict[tuple[int, torch.Size], tuple[str, Tensor]]()
    for name, value in model.state_dict().items():
        found.setdefault((value.data_ptr(), value.shape), (name, value))
    return dict(found.values())


def _rounded(model: Any, precisions: Precisions) -> list[str]:
    weights = distinct(model).items()
    return [name for name, value in weights if stochastic_rounding.is_narrower(precisions.of(name, value), value.dtype)]


def _in_bf16(precisions: Precisions) -> Precisions:
    """All in bfloat16; what a model in a precision of two bytes had in a wider one stays there."""
    half = stochastic_rounding.can_round_stochastically(precisions.main)
    return Precisions(torch.bfloat16, precisions.others if half else {})


def _by_gain_or_update(trained: Trained, saving: Saving) -> Saving:
    """With the losses before and after training, and what decides."""
    if trained.loss is None or trained.loss_before is None:
        return replace(saving, rule="update", why_no_gain=trained.why_no_loss)
    saving = replace(saving, rule="gain", loss_before_nats=trained.loss_before, loss_trained_nats=trained.loss())
    if not _gain(saving) >= LEAST_GAIN_NATS:
        why = f"the loss went from {saving.loss_before_nats:.6g} to {saving.loss_trained_nats:.6g} nats"
        return replace(saving, rule="update", why_no_gain=f"{why}, too little to be divided")
    return saving


def _is_whole(share: float) -> bool:
    return abs(share - 1) <= 1 - KEPT_FRAC


def _before(saving: Saving) -> float:
    assert saving.loss_before_nats is not None, "measured where the gain decides"
    return saving.loss_before_nats


def _gain(saving: Saving) -> float:
    assert saving.loss_trained_nats is not None, "measured where the gain decides"
    return _before(saving) - saving.loss_trained_nats


def _sums(before: Tensor, was: Tensor, now: Tensor) -> Tensor:
    """Of a tensor: squares of the trained update and of the one that is left, their product, and what changed."""
    sums = torch.zeros(4, dtype=torch.float64)
    parts = (tensor.reshape(-1).split(stochastic_rounding.PIECE_VALUES) for tensor in (before, was, now))
    for start, trained, saved in zip(*parts, strict=True):
        start = start.float()
        update, left = trained.float() - start, saved.float() - start
        products = (update.dot(update), left.dot(left), update.dot(left), left.count_nonzero())
        sums += torch.stack([product.double() for product in products])
    return sums


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _short(name: str) -> str:
    return {"bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def _sentence(saving: Saving) -> str:
    saved, came = _short(saving.saved_in), _short(saving.came_in)
    if saving.rule == "nothing is rounded":
        return f"Saved in {saved}{', as the model came' if saved == came else ''}: nothing is rounded."
    if saving.nearest is None:
        return f"Saved in {saved}, as asked for."
    by_gain = saving.nearest.gain_frac is not None
    because = "" if by_gain else f" (The update decides, not the gain in loss: {saving.why_no_gain}.)"
    near = _share(saving.nearest)
    if saving.rule == "asked for":
        if saving.nearest.is_enough("gain" if by_gain else "update"):
            return f"Saved in {saved}, as asked for: rounding keeps {near}.{because}"
        rest = _share(saving.nearest, only=True)
        remedy = f"save_precision: auto keeps {_percent(KEPT_FRAC)} and more."
        return f"Warning: saved in {saved}, as asked for, and rounding keeps {rest}; {remedy}{because}"
    if saving.choice == "as it came":
        return f"Saved in {saved}, as the model came: rounding keeps {near}.{because}"
    if saving.choice == "rounded stochastically":
        assert saving.stochastic, "tried"
        kept = f"that keeps {_share(saving.stochastic)}; rounding to the nearest value would keep {near}"
        return f"Saved in {saved}, as the model came, rounded stochastically: {kept}.{because}"
    also = f" (rounded stochastically: {_share(saving.stochastic)})" if saving.stochastic else ""
    why = f"Saved in float32, which is larger, because {came} would keep {_share(saving.nearest, only=True)}{also}."
    return f"{why} Serve it in float32: any other precision rounds it again.{because}"


def _share(kept: Kept, *, only: bool = False) -> str:
    word = "only " if only else ""
    if kept.gain_frac is None:
        return f"an update whose cosine with the trained one is {word}{kept.cosine:.3f}"
    if kept.gain_frac < _NEARLY_NONE:
        return "none of the gain in loss"
    if kept.gain_frac > 1 and not _is_whole(kept.gain_frac):
        return f"{_percent(kept.gain_frac)} of the gain in loss, more than was trained, which is noise of the rounding"
    return f"{word}{_percent(kept.gain_frac)} of the gain in loss"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
