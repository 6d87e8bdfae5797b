"""Keys of runs: what names a run in an address, and how it is found again within the root and nowhere else."""

import json
import re
from pathlib import Path
from typing import Any, Literal

from envs.errors import ConfigError, clip
from experiments.runs import ASKED, CONFIG, SWEEP, TRAINING
from experiments.store import FILE

Kind = Literal["run", "training", "sweep"]


class NotThereError(ConfigError):
    """There is no such run, episode or turn."""


def key_of(root: Path, path: Path) -> str:
    """The key of a folder below the root; see experiments.viewer.records."""
    return "~".join(part.replace("~", "~.") for part in path.relative_to(root).parts)


def find(root: Path, key: str) -> tuple[Path, Kind]:
    """The folder that a key names. A key comes from an address: it is trusted with nothing.

    Raises:
        NotThereError: no run of that key within the root; links that lead out of it count as none.
    """
    parts = [part.replace("~.", "~") for part in re.split(r"~(?!\.)", key)]
    if all(_is_plain(part) for part in parts) and len(parts) <= 5:
        path = root.joinpath(*parts)
        kind = kind_of(path)
        if kind is not None and _is_within(root, path):
            return path, kind
    raise NotThereError(f"there is no run {clip(key, 80)} here")


def _is_plain(part: str) -> bool:
    return 0 < len(part.encode("utf-8", "replace")) <= 255 and part[0] != "." and not re.search(r"[/\\\x00-\x1f]", part)


def _is_within(root: Path, path: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def kind_of(path: Path) -> Kind | None:
    """What lies in a folder; a folder of runs that says nothing of itself is a sweep that is not at its end."""
    try:
        if (path / TRAINING).is_file():
            return "training"
        if _is_run(path):
            return "run"
        if (path / SWEEP).is_file() or (path / ASKED).is_file():
            return "sweep"
        if (path.parent / TRAINING).is_file():  # the folders of a training are no sweeps
            return None
        return "sweep" if any(_is_run(found.parent) for found in path.glob(f"*/{CONFIG}")) else None
    except (OSError, ValueError):
        return None


def _is_run(path: Path) -> bool:
    """Weights have a configuration of that name, too: one that has stored nothing yet must say its topology."""
    if not (path / CONFIG).is_file():
        return False
    return (path / FILE).is_file() or '"topology"' in (path / CONFIG).read_text(encoding="utf-8", errors="replace")


def below(root: Path, path: Path, kind: Kind | None) -> list[Path]:
    """The folders of runs in the root (kind None), in a training or in a sweep, in the order of their names."""
    pattern = "*/*" if kind == "training" else "*"
    found = (child for child in path.glob(pattern) if not child.name.startswith(".") and child.is_dir())
    wanted = {None: ("run", "training", "sweep"), "training": ("run", "training")}.get(kind, ("run",))
    return sorted(child for child in found if kind_of(child) in wanted and _is_within(root, child))


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name}: expected an object, found {clip(value)}")
    return value


def at(value: Any, *names: str) -> Any:
    """What lies at a path within JSON from disk; None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_at(value: Any, *names: str) -> str:
    found = at(value, *names)
    return "" if found is None or isinstance(found, (dict, list)) else str(found)


def int_at(value: Any, *names: str) -> int | None:
    found = at(value, *names)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
