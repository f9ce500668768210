"""The command line. Settings of `adapt` are the fields of AdaptSettings; nothing is declared twice."""

from __future__ import annotations

import functools
import inspect
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.console import Console
from rich.table import Table

from afterword.errors import AfterwordError, ConfigError

_NAMES = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda name: name.replace("_", "-")}
app = typer.Typer(
    name="afterword",
    help="Teach a post-trained language model new documents, keep what it knew, and show both on one page.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_NAMES,
)
out, err = Console(), Console(stderr=True)


def main() -> None:
    """Entry point: one clear message and an exit code for everything that a person can cause."""
    try:
        app()
    except ConfigError as error:
        err.print(f"These settings cannot be run:\n{error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except AfterwordError as error:
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(130 if type(error).__name__ == "Interrupted" else 1)
    except KeyboardInterrupt:
        err.print("Interrupted.")
        sys.exit(130)


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every setting, collected into its `overrides`."""
    from afterword.config import AdaptSettings

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field))
        for name, field in AdaptSettings.model_fields.items()
        if name not in ("model_name_or_path", "documents", "output_dir")
    ]
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "overrides"]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        overrides = {p.name: values.pop(p.name) for p in options}
        command(**values, overrides={k: v for k, v in overrides.items() if v is not None})

    wrapped.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
    return wrapped


def _option(name: str, field: Any) -> Any:
    """The typer annotation of a setting. Values stay text: the one validation is that of AdaptSettings."""
    flag = f"--{name.replace('_', '-')}"
    panel = field.json_schema_extra["panel"]
    default = field.get_default()
    shown = " ".join(default) if isinstance(default, tuple) else default
    text = field.description + (f" [{shown}]" if default not in (None, (), {}, "") else "")
    if field.annotation is bool:
        flags = f"{flag}/--no-{name.replace('_', '-')}"
        return Annotated[bool | None, typer.Option(flags, help=text, rich_help_panel=panel, show_default=False)]
    many = get_origin(field.annotation) in (tuple, dict) or tuple in map(get_origin, get_args(field.annotation))
    kind = list[str] | None if many else str | None
    metavar = "KEY=VALUE" if get_origin(field.annotation) is dict else name.rpartition("_")[2].upper()
    return Annotated[kind, typer.Option(flag, help=text, rich_help_panel=panel, metavar=metavar, show_default=False)]


def adapt(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id of the model.")] = None,
    documents: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, data-set ids.")] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Run folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; the command line wins.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Count, estimate time and memory; train nothing.")] = False,
    print_schema: Annotated[bool, typer.Option(help="Print the JSON schema of the settings.")] = False,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Teach documents to a model. DiSC by default; --method finetune; --use-peft for LoRA with either."""
    from afterword.config import AdaptSettings, load_yaml, read_settings

    if print_schema:
        out.print_json(json.dumps(AdaptSettings.model_json_schema()))
        return
    given = {"model_name_or_path": model, "documents": documents, "output_dir": output_dir}
    raw = {**(load_yaml(config) if config else {}), **(overrides or {})}
    raw.update({name: value for name, value in given.items() if value})
    if isinstance(raw.get("trainer"), list):
        raw["trainer"] = _key_values(raw["trainer"])
    settings = read_settings(raw)
    from afterword.training import dry_run as estimate
    from afterword.training import quiet_libraries, run_adaptation

    quiet_libraries()
    if dry_run:
        _show_dry_run(estimate(settings))
        return
    result = run_adaptation(settings, command=shlex.join(["afterword", *sys.argv[1:]]), console=err)
    from afterword.training.processes import is_main_process

    if is_main_process():
        _after_adapt(settings, result)


app.command(name="adapt", context_settings=_NAMES)(_with_settings(adapt))


@app.command(context_settings=_NAMES)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model alone.")],
    documents: Annotated[list[str] | None, typer.Option(help="Trained documents; the run's own if not given.")] = None,
    held_out: Annotated[list[str] | None, typer.Option(help="Documents that were not trained.")] = None,
    questions: Annotated[str | None, typer.Option(help="JSON lines: question, answer(s), document.")] = None,
    general: Annotated[list[str] | None, typer.Option(help="Text that must not be forgotten.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks of lm-evaluation-harness, comma-separated.")] = None,
    tasks_limit: Annotated[int | None, typer.Option(help="Documents a task.")] = None,
    tasks_path: Annotated[str | None, typer.Option(help="Folder with tasks of your own.")] = None,
    reference: Annotated[str | None, typer.Option(help="The model before; the run's base if not given.")] = None,
    max_documents: Annotated[int, typer.Option(help="Documents drawn from each set.")] = 200,
    samples: Annotated[int, typer.Option(help="Samples of the reference that drift is measured on.")] = 64,
    max_length: Annotated[int | None, typer.Option(help="Context in tokens.")] = None,
    language: Annotated[str, typer.Option(help="Language code for finding sentences.")] = "en",
    seed: Annotated[int, typer.Option(help="Draws of documents, targets and samples.")] = 0,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Where scores.json goes.")] = None,
) -> None:
    """Measure what a run learned and what it lost, before and after, with 95 % intervals."""
    from afterword.evaluation import evaluate as measure
    from afterword.training import quiet_libraries

    quiet_libraries()
    result = measure(
        model,
        output_dir=output_dir,
        command=shlex.join(["afterword", *sys.argv[1:]]),
        documents=tuple(documents or ()),
        held_out=tuple(held_out or ()),
        general=tuple(general or ()),
        tasks=tuple(name.strip() for name in (tasks or "").split(",") if name.strip()),
        questions=questions,
        tasks_limit=tasks_limit,
        tasks_path=tasks_path,
        reference=reference,
        max_documents=max_documents,
        samples=samples,
        max_length=max_length,
        language=language,
        seed=seed,
    )
    _show_scores(result)


@app.command(context_settings=_NAMES)
def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write report.html (self-contained), report.md and the model card of a run."""
    from afterword.report import write_model_card, write_report

    html, markdown = write_report(run)
    card = write_model_card(run)
    out.print(f"Wrote {html}, {markdown.name} and {card.name}.", highlight=False, soft_wrap=True)


@app.command(context_settings=_NAMES)
def methods() -> None:
    """What there is, with papers and vetted defaults."""
    from afterword.methods import METHODS

    for method in METHODS.values():
        out.print(f"[bold]{method.name}[/bold]  {method.summary}", highlight=False)
        settings = " ".join(f"{name}={value}" for name, value in method.settings().items() if value is not None)
        for line in (f"{settings} learning_rate={method.defaults['learning_rate']:g}", method.paper):
            out.print(f"    {line}", highlight=False, soft_wrap=True)


def _key_values(pairs: list[str]) -> dict[str, Any]:
    import yaml

    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ConfigError(f"trainer: {pair!r} is not of the form KEY=VALUE." for pair in wrong)
    split = [pair.split("=", 1) for pair in pairs]
    return {name.replace("-", "_"): yaml.safe_load(value) for name, value in split}


def _after_adapt(settings: Any, result: Any) -> None:
    from afterword.report import write_model_card

    if result.already_complete:
        out.print(f"{result.path} is complete ({result.steps} steps); nothing was trained.", soft_wrap=True)
        return
    write_model_card(result.path)
    data = json.loads((result.path / "data.json").read_text(encoding="utf-8"))
    table = _plain_table()
    table.add_row("model", f"{settings.model_name_or_path} → {result.path}")
    table.add_row("method", settings.method + (" with LoRA" if settings.use_peft else ""))
    for name, value in _data_rows(data):
        table.add_row(name, value)
    resumed = f", resumed from step {result.resumed_from}" if result.resumed_from else ""
    table.add_row("steps", f"{result.steps:,} in {_duration(result.seconds)}{resumed}")
    if result.first_loss_nats is not None:
        change = f"{result.first_loss_nats:.4g} → {result.last_loss_nats:.4g}"
        table.add_row("training loss", f"{change} nats (mean of first and last tenth)")
    out.print(table)
    out.print(
        f"Next: afterword evaluate {result.path}; afterword report {result.path}", highlight=False, soft_wrap=True
    )


def _data_rows(data: dict[str, Any]) -> list[tuple[str, str]]:
    split = f", {data['split_documents']} documents in several" if data["split_documents"] else ""
    rows = [
        ("documents", f"{data['documents']:,}"),
        ("windows", f"{data['windows']:,}{split}; {data['tokens']:,} tokens"),
    ]
    skipped = {**data["skipped_windows"]}
    for source in data["sources"]:
        for reason, count in source["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    if skipped:
        rows.append(("skipped", ", ".join(f"{n} {reason}" for reason, n in skipped.items()) + " (see data.json)"))
    if data["cut_sentences"]:
        rows.append(("cut sentences", f"{data['cut_sentences']:,} longer than the context"))
    return rows


def _show_dry_run(estimate: Any) -> None:
    table, counts = _plain_table(), estimate.counts
    for name, value in _data_rows({**estimate.corpus.to_json(), **_counts(counts)}):
        table.add_row(name, value)
    rows = [
        ("targets", f"{estimate.targets:,} a pass; {estimate.trained_positions:,} trained positions"),
        ("tokens read a pass", f"student {estimate.student_tokens:,}, teacher {estimate.teacher_tokens:,}"),
        ("steps", f"{estimate.steps:,}"),
        ("parameters", f"{estimate.trained_parameters:,} trained of {estimate.parameters:,}"),
        ("time", f"about {_duration(estimate.seconds)} here (three steps timed)"),
        (
            "memory",
            f"about {estimate.memory_gib:.2f} GiB: weights, gradients, AdamW and teacher {estimate.weights_gib:.2f}, "
            f"activations and logits {estimate.activations_gib:.2f}",
        ),
    ]
    for row in rows:
        table.add_row(*row)
    out.print(table)
    out.print("Nothing was trained and nothing was written.")


def _counts(counts: Any) -> dict[str, Any]:
    names = ("windows", "tokens", "split_documents", "cut_sentences")
    return {**{name: getattr(counts, name) for name in names}, "skipped_windows": counts.skipped}


def _show_scores(result: Any) -> None:
    table = Table("measured on", "quantity", "n", "before", "after", "change [95 %]", box=None, padding=(0, 2, 0, 0))
    for score in result.scores:
        cells = (_cell(score.before), _cell(score.after), _cell(score.change, interval=True))
        table.add_row(score.task, score.metric, f"{score.n:,}", *cells)
    out.print(table)
    for note in result.notes:
        out.print(f"Note: {note}", highlight=False, soft_wrap=True)


def _cell(estimate: Any, *, interval: bool = False) -> str:
    if estimate is None:
        return "–"
    if interval and estimate.interval_95:
        low, high = estimate.interval_95
        return f"{estimate.value:+.4g} [{low:+.4g}, {high:+.4g}]"
    return f"{estimate.value:.4g}"


def _plain_table() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
