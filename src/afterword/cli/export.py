"""`afterword export`, and what it says of the file that it wrote."""

import shlex
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from afterword.cli.console import err, say, tell
from afterword.cli.options import CALLED, Overrides, told
from afterword.serving.inputs import check
from afterword.settings.adapt import read_settings
from afterword.settings.export import ExportSettings

if TYPE_CHECKING:
    from afterword.serving.export import Exported
    from afterword.serving.read_back import Agreement


def export(
    model: Annotated[str | None, Argument(help=f"Run folder, or model to serve. {CALLED}.")] = None,
    output_dir: Annotated[str | None, Option("--output-dir", "-o", help="Folder of the GGUF file.")] = None,
    overrides: Overrides = None,
) -> None:
    """Write a GGUF file for llama.cpp and ollama, by llama.cpp's own converter, and check that it says the same."""
    raw = told(None, overrides, model_name_or_path=model, output_dir=output_dir)
    settings = read_settings(raw, ExportSettings)
    # Before the libraries are imported, which takes seconds.
    check(settings)
    from afterword import models
    from afterword.serving.export import export as write

    models.quiet_libraries()
    written = write(settings, console=err)
    tell(_lines(written))
    say(f"Serve it: {shlex.join(['llama-server', '-m', str(written.path)])}")
    made = shlex.join(["ollama", "create", written.name.lower(), "-f", str(written.path.with_name("Modelfile"))])
    say(f"Or: {made} && ollama run {written.name.lower()}")


def _lines(written: "Exported") -> list[tuple[str, str]]:
    beside, megabytes = written.modelfile, written.path.stat().st_size / 1e6
    template = f"no TEMPLATE: {beside.left_out}" if beside.left_out else "TEMPLATE says what the chat template says"
    lines = [
        ("file", f"{written.path}, {megabytes:,.1f} MB"),
        ("ollama", f"Modelfile, {template}; ends at {', '.join(beside.stops) or 'no token of its own'}"),
    ]
    return [*lines, ("checked", in_words(written.agreement) if written.agreement else "not (--no-check)")]


def in_words(found: "Agreement") -> str:
    """How near a file is to its model, in two sentences."""
    kl = f"KL {found.kl_mean_nats:.2g} nats per token (largest {found.kl_largest_nats:.2g})"
    logits = f"logits {found.logit_mean:.2g} apart (largest {found.logit_largest:.2g})"
    top = f"the same likeliest token in {100 * found.same_top_frac:.1f} %"
    same = "Token ids and chat template are the same."
    return f"{kl}, {logits}, {top} of {found.tokens} tokens in {found.texts} texts. {same}"
