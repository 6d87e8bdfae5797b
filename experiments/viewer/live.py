"""Live: which runs have changed on disk, told as it happens. Whoever writes them knows nothing of it.

Files' times and sizes are looked at once a second, and less often where looking takes long. A follower is told that
something changed, and asks for what it shows.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

from envs.errors import ConfigError
from experiments.runs import RESULT, SWEEP
from experiments.store import StoreReader
from experiments.training.training import METRICS
from experiments.viewer.episode_records import Changed, StoredChange
from experiments.viewer.keys import below, kind_of
from experiments.viewer.library import Library, Stamp

PAUSE_S = 1.0
SHARE = 20
"""Looking takes at most one part in so many of a follower's time."""


class Live:
    """See the module."""

    def __init__(self, library: Library, pause_s: float = PAUSE_S):
        self._library, self._pause_s = library, pause_s

    async def follow(self, under: str | None) -> AsyncIterator[Changed]:
        """An empty `Changed` at once, then one whenever something was stored.

        Args:
            under: key of the training or sweep whose runs are followed, with it; None for those of the root.

        Raises:
            NotThereError: there is none of that key.
        """
        folder = None if under is None else (await asyncio.to_thread(self._library.find, under))[0]
        known = await asyncio.to_thread(self._stamps, folder)
        yield Changed(runs=[], gone=[])
        while True:
            started = time.monotonic()
            now = await asyncio.to_thread(self._stamps, folder)
            if now != known:
                new = [path for path, stamp in now.items() if known.get(path) != stamp]
                stored = [await asyncio.to_thread(self._stored, path) for path in new]
                yield Changed(runs=stored, gone=[self._library.key(path) for path in known if path not in now])
                known = now
            await asyncio.sleep(max(self._pause_s, SHARE * (time.monotonic() - started)))

    def _stamps(self, folder: Path | None) -> dict[Path, Stamp]:
        root = self._library.root
        paths = below(root, folder or root, kind_of(folder) if folder else None)
        return {path: self._stamp(path) for path in ([folder] if folder else []) + paths}

    def _stamp(self, path: Path) -> Stamp:
        """A sweep that is going on says nothing of itself: its runs do."""
        own = self._library.stamp(path)
        if kind_of(path) != "sweep" or (path / SWEEP).is_file():
            return own
        return sum((self._library.stamp(run) for run in below(self._library.root, path, "sweep")), own)

    def _stored(self, path: Path) -> StoredChange:
        kind, key = kind_of(path), self._library.key(path)
        if kind == "training":
            lines = (path / METRICS).read_bytes() if (path / METRICS).is_file() else b""
            ended = b'"kind": "end"' in lines.rpartition(b"\n{")[2]
            return StoredChange(run=key, episodes=lines.count(b"\n"), state="ended" if ended else "running")
        if kind == "sweep":
            ended = (path / SWEEP).is_file()
            return StoredChange(run=key, episodes=0, state="ended" if ended else "running")
        try:
            episodes = StoreReader(path).rows("SELECT count(*) FROM episodes")[0][0]
        except (ConfigError, sqlite3.Error):
            episodes = 0
        return StoredChange(run=key, episodes=episodes, state="ended" if (path / RESULT).is_file() else "running")
