"""A paper plan: 70 billion parameters and 100 billion tokens over many GPUs, counted before anyone pays for them.

    python benchmarks/paper_plan.py                          # the tables of docs/guides/many-machines.md: seconds
    python benchmarks/paper_plan.py --gpus 512 --tokens 1e10 # others

Nothing here was run. Memory and traffic follow from how a sharded run of this tool is made: FSDP2 with float32 weights,
gathered in float32 for the forward and again for the backward, gradients reduced in float32, every layer computed twice
(checkpointing), the head whole while a micro-batch is read (docs/guides/several_gpus.md). Hours follow from the
multiply-adds by METHODS §1 (2 a parameter and token forward, 4 backward, 2 more for what is computed again, and 2 for a
teacher that reads in the step), without attention's own. What a machine gives (`Machine`) is assumed, and can be set.
How much is lost to machines that fail is simulated: failures at random by their mean time, the last checkpoint again.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np

GB = 1e9


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama kind."""

    layers: int = 80
    hidden: int = 8192
    intermediate: int = 28672
    heads: int = 64
    key_heads: int = 8
    vocabulary: int = 128256

    @property
    def of_a_layer(self) -> int:
        """Parameters."""
        of_keys = self.hidden // self.heads * self.key_heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * of_keys
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def of_the_head(self) -> int:
        """Parameters, and of the embedding as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Of all."""
        return self.layers * self.of_a_layer + 2 * self.of_the_head + self.hidden


@dataclass(frozen=True)
class Machine:
    """What is assumed of one of eight GPUs of a node."""

    gpu_gb: float = 80.0
    tflops: float = 989.0
    """Dense bfloat16 products of the data sheet."""
    used_frac: float = 0.35
    """Of them that a run gets."""
    network_gb_per_second: float = 50.0
    """To other nodes, for each GPU."""
    gpus_of_node: int = 8
    node_memory_gb: float = 2000.0
    days_between_failures: float = 60.0
    """Of a node, in the mean."""
    restart_minutes: float = 20.0


@dataclass(frozen=True)
class Way:
    """How it is trained."""

    name: str
    trained_bytes: int
    """Of weight, gradient and moments for a parameter, in shards."""
    gathered_bytes: int
    """For a parameter of a layer that is whole for a moment."""
    reduced_bytes: int
    """For a parameter, of a gradient on its way."""
    forwards_of_teacher: int
    teacher_whole_bytes: int = 0
    """For a parameter, in every process."""


WAYS = (
    Way("full, no teacher (fine-tuning)", 16, 4, 4, 0),
    Way("full, teacher copy in bfloat16 (DiSC)", 16, 4, 4, 1, teacher_whole_bytes=2),
    Way("full, cached teacher (DiSC)", 16, 4, 4, 0),
    Way("LoRA on a bfloat16 base, adapter off (DiSC)", 2, 2, 0, 1),
)


def memory_gb(shape: Shape, way: Way, gpus: int, tokens: int) -> dict[str, float]:
    """Of a GPU at the fullest moment of a step, by what it is for."""
    parts = {
        "shards": way.trained_bytes * shape.parameters / gpus,
        "teacher": way.teacher_whole_bytes * shape.parameters,
        # The next layer is fetched while one computes.
        "gathered": 2 * way.gathered_bytes * shape.of_a_layer + way.gathered_bytes * shape.of_the_head,
        # Between layers in bfloat16; inside of the one that is computed again about 34 bytes a token and hidden value,
        # and its inner products.
        "activations": tokens * (2 * shape.hidden * shape.layers + 34 * shape.hidden + 8 * shape.intermediate),
    }
    return {name: value / GB for name, value in parts.items()}


def traffic_gb(shape: Shape, way: Way) -> float:
    """Received by a GPU in a micro-step: all weights for every forward and the backward, and gradients once."""
    of_shards = 2 + (0 if way.teacher_whole_bytes else way.forwards_of_teacher)
    return shape.parameters * (of_shards * way.gathered_bytes + way.reduced_bytes) / GB


def compute_seconds(shape: Shape, way: Way, machine: Machine, tokens: float) -> float:
    """Of one GPU for so many tokens."""
    # Under LoRA no gradient is made for the weights below.
    backward = 4 if way.reduced_bytes else 2
    products = 2 + 2 + backward + 2 * way.forwards_of_teacher
    return products * shape.parameters * tokens / (machine.tflops * 1e12 * machine.used_frac)


def hours_with_failures(hours: float, nodes: int, machine: Machine, save_minutes: float, seed: int) -> float:
    """A run that needs so many hours, with what failures cost: the time since the last checkpoint, and a restart."""
    drawn, done, spent = np.random.default_rng(seed), 0.0, 0.0
    between = machine.days_between_failures * 24 / nodes
    while done < hours:
        until_failure = drawn.exponential(between)
        if done + until_failure >= hours:
            return spent + hours - done
        saved = (done + until_failure) // (save_minutes / 60) * (save_minutes / 60)
        spent += until_failure + machine.restart_minutes / 60
        done = max(done, saved)
    return spent


def table(columns: list[str], rows: list[list[str]]) -> str:
    """As the page has it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(shape: Shape, machine: Machine, gpus: int, tokens: float, micro: int) -> str:
    """All tables."""
    nodes, parts = gpus // machine.gpus_of_node, [f"{shape.parameters / 1e9:.1f} · 10⁹ parameters, {gpus} GPUs."]
    memory, time = list[list[str]](), list[list[str]]()
    for way in WAYS:
        found = memory_gb(shape, way, gpus, micro)
        total = sum(found.values())
        fits = "yes" if total < machine.gpu_gb - 4 else "**no**"
        memory.append([way.name, *(f"{value:.1f}" for value in found.values()), f"{total:.1f}", fits])
        each, moved = compute_seconds(shape, way, machine, micro), traffic_gb(shape, way)
        seconds = moved / machine.network_gb_per_second
        steps = tokens / gpus / micro
        hours = max(each, seconds) * steps / 3600
        lost = np.mean([hours_with_failures(hours, nodes, machine, 60, seed) for seed in range(200)]) - hours
        hide = micro * seconds / each
        numbers = [f"{each:.1f}", f"{moved:,.0f}", f"{seconds:.1f}"]
        time.append([way.name, *numbers, *(f"{value:,.0f}" for value in (hide, hours, lost))])
    fits = f"fits {machine.gpu_gb:.0f} GB"
    parts.append(table(["GB of a GPU", "shards", "teacher", "gathered", "activations", "together", fits], memory))
    columns = [
        "a micro-step",
        "computes, s",
        "receives, GB",
        "takes, s",
        "tokens that hide it",
        "hours",
        "more by failures",
    ]
    parts.append(table(columns, time))
    load = 4 * shape.parameters * machine.gpus_of_node / GB
    disk = 2 * shape.hidden * tokens / 1e12
    loaded = (
        f"Loaded whole in every process: {load:,.0f} GB of a node's main memory (it has {machine.node_memory_gb:,.0f})."
    )
    gathered = f"Gathered by the main process at the end: {4 * shape.parameters / GB:,.0f} GB."
    kept = f"Cached teacher, hidden states in bfloat16: {disk:,.0f} TB on the disk."
    parts.append(f"{loaded} {gathered} {kept} A checkpoint: {12 * shape.parameters / GB:,.0f} GB.")
    return "\n\n".join(parts)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpus", type=int, default=256)
    parser.add_argument("--tokens", type=float, default=1e11)
    parser.add_argument("--micro-batch-tokens", type=int, default=8192)
    parser.add_argument("--gpu-gb", type=float, default=80.0)
    given = parser.parse_args()
    machine = replace(Machine(), gpu_gb=given.gpu_gb)
    print(report(Shape(), machine, given.gpus, given.tokens, given.micro_batch_tokens))


if __name__ == "__main__":
    main()
