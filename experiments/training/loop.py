"""The training loop: play, credit, update, export; publish, measure; and again.

Two tasks: one plays iterations and measures, the other learns from them in order. With lag 0 they take turns; with lag
L iteration i is played with the weights after i - L updates, so that the engines work on while the trainer does.
Which weights play what depends on the schedule alone, never on a clock: a run is the same again, and a killed run that
is resumed is the same as one that was not.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.learning.samples import Pair, Sample
from agents.types import seed_of
from experiments.runs import Run
from experiments.training.arena import Arena, rollout_accuracy, version_of
from experiments.training.recipe import Lesson
from experiments.training.registry import Version
from experiments.training.replay import ReplayBuffer
from experiments.training.setup import TrainingPlan
from experiments.training.teacher import Metrics, Teacher
from experiments.training.training import Line, Training
from graphs.turns import Episode

FIRST, BEST, LAST = "first", "best", "last"


class Loop:
    """See the module."""

    def __init__(
        self,
        plan: TrainingPlan,
        training: Training,
        arena: Arena,
        teacher: Teacher,
        data: Run | None,
        first: Sequence[Sample | Pair] | None,
        told: Callable[[Line], None],
    ):
        """
        Args:
            plan: what is done.
            training: where it is recorded; from its state the loop goes on.
            arena: plays.
            teacher: learns; has loaded that state.
            data: the stored run that is learned from; None learns from what is played.
            first: what the first policies were made of, to be learned from beside the rest; None mixes nothing in.
            told: gets every line of metrics.
        """
        self._plan, self._training, self._arena, self._teacher = plan, training, arena, teacher
        self._data, self._first, self._told, self._schedule = data, first, told, plan.schedule
        self._begun = training.updates
        self._played: asyncio.Queue[tuple[int, Run | None, Metrics] | None] = asyncio.Queue()
        self._learned = [asyncio.Event() for _ in range(plan.schedule.iterations + 1)]
        self._replay = ReplayBuffer(plan.schedule.replay_most)
        self._waited_s = 0.0

    async def run(self) -> None:
        """Go on to the end.

        Raises:
            EngineError: weights could not be published, or nobody could play.
            SampleError, TrainerError: what was played cannot be learned from, or only to no good.
        """
        started = time.monotonic()
        if self._schedule.restart and not self._begun:
            await self._teacher.save(self._training.state(0))
        for done in range(self._begun + 1):
            self._learned[done].set()
        self._refill()
        async with asyncio.TaskGroup() as group:
            playing = group.create_task(self._play())
            group.create_task(self._learn())
        await self._finish(playing.result(), started)

    async def _play(self) -> str:
        """Play iteration after iteration, and measure in between. Returns why it ended."""
        schedule, curriculum = self._schedule, self._plan.curriculum
        if curriculum.test and not self._begun:
            self._record(await self._arena.measure("test", FIRST, 0, curriculum.test))
        reason = "all iterations"
        for i in range(self._begun, schedule.iterations):
            updates = max(0, i - schedule.lag)
            waiting = time.monotonic()
            await self._learned[updates].wait()
            self._waited_s += time.monotonic() - waiting
            due = schedule.measures and updates % schedule.evaluate_every == 0 and (i == 0 or updates > 0)
            if due and await self._validate(updates):
                reason = f"no better in {schedule.patience} measurements"
                break
            await self._meet(updates)
            self._played.put_nowait(await self._iteration(i, updates))
            # Not before: until the next weights are served, replicas that start again load the last.
            self._drop(updates)
        self._played.put_nowait(None)
        return reason

    async def _iteration(self, i: int, updates: int) -> tuple[int, Run | None, Metrics]:
        if self._data is not None:
            return i, None, {}
        played, published = self._arena.played_s, self._arena.published_s
        plan = replace(self._plan.plan, seed=seed_of(self._plan.plan.seed, "iteration", i))
        rules = self._plan.recipe.rules
        weights = rules.opponents(self._arena, updates) if rules else self._arena.weights(updates)
        tasks, split = self._plan.curriculum.iteration(i), self._schedule.train_split
        run = await self._arena.play(self._training.folder("rollouts", i), plan, tasks, split, weights)
        seconds = {"play": self._arena.played_s - played, "publish": self._arena.published_s - published}
        return i, run, seconds

    async def _learn(self) -> None:
        """Learn from iterations as they come."""
        while (iteration := await self._played.get()) is not None:
            i, run, seconds = iteration
            watch = time.monotonic()
            lesson = await asyncio.to_thread(self._lesson, i)
            items = [*lesson.items, *(kept.item for kept in self._again(i))]
            self._replay.add(lesson.items, i)
            for earlier in range(i) if self._schedule.buffer else ():
                items += (await asyncio.to_thread(self._lesson, earlier)).items
            if self._first is not None:
                items += self._mixed(items, seed_of(self._plan.plan.seed, "mix", i))
            credited = time.monotonic()
            if self._schedule.restart and i:
                await self._teacher.load(self._training.state(0))
            steps = await self._teacher.update(items, self._schedule.epochs, self._schedule.minibatch) if items else []
            updated = time.monotonic()
            await self._export(i + 1)
            await self._teacher.save(self._training.state(i + 1))
            ended = time.monotonic()
            seconds |= {"credit": credited - watch, "update": updated - credited, "export": ended - updated}
            self._record(self._line(i, run, lesson, len(items), steps, seconds))
            self._training.mark(i + 1)
            self._learned[i + 1].set()

    def _lesson(self, i: int) -> Lesson:
        """What iteration i teaches; from what is stored alone."""
        episodes = self._training.rollouts(i).episodes() if self._data is None else self._stored(self._data, i)
        seed = seed_of(self._plan.plan.seed, "lesson", i)
        lesson = self._plan.recipe.teach(episodes, self._plan.recipe.credit, self._schedule, seed)
        return replace(lesson, items=[self._own(item) for item in lesson.items])

    def _own(self, item: Sample | Pair) -> Any:
        """With the trainer's names of policy and version in place of the engine's."""
        if isinstance(item, Pair):
            return replace(item, chosen=self._own(item.chosen), rejected=self._own(item.rejected))
        return replace(item, policy=self._plan.policy_of(item.role), version=version_of(item.version))

    def _mixed(self, items: Sequence[Sample | Pair], seed: int) -> list[Any]:
        """As many samples that the first policies were made of as each policy has others, drawn with replacement."""
        rng = random.Random(seed)
        found: list[Any] = []
        for learner in self._plan.learners:
            pool = [own for item in self._first or () if (own := self._own(item)).policy == learner.name]
            wanted = sum(isinstance(item, Sample) and item.policy == learner.name for item in items)
            found += rng.choices(pool, k=wanted) if pool else []
        return found

    async def _meet(self, updates: int) -> None:
        """Have the newest versions meet the earlier ones, where the game has such matches."""
        rules = self._plan.recipe.rules
        if rules and self._plan.curriculum.matches:
            self._record(await rules.matches(self._arena, updates))

    def _stored(self, data: Run, i: int) -> Iterable[Episode]:
        """The episodes of a stored run that are iteration i's, in an order drawn anew for each pass over it."""
        positions = [row["position"] for row in data.store.outcomes()]
        size = min(len(positions), self._schedule.tasks * self._schedule.samples)
        passes = len(positions) // size
        random.Random(seed_of(self._plan.plan.seed, "data", i // passes)).shuffle(positions)
        start = i % passes * size
        found = (data.store.episode(position) for position in positions[start : start + size])
        return (episode for episode in found if episode is not None)

    def _again(self, i: int) -> Sequence[Any]:
        return self._replay.draw(self._schedule.replay, seed_of(self._plan.plan.seed, "replay", i))

    def _refill(self) -> None:
        """Put back into the replay buffer what it held; only the newest can be in it still."""
        lessons: list[tuple[int, Lesson]] = []
        room = self._schedule.replay_most if self._schedule.replay else 0
        for i in range(self._begun - 1, -1, -1):
            if room <= 0:
                break
            lessons.append((i, self._lesson(i)))
            room -= len(lessons[-1][1].items)
        for i, lesson in reversed(lessons):
            self._replay.add(lesson.items, i)

    async def _export(self, updates: int) -> None:
        """Enter into the registry what has changed."""
        registry = self._arena.registry
        for learner in self._plan.learners:
            directory = self._training.path / "policies" / learner.name / f"{updates:04d}"
            version = await self._teacher.export(learner.name, directory)
            if version == registry.at(learner.name).version:
                registry.remove(directory)
                continue
            probe = await self._teacher.probe(learner.name)
            where = str(directory.relative_to(registry.root))
            registry.add(Version(learner.name, version, updates, where, probe))

    def _line(
        self,
        i: int,
        run: Run | None,
        lesson: Lesson,
        items: int,
        steps: Sequence[Mapping[str, Metrics]],
        seconds: Metrics,
    ) -> Line:
        registry = self._arena.registry
        policies: dict[str, Line] = {name: dict(metrics) for name, metrics in summed(steps).items()}
        for learner in self._plan.learners:
            found = policies.setdefault(learner.name, {})
            found["version"] = registry.at(learner.name).version
            if run is not None and learner.name in run.config["gaps"]:
                found["publish_gap"] = run.config["gaps"][learner.name]
        played = {} if run is None else {"accuracy": rollout_accuracy(run)}
        return {
            "kind": "update",
            "updates": i + 1,
            **played,
            "items": items,
            "left_out": dict(lesson.left_out),
            "rewards": lesson.rewards,
            "policies": policies,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }

    async def _validate(self, updates: int) -> bool:
        """Measure on validation tasks. Returns whether patience is at its end."""
        name = f"{updates:04d}"
        self._record(await self._arena.measure("validation", name, updates, self._plan.curriculum.validation))
        measured = [line["updates"] for line in self._training.lines("validation")]
        since = len(measured) - 1 - measured.index(self.best)
        return 0 < self._schedule.patience <= since

    @property
    def best(self) -> int:
        """After how many updates the validation accuracy was highest; without measurements, the last."""
        lines = self._training.lines("validation")
        if not lines:
            return self._training.updates
        return max(lines, key=lambda line: (line["accuracy"] or 0.0, -line["updates"]))["updates"]

    def _versions(self, updates: int) -> list[Version]:
        return list(self._arena.weights(updates).values())

    def _drop(self, before: int) -> None:
        """Remove weights that nothing will ask for any more."""
        if self._schedule.keep == "needed":
            self._arena.registry.drop(before, self._versions(self.best))

    async def _finish(self, reason: str, started: float) -> None:
        """Measure what came out of it."""
        last, test = self._training.updates, self._plan.curriculum.test
        if self._schedule.measures and reason == "all iterations":
            await self._validate(last)
        await self._meet(last)
        if test:
            self._record(await self._arena.measure("test", LAST, last, test))
            if self.best not in (0, last):
                self._record(await self._arena.measure("test", BEST, self.best, test))
        self._drop(last)
        best = {version.policy: version for version in self._versions(self.best)}
        busy = self._arena.played_s / max(1e-9, self._arena.played_s + self._arena.published_s + self._waited_s)
        self._record(
            {
                "kind": "end",
                "updates": last,
                "reason": reason,
                "best": self.best,
                "versions": {name: version.version for name, version in best.items()},
                "weights": {name: str(self._where(version)) for name, version in best.items()},
                "seconds": {
                    "since_resumed" if self._begun else "all": round(time.monotonic() - started, 3),
                    "playing_share": round(busy, 4),
                },
            }
        )

    def _where(self, version: Version) -> Path:
        path = self._arena.registry.path(version)
        return path.relative_to(self._training.path) if path.is_relative_to(self._training.path) else path

    def _record(self, line: Line) -> None:
        self._training.append(line)
        self._told(line)


def summed(steps: Sequence[Mapping[str, Metrics]]) -> dict[str, Metrics]:
    """Policy -> the metrics of several steps as one: means, largest of `_max`, sums of what is counted.

    The gap between engine and trainer is that of the first step, before the policy has moved.
    """
    together: dict[str, list[Metrics]] = {}
    for step in steps:
        for name, metrics in step.items():
            together.setdefault(name, []).append(metrics)
    return {name: _summed(parts) for name, parts in together.items()}


def _summed(parts: Sequence[Metrics]) -> Metrics:
    found: Metrics = {"steps": len(parts)}
    for key in dict.fromkeys(key for part in parts for key in part):
        values = [part[key] for part in parts if key in part]
        if key.startswith("gap"):
            found[key] = values[0]
        elif key.endswith("_max"):
            found[key] = max(values)
        elif key in ("samples", "pairs", "tokens"):
            found[key] = sum(values)
        else:
            found[key] = sum(values) / len(values)
    return found
