"""torchao's AdamW for bfloat16 weights: every update counts on average, because it is rounded stochastically.

Moments are float32, or 8-bit in blocks of 256 values (arXiv:2110.02861); never bfloat16, in which a second moment
that changes by a thousandth a step does not change at all. The one rule: the rounding of a step follows from
(seed, step) alone, so that a resumed run rounds as the run that was not stopped, and every process as the others.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torchao.optim import AdamW8bit, _AdamW  # pyright: ignore[reportPrivateUsage,reportMissingTypeStubs]  (no types)
from torchao.optim.adam import single_param_adam  # pyright: ignore[reportMissingTypeStubs]  (no types)

BLOCK = 256
"""Values that share a scale in 8-bit moments."""
PIECE_ELEMENTS = 2**18
"""Of a weight that are updated at a time on the CPU."""


class _Rounded:
    """What both classes below add to torchao's: moments, rounding, pieces on the CPU, and how moments are loaded."""

    rounds_stochastically = True
    param_groups: list[dict[str, Any]]
    state: dict[Tensor, dict[str, Any]]

    def __init__(self, params: Any, *, seed: int, **settings: Any):
        super().__init__(params, bf16_stochastic_round=True, **settings)  # pyright: ignore  (of the other base)
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One update of every weight that has a gradient. The state of torch's random numbers is left as it was."""
        assert closure is None, "the Trainer gives none"
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        devices = {p.device for p in weights if p.is_cuda}
        done = max((int(state["step"]) for state in self.state.values() if state), default=0)
        generator: Any = torch.random  # Its functions come without types.
        with generator.fork_rng(list(devices)):
            generator.manual_seed(self.seed * 1_000_003 + done)
            if devices:
                super().step()  # pyright: ignore  (of the other base; compiled by torchao: one kernel for a weight)
            else:
                self._step_in_pieces()

    def _step_in_pieces(self) -> None:
        """The same without a compiler: intermediate results are those of a piece, not of a whole weight."""
        for group in self.param_groups:
            settings = {"lr": group["lr"], "weight_decay": group["weight_decay"], "eps": group["eps"]}
            settings |= {"beta1": group["betas"][0], "beta2": group["betas"][1], "IS_ADAMW": True}
            for weight in (p for p in group["params"] if p.grad is not None):
                state = self._state_of(weight)
                state["step"] += 1
                moments = state["exp_avg"], state["exp_avg_sq"]
                settings["BF16_STOCHASTIC_ROUND"] = weight.dtype == torch.bfloat16
                for rows in _pieces(weight):
                    values, gradient = weight.detach()[rows], weight.grad[rows]
                    first, second = (moment[rows] for moment in moments)
                    single_param_adam(values, gradient, state["step"], first, second, None, **settings)

    def _state_of(self, weight: Tensor) -> dict[str, Tensor]:
        if not self.state[weight]:
            moments = {"exp_avg": self._new_buffer(weight, True), "exp_avg_sq": self._new_buffer(weight, False)}
            self.state[weight] = {"step": torch.tensor(0.0), **moments}
        return self.state[weight]

    def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
        # Where torchao does not quantise, it would take the weight's precision.
        base: Any = super()  # torchao's, without types.
        made: Tensor = base._new_buffer(p, signed)
        return torch.zeros_like(p, dtype=torch.float32) if type(made) is Tensor else made

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does it, but moments keep their own precision; torch would cast them to that of the weight."""
        super().load_state_dict(state_dict)  # pyright: ignore  (of the other base)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, weight in zip(numbers, weights, strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                if saved := state_dict["state"].get(number):
                    self.state[weight][name] = saved[name].to(weight.device)


class RoundedAdamW(_Rounded, _AdamW):  # pyright: ignore[reportIncompatibleVariableOverride]  (torchao's has no types)
    """AdamW with float32 moments; bfloat16 weights are rounded stochastically."""


class RoundedAdamW8bit(_Rounded, AdamW8bit):  # pyright: ignore[reportIncompatibleVariableOverride]  (the same)
    """The same with 8-bit moments, of weights with at least 4,096 values in whole blocks; the others' are float32."""


def _pieces(weight: Tensor) -> Iterator[Any]:
    """Rows of a weight, so many that no block of moments is cut; all of one that has no rows."""
    if not weight.dim():
        return iter([...])
    stride = max(1, weight[:1].numel())
    whole = BLOCK // math.gcd(BLOCK, stride)
    rows = max(1, PIECE_ELEMENTS // stride // whole) * whole
    return (slice(start, min(start + rows, len(weight))) for start in range(0, len(weight), rows))
