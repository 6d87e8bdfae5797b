"""Rows of .jsonl, .json and .parquet files with their places, for envs that are made of files. Nothing is fetched."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, clip


def read_rows(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of an env's file, each with its place for messages: `rows.jsonl, line 3`.

    Raises:
        ConfigError: the file cannot be read, or a row is no object.
    """
    for place, row in _read(name, path):
        if not isinstance(row, dict):
            raise ConfigError(f"env {name}: {place}: expected an object, found {clip(row)}")
        yield place, row


def is_whole(value: Any) -> bool:
    """Whether texts can be stored: JSON can name half of a surrogate pair, which is no text."""
    try:
        json.dumps(value, default=str, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(name: str, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
            return
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"env {name}: cannot read {path}: {error}") from None
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"env {name}: {path} is not JSON: {error}") from None
        if not isinstance(rows, list):
            raise ConfigError(f"env {name}: {path}: expected a list of objects, found {clip(rows)}")
        yield from ((f"{path.name}, row {i}", row) for i, row in enumerate(rows, 1))
        return
    if path.suffix != ".jsonl":
        raise ConfigError(f"env {name}: expected a .jsonl, .json or .parquet file, found {path}")
    # Not splitlines: JSON strings may hold line separators that are none to JSON lines.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path.name}, line {number}", json.loads(line)
            except ValueError as error:
                raise ConfigError(
                    f"env {name}: {path.name}, line {number} is not JSON: {error}; found {clip(line)}"
                ) from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise OSError(next(iter(str(error).splitlines()), type(error).__name__)) from None
    yield from ((f"{path.name}, row {i}", row) for i, row in enumerate(rows, 1))
