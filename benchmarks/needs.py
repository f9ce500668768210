"""What a machine that has only PyTorch, transformers and accelerate must be brought, as wheels, to run on_a_gpu.sh.

    benchmarks/on_a_gpu.sh --needs > wheels.txt                      # where Afterword is installed
    benchmarks/on_a_gpu.sh --needs --has pip-list.txt > wheels.txt   # without what that machine has (its `pip list`)

Names and versions of Afterword's own requirements and of the peers it is measured beside, each with what it requires
itself, in the versions of constraints.txt; without torch, transformers, accelerate and what these name themselves, and
without what `--has` lists. (What is required further down differs from version to version, so it is brought.) The first
lines say how to fetch them, and who asks for another version of what is there.
"""

import argparse
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from machine import PINNED
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
THERE = ("torch", "transformers", "accelerate", "pip", "setuptools", "wheel")
"""What the machine is taken to have, with what each requires itself."""
EXTRAS = ("small", "align")
"""Of pyproject.toml: 8-bit moments and int8 teachers; TRL."""
BESIDE = ("pytest", "trl", "liger-kernel")
"""What runs the tests, and the peers. The row of one that is not there says so."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def required(name: str) -> Iterator[Requirement]:
    """What an installed distribution requires here, without its extras; nothing of one that is not installed."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def closure(names: Iterable[str], there: Collection[str]) -> set[str]:
    """These distributions and all that they require, by canonical name; without what is there, and its own."""
    found, ahead = set[str](), [canonicalize_name(name) for name in names]
    while ahead:
        if (name := ahead.pop()) not in found and name not in there:
            found.add(name)
            ahead += [canonicalize_name(requirement.name) for requirement in required(name)]
    return found


def own_requirements() -> list[Requirement]:
    """Those in pyproject.toml: what Afterword requires, and the extras that the parts use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    return [Requirement(line) for line in lines]


def versions() -> dict[str, str]:
    """By canonical name, the exact versions of constraints.txt and of the peers."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    exact = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in {**exact, **PINNED}.items()}


def listed(text: str) -> dict[str, str]:
    """Names and versions ("" where none is said) of `pip list`, `pip freeze`, or of names between commas or lines.

    >>> listed("Package  Version\\n-------- ---\\nnumpy    2.5.2\\nTyper==0.29\\npeft, PyYAML")
    {'numpy': '2.5.2', 'typer': '0.29', 'peft': '', 'pyyaml': ''}
    """
    found: dict[str, str] = {}
    for entry in re.split(r"[\n,;]", text):
        words = re.split(r"==|\s+", entry.strip().rstrip("."))
        if words[0] and words[0] != "Package" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", words[0]):
            found[canonicalize_name(words[0])] = words[1] if len(words) > 1 else ""
    return found


def needs(has: dict[str, str]) -> dict[str, str]:
    """Name and version of everything that is to be brought, in order."""
    exact = versions()
    named = {canonicalize_name(requirement.name) for name in THERE for requirement in required(name)}
    missing = closure([*(each.name for each in own_requirements()), *BESIDE], {*THERE, *named, *has})
    return {name: exact.get(name) or metadata.version(name) for name in sorted(missing)}


def conflicts(brought: dict[str, str], has: dict[str, str]) -> list[str]:
    """Who asks for another version of what is there: Afterword, or something that is brought."""
    asking = {"afterword": own_requirements()}
    asking |= {f"{name} {version}": [*required(name)] for name, version in brought.items()}
    found = list[str]()
    for name, requirements in asking.items():
        for requirement in requirements:
            there = has.get(canonicalize_name(requirement.name), "")
            if there and not requirement.specifier.contains(there, prereleases=True):
                found.append(f"{name} asks for {requirement}, and {there} is there")
    return found


def main() -> None:
    """Print them, one a line, behind the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--has", type=Path, help="what the machine has: its `pip list`, or names")
    parser.add_argument("--python-version", default="3.12", help="of the machine")
    asked = parser.parse_args()
    if asked.has and not asked.has.is_file():
        parser.error(f"--has: {str(asked.has)!r} is no file. Give one with the machine's `pip list`.")
    has = listed(asked.has.read_text("utf-8")) if asked.has else {}
    brought = needs(has)
    where = " ".join(f"--platform {platform}" for platform in PLATFORMS)
    how = f"--no-deps --only-binary=:all: --implementation cp --python-version {asked.python_version} {where}"
    print("# Save this as wheels.txt and fetch (Python and platform are those of the machine with the card):")
    print(f"#   python3 -m pip download {how} -d wheels -r wheels.txt")
    print("# There: benchmarks/on_a_gpu.sh OUT --wheels wheels")
    print("# Also used where it is there, and no wheel of a registry: flash-attn, built for that machine's torch.")
    for problem in conflicts(brought, has):
        print(f"# Note: {problem}.")
    for name, version in brought.items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
