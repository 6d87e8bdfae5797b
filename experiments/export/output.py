"""Where an export is written: a file or a folder that appears whole or not at all, and replaces nothing unasked."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from envs.errors import ConfigError, clip


@contextlib.contextmanager
def whole_file(path: Path, force: bool) -> Iterator[Path]:
    """A path beside `path` to write to; it takes that name when the block ends well, and is removed otherwise.

    Raises:
        ConfigError: there is something already and `force` is not set, or there is no such folder.
    """
    _check(path, force)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: give the name of a file")
    written = _beside(path)
    try:
        yield written
        _check(path, force)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, force: bool, files: Collection[str]) -> Iterator[Path]:
    """The same for a folder of `files`. One that holds anything else is never replaced.

    Raises:
        ConfigError: as above, or the folder holds what is not of such an export.
    """
    _check_folder(path, force, files)
    written = _beside(path)
    written.mkdir()
    try:
        yield written
        _check_folder(path, force, files)
        old = path.with_name(f"{written.name}.old")
        if path.is_dir():
            path.rename(old)
        written.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")


def _check(path: Path, force: bool) -> None:
    if not path.name or path.name == "..":
        raise ConfigError(f"{clip(str(path))}: expected the name of a file or folder to write")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it, or write elsewhere")
    if os.path.lexists(path) and not force:
        raise ConfigError(f"{path} is there already; give --force to replace it, or write elsewhere")


def _check_folder(path: Path, force: bool, files: Collection[str]) -> None:
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        raise ConfigError(f"{path} is no folder: give the name of a new one")
    found = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
    other = [name for name in found if name not in files]
    if other:
        raise ConfigError(f"{path} holds {clip(other[0])}, which is of no export; write to a folder of its own")
    _check(path, force or not found)
