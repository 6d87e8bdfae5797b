"""The library: a folder of runs, read from disk page by page.

What is kept in memory is small and goes by the files' stamps (time and size): rows of episodes without texts, and what
looking through their turns has shown. Looking takes seconds for a large run, so it happens on a thread of its own, and
pages say how far it is. Nothing is written: the folder may be read-only.
"""

import sqlite3
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from envs.errors import ConfigError
from experiments.runs import CONFIG, RESULT, SWEEP, TRAINING
from experiments.store import FILE, StoreReader
from experiments.training.league import FILE as LEAGUE
from experiments.training.training import METRICS
from experiments.viewer.keys import Kind, find, key_of, read_json
from experiments.viewer.looking import Look, look_through
from experiments.viewer.records import Problem

CLIP = 300
"""Characters of an answer or a failure that are kept."""
CHUNK = 200
"""Episodes that are looked through at a time."""
MOST_ROWS = 150_000
"""Episodes that are kept in memory, over all runs; the runs that were asked for longest ago make room."""
_FILES = (CONFIG, FILE, f"{FILE}-wal", RESULT, TRAINING, METRICS, SWEEP, LEAGUE)
_COLUMNS = (
    f"position, task, sample, status, score, substr(answer, 1, {CLIP}), length(answer), substr(stop_reason, 1, {CLIP}),"
    f" substr(failure, 1, {CLIP}), calls, prompt_tokens, completion_tokens, unread, seconds"
)
_TYPES = (
    *(int, str, int, str, float | None, str | None, int | None, str, str | None),
    *(int, int, int, int, float),
)
Stamp = tuple[tuple[int, int], ...]
_Value = TypeVar("_Value")


class Outcome(NamedTuple):
    """An episode without its texts."""

    position: int
    task: str
    sample: int
    status: str
    score: float | None
    answer: str | None
    answer_length: int | None
    stop_reason: str
    failure: str | None
    calls: int
    prompt_tokens: int
    completion_tokens: int
    unread: int
    seconds: float

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Outcomes:
    """Of a run, in its order."""

    rows: list[Outcome]
    problems: list[Problem] = field(default_factory=list)

    @cached_property
    def places(self) -> dict[int, int]:
        """Position -> index of its row."""
        return {row.position: i for i, row in enumerate(self.rows)}

    @cached_property
    def by_task(self) -> dict[str, list[int]]:
        """Task -> indices of its rows."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            found.setdefault(row.task, []).append(i)
        return found

    @cached_property
    def scores(self) -> dict[str, list[float]]:
        """Task -> scores; failed and unscorable episodes are absent."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            if row.score is not None:
                found.setdefault(row.task, []).append(row.score)
        return found


@dataclass
class Looks:
    """What looking through a run's turns has shown so far."""

    by_position: dict[int, Look] = field(default_factory=dict)
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(role, prompt or completion) -> tokens."""
    problems: list[Problem] = field(default_factory=list)
    busy: bool = False


class Library:
    """See the module. Its methods may be called from several threads."""

    def __init__(self, root: Path):
        """
        Args:
            root: the folder of runs; one that is not there is empty.
        """
        self.root = root.absolute()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Stamp, int, Any]] = OrderedDict()
        self._weight = 0
        self._looks: OrderedDict[Path, tuple[int, Looks]] = OrderedDict()
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="looking")

    def close(self) -> None:
        self._looking.shutdown(wait=False, cancel_futures=True)

    def find(self, key: str) -> tuple[Path, Kind]:
        """Raises NotThereError."""
        return find(self.root, key)

    def key(self, path: Path) -> str:
        return key_of(self.root, path)

    def stamp(self, path: Path) -> Stamp:
        """Of a run's files: differs when something was stored."""
        stamps = []
        for name in _FILES:
            try:
                found = (path / name).stat()
                stamps.append((found.st_mtime_ns, found.st_size))
            except OSError:
                stamps.append((0, 0))
        return tuple(stamps)

    def config(self, path: Path, name: str = CONFIG) -> dict[str, Any]:
        """Raises ConfigError: it cannot be read."""
        return self.keep(("config", path, name), self.stamp_of(path / name), lambda: read_json(path / name))

    def outcomes(self, path: Path) -> Outcomes:
        """The rows of a run's episodes; where the store is damaged, those that can be read."""
        return self.keep(
            ("outcomes", path), self.stamp(path), lambda: _read_outcomes(path), lambda found: len(found.rows)
        )

    def looks(self, path: Path, outcomes: Outcomes) -> Looks:
        """What is known of a run's turns now; what is not yet is looked up in the background."""
        created = (path / CONFIG).stat().st_mtime_ns if (path / CONFIG).is_file() else 0
        with self._lock:
            since, looks = self._looks.get(path, (created, Looks()))
            if since != created:  # another run of that name
                looks = Looks()
            self._looks[path] = created, looks
            self._looks.move_to_end(path)
            while len(self._looks) > 1 and sum(len(known.by_position) for _, known in self._looks.values()) > MOST_ROWS:
                self._looks.popitem(last=False)
            missing = [row.position for row in outcomes.rows if row.position not in looks.by_position]
            if missing and not looks.busy:
                looks.busy = True
                self._looking.submit(self._look, path, outcomes, missing, looks)
        # A page is made from one state of what is known, while more comes to be known.
        return Looks(dict(looks.by_position), looks.tokens.copy(), list(looks.problems))

    def looked(self, path: Path) -> Looks:
        """The same, when all is known."""
        outcomes = self.outcomes(path)
        while len((looks := self.looks(path, outcomes)).by_position) < len(outcomes.rows):
            self._looking.submit(int).result()
        return looks

    def keep(
        self, name: Hashable, stamp: Stamp, make: Callable[[], _Value], weigh: Callable[[_Value], int] = lambda _: 0
    ) -> _Value:
        """What was made before with the same stamp, or is made now; always now with an empty one."""
        with self._lock:
            if stamp and name in self._kept and self._kept[name][0] == stamp:
                self._kept.move_to_end(name)
                return self._kept[name][2]
        made = make()
        with self._lock:
            self._weight += weigh(made) - self._kept.pop(name, (stamp, 0, None))[1]
            self._kept[name] = stamp, weigh(made), made
            if self._weight > MOST_ROWS:
                for other in [known for known, (_, weight, _) in self._kept.items() if weight][:-1]:
                    self._weight -= self._kept.pop(other)[1]
                    if self._weight <= MOST_ROWS:
                        break
        return made

    def stamp_of(self, path: Path) -> Stamp:
        """Of one file."""
        try:
            found = path.stat()
        except OSError:
            return ()
        return ((found.st_mtime_ns, found.st_size),)

    def _look(self, path: Path, outcomes: Outcomes, missing: list[int], looks: Looks) -> None:
        statuses = {row.position: (row.status, row.answer) for row in outcomes.rows}
        try:
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                try:
                    look_through(StoreReader(path), {p: statuses[p] for p in chunk}, looks.by_position, looks.tokens)
                except Exception as error:  # noqa: BLE001 - what a damaged store holds must not end the looking
                    where = f"turns of episodes {chunk[0] + 1} to {chunk[-1] + 1}"
                    looks.problems.append(Problem(where=where, what=f"cannot be read: {error}"))
                    looks.by_position.update({p: looks.by_position.get(p, Look()) for p in chunk})
        finally:
            looks.busy = False


def _read_outcomes(path: Path) -> Outcomes:
    if not (path / FILE).is_file():
        return Outcomes([])
    try:
        return _checked(StoreReader(path).rows(f"SELECT {_COLUMNS} FROM episodes ORDER BY position"), [])
    except (sqlite3.Error, ConfigError) as error:
        problem = str(error)
    rows = _salvaged(path)
    return _checked(rows, [Problem(where=FILE, what=f"{problem}; {len(rows)} episodes can be read")])


def _checked(rows: list[Any], problems: list[Problem]) -> Outcomes:
    """Without those that hold something else than they should: SQLite takes any value in any column."""
    kept = [Outcome(*row) for row in rows if all(map(isinstance, row, _TYPES))]
    if len(kept) < len(rows):
        problems.append(Problem(where=FILE, what=f"{len(rows) - len(kept)} episodes hold what they should not"))
    return Outcomes(kept, problems)


def _salvaged(path: Path) -> list[Any]:
    """The rows of a damaged store before and behind what is damaged."""
    found: dict[int, Any] = {}
    for order in ("ASC", "DESC"):
        try:
            store = StoreReader(path)
            for row in store.each(f"SELECT {_COLUMNS} FROM episodes ORDER BY position {order}"):
                found.setdefault(row[0], row)
        except (sqlite3.Error, ConfigError):
            continue
    return [found[position] for position in sorted(found)]
