"""What the pages say, and the pages on disk, each whole or not at all.

HTML and Markdown are filled from the same values. All that is printed is escaped, unless marked here as safe.
"""

import html
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from afterword.errors import CheckpointError, printable
from afterword.report.display import Score, count, duration, load_table, shown
from afterword.report.figures import draw_changes, draw_training
from afterword.report.first_look import read_first_look
from afterword.report.mixtures import held_out_losses, mixture_rows, read_aside, source_losses, with_general_text
from afterword.report.run_folder import load_run
from afterword.report.saved import saved_block
from afterword.report.serving import serving_block
from afterword.report.verdict import Verdict, verdict_of
from afterword.report.within_budget import within_budget
from afterword.report.wording import Rows, grouped, headline, rows_of


def write_report(run: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a run folder; the same folder always gives the same bytes.

    Works without scores, and then says so. CheckpointError where the folder is not a run or is broken.
    """
    page = build_page(run)
    return write_page(run / "report.html", page), write_page(run / "report.md", page)


def write_model_card(run: Path) -> Path:
    """Write `README.md`, the model card that the Hugging Face Hub shows, into a run folder."""
    return write_page(run / "README.md", build_page(run))


def verdict_on(folder: Path) -> Verdict | None:
    """The verdict on a run folder: on what `evaluate` measured, else on the first look; None where there is neither."""
    measured = load_run(folder)["measured"]
    return verdict_of((measured and measured["scores"]) or read_first_look(folder))


def build_page(path: Path) -> dict[str, Any]:
    """Everything that the report and the model card print of a run folder."""
    run = load_run(path)
    run |= {"data": with_general_text(run["data"])}
    measured = run["measured"] or {"scores": [], "answers": []}
    rows = rows_of(measured["scores"])
    page = {
        "run": run,
        "rows": rows,
        "columns": headline(rows),
        "questions": _questions(measured["scores"], measured["answers"]),
    }
    page["verdict"] = verdict_of(measured["scores"] or read_first_look(path))
    folder, saved = str(run["settings"].get("output_dir") or path), saved_block(run["data"]["saved"])
    return page | {
        "base": run["settings"].get("model_name_or_path") or "unknown model",
        "gone_on": run["data"].get("adapter"),
        "below": run["data"].get("adapter", {}).get("base")
        or run["settings"].get("model_name_or_path")
        or "unknown model",
        "method": run["settings"].get("method") or "unknown method",
        "folder": folder,
        "within": within_budget(run["budget"]),
        "saved": saved,
        "serving": serving_block(path, folder, saved["serve_options"] if saved else []),
        "mixture": mixture_rows(run["data"]["mixture"]),
        "aside": read_aside(run["data"]),
        "source_losses": {"trained": source_losses(run["metrics"]), "held_out": held_out_losses(run["metrics"])},
        "drawings": [drawing for drawing in (draw_changes(rows), draw_training(run["metrics"])) if drawing],
    }


_OF_ADAPTERS = ("use_peft", "use_dora", "merge_adapter", "load_in_4bit")
_OF_4BIT = "bnb_4bit_"


def _questions(scores: Sequence[Score], answers: Sequence[Mapping[str, Any]]) -> dict[str, Rows]:
    """Every question with the word that tells what became of it, by setting."""
    marks = load_table("words.yaml")["marks"]
    marked = ({**answer, "mark": marks[answer["before_correct"]][answer["after_correct"]]} for answer in answers)
    names = {score["task"]: shown(score)["task"] for score in scores}
    groups = grouped(marked, "setting").items()
    tasks = {setting: setting if "/" in setting else f"questions/{setting}" for setting, _ in groups}
    return {names.get(tasks[setting], tasks[setting]): group for setting, group in groups}


def printed_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text: strings as they are, everything else as JSON.

    Unset and empty ones are left out, and those of an adapter where there is none: they say nothing of the run.
    """
    without_adapter = "use_peft" in settings and not settings["use_peft"]
    unread = [name for name in settings if without_adapter and (name.startswith("lora_") or name in _OF_ADAPTERS)]
    unread += [name for name in settings if name.startswith(_OF_4BIT) and not settings.get("load_in_4bit")]
    shown = {n: value for n, value in settings.items() if value not in (None, "", [], {}) and n not in unread}
    as_text = json.JSONEncoder(ensure_ascii=False, default=str).encode
    return {name: value if isinstance(value, str) else as_text(value) for name, value in shown.items()}


def write_page(file: Path, page: dict[str, Any], template: str = "") -> Path:
    """Fill the file's template, or another. Atomically: a reader sees the old page or the new one, never half of it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(_filled(template or f"{file.name}.j2", page), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        remedy = "Make room or give write access, then run `afterword report` again."
        raise CheckpointError(f"{file}: cannot be written ({error.strerror}). {remedy}") from error
    return file


def _filled(template: str, page: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=True)
    environment.loader, environment.undefined = jinja2.PackageLoader("afterword.report"), jinja2.StrictUndefined
    # finalize runs before autoescape and returns Markup: nothing is escaped twice, nothing is forgotten.
    environment.finalize = _markdown if template.endswith(".md.j2") else None
    environment.filters |= {"count": count, "duration": duration, "settings": printed_settings, "grouped": grouped}
    environment.filters |= {"code": _code, "fenced": _fenced, "front_matter": _front_matter, "shell": shlex.join}
    return printable(environment.get_template(template).render(page, words=load_table("words.yaml")))


def _markdown(value: object) -> Markup:
    """Text that Markdown shows as it is, in a table cell as well: no markup, no HTML, no line ends."""
    if isinstance(value, Markup):
        return value
    text = html.escape(str(value), quote=False)
    text = re.sub(r"([\\`*_|~$]|\](?=[(\[:]))", r"\\\1", text)
    # A list, heading or rule can only begin where the text does.
    text = re.sub(r"^(\s*)([-+=#])(?!\d)|^(\s*\d+)([.)])(?=\s|$)", r"\1\3\\\2\4", text)
    return Markup("<br>".join(text.splitlines()))


def _code(value: object) -> Markup:
    """A name as inline code where that is safe, as escaped text where it is not."""
    text = str(value)
    return Markup(f"`{text}`") if re.fullmatch(r"[\w ./:=,@%+\-]*[\w./:=,@%+\-]", text) else _markdown(text)


def _fenced(text: str, language: str = "") -> Markup:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return Markup(f"{fence}{language}\n{text}\n{fence}")


def _front_matter(fields: dict[str, Any]) -> Markup:
    """YAML quotes what it must; Markdown escapes would end up in the values."""
    import yaml

    return Markup(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))
