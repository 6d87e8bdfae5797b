"""An episode as it is stored, with what of it can be read: a damaged turn costs itself alone."""

import json
import sqlite3
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from envs.errors import ConfigError
from envs.types import Task, Verdict
from experiments.store import StoreReader
from experiments.viewer.keys import NotThereError
from experiments.viewer.records import Clipped, Problem
from graphs.turns import Turn

TEXT = 20_000
"""Characters of a text that a page is sent at once,"""
PAGE = 2_000_000
"""and of all replies of an episode together."""


@dataclass
class StoredTurn:
    turn: Turn
    """Without its arrays."""
    tokens: int
    mean_logprob: float | None


@dataclass
class StoredEpisode:
    position: int
    task: Task
    sample: int
    answer: str | None
    stop_reason: str
    verdict: Verdict | None
    failure: str | None
    seconds: float
    notes: list[dict[str, Any]]
    turns: list[StoredTurn]
    problems: list[Problem] = field(default_factory=list)

    @property
    def status(self) -> Any:
        return self.verdict.status if self.verdict else "failed"


def clipped(text: str, most: int = TEXT) -> Clipped:
    return Clipped(text=text[:most], length=len(text))


def read_stored(path: Path, position: int) -> StoredEpisode:
    """The episode at a position of a run's store.

    Raises:
        NotThereError: there is none.
        sqlite3.Error: nothing of it can be read.
    """
    try:
        store = StoreReader(path)
    except ConfigError as error:
        raise NotThereError(str(error)) from None
    columns = "task, sample, status, score, answer, stop_reason, failure, seconds, body"
    found = store.rows(f"SELECT {columns} FROM episodes WHERE position = ?", position) if 0 <= position < 2**63 else []
    if not found:
        raise NotThereError(f"run {path.name} has no episode at position {position}")
    task, sample, status, score, answer, stop_reason, failure, seconds, text = found[0]
    if not isinstance(sample, int) or not isinstance(seconds, float) or not isinstance(stop_reason, str):
        raise NotThereError(f"episode {position + 1} of run {path.name} holds what it should not: it is damaged")
    body, problems = _object(text, "what the episode was about and its verdict's reason")
    try:
        shown = Task.model_validate(body.get("task"))
    except ValidationError:
        shown = Task(id=str(task), question="", answers=())
    try:
        verdict = None if status == "failed" else Verdict.model_validate(body.get("verdict"))
    except ValidationError:
        verdict = Verdict(status=status, score=score) if status in ("correct", "incorrect", "unparsed") else None
    notes = [note for note in body.get("notes") or [] if isinstance(note, dict)]
    turns = _turns(store, position, problems)
    return StoredEpisode(
        position, shown, sample, answer, stop_reason, verdict, failure, seconds, notes, turns, problems
    )


def read_turn(path: Path, position: int, id: str) -> Turn:
    """One turn with its arrays.

    Raises:
        NotThereError: there is none.
    """
    try:
        found = StoreReader(path).rows(
            "SELECT id, role, move, round, body, prompt_ids, token_ids, logprobs FROM turns "
            "WHERE episode = ? AND id = ?",
            position,
            id,
        )
    except ConfigError as error:
        raise NotThereError(str(error)) from None
    if not found:
        raise NotThereError(f"episode {position + 1} of run {path.name} has no turn {id[:80]!r}")
    *named, text, prompt_ids, token_ids, logprobs = found[0]
    turn, _ = _turn(tuple(named), text)
    arrays = {
        "prompt_ids": _numbers("i", prompt_ids),
        "token_ids": _numbers("i", token_ids),
        "logprobs": _numbers("d", logprobs),
    }
    return turn.model_copy(update=arrays)


def _turns(store: StoreReader, position: int, problems: list[Problem]) -> list[StoredTurn]:
    found: list[StoredTurn] = []
    columns = "id, role, move, round, body, length(token_ids) / 4, logprobs"
    try:
        for *named, text, tokens, logprobs in store.each(
            f"SELECT {columns} FROM turns WHERE episode = ? ORDER BY place", position
        ):
            turn, trouble = _turn(tuple(named), text)
            problems += trouble
            found.append(StoredTurn(turn, tokens or 0, _mean(logprobs)))
    except sqlite3.Error as error:
        problems.append(Problem(where=f"turns after the first {len(found)}", what=f"cannot be read: {error}"))
    return found


def _turn(named: tuple[Any, ...], text: Any) -> tuple[Turn, list[Problem]]:
    id, role, move, round = named
    body, problems = _object(text, f"turn {id}")
    try:
        return Turn.model_validate(body), problems
    except ValidationError as error:
        if not problems:
            what = f"cannot be read: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}"
            problems.append(Problem(where=f"turn {id}", what=what))
    empty = Turn.model_construct(
        id=str(id),
        role=str(role),
        move=str(move),
        round=round if isinstance(round, int) else 0,
        after=0,
        reads=(),
        follows=None,
        messages=(),
        reply=str(body.get("reply", "")),
        policy="",
        version="",
        finish="",
        temperature=0.0,
        top_p=0.0,
        seed=0,
        prompt_tokens=0,
        completion_tokens=0,
    )
    return empty, problems


def _object(text: Any, where: str) -> tuple[dict[str, Any], list[Problem]]:
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of a surrogate pair can be written in JSON, and sent to nobody
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        if isinstance(value, dict):
            return value, []
        problem = "is no object"
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"cannot be read: {error}"
    return {}, [Problem(where=where, what=problem)]


def _mean(blob: Any) -> float | None:
    values = np.frombuffer(blob, np.float64) if isinstance(blob, bytes) and blob and len(blob) % 8 == 0 else None
    if values is None or not np.isfinite(values).all():
        return None
    return float(values.mean())


def _numbers(code: str, blob: Any) -> tuple[Any, ...]:
    values = array(code)
    try:
        values.frombytes(blob)
    except (TypeError, ValueError):
        return ()
    return tuple(values)
