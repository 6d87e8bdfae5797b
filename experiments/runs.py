"""A run on disk: its configuration, its episodes, its summary. What `run` returns and every other verb reads."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from envs.errors import ConfigError, nearest
from experiments import stats
from experiments.store import FILE, StoreReader
from graphs.turns import Episode

if TYPE_CHECKING:
    import pandas

RUNS = Path("runs")
CONFIG = "config.json"
RESULT = "result.json"
SWEEP = "sweep.json"
"""In a folder of runs: what they came to together; see experiments.sweeps."""
ASKED = "asked.json"
"""In a folder of runs: what was asked for, of a sweep."""
TRAINING = "training.json"
"""In a folder of runs: what is trained by them; see experiments.training.training."""


class Tokens(BaseModel):
    prompt: int
    completion: int


class Summary(BaseModel):
    """A run in figures."""

    run: str
    topology: str
    env: str
    model: str
    episodes: int
    """Stored, the failed ones included."""
    failed: int
    """Episodes that did not end: a dead engine, an error in the graph. Not part of accuracy."""
    unscorable: int
    """Episodes whose answer the env could not judge. Not part of accuracy."""
    unparsed: int
    """Episodes without a readable answer: they count as not correct."""
    unread_replies: int
    """Turns whose reply the move's parser could not read."""
    accuracy: float | None
    """Mean score over tasks; None when nothing could be judged."""
    ci95: tuple[float, float] | None
    """Wilson's interval for one sample a task, else a bootstrap over tasks."""
    calls: int
    tokens: Tokens
    seconds: float | None
    """Of the run, from the first request to the last episode; None when it was cut short, also if it was resumed."""
    stop_reasons: dict[str, int]
    digest: str


@dataclass(frozen=True)
class Run:
    """A run's directory."""

    path: Path

    @classmethod
    def open(cls, name: str | Path, root: Path = RUNS) -> "Run":
        """Open a run by its name under `root`, or by its path.

        Raises:
            ConfigError: there is no such run.
        """
        for path in (root / name, Path(name)):
            if (path / CONFIG).is_file():
                return cls(path)
        names = [run.name for run in list_runs(root)]
        raise ConfigError(f"no run {str(name)!r} in {root}/; {nearest(str(name), names)}")

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / CONFIG).read_text(encoding="utf-8"))

    @property
    def seconds(self) -> float | None:
        """From the first request to the last episode; None when the run was cut short, also if it was resumed."""
        result = self.path / RESULT
        return json.loads(result.read_text())["seconds"] if result.is_file() else None

    @property
    def store(self) -> StoreReader:
        return StoreReader(self.path)

    def episodes(self, offset: int = 0, limit: int | None = None) -> Iterator[Episode]:
        """Episodes in the order of tasks and samples, read from disk as they are asked for."""
        return self.store.episodes(offset, limit)

    def find(self, episode: str) -> Episode:
        """An episode by what `position` takes.

        Raises:
            ConfigError: there is none.
        """
        found = self.store.episode(self.position(episode))
        assert found is not None
        return found

    def position(self, episode: str) -> int:
        """Where an episode is: by its number (from 1), by `TASK` or `TASK/SAMPLE`, or `longest`, `wrong` or `failed`.

        `longest` is the one of most calls, the first that ended well among equals.

        Raises:
            ConfigError: there is none.
        """
        outcomes = self.store.outcomes()
        if episode == "longest" and outcomes:
            return max(outcomes, key=lambda row: (row["calls"], row["score"] or 0.0, -row["position"]))["position"]
        status = {"wrong": "incorrect", "failed": "failed"}.get(episode)
        for row in outcomes:
            if status == row["status"] or episode in (
                str(row["position"] + 1),
                row["task"],
                f"{row['task']}/{row['sample']}",
            ):
                return row["position"]
        raise ConfigError(
            f"run {self.name} has no episode {episode!r} ({len(outcomes)} are stored): give its number in the run, "
            "from 1, or a task's id"
        )

    def scores(self) -> dict[str, list[float]]:
        """Task id -> scores of its samples; failed and unscorable episodes are absent."""
        scores: dict[str, list[float]] = {}
        for row in self.store.outcomes():
            if row["score"] is not None:
                scores.setdefault(row["task"], []).append(row["score"])
        return scores

    def summary(self) -> Summary:
        rows = self.store.outcomes()
        status = Counter(row["status"] for row in rows)
        scores = self.scores()
        config = self.config
        return Summary(
            run=self.name,
            topology=config["topology"]["name"],
            env=config["env"]["name"],
            model=", ".join(sorted({seat["model"] for seat in config["cast"].values()})),
            episodes=len(rows),
            failed=status["failed"],
            unscorable=status["unscorable"],
            unparsed=status["unparsed"],
            unread_replies=sum(row["unread"] for row in rows),
            accuracy=stats.mean_score(scores),
            ci95=stats.mean_interval(scores),
            calls=sum(row["calls"] for row in rows),
            tokens=Tokens(
                prompt=sum(row["prompt_tokens"] for row in rows),
                completion=sum(row["completion_tokens"] for row in rows),
            ),
            seconds=self.seconds,
            stop_reasons=dict(Counter(row["stop_reason"] for row in rows if row["stop_reason"]).most_common()),
            digest=self.store.digest(),
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """One row an episode: position, task, sample, status, score, answer, stop_reason, failure, calls,
        prompt_tokens, completion_tokens, unread (replies that could not be parsed) and seconds."""
        import pandas

        return pandas.DataFrame(self.store.outcomes())


def list_runs(root: Path = RUNS) -> list[Run]:
    """The runs under a folder, newest first."""
    runs = [Run(path.parent) for path in root.glob(f"*/{CONFIG}") if (path.parent / FILE).is_file()]
    return sorted(runs, key=lambda run: (run.path / CONFIG).stat().st_mtime, reverse=True)
