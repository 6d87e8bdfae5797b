"""Parquet: a run as two tables, `episodes` and `turns`, which hold all that the store does.

Written in groups of rows, so that memory is bounded by a group, whatever the run's size. Values that have no fixed
shape (a task's details, a turn's result, a topology's notes) are JSON text. docs/export.md describes the columns.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from experiments.export.output import whole_folder
from experiments.export.selection import Selection
from graphs.turns import Episode, Turn

EPISODES, TURNS = "episodes.parquet", "turns.parquet"
ROWS = 10_000
GROUP_BYTES = 16 * 2**20
"""A group is written when it has so many rows, or when its texts and ids take so much memory."""

_TEXTS = pa.list_(pa.string())
_CALLS = pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())]))
_MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", _CALLS), ("tool_call_id", pa.string())])
)
_IDS, _NATS = pa.list_(pa.int32()), pa.list_(pa.float64())


_OPTIONAL = {"score", "reason", "answer", "failure", "follows"}


def _columns(**types: Any) -> pa.Schema:
    return pa.schema([pa.field(name, type_, nullable=name in _OPTIONAL) for name, type_ in types.items()])


EPISODE_COLUMNS = _columns(
    position=pa.int64(),
    task=pa.string(),
    sample=pa.int64(),
    question=pa.string(),
    answers=_TEXTS,
    details=pa.string(),
    status=pa.string(),
    score=pa.float64(),
    reason=pa.string(),
    answer=pa.string(),
    stop_reason=pa.string(),
    failure=pa.string(),
    calls=pa.int64(),
    prompt_tokens=pa.int64(),
    completion_tokens=pa.int64(),
    unread=pa.int64(),
    seconds=pa.float64(),
    notes=pa.string(),
    digest=pa.string(),
)
TURN_COLUMNS = _columns(
    position=pa.int64(),
    place=pa.int64(),
    id=pa.string(),
    role=pa.string(),
    move=pa.string(),
    round=pa.int64(),
    after=pa.int64(),
    reads=_TEXTS,
    follows=pa.string(),
    messages=_MESSAGES,
    reply=pa.string(),
    opening=pa.string(),
    tool_calls=_CALLS,
    result=pa.string(),
    answer=pa.string(),
    failure=pa.string(),
    policy=pa.string(),
    version=pa.string(),
    finish=pa.string(),
    temperature=pa.float64(),
    top_p=pa.float64(),
    seed=pa.int64(),
    prompt_tokens=pa.int64(),
    completion_tokens=pa.int64(),
    prompt_ids=_IDS,
    token_ids=_IDS,
    logprobs=_NATS,
    certainty=_NATS,
    choice_logprobs=_NATS,
    asked_s=pa.float64(),
    answered_s=pa.float64(),
    queue_s=pa.float64(),
    compute_s=pa.float64(),
)


def export_parquet(selection: Selection, path: Path, force: bool = False) -> None:
    """Write the selected episodes as `episodes.parquet` and `turns.parquet` into a folder of their own.

    Raises:
        ConfigError: the folder is there already and `force` is not set, or holds anything else.
    """
    about = {"palaestra.run": selection.run.name, "palaestra.config": json.dumps(selection.run.config)}
    with whole_folder(path, force, {EPISODES, TURNS}) as folder, ExitStack() as opened:
        episodes, turns = (
            opened.enter_context(_Table(folder / name, columns.with_metadata(about)))
            for name, columns in ((EPISODES, EPISODE_COLUMNS), (TURNS, TURN_COLUMNS))
        )
        for position, episode in selection:
            episodes.add(_episode_row(position, episode))
            for place, turn in enumerate(episode.turns):
                turns.add(_turn_row(position, place, turn))


class _Table:
    """A Parquet file that is written group by group."""

    def __init__(self, path: Path, columns: pa.Schema):
        self._columns = columns
        self._file = pq.ParquetWriter(path, columns, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        if problem is None:
            self._write()
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._bytes += _size(row)
        if len(self._rows) >= ROWS or self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._columns))
        self._rows, self._bytes = [], 0


def _episode_row(position: int, episode: Episode) -> dict[str, Any]:
    task, verdict, turns = episode.task, episode.verdict, episode.turns
    return {
        **_fields(episode, ("sample", "answer", "stop_reason", "failure", "calls", "seconds")),
        **_fields(task, ("question", "answers")),
        "position": position,
        "task": task.id,
        "details": json.dumps(task.details, ensure_ascii=False),
        "status": verdict.status if verdict else "failed",
        "score": verdict.score if verdict else None,
        "reason": verdict.reason if verdict else None,
        "prompt_tokens": sum(turn.prompt_tokens for turn in turns),
        "completion_tokens": sum(turn.completion_tokens for turn in turns),
        "unread": sum(turn.failure is not None for turn in turns),
        "notes": json.dumps(episode.notes, ensure_ascii=False),
        "digest": episode.digest(),
    }


def _turn_row(position: int, place: int, turn: Turn) -> dict[str, Any]:
    return {
        **_fields(turn, set(TURN_COLUMNS.names) & set(Turn.model_fields)),
        "position": position,
        "place": place,
        "messages": [asdict(message) for message in turn.messages],
        "tool_calls": [asdict(call) for call in turn.tool_calls],
        "result": json.dumps(turn.model_dump(mode="json", include={"result"})["result"], ensure_ascii=False),
        "answer": turn.answer,
        "failure": turn.failure.expected if turn.failure else None,
    }


def _fields(record: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _size(value: Any) -> int:
    """About the bytes that a value takes in memory."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value)) if value and isinstance(value[0], (str, dict)) else 32 * len(value)
    return 32
