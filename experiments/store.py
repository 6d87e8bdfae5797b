"""The trace store of a run: one SQLite file in WAL mode, append-only.

An episode is acknowledged when its transaction is on disk (WAL, synchronous=FULL: the log is fsynced before `append`
returns); episodes that end together share one. So what was acknowledged outlives the process that is killed, and a
power cut on a disk that keeps what it was told to sync. Token ids and log-probabilities are stored once, as binary
columns; the rest of a turn as JSON. Readers page through the file, also while the run is going on.

One thing alone takes the place of another: an episode that failed can be asked again, and the failure is kept beside.
"""

import asyncio
import hashlib
import json
import queue
import sqlite3
import threading
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from agents.disk import sync_folder
from envs.errors import ConfigError
from graphs.turns import Episode, Turn

FORMAT = 1
FILE = "episodes.db"
PAGE = 100
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE format (version INTEGER NOT NULL);
CREATE TABLE episodes (
    position INTEGER PRIMARY KEY,          -- in the run's order of tasks and samples
    task TEXT NOT NULL, sample INTEGER NOT NULL,
    status TEXT NOT NULL,                  -- the verdict's, or 'failed'
    score REAL, answer TEXT, stop_reason TEXT NOT NULL, failure TEXT,
    calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    unread INTEGER NOT NULL,               -- turns whose reply could not be parsed
    seconds REAL NOT NULL, digest TEXT NOT NULL,
    body TEXT NOT NULL,                    -- the episode without its turns, as JSON
    UNIQUE (task, sample)
);
CREATE TABLE turns (
    episode INTEGER NOT NULL REFERENCES episodes, place INTEGER NOT NULL,
    id TEXT NOT NULL, role TEXT NOT NULL, move TEXT NOT NULL, round INTEGER NOT NULL,
    body TEXT NOT NULL,                    -- the turn without its arrays, as JSON
    prompt_ids BLOB NOT NULL, token_ids BLOB NOT NULL,   -- int32
    logprobs BLOB NOT NULL,                -- float64, nats
    PRIMARY KEY (episode, place)
) WITHOUT ROWID;
CREATE TABLE failed_before (               -- episodes that failed and were asked again since
    position INTEGER NOT NULL, failure TEXT NOT NULL, body TEXT NOT NULL
);
CREATE TRIGGER episodes_are_kept BEFORE DELETE ON episodes WHEN OLD.status != 'failed'
    BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END;
CREATE TRIGGER episodes_stay BEFORE UPDATE ON episodes BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END;
CREATE TRIGGER turns_are_kept BEFORE DELETE ON turns
    WHEN (SELECT status FROM episodes WHERE position = OLD.episode) != 'failed'
    BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END;
CREATE TRIGGER turns_stay BEFORE UPDATE ON turns BEGIN SELECT RAISE(ABORT, 'the store is append-only'); END;
INSERT INTO format VALUES ({FORMAT});
COMMIT;
"""
_ARRAYS = {"prompt_ids": "i", "token_ids": "i", "logprobs": "d"}


def _create(path: Path) -> None:
    """Make an empty store. A file of this name is a whole store: it is made beside, and then given its name."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(_SCHEMA)
    part.replace(path)
    sync_folder(path.parent)


class StoreError(OSError):
    """An episode could not be written: a disk that is full or broken. Nothing of it is kept; the run has to stop."""


class StoreWriter:
    """Appends episodes from one thread; `append` returns when the episode is on disk."""

    def __init__(self, directory: Path, failed: bool = False):
        """Create the store in a directory, or go on with the one that is there.

        Args:
            directory: of the run.
            failed: those that are stored as failed are to be asked again: they are not among `stored`.

        Raises:
            StoreError: it cannot be written.
        """
        self._inbox: queue.SimpleQueue[tuple[int, Episode, asyncio.Future[None], asyncio.AbstractEventLoop] | None]
        self._inbox = queue.SimpleQueue()
        self._path = directory / FILE
        try:
            if not self._path.is_file():
                _create(self._path)
            with closing(sqlite3.connect(self._path)) as connection:
                rows = connection.execute("SELECT position, task, sample, status FROM episodes").fetchall()
        except sqlite3.DatabaseError as error:
            raise _cannot_write(self._path, error) from None
        self._again = {position for position, _, _, status in rows if failed and status == "failed"}
        self.stored = {position: (task, sample) for position, task, sample, _ in rows if position not in self._again}
        """Position -> task and sample of the episodes that were stored before, and are not to be played."""
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    async def append(self, position: int, episode: Episode) -> None:
        """Store an episode under its position in the run.

        Raises:
            StoreError: it could not be written.
            sqlite3.IntegrityError: the position is taken; nothing is changed.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._inbox.put((position, episode, done, loop))
        await done

    def close(self) -> None:
        """Write what is waiting, then stop."""
        self._inbox.put(None)
        self._thread.join()

    def _write(self) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            open_ = True
            while open_:
                batch = [self._inbox.get()]
                while not self._inbox.empty():
                    batch.append(self._inbox.get())
                open_ = None not in batch
                self._commit(connection, [item for item in batch if item is not None])

    def _commit(self, connection: sqlite3.Connection, batch: list[Any]) -> None:
        problem: Exception | None = None
        try:
            with connection:
                for position, episode, _, _ in batch:
                    if position in self._again:
                        _set_aside(connection, position)
                    _insert(connection, position, episode)
        except sqlite3.DatabaseError as error:
            of_the_episode = isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError))
            problem = error if of_the_episode else _cannot_write(self._path, error)
        except Exception as error:  # noqa: BLE001 - whoever waits for the acknowledgement gets the reason
            problem = error
        if problem is not None and len(batch) > 1:
            # One bad episode must not take down those that share its transaction.
            for item in batch:
                self._commit(connection, [item])
            return
        for _, _, done, loop in batch:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_acknowledge, done, problem)


class StoreReader:
    """Reads a run's episodes, page by page, in the run's order."""

    def __init__(self, directory: Path):
        """
        Raises:
            ConfigError: the directory holds no store, or one of a newer format.
        """
        self._path = directory / FILE
        if not self._path.is_file():
            raise ConfigError(f"{directory} is not a run: it holds no {FILE}")
        try:
            version = self.rows("SELECT version FROM format")[0][0]
        except (sqlite3.Error, IndexError) as error:
            raise ConfigError(f"{self._path} is not a store of episodes: {error}") from None
        if version > FORMAT:
            raise ConfigError(
                f"{self._path} has format {version}, this version reads up to {FORMAT}; upgrade palaestra"
            )

    def episodes(self, offset: int = 0, limit: int | None = None) -> Iterator[Episode]:
        """Episodes in order; at most a page of them is in memory."""
        while limit is None or limit > 0:
            size = PAGE if limit is None else min(PAGE, limit)
            rows = self.rows("SELECT position, body FROM episodes ORDER BY position LIMIT ? OFFSET ?", size, offset)
            for position, body in rows:
                yield self._episode(position, body)
            if len(rows) < size:
                return
            offset += size
            limit = None if limit is None else limit - size

    def episode(self, position: int) -> Episode | None:
        rows = self.rows("SELECT position, body FROM episodes WHERE position = ?", position)
        return self._episode(*rows[0]) if rows else None

    def outcomes(self) -> list[dict[str, Any]]:
        """One row an episode, without turns and texts: what summaries and comparisons need."""
        columns = (
            "position, task, sample, status, score, answer, stop_reason, failure, calls, prompt_tokens, "
            "completion_tokens, unread, seconds"
        )
        rows = self.rows(f"SELECT {columns} FROM episodes ORDER BY position")
        return [dict(zip(columns.split(", "), row, strict=True)) for row in rows]

    def digest(self) -> str:
        """SHA-256 over the episodes' digests in order: equal for two runs that played the same."""
        joined = "\n".join(row[0] for row in self.rows("SELECT digest FROM episodes ORDER BY position"))
        return hashlib.sha256(joined.encode()).hexdigest()

    def _episode(self, position: int, body: str) -> Episode:
        columns = ", ".join(["body", *_ARRAYS])
        rows = self.rows(f"SELECT {columns} FROM turns WHERE episode = ? ORDER BY place", position)
        turns = [_turn_from_row(*row) for row in rows]
        return Episode.model_validate({**json.loads(body), "turns": turns})

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What a query of one's own finds; it cannot change anything."""
        with closing(_opened(self._path)) as connection:
            return connection.execute(query, values).fetchall()

    def each(self, query: str, *values: Any) -> Iterator[Any]:
        """The same row by row: before an error come the rows that can be read."""
        with closing(_opened(self._path)) as connection:
            yield from connection.execute(query, values)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection that only reads, also where nothing may be written beside the file."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # A store in WAL mode asks for a file beside it even to be read. Without a log there is none to be missed.
        log = path.with_name(f"{path.name}-wal")
        if log.is_file() and log.stat().st_size:
            raise
        return sqlite3.connect(f"{address}&immutable=1", uri=True)
    return connection


def _acknowledge(done: "asyncio.Future[None]", problem: Exception | None) -> None:
    if done.done():
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(problem)


def _cannot_write(path: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(f"{path} cannot be written: {error}; look at the disk, and how much room it has")


def _set_aside(connection: sqlite3.Connection, position: int) -> None:
    """Make room for an episode that was asked again."""
    connection.execute(
        "INSERT INTO failed_before SELECT position, failure, body FROM episodes WHERE position = ?", (position,)
    )
    # The turns first: what may go is told by their episode.
    connection.execute("DELETE FROM turns WHERE episode = ?", (position,))
    connection.execute("DELETE FROM episodes WHERE position = ?", (position,))


def _insert(connection: sqlite3.Connection, position: int, episode: Episode) -> None:
    verdict = episode.verdict
    values = (
        position,
        episode.task.id,
        episode.sample,
        verdict.status if verdict else "failed",
        verdict.score if verdict else None,
        episode.answer,
        episode.stop_reason,
        episode.failure,
        episode.calls,
        sum(turn.prompt_tokens for turn in episode.turns),
        sum(turn.completion_tokens for turn in episode.turns),
        sum(turn.failure is not None for turn in episode.turns),
        episode.seconds,
        episode.digest(),
        episode.model_dump_json(exclude={"turns"}),
    )
    connection.execute(f"INSERT INTO episodes VALUES ({', '.join('?' * len(values))})", values)
    connection.executemany(
        "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_turn_to_row(position, place, turn) for place, turn in enumerate(episode.turns)],
    )


def _turn_to_row(episode: int, place: int, turn: Turn) -> tuple[Any, ...]:
    arrays = [array(code, getattr(turn, name)).tobytes() for name, code in _ARRAYS.items()]
    body = turn.model_dump_json(exclude=set(_ARRAYS))
    return (episode, place, turn.id, turn.role, turn.move, turn.round, body, *arrays)


def _turn_from_row(body: str, *blobs: bytes) -> Turn:
    arrays = {}
    for (name, code), blob in zip(_ARRAYS.items(), blobs, strict=True):
        arrays[name] = array(code)
        arrays[name].frombytes(blob)
    return Turn.model_validate({**json.loads(body), **{name: tuple(values) for name, values in arrays.items()}})
