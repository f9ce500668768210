"""Settings of `afterword export`, checked before anything is loaded or written."""

import re
from collections.abc import Iterator
from typing import Literal

from afterword.settings.base import Settings, setting

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ExportSettings(Settings):
    """Everything that `afterword export` can be told."""

    model_name_or_path: str = setting("", "What", "Result of a run, or any other model, that is to be served.")
    output_dir: str = setting("", "What", "Folder of the GGUF file, its Modelfile and what was measured of it.")
    file_type: Literal["auto", "f32", "f16", "bf16", "q8_0"] = setting(
        "auto", "What", "Numbers of the GGUF file; auto: those that the model is saved in, which loses nothing."
    )
    name: str | None = setting(None, "What", "What the file and the model in ollama are called (default: the folder).")
    converter: str | None = setting(
        None, "How", "The file convert_hf_to_gguf.py, or the folder of llama.cpp that has it (default: on PATH)."
    )
    check: bool = setting(True, "How", "Read the file back, and refuse it where it says something else.")

    def relations(self) -> Iterator[str]:
        """Problems of what was not given, and of a name that is no file's."""
        for name in ("model_name_or_path", "output_dir"):
            if not getattr(self, name):
                yield f"{name}: missing, and it has no default. Give it on the command line."
        if self.name is not None and not _NAME.fullmatch(self.name):
            yield f"name: {self.name!r} cannot be. Use letters, digits, dots, dashes and underscores."
