"""A training run on disk: what was asked for, its metrics, its weights, its episodes.

    training.json           everything that was asked for, checked
    metrics.jsonl           a line an update, and a line a measurement
    rollouts/0000/          the episodes of an iteration; each such folder is a run, for `show` and `compare`
    validation/, test/      the episodes of measurements; NAME-greedy beside NAME
    policies/NAME/0001/     a policy's weights after so many updates; registry.json says which versions there are
    NAME/, NAME/0001/       trainings and runs that it is made of, where its recipe has stages
    state/0001/             what the next update depends on: the trainer's checkpoint, and a mark that it is whole

After a kill the last state that is whole is gone on from: what lies behind it is dropped, or made again and the same.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, nearest
from experiments.folder import replace_whole, write_whole
from experiments.runs import RUNS, TRAINING, Run

METRICS = "metrics.jsonl"
MARK = "whole.json"
Line = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """A training run's directory."""

    path: Path

    @classmethod
    def open(cls, name: str | Path, root: Path = RUNS) -> "Training":
        """Open a training run by its name under `root`, or by its path.

        Raises:
            ConfigError: there is none.
        """
        for path in (root / name, Path(name)):
            if (path / TRAINING).is_file():
                return cls(path)
        names = [found.name for found in list_trainings(root)]
        raise ConfigError(f"no training run {str(name)!r} in {root}/; {nearest(str(name), names)}")

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / TRAINING).read_text(encoding="utf-8"))

    def lines(self, kind: str | None = None) -> list[Line]:
        """The metrics in the order in which they came: of kind update, validation or test, or all."""
        return [line for line in read_lines(self.path / METRICS) if kind in (None, line["kind"])]

    @property
    def updates(self) -> int:
        """Iterations that were learned from and are kept for good."""
        return max((int(path.parent.name) for path in self.path.glob(f"state/*/{MARK}")), default=0)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return any(line["kind"] == "end" for line in self.lines())

    def rollouts(self, iteration: int) -> Run:
        return Run(self.folder("rollouts", iteration))

    def folder(self, what: str, number: int) -> Path:
        return self.path / what / f"{number:04d}"

    def begin(self, config: Mapping[str, Any]) -> None:
        write_whole(self.path / TRAINING, config)

    def append(self, line: Line) -> None:
        """Add a line of metrics; it is on disk when this returns."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, wanted: Callable[[Line], bool]) -> None:
        """Drop the lines that are not wanted, and one that was cut short."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines() if wanted(line))
        replace_whole(self.path / METRICS, text)

    def state(self, updates: int) -> Path:
        """The folder of the state after so many updates; `mark` says that it is whole."""
        return self.folder("state", updates)

    def mark(self, updates: int) -> None:
        """Say that the state is whole, and drop those before it."""
        self.state(updates).mkdir(parents=True, exist_ok=True)
        write_whole(self.state(updates) / MARK, {"updates": updates})
        self.drop_states(updates)

    def drop_states(self, but: int) -> None:
        """Remove all but one, and the very first, from which some trainings begin again and again."""
        for path in (self.path / "state").glob("*"):
            if path.name not in ("0000", f"{but:04d}"):
                shutil.rmtree(path, ignore_errors=True)


def weights_of(training: Training) -> dict[str, Path]:
    """Policy -> its weights at the end of a training."""
    return {name: (training.path / where).absolute() for name, where in training.lines("end")[0]["weights"].items()}


def list_trainings(root: Path = RUNS) -> list[Training]:
    """The training runs under a folder, newest first."""
    found = [Training(path.parent) for path in root.glob(f"*/{TRAINING}")]
    return sorted(found, key=lambda training: (training.path / TRAINING).stat().st_mtime, reverse=True)


def read_lines(path: Path) -> list[Line]:
    """The lines of metrics in a file, up to one that was cut short."""
    lines: list[Line] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break  # cut short by a kill, and the last
    return lines
