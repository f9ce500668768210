"""What "Tell me about …" adds to facts that are in documents only: the chat model's SFT once more, without it.

    PYTHONPATH=. python benchmarks/told_about.py runs/told_about        # about 20 minutes on two cores

From the shipped base, with the shipped recipe, but the exercise that answers with a whole document is of such
entities alone that questions are about anyhow. Beside it the shipped model of the same stage; both are measured as
the cards are (test items, greedy, 95 % intervals).
"""

import argparse
import random
import shutil
from dataclasses import replace
from pathlib import Path

from afterword.almanac.exercises import Exercise
from afterword.almanac.names import Split
from afterword.almanac.world import World
from afterword.named_models import WEIGHTS
from afterword.types import Estimate
from almanac_build import posttraining
from almanac_build.card import measure
from almanac_build.stages import SFT_STEPS, build_sft

telling = posttraining.telling


def telling_of_the_asked(world: World, rng: random.Random, split: Split) -> Exercise:
    """The same exercise, of the entities that some question of training is about, and of their facts alone."""
    known = world.asked | world.asked_late
    names = {kind: tuple(name for name in of_kind if name in known) for kind, of_kind in world.names.items()}
    facts = tuple(fact for fact in world.facts if fact.subject in known)
    return telling(replace(world, names=names, facts=facts), rng, split)


def shown(share: Estimate) -> str:
    """In %, with its interval."""
    low, high = share.interval_95 or (float("nan"), float("nan"))
    return f"{100 * share.value:.3g} [{100 * low:.3g}, {100 * high:.3g}]"


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the model; goes on from its last checkpoint")
    parser.add_argument("--steps", type=int, default=SFT_STEPS)
    asked = parser.parse_args()
    weight = posttraining.TRAINED_IN_CHAT["telling"][1]
    posttraining.TRAINED_IN_CHAT = {**posttraining.TRAINED_IN_CHAT, "telling": (telling_of_the_asked, weight)}
    shutil.copytree(WEIGHTS / "base", asked.folder / "base", dirs_exist_ok=True)
    build_sft(asked.folder / "scratch", asked.folder, steps=asked.steps)
    both = [measure(folder).lines for folder in (WEIGHTS / "sft", asked.folder / "sft")]
    print("| share right in %, test items | n | SFT, shipped | SFT, nobody told about |\n|---|--:|---|---|")
    for before, after in zip(*both, strict=True):
        print(f"| {before.name} | {before.n} | {shown(before.share)} | {shown(after.share)} |")


if __name__ == "__main__":
    main()
