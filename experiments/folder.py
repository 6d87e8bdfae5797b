"""A run's folder: claimed by its name, written by one process at a time, and what is written is whole or not there."""

import contextlib
import fcntl
import itertools
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.disk import sync_folder
from envs.errors import ConfigError, clip

LOCK = ".lock"
_outermost: ContextVar[bool] = ContextVar("palaestra_outermost_run", default=True)
"""A run within a training or a sweep is gone on with by resuming these."""


@contextlib.contextmanager
def claimed(root: Path, name: str | None, generic: str, file: str, asked: Mapping[str, Any]) -> Iterator[Path]:
    """Make a folder of runs and hold it, with what was asked for in a file.

    Raises:
        ConfigError: a name that is taken or no file name, a folder that cannot be written.
    """
    directory = claim_folder(root, name, generic)
    with gone_on_with(directory):
        with _said_plainly(root):
            if not _is_vacant(directory):
                raise _taken(directory)
            write_whole(directory / file, asked)
        yield directory


@contextlib.contextmanager
def gone_on_with(directory: Path) -> Iterator[None]:
    """Hold a run's folder while it is played. Whatever ends that before its time is told how it goes on.

    Raises:
        ConfigError: another process plays it.
    """
    outermost = _outermost.get()
    before = _outermost.set(False)
    try:
        with held(directory):
            yield
    except BaseException as error:
        known = isinstance(error, ConfigError) or "palaestra resume" in str(error)
        if outermost and directory.is_dir() and not known:
            error.add_note(f"palaestra resume {directory.name} goes on from there")
        raise
    finally:
        _outermost.reset(before)


def claim_folder(root: Path, name: str | None, generic: str) -> Path:
    """Make a folder of runs: `name`, or without one `generic` with the time.

    Raises:
        ConfigError: a name that is taken or no file name, a folder that cannot be written.
    """
    if name is not None and (not name or name != Path(name).name or name.startswith(".")):
        raise ConfigError(
            f"run name {clip(name)}: expected a plain folder name, without / and not beginning with a dot"
        )
    with _said_plainly(root):
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            sync_folder(root.parent)
        if name is None:
            directory = _new_directory(root, f"{generic}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        else:
            directory = root / name
            try:
                directory.mkdir()
            except FileExistsError:
                if not _is_vacant(directory):
                    raise _taken(directory) from None
        sync_folder(root)
    return directory


def _is_vacant(directory: Path) -> bool:
    """Whether it was killed that made the folder, before it wrote what was asked for."""
    return directory.is_dir() and all(path.name.startswith(".") for path in directory.iterdir())


def _taken(directory: Path) -> ConfigError:
    name, root = directory.name, directory.parent
    return ConfigError(f"run {name!r} is already in {root}/; choose another --name or remove {directory}")


@contextlib.contextmanager
def _said_plainly(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write the run to {root}: {error.strerror}; choose a folder with --runs") from None


def _new_directory(root: Path, name: str) -> Path:
    """Make `name`, or `name-2`, …: runs that start in one second each get their own."""
    for candidate in itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            (root / candidate).mkdir()
            return root / candidate
    raise AssertionError("unreachable: the names do not end")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have a run's folder to oneself: of two processes, each would play what the other plays too.

    The lock is the operating system's (flock): it ends with the process, however that ends. Readers need none.

    Raises:
        ConfigError: another has it, or it cannot be locked.
    """
    try:
        file = (folder / LOCK).open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(f"run {folder.name} cannot be written: {error.strerror}: {folder / LOCK}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise ConfigError(
                f"run {folder.name} is being written by {holder}; wait until that has ended, or stop it first"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"run {folder.name} cannot be locked: {error.strerror}; choose a folder on a disk that can, with --runs"
            ) from None
        try:
            with contextlib.suppress(OSError):  # a full disk: who holds it is a courtesy, and the lock is held
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            # Closing alone would not do where a child process was forked meanwhile: it has the file open too.
            fcntl.flock(file, fcntl.LOCK_UN)


def write_whole(path: Path, value: Any) -> None:
    """Write JSON in place of what was there; see `replace_whole`."""
    replace_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def replace_whole(path: Path, text: str) -> None:
    """Write a file in place of what was there: after a kill or a power cut it is the old text or the new, never a part.

    It is on disk when this returns.
    """
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
