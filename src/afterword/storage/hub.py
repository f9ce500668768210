"""The hub: what can be an id on it, and whether it answers.

The one rule: what is written like a path, or exists in part, is a path. It is never looked for on the hub.
"""

import functools
import os
import re
import threading

_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))(?:\w[\w.-]*/)?\w(?:[\w.-]*\w)?", re.ASCII)
_HUB_ID_LENGTH = 96
_FILES = (
    *(".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".py"),
    *(".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md", ".rst"),
    *(
        ".html",
        ".htm",
        ".xml",
        ".pdf",
        ".docx",
        ".pptx",
        ".xlsx",
        ".epub",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".zip",
        ".tar",
    ),
)
"""Endings of files. No id on the hub is read to end so."""
_HUB_SECONDS = 5.0
"""How long the hub may take to answer before it counts as out of reach."""


def is_hub_id(name: str) -> bool:
    """Whether a name that is no path here can be the id of something on the hub.

    >>> [is_hub_id(name) for name in ("org/name", "gpt2", "./name", "a/b/c", "a b", "org/model.gguf", "~/m", "a--b/c")]
    [True, True, False, False, False, False, False, False]
    """
    owner = name.rpartition("/")[0]
    partly_here = bool(owner) and os.path.isdir(owner)
    like_a_file = name.lower().endswith(_FILES)
    return bool(_HUB_ID.fullmatch(name)) and len(name) <= _HUB_ID_LENGTH and not like_a_file and not partly_here


def hub_is_offline() -> bool:
    """Whether the person asked not to look on the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@functools.cache
def hub_answers() -> bool:
    """Whether the hub answers within five seconds, asked once a process. False where HF_HUB_OFFLINE is set.

    Its client tries for minutes where a network drops what is sent, and a name server may take as long.
    """
    if hub_is_offline():
        return False
    answered = threading.Event()

    def ask() -> None:
        """One short request to the hub."""
        from huggingface_hub import constants, get_session

        try:
            get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
        except Exception:  # Whatever its client of the day raises: there was no answer.
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HUB_SECONDS)
    return answered.is_set()
