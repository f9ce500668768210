"""The shape of the house: who may import whom, what is named where, and that a function can be read at a glance."""

import ast
import graphlib
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from commands import run_python

import afterword
from afterword.methods import METHODS

SOURCE = Path(afterword.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


@cache
def trees():
    """Every file as Python reads it: only where a test looks at it."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


# Each folder or file may import these parts of afterword (and itself), and nothing else of it.
MAY_IMPORT = {
    "types": "",
    "errors": "",
    "plugins": "errors",
    "distributed": "",
    "method_options": "",
    "progress": "distributed",
    "pool": "distributed errors",
    "storage": "errors",
    "corpus": "errors plugins storage types",
    "data": "corpus errors method_options storage types",
    "objectives": "method_options",
    "methods": "data errors method_options objectives plugins study types writing",
    "named_models": "errors storage",
    "models": "data distributed errors named_models objectives progress storage types",
    "writing": "corpus data distributed errors models pool progress storage types",
    "study": "corpus data errors method_options progress storage types writing",
    "settings": "corpus data errors method_options methods named_models pool storage study types",
    "training": "corpus data distributed errors methods models objectives progress settings storage types writing",
    "evaluation": "corpus data distributed errors models objectives plugins progress settings storage types writing",
    "alignment": "corpus data distributed errors models objectives progress settings storage training types",
    "budget": "corpus data distributed errors evaluation models objectives settings storage training types",
    "comparison": "alignment corpus errors evaluation models pool progress settings storage training types",
    "runs": "alignment budget distributed errors evaluation methods named_models settings storage training",
    "sequence": "corpus distributed errors evaluation models runs settings storage training types",
    "quiz": "corpus data distributed errors evaluation models pool settings storage types writing",
    "serving": "errors models named_models settings storage",
    "report": "errors evaluation storage",
    "almanac": "errors evaluation types",
    "demo": "almanac budget errors evaluation models report settings storage training types",
    "cli": "alignment almanac budget comparison corpus demo distributed errors evaluation "
    "methods models named_models pool quiz report runs sequence serving settings storage study training types writing",
    "__main__": "cli",
    "__init__": "alignment errors evaluation methods report runs training",
}
FUNCTION_LINES = 60


def part_of(path):
    inside = path.relative_to(SOURCE)
    return inside.stem if len(inside.parts) == 1 else inside.parts[0]


def imports_of(tree):
    """Full names of everything that is imported, also inside functions, for type checking, and by a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            name = node.args[0] if node.args else None
            # A name that is put together at run time cannot be followed: it may be anything of ours.
            yield str(name.value) if isinstance(name, ast.Constant) else "afterword.*"
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def documentation_of(tree):
    """Constants that stand alone as a statement: docstrings, of attributes too."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def functions_of(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def module_names():
    """Every module but `__main__`, whose import is a run of the command line."""
    names = [".".join(["afterword", *path.relative_to(SOURCE).with_suffix("").parts]) for path in FILES]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def test_every_part_is_in_the_table():
    assert {part_of(path) for path in FILES} == set(MAY_IMPORT)


def test_no_module_depends_on_itself_by_whatever_way():
    depends = {name: set[str]() for name in module_names()}
    for path in FILES:
        own = ".".join(["afterword", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
        for name in imports_of(trees()[path]):
            # What the doors load by name is found by whoever asks for it.
            home = name if name in depends or name.endswith("*") else name.rpartition(".")[0]
            if own in depends and home in depends and own != home:
                depends[own].add(home)
    assert list(graphlib.TopologicalSorter(depends).static_order())


def test_dependencies_point_one_way():
    wrong = []
    for path, tree in trees().items():
        part = part_of(path)
        for name in imports_of(tree):
            if name.split(".")[0] == "afterword":
                imported = name.split(".")[1]
                # The doors give what is asked for by name.
                if imported == "*" and part in ("__init__", "plugins"):
                    continue
                if imported not in (*MAY_IMPORT[part].split(), part, "__version__"):
                    wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("code", ["importlib.import_module('afterword.cli')", "import_module('afterword.cli', None)"])
def test_an_import_by_a_string_is_seen(code):
    assert list(imports_of(ast.parse(f"x = {code}"))) == ["afterword.cli"]
    assert list(imports_of(ast.parse("import_module(f'afterword.{name}')"))) == ["afterword.*"]


def test_the_package_knows_nothing_of_how_the_embedded_models_are_built():
    knowing = [path for path in FILES for name in imports_of(trees()[path]) if name.split(".")[0] == "almanac_build"]
    assert not knowing


def test_no_method_is_named_outside_its_folder():
    found = []
    for path, tree in trees().items():
        documented = documentation_of(tree)
        for node in ast.walk(tree):
            named = isinstance(node, ast.Constant) and node.value in METHODS and id(node) not in documented
            if named and part_of(path) != "methods":
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    # A kind of study text has the name of the method that trains it alone; and the one default that there is.
    assert [place.split(":")[0] for place in found] == ["method_options.py", "settings/adapt.py"], found


def test_only_one_file_knows_how_processes_work_together():
    knowing = set()
    for path, tree in trees().items():
        if any(re.match(r"torch\.distributed|accelerate\b", name) for name in imports_of(tree)):
            knowing.add(str(path.relative_to(SOURCE)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.distributed"):
                knowing.add(str(path.relative_to(SOURCE)))
    assert knowing <= {"distributed.py"}


def test_reports_are_written_without_torch_and_transformers():
    for path, tree in trees().items():
        if part_of(path) == "report":
            assert not {name.split(".")[0] for name in imports_of(tree)} & {"torch", "transformers", "peft"}, path


@pytest.mark.parametrize("module", ["afterword", "afterword.report", "afterword.cli", "afterword.corpus"])
def test_importing_is_light(module):
    heavy = "[name for name in ('torch', 'transformers', 'peft', 'accelerate') if name in sys.modules]"
    done = run_python("-c", f"import sys, {module}; print({heavy})")
    assert (done.out.strip(), done.err) == ("[]", "")


def test_every_module_imports():
    for name in module_names():
        importlib.import_module(name)


def test_importing_prints_nothing_and_draws_nothing(forking):
    # Its process has imported every module.
    assert forking.imported == "ready\n"


def test_what_afterword_offers_is_sorted_and_there():
    assert afterword.__all__ == sorted(afterword.__all__, key=lambda name: (not name.isupper(), name))
    assert all(getattr(afterword, name) is not None for name in afterword.__all__)
    assert set(afterword.__all__) <= set(dir(afterword))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = afterword.nothing


def test_everything_public_has_a_docstring():
    bare = []
    for path, tree in trees().items():
        if not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(SOURCE)}: the module")
        public = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        for owner in [node for node in public if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]:
            public += [node for node in owner.body if isinstance(node, ast.FunctionDef)]
        nodes = [node for node in public if not node.name.startswith("_") and not ast.get_docstring(node)]
        bare += [f"{path.relative_to(SOURCE)}: {node.name}" for node in nodes]
    assert not bare, "\n".join(bare)


def test_no_function_is_too_long():
    long = [
        f"{path.relative_to(SOURCE)}: {f.name}"
        for path, tree in trees().items()
        for f in functions_of(tree)
        if f.end_lineno - f.lineno + 1 > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_nothing_is_called_utils():
    empty, found = {"utils", "helpers", "common", "util", "helper", "misc"}, []
    for path, tree in trees().items():
        own = path.relative_to(SOURCE)
        names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        words = {part.removesuffix(".py") for part in own.parts}
        words |= {word for name in names for word in name.lower().strip("_").split("_")}
        found += [f"{own}: {word}" for word in sorted(empty & words)]
    assert not found, "\n".join(found)
