"""What a topology or a recipe asks of engines and trainers: how many episodes of which shape, how often.

Shapes come from a stored run, from a short run that the embedded model plays (a stand-in, which knows arithmetic alone
and whose replies are short), or from lengths and the topology's own count of calls.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.cast import Cast, Seat, base_role
from envs.errors import ConfigError, unknown
from experiments.capacity.learning import Learning, learning_of
from experiments.capacity.shapes import ANYBODY, Shapes, shapes_of, uniform
from experiments.plan import Plan, make_plan
from experiments.runner import claim_directory, execute
from experiments.runs import Run
from experiments.training.recipe import Recipe
from experiments.training.recipes import RECIPES
from experiments.training.setup import TrainingPlan, make_training_plan
from graphs import TOPOLOGIES
from graphs.topology import GRAPHS, load_function

STAND_IN = "embedded"


@dataclass(frozen=True)
class Source:
    """Where shapes come from."""

    run: Run | None = None
    calibrate: int = 8
    """Tasks that are played for it, where there is no run; 0 for none."""
    prompt: int | None = None
    """Tokens of a prompt beside what it shows of other calls; a mean."""
    reply: int | None = None
    """Tokens of a reply; a mean."""


@dataclass(frozen=True)
class Segment:
    """Episodes that are played together."""

    name: str
    shapes: Shapes
    tasks: int
    samples: int
    concurrency: int
    times: int = 1
    """How often."""

    @property
    def episodes(self) -> int:
        return self.tasks * self.samples


@dataclass(frozen=True)
class Workload:
    """All that is to be done."""

    what: str
    segments: tuple[Segment, ...]
    learning: Learning | None
    most_calls: int | None
    """Of an episode of the first segment, by the topology."""
    supposed: tuple[str, ...]
    """In sentences: what was taken for granted."""

    @property
    def shapes(self) -> Shapes:
        return self.segments[0].shapes

    @property
    def episodes(self) -> int:
        return sum(segment.episodes * segment.times for segment in self.segments)

    @property
    def longest(self) -> int:
        return max(segment.shapes.longest for segment in self.segments)


def topology_workload(
    topology: str, env: str | None, tasks: int | None, samples: int, concurrency: int, seed: int,
    settings: Mapping[str, Any], source: Source,
) -> Workload:  # fmt: skip
    """One run of a topology.

    Raises:
        ConfigError: an argument that cannot be used, or a short run without one episode that ended.
    """
    if env is None:
        raise ConfigError(f"{topology} is a topology: expected what is asked, found none; give --env")
    plan = make_plan(topology, env, STAND_IN, tasks, samples, seed, "test", concurrency, settings, "local", None)
    _require_one_model(plan)
    shapes, supposed = _shapes(plan, source)
    segment = Segment("play", shapes, len(plan.tasks), samples, concurrency)
    return Workload(f"{topology} on {env}", (segment,), None, plan.topology.calls, (*supposed, *_LEFT_OUT))


def recipe_workload(
    recipe: str, topology: str | None, env: str | None, seed: int, settings: Mapping[str, Any], source: Source
) -> Workload:
    """A training: its iterations, updates and measurements.

    Raises:
        ConfigError: as above, or a recipe that plays nothing.
    """
    training = make_training_plan(recipe, topology, env, STAND_IN, seed, settings, "local", None)
    plan, schedule = training.plan, training.schedule
    _require_one_model(plan)
    if training.recipe.conduct is not None:
        raise ConfigError(
            f"recipe {recipe} is made of trainings and pools of their own, which cannot be planned as one; plan what "
            "they play, as in palaestra plan pose --env proposals"
        )
    if schedule.data:
        raise ConfigError(f"recipe {recipe} learns from the stored run {schedule.data} and plays nothing to be planned")
    curriculum = training.curriculum
    shapes, supposed = _shapes(replace(plan, tasks=curriculum.iteration(0)), source)
    exam, more = shapes, ()
    held = curriculum.validation or curriculum.test
    if held and training.exam.config["topology"] != plan.config["topology"]:
        exam, more = _shapes(replace(training.exam, tasks=held), replace(source, run=None))
    segments = [Segment("play", shapes, schedule.tasks, schedule.samples, schedule.concurrency, schedule.iterations)]
    for name, held, samples, times in _measurements(training):
        if held and times:
            segments.append(Segment(name, exam, held, samples, schedule.concurrency, times))
            if schedule.greedy:
                segments.append(Segment(f"{name}, greedy", exam, held, 1, schedule.concurrency, times))
    learned = {role for role in shapes.roles if role == ANYBODY or _learns(role, training)}
    learning = learning_of(training, shapes.tokens(learned), recipe == "dpo")
    supposed += tuple(line for line in more if line not in supposed) + _of_training(training)
    what = f"{recipe}: {plan.topology.name} on {plan.env.name}"
    return Workload(what, tuple(segments), learning, plan.topology.calls, (*supposed, *_LEFT_OUT))


def is_recipe(name: str) -> bool:
    """Whether a name stands for a recipe, not for a topology; `module:function` does when a Recipe lies there.

    Raises:
        ConfigError: it stands for neither.
    """
    if ":" in name:
        return isinstance(load_function(name, "recipe or topology", also=(*GRAPHS, Recipe)), Recipe)
    if name not in RECIPES and name not in TOPOLOGIES:
        raise unknown("recipe or topology", name, [*RECIPES, *TOPOLOGIES, "module:function"])
    return name in RECIPES


_LEFT_OUT = (
    "Left out: starting engines, loading and publishing weights, judging answers, what fails and is asked again.",
)


def _measurements(training: TrainingPlan) -> list[tuple[str, int, int, int]]:
    """Name, tasks, samples and number of the measurements, if the training goes on to its end."""
    schedule = training.schedule
    often = 1 + schedule.iterations // schedule.evaluate_every if schedule.measures else 0
    return [
        ("validation", len(training.curriculum.validation), schedule.validation_samples, often),
        ("test", len(training.curriculum.test), schedule.test_samples, 3 if schedule.measures else 2),
    ]


def _of_training(training: TrainingPlan) -> tuple[str, ...]:
    supposed = ["Every turn of a role that learns is learned from; in truth groups that did all alike are left out."]
    if training.recipe.stages:
        supposed.append("Trainings that this one is made of are not counted.")
    if training.recipe.rules is not None and training.schedule.match_tasks:
        supposed.append("Matches between earlier policies are not counted.")
    return tuple(supposed)


def _learns(role: str, training: TrainingPlan) -> bool:
    return any(key in training.assigned for key in (role, base_role(role), ""))


def _require_one_model(plan: Plan) -> None:
    for role in plan.roles or plan.cast.seats:
        if (model := plan.cast.seat(role).model) != STAND_IN:
            raise ConfigError(
                f"{role}.model={model}: a plan supposes one model for all roles; leave it out, and plan for the larger"
            )


def _shapes(plan: Plan, source: Source) -> tuple[Shapes, tuple[str, ...]]:
    """Shapes, and in sentences where they are from."""
    lengths = {"prompt": source.prompt, "reply": source.reply}
    if source.run is None and not source.calibrate:
        if source.prompt is None or source.reply is None:
            raise ConfigError("--calibrate 0 plays nothing to learn lengths from: give --prompt and --reply")
        if plan.topology.calls is None:
            raise ConfigError(
                f"topology {plan.topology.name} does not say how many calls it takes; leave out --calibrate 0, or name "
                "a run with --from"
            )
        said = f"Every episode makes {plan.topology.calls} calls, the most it can, one after another, each of its own "
        return uniform(plan.topology.calls, source.prompt, source.reply), (f"{said}prompt.",)
    if source.run is not None:
        shapes, where = shapes_of(source.run), f"Episodes are like those of run {source.run.name}"
    else:
        shapes = _calibrated(plan, source.calibrate)
        tasks = min(source.calibrate, len(plan.tasks))
        where = f"Episodes are like those of a short run, in which the {STAND_IN} model played {tasks} tasks"
    own = [f"a mean {what} of {tokens} tokens" for what, tokens in lengths.items() if tokens is not None]
    said = f"{where}{', but with ' if own else ''}{' and '.join(own)}."
    if shapes.doubt is not None:
        said += f" What one takes of tokens they tell to ± {2 * shapes.doubt:.0%} (two standard errors, over tasks)."
    return shapes.scaled(**lengths), (said,)


def _calibrated(plan: Plan, tasks: int) -> Shapes:
    def unlearned(seat: Seat) -> Seat:
        return seat.model_copy(update={"policy": ""})

    cast = plan.cast
    seats = {role: unlearned(seat) for role, seat in cast.seats.items()}
    short = replace(
        plan,
        cast=Cast(None if cast.default is None else unlearned(cast.default), **seats),
        tasks=plan.tasks[:tasks],
        samples=min(plan.samples, 2),
    )
    with tempfile.TemporaryDirectory() as folder:
        directory = claim_directory(short, "calibration", Path(folder))
        return shapes_of(asyncio.run(execute(short, directory, progress=False)))
