"""What every command that writes can be told of what writes: the fields of its panel Writing."""

from collections.abc import Iterator
from typing import Any

from afterword.pool import Workers
from afterword.settings.base import later, setting

_PANEL = "Writing"
GENERATOR: Any = later(
    _PANEL,
    "What writes: another model, vllm, or the address of an endpoint (http://…/v1) whose key is in AFTERWORD_API_KEY "
    "or OPENAI_API_KEY (default: MODEL itself).",
)
GENERATOR_MODEL: Any = later(_PANEL, "Model of the endpoint, by its name there; or of vllm, where it is not MODEL.")
GENERATOR_REQUESTS: Any = setting(8, _PANEL, "Requests to an endpoint at once.", weights=False, ge=1, le=1024)
WRITTEN_FOLDER: Any = setting(
    None, _PANEL, "Folder that keeps what was written, for all runs (default: Afterword's cache).", weights=False
)


def writing_problems(
    generator: str | None, generator_model: str | None, workers: Workers | None = None
) -> Iterator[str]:
    """Problems between them."""
    address = generator is not None and generator.lower().startswith(("http://", "https://"))
    if address and not generator_model:
        yield "generator_model: missing. Give the name that the endpoint has for its model."
    if generator_model and not address and generator != "vllm":
        yield f"generator_model: {generator_model!r} is read with generator: vllm or an address. Give one of them."
    if workers and not workers.is_here and (address or generator == "vllm"):
        yield f"generator: {generator!r} answers many requests at once by itself. Leave out processes and ray."
