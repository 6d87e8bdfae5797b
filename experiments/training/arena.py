"""The arena: episodes played with weights of the registry, each batch of them into a folder that is a run of its own.

Publishes what is to be served when something is to be played with it, and only then. A folder that is complete is not
played again: a run that was killed finds there what it played before.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from agents.company import Company
from agents.types import EngineError
from envs.types import Split, Task
from experiments import stats
from experiments.plan import Plan
from experiments.progress import Progress
from experiments.runner import play_all, recording
from experiments.runs import CONFIG, RESULT, Run
from experiments.training.registry import Registry, Version
from experiments.training.setup import TrainingPlan
from experiments.training.training import Line, Training

Weights = Mapping[str, Version]
"""Policy -> version."""


@dataclass
class Arena:
    """See the module. One thing is played at a time."""

    plan: TrainingPlan
    training: Training
    registry: Registry
    company: Company
    greedy: Company
    """The same at temperature 0."""
    serving: dict[str, str] = field(default_factory=dict)
    """Policy -> version that its pool serves now; what is not named is the model's own."""
    gaps: dict[str, float] = field(default_factory=dict)
    """Policy -> the largest gap between the trainer and any replica that its publish found, nats."""
    published_s: float = 0.0
    """Spent on publishing, all in all."""
    played_s: float = 0.0
    """Spent on playing, all in all."""
    _labels: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._labels |= set(self.serving.items())

    def weights(self, updates: int) -> dict[str, Version]:
        """Of every policy after so many updates."""
        return {learner.name: self.registry.at(learner.name, updates) for learner in self.plan.learners}

    async def play(
        self, folder: Path, plan: Plan, tasks: Sequence[Task], split: Split, weights: Weights, greedy=False
    ) -> Run:
        """Play tasks with some weights into a folder, unless that was done before.

        Args:
            folder: of the run.
            plan: what is played, how often and with which seed; its own tasks are not.
            tasks: those that are.
            split: that they are of.
            weights: of every policy.
            greedy: at temperature 0.

        Raises:
            EngineError: the weights could not be published, or not one episode ended.
        """
        if not (folder / RESULT).is_file():
            await self._serve(weights)
            started = time.monotonic()
            await self._play(folder, replace(plan, tasks=tasks), split, weights, greedy)
            self.played_s += time.monotonic() - started
        run = Run(folder)
        outcomes = run.store.outcomes()
        if all(row["status"] == "failed" for row in outcomes):
            raise EngineError(f"{folder.parent.name} {folder.name}: not one episode ended; {outcomes[0]['failure']}")
        return run

    async def measure(self, kind: str, name: str, updates: int, tasks: Sequence[Task]) -> Line:
        """Accuracy on held-out tasks, after so many updates. The same draws every time, so that weights are compared
        with as little chance as can be.

        Args:
            kind: validation or test.
            name: of the measurement's folder.
            updates: whose weights.
            tasks: on which.
        """
        schedule, weights, started = self.plan.schedule, self.weights(updates), time.monotonic()
        split = schedule.test_split if kind == "test" else schedule.validation_split
        samples = schedule.test_samples if kind == "test" else schedule.validation_samples
        folder, exam = self.training.path / kind / name, self.plan.exam
        summary = (await self.play(folder, replace(exam, samples=samples), tasks, split, weights)).summary()
        line: Line = {
            "kind": kind,
            "name": name,
            "updates": updates,
            "versions": {policy: version.version for policy, version in weights.items()},
            "accuracy": summary.accuracy,
            "ci95": summary.ci95,
            "failed": summary.failed,
        }
        if schedule.greedy:
            beside = folder.with_name(f"{name}-greedy")
            found = (await self.play(beside, replace(exam, samples=1), tasks, split, weights, greedy=True)).summary()
            line |= {"greedy": found.accuracy, "greedy_ci95": found.ci95}
        return line | {"seconds": {"all": round(time.monotonic() - started, 3)}}

    async def _serve(self, weights: Weights) -> None:
        """Have the pools serve these weights and no others. Raises PublishError: they serve what they did before."""
        started = time.monotonic()
        for learner in self.plan.learners:
            version = weights[learner.name]
            if self.serving.get(learner.name) == version.version:
                continue
            label, again = version.version, 2
            while (learner.name, label) in self._labels:
                # A pool never serves two things under one label; these weights come back as another.
                label, again = f"{version.version}.{again}", again + 1
            self._labels.add((learner.name, label))
            pool = self.company.pools[learner.spec]
            done = await pool.publish(learner.served_as, label, self.registry.path(version), probe=version.probe)
            self.serving[learner.name], self.gaps[learner.name] = version.version, done.gap
        self.published_s += time.monotonic() - started

    async def _play(self, folder: Path, plan: Plan, split: Split, weights: Weights, greedy: bool) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cast = self.plan.greedy_cast if greedy else plan.cast
        config = {
            **plan.config,
            "env": {**plan.config["env"], "split": split},
            "cast": cast.describe(plan.roles),
            "tasks": len(plan.tasks),
            "samples": plan.samples,
            "seed": plan.seed,
            "weights": {policy: version.version for policy, version in weights.items()},
            "gaps": self.gaps,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        async with recording(plan, folder) as writer:
            with Progress(folder.parent.name, plan.episodes, False) as shown:
                company = self.greedy if greedy else self.company
                await play_all(plan, company, writer, shown)


def version_of(label: str) -> str:
    """The version that a pool served under a label."""
    return label.partition(".")[0]


def rollout_accuracy(run: Run) -> float | None:
    return stats.mean_score(run.scores())
