"""What a training is made of beside its own loop: trainings and runs, each in a folder of it.

A stage that is finished is left as it is; one that was cut short is gone on with. So whoever goes through them needs to
remember nothing: called again, he comes to where the run was stopped.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from envs.types import Env, Split
from experiments.runner import resume_run, run
from experiments.runs import CONFIG, TRAINING, Run
from experiments.training.asked import Asked
from experiments.training.recipe import Teach
from experiments.training.setup import TrainingPlan
from experiments.training.training import Line, Training

Told = Callable[[Line], None]


class GoOn(Protocol):
    """Brings a training to its end."""

    def __call__(self, asked: Asked, plan: TrainingPlan, training: Training, *, told: Told) -> Training: ...


@dataclass(frozen=True)
class Stages:
    """See the module."""

    asked: Asked
    plan: TrainingPlan
    training: Training
    go_on: GoOn
    told: Told

    def train(
        self,
        stage: str,
        folder: str,
        starts: Mapping[str, Path],
        changes: Mapping[str, Any] | None = None,
        seed: int | None = None,
        without: Collection[str] = (),
        teach: Teach | None = None,
    ) -> Training:
        """A stage of the recipe, trained to its end.

        Args:
            stage: its name there.
            folder: where to.
            starts: policy -> the weights that it starts from; others start as the model.
            changes: see Asked.stage, as `without`.
            seed: its own; None for the training's.
            without: see above.
            teach: in place of the stage's own.

        Raises:
            ConfigError, EngineError: see experiments.training.run.train.
        """
        recipe = self.plan.recipe.stages[stage]
        recipe = replace(recipe, teach=teach) if teach else recipe
        asked = self.asked.stage(stage, recipe, changes or {}, without)
        asked = asked if seed is None else asked.seeded(seed)
        nested = Training(self.training.path / folder)
        if (nested.path / TRAINING).is_file() and nested.finished:
            return nested
        plan = asked.plan(starts)
        if not (nested.path / TRAINING).is_file():
            nested.path.mkdir(parents=True, exist_ok=True)
            nested.begin({**plan.config, **asked.stored(), "track": []})
        return self.go_on(asked, plan, nested, told=lambda line: self.told({**line, "stage": folder}))

    def play(
        self,
        folder: str,
        topology: str,
        env: str | Env,
        *,
        tasks: int | None = None,
        samples: int = 1,
        seed: int = 0,
        split: Split = "test",
        settings: Mapping[str, Any],
        without: Collection[str] = (),
    ) -> Run:
        """A run in a folder of the training, with the seats and engines of the training; see experiments.run.

        `settings` go before the training's own, of which those of the scopes `without` are left out.
        """
        path = self.training.path / folder
        if (path / CONFIG).is_file():
            resume_run(Run(path), env=None if isinstance(env, str) else env, address=self.asked.address)
        else:
            run(
                topology, env, self.asked.cast, tasks=tasks, samples=samples, seed=seed, split=split,
                settings={**self.asked.played(without), **settings},
                concurrency=self.plan.schedule.concurrency, backend=self.asked.backend, address=self.asked.address,
                name=path.name, root=path.parent,
            )  # fmt: skip
        return Run(path)

    def setting(self, stage: str, key: str) -> int:
        """Of a stage's schedule."""
        plan = self.plan.recipe.stages[stage]
        return int(self.asked.settings.get(f"{stage}.{key}", plan.schedule[key]))

    def told_to(self, other: Told) -> "Stages":
        """The same; what is recorded of the training itself, beside its stages, is told to another, too."""
        mine = self.told

        def told(line: Line) -> None:
            mine(line)
            if "stage" not in line:
                other(line)

        return replace(self, told=told)

    def record(self, line: Line) -> None:
        """Add a line to the training's metrics."""
        self.training.append(line)
        self.told(line)
