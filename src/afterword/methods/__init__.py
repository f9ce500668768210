"""The registry: a method is a declaration in a short file of its own and one line here.

Others are added by packages (entry points of the group `afterword.methods`), named as `package.module:NAME`, or
registered by Python code.
"""

from typing import Any

from afterword import plugins
from afterword.errors import ConfigError, nearest
from afterword.methods import (
    continuation,
    cpt,
    deep_context,
    disc,
    disc_mixcpt,
    finetune,
    finetune_kl,
    lwf,
    memory_conditioned,
    mixcpt,
    mixsd,
    mol,
    on_policy,
    prompt_distillation,
    recite,
    rehearse,
    rephrase,
    study,
    talr,
)
from afterword.methods.method import REPLAYS, Method, Replay, Term

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "REPLAYS",
    "Method",
    "Replay",
    "Term",
    "configured_method",
    "get_method",
    "known_methods",
    "register_method",
]

_DECLARED = (
    disc,
    mixcpt,
    disc_mixcpt,
    finetune,
    finetune_kl,
    rehearse,
    recite,
    cpt,
    lwf,
    mol,
    talr,
    rephrase,
    continuation,
    prompt_distillation,
    memory_conditioned,
    mixsd,
    on_policy,
    deep_context,
    study,
)
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _DECLARED}
"""Those that come with the package."""
DEFAULT_METHOD = finetune.METHOD.name
_REGISTERED: dict[str, Method] = {}


def known_methods() -> list[str]:
    """Names of all that can be asked for by a name."""
    return [*METHODS, *(name for name in {**plugins.added("methods"), **_REGISTERED} if name not in METHODS)]


def get_method(name: str) -> Method:
    """The declaration of a method: by its name, or from `package.module:NAME`.

    ConfigError for an unknown name, with the nearest known one, and for what is no Method.
    """
    if found := METHODS.get(name) or _REGISTERED.get(name):
        return found
    if name in plugins.added("methods"):
        return _checked(name, plugins.load("methods", name))
    if ":" in name:
        return _checked(name, plugins.imported("method", name))
    known = known_methods()
    problem = f"method: {name!r} is not known. {nearest(name, known)}Known: {', '.join(known)}"
    raise ConfigError(f"{problem}; or package.module:NAME of your own.")


def configured_method(name: str, **settings: Any) -> Method:
    """The method of a name with some of its settings changed: `Method.configured`.

    ConfigError as there; of a setting that other methods of the package have, it says which.
    """
    method = get_method(name)
    try:
        return method.configured(**settings)
    except ConfigError as error:
        raise ConfigError(f"{problem}{_elsewhere(problem.split(':')[0])}" for problem in error.problems) from None


def register_method(method: Method) -> str:
    """Let this process find a method by its name, which is returned. Those of the package keep theirs: ConfigError."""
    if METHODS.get(method.name, method) != method:
        raise ConfigError(f"method: {method.name!r} is a method of Afterword. Give your own another name.")
    if method.name not in METHODS:
        _REGISTERED[method.name] = method
    return method.name


def _elsewhere(setting: str) -> str:
    """Which methods of the package have a setting."""
    having = [name for name, method in METHODS.items() if setting in method.adjustable()]
    return f" Or set method to one that has it: {', '.join(having)}." if having else ""


def _checked(place: str, found: object) -> Method:
    if isinstance(found, Method):
        if METHODS.get(found.name, found) != found:
            raise ConfigError(
                f"method: {place!r} is called {found.name!r}, as one of Afterword's. Give it another name."
            )
        return found
    problem = f"method: {place!r} is of the type {type(found).__name__}, not a Method"
    raise ConfigError(f"{problem}. Give an object made by afterword.methods.Method(…).")
