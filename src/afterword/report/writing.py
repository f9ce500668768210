"""Pages to disk, each whole or not at all. All that is printed is escaped, unless marked here as safe."""

import html
import os
import re
import shlex
from pathlib import Path
from typing import Any

from markupsafe import Markup

from afterword.errors import CheckpointError
from afterword.report import numbers
from afterword.report.content import build_page, printed_settings
from afterword.report.labels import load_table
from afterword.report.readings import grouped


def write_report(run: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.md` into a run folder; the same folder always gives the same bytes.

    Works without scores, and then says so. CheckpointError where the folder is not a run or is broken.
    """
    page = build_page(run)
    return _write(run / "report.html", page), _write(run / "report.md", page)


def write_model_card(run: Path) -> Path:
    """Write `README.md`, the model card that the Hugging Face Hub shows, into a run folder."""
    return _write(run / "README.md", build_page(run))


def _write(file: Path, page: dict[str, Any]) -> Path:
    """Fill the file's template. Atomically: a reader sees the old page or the new one, never half of it."""
    text = _filled(f"{file.name}.j2", page)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        remedy = "Make room or give write access, then run `afterword report` again."
        raise CheckpointError(f"{file}: cannot be written ({error.strerror}). {remedy}") from error
    return file


def _filled(template: str, page: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("afterword.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # finalize runs before autoescape and returns Markup: nothing is escaped twice, nothing is forgotten.
        finalize=_markdown if template.endswith(".md.j2") else None,
    )
    environment.filters |= {"count": numbers.count, "duration": numbers.duration, "settings": printed_settings}
    environment.filters |= {"code": _code, "fenced": _fenced, "front_matter": _front_matter, "shell": shlex.join}
    environment.filters |= {"grouped": grouped}
    return environment.get_template(template).render(page, words=load_table("words.yaml"))


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
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text}\n{fence}")


def _front_matter(fields: dict[str, Any]) -> Markup:
    """YAML quotes what it must; Markdown escapes would end up in the values."""
    import yaml

    return Markup(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))
