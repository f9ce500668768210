"""Pages to disk, each whole or not at all. All that is printed is escaped, unless marked here as safe."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afterword.errors import CheckpointError
from afterword.report import numbers
from afterword.report.content import MOST_OPEN, MOST_SKIPPED, Page, build_page, printed_settings
from afterword.report.readings import by_task
from afterword.report.run_folder import flat_settings, load_run, without_tokens

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def write_report(run: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a run folder; the same folder always gives the same bytes.

    Works without scores, and then says so. CheckpointError where the folder is not a run or is broken.
    """
    page = build_page(load_run(run))
    web = _environment().get_template("report.html.j2").render(page=page)
    markdown = _markdown_environment().get_template("report.md.j2").render(page=page)
    return _write(run / "report.html", web), _write(run / "report.md", markdown)


def write_model_card(run: Path) -> Path:
    """Write `README.md`, the model card that the Hugging Face Hub shows, into a run folder."""
    page = build_page(load_run(run))
    text = _markdown_environment().get_template("card.md.j2").render(page=page, front_matter=_front_matter(page))
    return _write(run / "README.md", text)


def _front_matter(page: Page) -> Markup:
    import yaml
    from markupsafe import Markup

    fields = {
        "base_model": page.base,
        "library_name": "peft" if page.run.is_adapter else "transformers",
        "tags": ["afterword", page.method],
    }
    # YAML quotes what it must; Markdown escapes would end up in the values.
    return Markup(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))


def _environment(**options: Any) -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("afterword.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.filters |= {"count": numbers.count, "settings": printed_settings, "code": _code, "fenced": _fenced}
    environment.filters |= {"by_task": by_task, "flat": flat_settings, "hidden": without_tokens}
    environment.globals |= {"most_skipped": MOST_SKIPPED, "most_open": MOST_OPEN}
    return environment


def _markdown_environment() -> Environment:
    # finalize runs before autoescape and returns Markup: nothing is escaped twice, nothing is forgotten.
    return _environment(finalize=_markdown)


def _markdown(value: object) -> Markup:
    """Text that Markdown shows as it is, in a table cell as well: no markup, no HTML, no line ends."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    text = html.escape(str(value), quote=False)
    text = re.sub(r"([\\`*_|~$]|\](?=[(\[:]))", r"\\\1", text)
    # A list, heading or rule can only begin where the text does.
    text = re.sub(r"^(\s*)([-+=#])(?!\d)|^(\s*\d+)([.)])(?=\s|$)", r"\1\3\\\2\4", text)
    return Markup("<br>".join(text.splitlines()))


def _code(value: object) -> Markup:
    """A name as inline code where that is safe, as escaped text where it is not."""
    from markupsafe import Markup

    text = str(value)
    return Markup(f"`{text}`") if re.fullmatch(r"[\w ./:=,@%+\-]*[\w./:=,@%+\-]", text) else _markdown(text)


def _fenced(text: str, language: str = "") -> Markup:
    """A code block whose fence is longer than any in the text."""
    from markupsafe import Markup

    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text}\n{fence}")


def _write(file: Path, text: str) -> Path:
    """Atomically: a reader sees the old page or the new one, never half of it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        remedy = "Make room or give write access, then run `afterword report` again."
        raise CheckpointError(f"{file}: cannot be written ({error.strerror}). {remedy}") from error
    return file
