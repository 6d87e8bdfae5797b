"""Which episodes are exported, and how they are read: one after another, leaving out what is damaged."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from agents.cast import base_role
from experiments.runs import CONFIG, Run
from graphs.turns import Episode


@dataclass
class Selection:
    """Episodes of a run, by position. Reading them fills `unread`."""

    run: Run
    positions: Sequence[int]
    of: int
    """Episodes that the run has stored."""
    unread: dict[int, str] = field(default_factory=dict)
    """Position -> why it could not be read."""
    exported: int = 0
    """Episodes that were read and not left out."""
    beyond: list[str] = field(default_factory=list)
    """What was left out because of its size, in words."""

    @classmethod
    def of_run(cls, run: Run, episodes: Sequence[str] = ()) -> "Selection":
        """Those named, each as `Run.find` takes it, in the run's order; all when none is named.

        Raises:
            ConfigError: there is no such episode.
        """
        stored = _positions(run)
        numbers = {str(position + 1): position for position in stored} if episodes else {}
        named = {numbers[name] if name in numbers else run.position(name) for name in episodes}
        return cls(run, sorted(named or stored), len(stored))

    def __iter__(self) -> Iterator[tuple[int, Episode]]:
        """(position, episode), from disk as they are asked for."""
        self.unread, self.beyond, self.exported = {}, [], 0
        store = self.run.store
        for position in self.positions:
            try:
                episode = store.episode(position)
            except (sqlite3.DatabaseError, ValueError) as error:
                self.unread[position] = _plainly(error)
                continue
            assert episode is not None, "the store is append-only"
            self.exported += 1
            yield position, episode

    @property
    def began(self) -> datetime:
        """When the run did; episodes know times within themselves alone."""
        created = self.run.config.get("created")
        if created:
            return datetime.fromisoformat(created)
        return datetime.fromtimestamp((self.run.path / CONFIG).stat().st_mtime, UTC)

    def model(self, role: str) -> str:
        """The model that played a role, as the run was given it; empty when the configuration does not say."""
        cast = self.run.config.get("cast", {})
        seat = cast.get(role) or cast.get(base_role(role)) or cast.get("*") or {}
        return seat.get("model", "")

    def end_before(self, position: int, why: str) -> None:
        """Say that the episodes from this one on are left out."""
        rest = sum(other >= position for other in self.positions)
        these = f"from number {position + 1} on, {rest} of {len(self.positions)}, are"
        self.beyond.append(f"the episodes {these} left out: {why}")

    def left_out(self) -> list[str]:
        """What is missing, in words: episodes that cannot be read, and what was beyond a bound."""
        unread = [f"episode {position + 1} cannot be read: {why}" for position, why in self.unread.items()]
        return [*unread, *self.beyond]


def _positions(run: Run) -> set[int]:
    """Those stored; of a damaged store those before and behind what is damaged."""
    found: set[int] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            found.update(p for (p,) in run.store.each(f"SELECT position FROM episodes ORDER BY position {order}"))
            break
    return found


def _plainly(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first: Any = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
