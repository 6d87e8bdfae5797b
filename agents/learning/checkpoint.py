"""A trainer's state on disk: one file, which is there whole or not at all; and exported weights, likewise."""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from agents.disk import sync_folder
from agents.learning.distributed import Workers
from envs.errors import ConfigError, clip

FILE = "trainer.pt"
FORMAT = 1


def write_state(state: dict[str, Any], directory: Path) -> None:
    """Write plain values and tensors into a directory, in place of what was written there before."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{FILE}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / FILE)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(directory)


def read_state(directory: Path, policies: Collection[str]) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises:
        ConfigError: it is not there, cannot be read, or is of other policies than these.
    """
    path = directory / FILE
    if not path.is_file():
        raise ConfigError(f"expected a trainer's checkpoint in {directory}, found no {FILE}; save one there first")
    try:
        # Tensors and plain values alone: what else a file holds is not run.
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["policies"]
    except Exception as error:  # noqa: BLE001 - whatever torch makes of a damaged file
        raise ConfigError(f"{path} is no trainer's checkpoint: {clip(str(error).splitlines()[0])}") from None
    if state["format"] != FORMAT:
        raise ConfigError(f"{path}: expected format {FORMAT}, found {clip(state['format'])}; use the version it is of")
    if set(found) != set(policies):
        raise ConfigError(f"{path} is of the policies {sorted(found)}, found {sorted(policies)} here; open the same")
    return state


def write_directory(directory: Path, workers: Workers, fill: Callable[[Path, Workers], None]) -> None:
    """Have a new directory filled under another name, and renamed when it is complete. Called by all workers.

    Raises:
        ConfigError: it is there already.
    """
    temporary = directory.with_name(f".{directory.name}.part")

    def begin() -> None:
        if directory.exists():
            raise ConfigError(
                f"exporting weights: expected a new directory, found {directory}: what was exported stays as it is, "
                "for replicas that start again; name another"
            )
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    workers.first(begin)
    try:
        fill(temporary, workers)
        workers.first(lambda: temporary.rename(directory))
    finally:
        if workers.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
