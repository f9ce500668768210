"""The pages of the reference that are made of the code: settings, commands, methods, measures, checks.

mkdocs calls this file as a hook, so nothing that is generated lies in the repository. To look at the pages:
`python docs/generate_reference.py FOLDER`.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

REPOSITORY = Path(__file__).resolve().parents[1]
MADE_BY = "<!-- made by docs/generate_reference.py -->\n"
FIGURES = {"images/almanac-frontier.png": REPOSITORY / "studies/almanac-frontier/compare.png"}
"""Figures that a study wrote beside its rows, by where they are in the site."""
_FIRST = ("AdaptSettings",)
"""Trees of settings that are shown before the others."""
_ABOUT_SETTINGS = """\
A setting is a key of the YAML file (`--config run.yaml`) and, with dashes, an option of the command line:
`learning_rate: 1e-5` is `--learning-rate 1e-5`. The command line wins. Unknown names are errors, and all problems are
reported at once. Where the default is "not set", the method or the model decides, or the run chooses."""
_ABOUT_COMMANDS = """\
`afterword COMMAND --help` shows the same on a terminal. Exit status: 0 done; 1 an error, said in one sentence; 2
settings that cannot be run, all of them listed; 130 and 143 interrupted by Ctrl-C and SIGTERM."""
_ABOUT_METHODS = """\
A method is a view, an objective, and the defaults of its paper: see
[views and objectives](../concepts/views_and_objectives.md), and [choosing a method](../guides/choosing.md).
`--preset NAME-paper` takes the defaults below and chooses nothing."""
_ABOUT_MEASURES = """\
What `afterword evaluate` can measure, before and after. A name is the `task` of its scores; those of a suite begin with
split, part and skill, those of tasks with `tasks/`. The metrics of a suite, and what else is in the files, are told in
[metrics](metrics.md); how to read them in [what is measured](../concepts/measures.md); a measure of your own in
[add a measure](../ADD_A_MEASURE.md)."""
_ABOUT_CHECKS = """\
An answer is right where every check of its item holds. "Said" means: as whole words, in any case. "Normalised" means:
lower case, without articles, quotes and outer punctuation. The item around them: [the suite](suite.md)."""


# ---- settings


def settings_trees() -> list[type]:
    """Every tree of settings, `afterword adapt`'s first: the classes below Settings that no other is made of."""
    from afterword import settings
    from afterword.settings.base import Settings

    for module in pkgutil.walk_packages(settings.__path__, "afterword.settings."):
        importlib.import_module(module.name)
    found = [tree for tree in _below(Settings) if not tree.__subclasses__()]
    return sorted(dict.fromkeys(found), key=lambda tree: (tree.__name__ not in _FIRST, tree.__module__))


def _below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def settings_page() -> str:
    """All settings, tree by tree and panel by panel."""
    lines = [MADE_BY + "# Settings", "", _ABOUT_SETTINGS]
    for tree in settings_trees():
        lines += ["", f"## {_title(tree)}", "", *_panels(tree)]
    return "\n".join(lines) + "\n"


def _title(tree: type) -> str:
    """`afterword adapt`, as the docstring names the command, else the docstring's first sentence."""
    told = inspect.getdoc(tree) or tree.__name__
    return told.split("`")[1] if "`afterword " in told else told.split("\n")[0].rstrip(".").replace("`", "")


def _panels(tree: Any) -> Iterator[str]:
    panels: dict[str, list[str]] = {}
    for name, field in tree.model_fields.items():
        about = field.json_schema_extra
        panel = about.get("panel", "Other") if isinstance(about, Mapping) else "Other"
        row = [f"`{name}`", _values(field), _default(field.get_default()), field.description or ""]
        panels.setdefault(panel, []).append("| " + " | ".join(map(_cell, row)) + " |")
    for panel, rows in panels.items():
        yield from ("", f"**{panel}**", "", "| setting | values | default | meaning |", "|---|---|---|---|", *rows)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())


def _default(value: Any) -> str:
    if value in (None, (), {}, ""):
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else f"{value!r}" if isinstance(value, str) else value
    return f"`{shown}`".replace("'", "")


def _values(field: Any) -> str:
    """What a field may be, in words."""
    rules = [_rule(each) for each in field.metadata]
    return ", ".join([_kind(field.annotation), *filter(None, rules)])


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([_kind(parts[0]), *filter(None, map(_rule, _metadata(parts[1:])))])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(part) for part in parts if part is not NoneType))
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (tuple, list):
        inner = dict.fromkeys(_kind(part) for part in parts if part is not Ellipsis)
        return "list of " + ", ".join(inner)
    words = {bool: "true, false", int: "whole number", float: "number", str: "text", dict: "KEY: VALUE"}
    return words.get(origin or annotation, "text")


def _metadata(given: tuple[Any, ...]) -> Iterator[Any]:
    for each in given:
        yield from getattr(each, "metadata", (each,))


def _rule(rule: Any) -> str:
    bounds = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return " ".join(f"{sign} {getattr(rule, name)}" for name, sign in bounds.items() if hasattr(rule, name))


# ---- commands


def commands() -> dict[str, Any]:
    """Every command by its name."""
    import typer

    from afterword.cli import app

    group: Any = typer.main.get_command(app)
    return dict(sorted(group.commands.items()))


def commands_page() -> str:
    """Every command: what it does, what it takes, and where its settings are."""
    trees = {_title(tree): tree for tree in settings_trees()}
    lines = [MADE_BY + "# Commands", "", _ABOUT_COMMANDS]
    for name, command in commands().items():
        title = f"afterword {name}"
        shared = set(trees[title].model_fields) if title in trees else set[str]()
        lines += ["", f"## {title}", "", command.help or "", "", "```", _usage(title, command), "```"]
        own = [each for each in command.params if each.name not in shared or not _is_plain(each)]
        rows = [row for each in own if (row := _parameter(each))]
        if rows:
            lines += ["", "| | |", "|---|---|", *rows]
        if shared:
            anchor = title.replace(" ", "-")
            lines += ["", f"And an option for every setting: [settings of {title}](settings.md#{anchor})."]
    return "\n".join(lines) + "\n"


def _is_plain(parameter: Any) -> bool:
    """Whether it is an option with the name of its setting, and no other."""
    return parameter.opts == ["--" + parameter.name.replace("_", "-")]


def _kind_of(parameter: Any) -> str:
    return str(parameter.param_type_name)


def _usage(title: str, command: Any) -> str:
    given = [each for each in command.params if _kind_of(each) == "argument"]
    shown = [_placeholder(each) if each.required else f"[{_placeholder(each)}]" for each in given]
    return " ".join([title, *shown, "[OPTIONS]"])


def _placeholder(argument: Any) -> str:
    name = str(argument.metavar or argument.name).strip("[]{}.").upper()
    return name + ("…" if argument.nargs == -1 else "")


def _parameter(parameter: Any) -> str:
    if parameter.name == "help":
        return ""
    argument = _kind_of(parameter) == "argument"
    name = _placeholder(parameter) if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    usual = f" Default: `{default}`." if isinstance(default, str | int | Path) and not isinstance(default, bool) else ""
    return f"| `{name}` | {_cell((parameter.help or '') + usual)} |".replace("`" + name, "`" + name.replace("|", r"\|"))


# ---- methods


def methods_page() -> str:
    """Every method: what it declares, its defaults and where it differs from its paper."""
    from afterword.methods import METHODS

    lines = [MADE_BY + "# Methods", "", _ABOUT_METHODS]
    for method in METHODS.values():
        settings = {name: value for name, value in method.settings().items() if value is not None}
        lines += [
            *("", f"## {method.name}", "", method.summary, ""),
            f"- Paper: {f'<{method.paper}>' if method.paper else 'none'}",
            f"- View: `{type(method.view).__name__}`; objective: `{type(method.objective).__name__}`",
            f"- Settings: {_pairs(settings)}",
            f"- Optimizer: {_pairs(method.defaults)}",
            f"- General text: {_general_text(method)}",
            f"- Where it differs from the paper: {method.deviations or 'nowhere known'}",
        ]
    return "\n".join(lines) + "\n"


def views_and_objectives() -> list[str]:
    """The table of docs/concepts: every method where its view and its objective meet."""
    from afterword.methods import METHODS

    places: dict[tuple[str, str], list[str]] = {}
    for method in METHODS.values():
        place = (type(method.view).__name__, type(method.objective).__name__)
        places.setdefault(place, []).append(f"`{method.name}`")
    views = list(dict.fromkeys(view for view, _ in places))
    objectives = list(dict.fromkeys(objective for _, objective in places))
    lines = ["| view | " + " | ".join(f"`{each}`" for each in objectives) + " |", "|---" * (len(objectives) + 1) + "|"]
    for view in views:
        cells = [", ".join(places.get((view, objective), ["–"])) for objective in objectives]
        lines.append(f"| `{view}` | " + " | ".join(cells) + " |")
    return lines


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in values.items()) or "none"


def _general_text(method: Any) -> str:
    if method.replay:
        return f"read with an objective of its own, `{type(method.replay.objective).__name__}`"
    return "read as documents are" if method.mixes else "none, unless `replay` or a source says what to do with it"


# ---- measures


def measures_page() -> str:
    """Every measure: what it needs, what is paired, and its metrics with direction and meaning."""
    from afterword.evaluation.measures import MEASURES

    lines = [MADE_BY + "# Measures", "", _ABOUT_MEASURES]
    for measure in MEASURES.values():
        needs = ", ".join(f"`{name}`" for name in measure.needs)
        lines += ["", f"## {measure.name}", "", f"{measure.label}." if measure.label else ""]
        lines += [f"Needs {needs}. Paired by {measure.pairs_by}. Version {measure.version}."]
        rows = [[f"`{it.name}`", it.better or "–", it.meaning or it.label or "–"] for it in measure.metrics]
        if rows:
            lines += ["", "| metric | better | meaning |", "|---|---|---|"]
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


# ---- checks of a suite


def checks_page() -> str:
    """Every kind of check: its fields, and what it asks of an answer."""
    from afterword.evaluation.checks import KINDS

    lines = [MADE_BY + "# Checks of a suite", "", _ABOUT_CHECKS, ""]
    lines += ["| kind | fields | holds where |", "|---|---|---|"]
    for kind, check in KINDS.items():
        fields = [each for name, each in inspect.signature(check).parameters.items() if name != "text"]
        shown = [f"`{each.name}`" + ("" if each.default is each.empty else " (optional)") for each in fields]
        told = (inspect.getdoc(check) or "").split("\n>>>")[0]
        lines.append(f"| `{kind}` | {', '.join(shown) or '–'} | {_cell(told)} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/commands.md": commands_page,
    "reference/methods.md": methods_page,
    "reference/measures.md": measures_page,
    "reference/checks.md": checks_page,
}
"""The generated pages by their place in docs."""


# ---- mkdocs


def on_config(config: Any) -> None:
    """Put the pages on extensions, docs/ADD_A_….md, into the navigation: each is there as soon as it is written."""
    for section in config["nav"]:
        if "Extend" in section:
            pages = sorted(path.name for path in (REPOSITORY / "docs").glob("ADD_A_*.md"))
            section["Extend"] += [page for page in pages if page not in str(section["Extend"])]


def on_files(files: Any, config: Any) -> None:
    """Give mkdocs the generated pages, and the figures that lie beside the rows of studies."""
    from mkdocs.structure.files import File

    for place, page in PAGES.items():
        files.append(File.generated(config, place, content=page()))
    for place, figure in FIGURES.items():
        files.append(File.generated(config, place, abs_src_path=str(figure)))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What is in a list behind two spaces, as elsewhere, behind the four that mkdocs needs, blocks of code included."""
    lines, in_list, in_block = [], False, False
    for line in markdown.split("\n"):
        if line.startswith("```"):
            in_block = not in_block
        if line.strip() and not line.startswith(" "):
            in_list = not in_block and bool(re.match(r"-|\d+\.", line))
        indent = len(line) - len(line.lstrip(" "))
        lines.append(" " * indent + line if in_list and not in_block else line)
    return "\n".join(lines)


if __name__ == "__main__":
    for place, page in PAGES.items():
        path = Path(sys.argv[1], place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")
