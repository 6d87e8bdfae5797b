"""Progress of a run on stderr: episodes done, rate, time left, accuracy so far."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from graphs.turns import Episode


class Progress:
    """A context manager around the playing of episodes; shows nothing when stderr is no terminal, unless told to."""

    def __init__(self, what: str, total: int, show: bool | None = None):
        self._show = sys.stderr.isatty() if show is None else show
        self._what, self._total = what, total
        self._done = self._before = self._scored = self._failed = 0
        self._score = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> "Progress":
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not self._show,
        )
        self._rich.start()
        self._task = self._rich.add_task(self._what, total=self._total, rate="", note="")
        return self

    def __exit__(self, *exception: object) -> None:
        self._rich.stop()

    def stored(self, episodes: int) -> None:
        """Count episodes that were stored before, by a run that is gone on with."""
        self._before += episodes
        if self._show:
            self._rich.update(self._task, completed=self._before + self._done)

    def ended(self, episode: Episode) -> None:
        """Count an episode that has been stored."""
        self._done += 1
        self._failed += episode.failure is not None
        if episode.verdict is not None and episode.verdict.score is not None:
            self._scored += 1
            self._score += episode.verdict.score
        if self._show:
            note = f"accuracy {self._score / self._scored:.2f}" if self._scored else ""
            failed = f"  {self._failed} failed" if self._failed else ""
            rate = f"{self._done / max(1e-9, time.monotonic() - self._started):.1f} episodes/s"
            self._rich.update(self._task, completed=self._before + self._done, rate=rate, note=note + failed)
