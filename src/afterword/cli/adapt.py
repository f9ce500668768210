"""`afterword adapt`, and what it says when a run is done."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afterword.cli.align import say_aligned
from afterword.cli.console import err, fill, out, say, say_error
from afterword.cli.options import Config, Documents, Model, Overrides, command_line, told
from afterword.settings.adapt import AdaptSettings
from afterword.storage.records import read_record

if TYPE_CHECKING:
    from afterword.training import RunResult


def adapt(
    model: Model = None,
    documents: Documents = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="Folder of the run. The same command resumes a run there.")
    ] = None,
    config: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count tokens, estimate time and memory, train nothing.")
    ] = False,
    print_schema: Annotated[bool, typer.Option("--print-schema", help="Print the settings as JSON schema.")] = False,
    overrides: Overrides = None,
) -> None:
    """Teach documents to a model: by fine-tuning, or --method disc, recite, …; --use-peft for LoRA with any."""
    if print_schema:
        out.print_json(json.dumps(AdaptSettings.model_json_schema()))
        return
    raw = told(config, overrides, model_name_or_path=model, documents=documents, output_dir=output_dir)
    from afterword import runs

    plan = runs.plan(raw)
    # After the settings: it imports the libraries, which takes seconds.
    from afterword import training

    training.quiet_libraries()
    _say_reference(plan.run)
    if dry_run:
        from afterword.budget import foresee

        settings, chosen = foresee(plan.run) if plan.run.is_guided else (plan.run, "")
        fill("dry_run.txt.j2", plan=training.dry_run(settings), chosen=chosen)
        return
    _, aligned = runs.run(
        plan, command=command_line(), console=err, between=lambda result: _say_adapted(plan.run, result)
    )
    if aligned:
        say_aligned(aligned)


def _say_reference(settings: AdaptSettings) -> None:
    """That a run is gone on from, and what it is held to, where nobody said so."""
    folder = Path(settings.model_name_or_path)
    if settings.reference or not os.path.isfile(folder / "config.yaml"):
        return
    about = read_record(folder / "config.yaml")
    if first := about.get("reference") or about.get("model_name_or_path"):
        held = f"{folder} is a run from {first}. It is the teacher here, and what is lost is measured against it"
        say_error(f"{held}; --reference {first} takes the first model (see `afterword sequence`).")


def _say_adapted(settings: AdaptSettings, result: "RunResult") -> None:
    from afterword.report import write_model_card

    if result.already_complete:
        say(f"{result.path} is complete ({result.steps} steps); nothing was trained.")
        if not (result.path / "README.md").exists():
            write_model_card(result.path)
            say("Its model card was missing, and is written.")
        return
    write_model_card(result.path)
    from afterword.report.first_look import in_words, read_first_look
    from afterword.report.saved import saved_block
    from afterword.report.serving import serving_block
    from afterword.report.verdict import verdict_of

    data, seen = read_record(result.path / "data.json"), read_first_look(result.path)
    verdict, changes = verdict_of(seen), in_words(seen)
    saved = saved_block(data.get("saved"))
    serving = serving_block(result.path, str(result.path), saved["serve_options"] if saved else [])
    shown = {"data": data, "verdict": verdict, "changes": changes, "serving": serving}
    fill("adapted.txt.j2", settings=settings, result=result, **shown)
