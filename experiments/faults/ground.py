"""What the scenarios share: something to play, the unbroken run to compare with, and what came of it."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs import Arithmetic
from experiments.faults.drivers import Driver
from experiments.runs import Run

EPISODES = 120
TOPOLOGY = ("society", "--set", "agents=2", "--set", "rounds=2", "--concurrency", "8")
ENV = ("--env", "arithmetic", "--set", "env.level=2")


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    fault: str
    """What was killed, and when."""
    ended: str
    """How the process ended, and what finished it."""
    episodes: int
    """Stored in the end, each once; failed ones are none."""
    expected: int
    same: bool
    """Whether the digest is that of the unbroken run; of a training, whether all metrics are."""
    what: str = "episodes"

    @property
    def held(self) -> bool:
        return self.same and self.episodes == self.expected


class Ground:
    """A folder of runs in which a scenario plays: a society of two, over recorded replies unless told otherwise."""

    def __init__(self, folder: Path, episodes: int = EPISODES, model: str = ""):
        self.root, self.episodes = folder / "runs", episodes
        self._printed = folder / "printed"
        self._printed.mkdir(parents=True)
        self.model = model or recorded(folder / "model.jsonl", episodes)
        self.arguments = ["run", *TOPOLOGY, *ENV, "--tasks", str(episodes), "--model", self.model]

    def drive(self, *arguments: str, **how: Any) -> Driver:
        return Driver([*arguments, "--runs", str(self.root)], self._printed, **how)

    def go_on(self, name: str, *more: str, **how: Any) -> Driver:
        """Begin a run, or resume it where there is one."""
        if (self.root / name).is_dir() and any(self.root.joinpath(name).glob("*.json")):
            return self.drive("resume", name, **how)
        return self.drive(*self.arguments, "--backend", "local", "--name", name, *more, **how)

    def unbroken(self) -> Run:
        """The run that nothing happens to."""
        status = self.go_on("unbroken").wait()
        assert status == 0, f"the unbroken run ended with status {status}"
        return self.run("unbroken")

    def run(self, name: str) -> Run:
        return Run(self.root / name)

    def outcome(self, fault: str, ended: str, name: str, unbroken: Run) -> Outcome:
        """Compare a run with the unbroken one."""
        summary = self.run(name).summary()
        tasks = {(row["task"], row["sample"]) for row in self.run(name).store.outcomes()}
        episodes = len(tasks) - summary.failed
        return Outcome(fault, ended, episodes, self.episodes, summary.digest == unbroken.summary().digest)


def recorded(path: Path, episodes: int) -> str:
    """A model that answers from a file: half of its solutions are right."""
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for task in Arithmetic(level=2).tasks(episodes):
            for role in ("solver", "debater_1", "debater_2"):
                answers = [chance.choice([*task.answers, "1"]) for _ in range(12)]
                row = {"task": task.id, "role": role, "replies": [f"\\boxed{{{answer}}}" for answer in answers]}
                file.write(json.dumps(row) + "\n")
    return f"replay:{path}"
