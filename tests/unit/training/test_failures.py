"""What ends a run from outside becomes one sentence with a remedy; everything else passes through."""

import errno

import pytest
import torch
from safetensors import SafetensorError

from afterword.errors import CheckpointError, DataError, TrainingError
from afterword.storage.atomic import write_manifest
from afterword.training import Interrupted
from afterword.training.checkpoints import explained


def raised(error, run):
    with explained(run):
        raise error


def test_an_interrupt_says_that_the_same_command_continues(tmp_path):
    with pytest.raises(Interrupted, match=r"Interrupted\. No checkpoint had been written yet; the same command"):
        raised(KeyboardInterrupt(), tmp_path)


def test_the_last_whole_checkpoint_is_named(tmp_path):
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_text("weights")
        write_manifest(folder)
    (tmp_path / "checkpoint-10" / "model.safetensors").write_text("half")
    with pytest.raises(Interrupted, match="checkpoint-9 is intact; the same command resumes from it"):
        raised(KeyboardInterrupt(), tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=["python", "cuda", "windows", "linux", "system"],
)
def test_lack_of_memory_says_what_to_lower(error, tmp_path):
    with pytest.raises(TrainingError, match=r"Out of memory.*micro_batch_tokens.*max_length.*gradient_checkpointing"):
        raised(error, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        SafetensorError("Error while serializing: IoError(No space left on device)"),
    ],
)
def test_a_full_disk_says_which_and_what_to_do(error, tmp_path):
    with pytest.raises(
        TrainingError, match=r"output_dir: the disk of .* is full.*Free some space.*save_total_limit"
    ) as caught:
        raised(error, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("shapes do not match"),
        OSError(errno.ENOENT, "No such file"),
        KeyError("x"),
        TrainingError("The loss is not finite: out of memory"),
        CheckpointError("a"),
        DataError("b"),
        SafetensorError("header too small"),
    ],
)
def test_other_errors_pass_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as caught:
        raised(error, tmp_path)
    assert caught.value is error


def test_nothing_happens_where_nothing_fails(tmp_path):
    with explained(tmp_path):
        value = 3
    assert value == 3
