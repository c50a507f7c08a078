"""The chain of trainings of the open world, in order; finished parts are skipped."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perjoule.errors import UsageError
from perjoule_suites.tiny.world import autoencoder


def train_all(out: Path) -> None:
    """Train every part of the family that `out` does not contain yet, from its checkpoint if there is one."""
    with only_process(out):
        write_folder(out / "vae", lambda folder: autoencoder.train(out).save_pretrained(folder))


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold the lock of a training folder. Raises UsageError if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: another training process uses this folder; stop it first") from None
        yield


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder completely or not at all, unless it exists."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    write(unfinished)
    for file in unfinished.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    unfinished.rename(folder)
