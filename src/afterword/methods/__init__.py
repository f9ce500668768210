"""The registry: a method is a declaration in a short file of its own and one line here."""

from afterword.errors import ConfigError, nearest
from afterword.methods import cpt, disc, disc_mixcpt, finetune, finetune_kl, lwf, mixcpt, mol, talr
from afterword.methods.method import REPLAYS, Method, Replay, Term

_DECLARED = (disc, mixcpt, disc_mixcpt, finetune, finetune_kl, cpt, lwf, mol, talr)
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _DECLARED}
DEFAULT_METHOD = disc.METHOD.name


def get_method(name: str) -> Method:
    """The declaration of a method. Unknown names are refused with the nearest known one."""
    if name in METHODS:
        return METHODS[name]
    raise ConfigError(f"method: {name!r} is not known. {nearest(name, METHODS)}Known: {', '.join(METHODS)}.")
