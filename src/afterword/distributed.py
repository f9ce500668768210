"""Several processes: the one file that names torch.distributed and accelerate. One process is the plain case.

With parameters in shards (FSDP2) a model's weights are DTensors between two forwards: what reads or writes them
outside of a forward goes through `whole`, `sharded_like` and `whole_state`.
"""

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
K = TypeVar("K")
_TOGETHER = ContextVar("together", default=False)


def process_count() -> int:
    """Processes that torchrun or accelerate launched; 1 without them. Read before anything is set up."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def rank() -> int:
    """Number of this process among those that were launched."""
    return int(os.environ.get("RANK", "0"))


def device_type() -> str:
    """`cuda` where torch has a GPU that it computes on, AMD's too, else `cpu`: the one rule for what runs where.

    Other accelerators have no float64, in which weights and losses are summed. So a Mac computes on its processor,
    although torch would offer `mps`.
    """
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def own_device() -> str:
    """Where this process computes: of several GPUs the one that its launcher gave it."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device_type() == "cuda" else "cpu"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; no context is made on any."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [each for each in named.split(",") if each] if named else [str(n) for n in range(torch.cuda.device_count())]


def gathered(values: list[T]) -> list[T]:
    """The values of all processes, in their order."""
    if process_count() == 1:
        return values
    from accelerate.utils import gather_object

    return gather_object(values)


@contextmanager
def together() -> Generator[None]:
    """All processes run the block alike: what is computed batch by batch is shared out, and known to all after it.

    Each is bound to a GPU of its own, where there are any. One process is the plain case.
    """
    if process_count() == 1:
        yield
        return
    from accelerate import PartialState

    PartialState(cpu=device_type() == "cpu")
    before = _TOGETHER.set(True)
    try:
        yield
    finally:
        _TOGETHER.reset(before)


def shares() -> int:
    """Processes that share what is computed: within `together` all, else one."""
    return process_count() if _TOGETHER.get() else 1


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Within `together`, every so many-th of the items, from this process's own number on; else all of them."""
    return items[rank() :: shares()] if shares() > 1 else items


def put_together(found: Mapping[K, T]) -> dict[K, T]:
    """What all processes found of their shares, by its key; outside of `together`, what this one found."""
    if not _TOGETHER.get():
        return dict(found)
    return {key: value for part in gathered([dict(found)]) for key, value in part.items()}


def from_main_process(make: Callable[[], T]) -> T:
    """Within `together`, what the main process makes, in all of them; else what this one makes."""
    if not _TOGETHER.get():
        return make()
    from accelerate.utils import broadcast_object_list

    made: list[Any] = [make() if is_main_process() else None]
    return broadcast_object_list(made)[0]


def wait_for_all() -> None:
    """Until every process is here."""
    if process_count() > 1:
        gathered([rank()])


def main_process_first(work: Callable[[], T]) -> T:
    """Do `work` on the main process, then on the others, which then find its files."""
    if process_count() == 1:
        return work()
    from accelerate import PartialState

    # The Trainer joins the same process group later; on a machine without GPUs it must be gloo from the start.
    with PartialState(cpu=device_type() == "cpu").main_process_first():
        return work()


def is_sharded(model: Any) -> bool:
    """Whether FSDP2 or ZeRO-3 has the model's parameters in shards. Each forward is then one of all processes."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(getattr(model, "_orig_mod", model), FSDPModule) or is_zero3(model)


def is_zero3(model: Any) -> bool:
    """Whether DeepSpeed's ZeRO-3 has the model's parameters in shards."""
    # Every step asks: where DeepSpeed is not even imported, no weight is looked at.
    return "deepspeed" in sys.modules and any(_is_zero3_shard(parameter) for parameter in model.parameters())


def is_shard(tensor: Any) -> bool:
    """Whether a tensor is a DTensor, of which this process has a part."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _is_zero3_shard(tensor: Any) -> bool:
    # DeepSpeed marks the parameters that it has taken apart; between two forwards they have no elements.
    return hasattr(tensor, "ds_id")


def whole(tensor: Any) -> Any:
    """All of a tensor of which this process has a shard; any other as it is. All processes call it together.

    Its gradient goes back to the shards as the mean over processes, as FSDP2 and DDP reduce all others.
    """
    if _is_zero3_shard(tensor):
        return _whole_of_zero3(tensor)
    if not is_shard(tensor):
        return tensor
    import torch
    from torch.distributed.tensor import Partial

    if not (tensor.requires_grad and torch.is_grad_enabled()):
        return tensor.detach().full_tensor()
    mesh = tensor.device_mesh
    full = tensor.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    full.register_hook(lambda gradient: gradient / mesh.size())
    return full


def _whole_of_zero3(parameter: Any) -> Any:
    """A copy, made while all of it is here. In the backward pass the parameter's own module gathers it again."""
    import deepspeed  # pyright: ignore  (no dependency of ours)
    import torch

    with deepspeed.zero.GatheredParameters([parameter]):
        trained = parameter.requires_grad and torch.is_grad_enabled()
        return parameter.clone() if trained else parameter.detach().clone()


def sharded_like(tensor: Any, parameter: Any) -> Any:
    """A tensor that every process has whole, in the shards and on the device of a parameter."""
    tensor = tensor.to(parameter.device)
    if not is_shard(parameter) or is_shard(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def whole_state(model: Any) -> Mapping[str, Any]:
    """The state of a sharded model, whole, in the memory of the main process; of all others nothing.

    All processes call it together.
    """
    if is_zero3(model):
        here = is_main_process()
        named = ((name, whole(value).detach()) for name, value in model.state_dict(keep_vars=True).items())
        return {name: value.cpu() for name, value in named if here}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def brings_back(module: Any) -> None:
    """Have a part of a model on several devices give its output where its input was."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    add_hook_to_module(module, AlignDevicesHook(io_same_device=True), append=True)


def present(module: Any) -> AbstractContextManager[Any]:
    """While the block runs, the weights of a part that is on the disk or in main memory between forwards are here."""
    from accelerate.utils import align_module_device

    return align_module_device(module)
