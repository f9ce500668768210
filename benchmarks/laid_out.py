"""What weights that are laid out for reading save of writing and reading on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/laid_out.py smollm2-135m-instruct

Steps of so many rows behind prompts of 40 tokens, and one reading of 8 texts of 126 tokens, first with weights as they
are, then laid out: the least processor seconds of the thread. Beside it, how many rows come out in other tokens.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from afterword.models import backbone_of, evaluation_dtype, load_model
from afterword.models import decoding as steps
from afterword.models.decoding import Writing, written_rows
from afterword.models.laid_out import laid_out

T = TypeVar("T")
PROMPT_TOKENS, STEPS = 40, 12
TEXTS, TEXT_TOKENS = 8, 126


def main() -> None:
    """A line for each number of rows, and one for reading."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 64])
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    dtype = evaluation_dtype([args.model])
    model = load_model(args.model, dtype=dtype).eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        for rows in args.rows:
            print(_of_steps(model, rows, args.rounds), flush=True)
        print(_of_reading(model, args.rounds), flush=True)
    print(f"{str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads")


def _of_steps(model: Any, rows: int, rounds: int) -> str:
    prompts = torch.randint(1000, (rows, PROMPT_TOKENS)).tolist()
    worth, seconds, written = steps.WORTH_LAYING_OUT, dict[str, float](), dict[str, list[list[int]]]()
    for name, least in {"as they are": STEPS + 1, "laid out": 0}.items():
        steps.WORTH_LAYING_OUT = least

        def write(tokens: int) -> list[list[int]]:
            how = Writing(max_new_tokens=tokens, min_new_tokens=tokens, ends=frozenset([2]))
            return written_rows(model, prompts, how)

        first, _ = _least(lambda write=write: write(1), rounds)
        whole, written[name] = _least(lambda write=write: write(STEPS), rounds)
        seconds[name] = (whole - first) / (STEPS - 1)
    steps.WORTH_LAYING_OUT = worth
    others = sum(one != other for one, other in zip(*written.values(), strict=True))
    return f"a step of {rows} rows: {_told(seconds)}; {others} of {rows} rows in other tokens"


def _of_reading(model: Any, rounds: int) -> str:
    ids = torch.randint(1000, (TEXTS, TEXT_TOKENS))

    def read() -> object:
        return backbone_of(model)(input_ids=ids, use_cache=False)

    seconds = {"as they are": _least(read, rounds)[0]}
    with laid_out(model, ids.numel()):
        seconds["laid out"] = _least(read, rounds)[0]
    return f"reading {ids.numel():,} tokens: {_told(seconds)}"


def _least(do: Callable[[], T], rounds: int) -> tuple[float, T]:
    """Processor seconds of the thread, and what came of it; the first time makes what the others use."""
    found, least = do(), float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        found = do()
        least = min(least, time.thread_time() - began)
    return least, found


def _told(seconds: dict[str, float]) -> str:
    plain, laid = seconds.values()
    return f"{1000 * plain:.0f} ms as they are, {1000 * laid:.0f} laid out ({laid / plain:.2f})"


if __name__ == "__main__":
    main()
