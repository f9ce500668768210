"""Every causal language model that transformers has, as a small random model: trained, packed, padded, with an adapter.

    python benchmarks/families.py --output docs/SUPPORTED_MODELS.md
    python benchmarks/families.py opt llama4 --output -

A family is run in a process of its own, which has a time limit. Ends with exit code 1 where anything but a result or a
sentence came out: that is the next crash. Weights are random, so it says what works, not what is learned.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from families_small import small_config
from kills import WORDS, make_tokenizer

from afterword import models
from afterword.errors import AfterwordError
from afterword.settings.adapt import read_settings
from afterword.training import quiet_libraries, run_adaptation

SAME = 1e-3
"""Packed and single rows agree where their updates differ by less than this share of their norm."""
SCALE = 3.0
"""Random weights are this much larger than transformers draws them, so that logits differ between tokens."""


@dataclass
class Row:
    """What came of one family."""

    family: str
    kind: str = ""
    trained: str = ""
    """packed, padded or one by one; a refusal; or what broke."""
    apart: float | None = None
    """Norm of the difference between the update of packed rows and that of rows one by one, over its own."""
    adapter: str = ""
    sentence: str = ""
    crash: str = ""
    seconds: float = 0.0


def main(
    families: Annotated[list[str] | None, typer.Argument(help="Model types; all if not given.")] = None,
    output: Annotated[Path, typer.Option(help="The page; - for none.")] = Path("docs/SUPPORTED_MODELS.md"),
    limit: Annotated[float, typer.Option(help="Seconds for a family.")] = 180.0,
    resume: Annotated[Path | None, typer.Option(help="A file of rows: what is in it is not run again.")] = None,
) -> None:
    """Run all, and write the page."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    import afterword.budget  # noqa: F401  imported once, for all processes that are forked

    known = {row.family: row for row in _rows_of(resume)}
    rows = []
    for family in families or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        row = known.get(family) or _apart(Row(family, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]), limit)
        rows.append(row)
        print(line := json.dumps(asdict(row)), flush=True)
        if resume and family not in known:
            with resume.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
    if str(output) != "-":
        output.write_text(page(rows), encoding="utf-8")
    raise typer.Exit(1 if any(row.crash for row in rows) else 0)


def _rows_of(file: Path | None) -> list[Row]:
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def _apart(row: Row, limit: float) -> Row:
    """A family in a process of its own: it may end it, or take for ever."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process, began = context.Process(target=_in_process, args=(row, there)), time.monotonic()
    process.start()
    there.close()
    try:
        row = here.recv() if here.poll(limit) else row
        row.crash = row.crash if row.seconds else f"no end after {limit:.0f} s"
    except EOFError:
        process.join()
        row.crash = f"the process ended with {process.exitcode}"
    if process.is_alive():
        process.join(5)
        process.kill()
    row.seconds = round(time.monotonic() - began, 1)
    return row


def _in_process(row: Row, pipe: Any) -> None:
    warnings.filterwarnings("ignore")
    sys.stderr = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115  until the process ends
    quiet_libraries()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="families-") as folder:
        try:
            _run(row, Path(folder))
        except AfterwordError as error:
            row.trained, row.sentence = "refused", _one_line(error)
        except Exception as error:
            # Where it came from is what a person needs to mend it.
            where = traceback.extract_tb(error.__traceback__)[-1]
            row.crash = f"{type(error).__name__}: {_one_line(error)} ({Path(where.filename).name}:{where.lineno})"
    row.seconds = max(time.monotonic() - began, 1e-3)
    pipe.send(row)


def _run(row: Row, folder: Path) -> None:
    model, documents = folder / "model", _documents(folder / "documents.jsonl")
    problem = _make(row.family, model)
    if problem:
        row.trained, row.sentence = "not made", problem
        return
    common = {"model_name_or_path": str(model), "documents": [str(documents)], "max_steps": 1, "learning_rate": 1e-2}
    common |= {"precision": "float32", "method": "disc"}
    plain = {**common, "method": "finetune", "documents_per_step": 4, "trainer": {"optim": "sgd"}, "max_grad_norm": 0}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _adapt(plain, folder / "packed")
    spoken = " ".join(str(each.message) for each in told)
    row.trained = next((name for name, words in _SAID.items() if words in spoken), "packed")
    _adapt({**plain, "packing": "off", "micro_batch_tokens": 16}, folder / "single")
    row.apart = _difference(folder)
    if row.apart > SAME:
        row.crash = f"the update differs by {row.apart:.2g} of its norm from that of documents one by one"
    for more, said in (({}, "yes"), ({"lora_dropout": 0.0}, "without dropout")):
        try:
            _adapt({**common, "use_peft": True, "merge_adapter": True, **more}, folder / said.replace(" ", "-"))
            row.adapter, row.sentence = said, ""
            return
        except AfterwordError as error:
            row.adapter, row.sentence = "refused", _one_line(error)
            if "lora_dropout" not in row.sentence:
                return


_SAID = {"one by one": "nothing beside it", "padded": "a row of its own"}
"""What a run says of its layout, in words of its own."""


def _adapt(settings: dict[str, Any], output: Path) -> None:
    from rich.console import Console

    run_adaptation(read_settings({**settings, "output_dir": str(output)}), console=Console(quiet=True))


def _make(family: str, folder: Path) -> str:
    """A small random model with a tokenizer; why there is none where none can be made."""
    import torch
    import transformers

    try:
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(small_config(family))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(SCALE)
        # What cannot be read by transformers alone says nothing of us.
        model.eval()(input_ids=torch.arange(4, 24)[None])
        model.save_pretrained(folder)
    except Exception as error:  # Of transformers, before anything of ours.
        return f"{type(error).__name__}: {_one_line(error)}"
    make_tokenizer(folder)
    return ""


def _documents(path: Path) -> Path:
    chance = random.Random(0)
    texts = [
        " ".join(f"{' '.join(chance.choices(WORDS, k=4)).capitalize()}." for _ in range(count))
        for count in (2, 3, 5, 2)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def _difference(folder: Path) -> float:
    """Between the updates of packed rows and of rows one by one, over the norm of the latter."""
    state = {name: models.load_model(str(folder / name)).state_dict() for name in ("model", "packed", "single")}
    differs = sum(float((state["packed"][n].double() - v.double()).norm() ** 2) for n, v in state["single"].items())
    moved = sum(float((state["model"][n].double() - v.double()).norm() ** 2) for n, v in state["single"].items())
    return (differs / max(moved, 1e-30)) ** 0.5


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def page(rows: list[Row]) -> str:
    """The page of all that was run."""
    worked = [row for row in rows if row.trained not in ("refused", "not made") and not row.crash]
    counts = {name: sum(row.trained == name for row in rows) for name in ("refused", "not made")}
    lines = [
        "# Families of models, as run",
        "",
        "Written by `python benchmarks/families.py`: every causal class of transformers as a small random model, "
        "taught a step by fine-tuning",
        "with all weights and by DiSC with LoRA on all linear layers (merged afterwards), each result read again. On "
        "one CPU core, float32, one seed.",
        f"transformers {version('transformers')}, torch {version('torch')}, peft {version('peft')}. "
        f"{len(worked)} of {len(rows)} families work, {counts['refused']} are refused in a sentence before anything is "
        f"trained, of {counts['not made']} no small",
        f"model could be made, {sum(bool(row.crash) for row in rows)} fail. Random weights say nothing of what a "
        "family learns.",
        "",
        "*packed*: several texts share a row. *padded*: every text has a row of its own. *one by one*: a row is read "
        "alone, because what a text says",
        "depends on the longest beside it. *apart*: how far the update is from that of documents read one by one, over "
        "its norm.",
        "",
        "| family | class | rows | apart | LoRA | remark |",
        "|---|---|---|--:|---|---|",
    ]
    for row in rows:
        apart = "" if row.apart is None else f"{row.apart:.0e}"
        remark = row.crash or row.sentence
        if row.trained == "refused":
            # The folder's name says nothing, nor does the rule that stands behind every refusal.
            remark = re.sub(r"^\W*model_name_or_path: ('\S+' )?", "", remark).split(" Only causal")[0]
        remark = remark.replace("|", "\\|").replace(tempfile.gettempdir(), "…")
        cells = (f"`{row.family}`", row.kind, "fails" if row.crash else row.trained, apart, row.adapter, remark)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
