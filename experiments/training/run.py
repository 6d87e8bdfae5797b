"""Begin a training run, or finish one that was killed. Called by the command and from Python."""

import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agents.cast import Cast
from agents.cluster import connected, may_grow
from agents.company import Backend, Company, open_companies
from agents.learning.samples import Pair, Sample, SampleError
from agents.learning.trainer_settings import TrainerError
from agents.publishing import home_of
from agents.types import EngineError, seed_of
from envs.errors import ConfigError
from envs.types import Env
from experiments.credit import Credit
from experiments.folder import claimed, gone_on_with
from experiments.runner import in_event_loop
from experiments.runs import RUNS, TRAINING, Run
from experiments.training.arena import Arena
from experiments.training.asked import Asked
from experiments.training.loop import FIRST, Loop
from experiments.training.recipe import Recipe
from experiments.training.registry import Registry, Version
from experiments.training.schedule import Schedule
from experiments.training.setup import TrainingPlan
from experiments.training.stages import Stages, Told
from experiments.training.teacher import Teacher, open_teacher
from experiments.training.tracking import open_trackers, require_trackers
from experiments.training.training import Line, Training, weights_of
from graphs import Builder, Graph, Topology

logger = logging.getLogger("palaestra.training")


class TrainingError(EngineError):
    """A training run ended before its time; the message says why, and how it goes on."""


def train(
    recipe: str | Credit | Recipe = "grpo",
    topology: str | Builder | Graph | Topology | None = None,
    env: str | Env | None = None,
    cast: Cast | str | None = None,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    backend: Backend = "ray",
    address: str | None = None,
    track: Sequence[str] = (),
    name: str | None = None,
    root: Path | str = RUNS,
    told: Told = lambda line: None,
) -> Training:
    """Train the policies behind a topology's roles, and return the run.

    Args:
        recipe: a name of `experiments.training.recipe.RECIPES`, `module:function` or a function that credits the
            turns of an episode (then it is grpo with that credit), or a Recipe.
        topology: as in `experiments.run`, as are env, cast, backend, address and root; None takes the recipe's own,
            solo for most.
        env: see above; None takes the recipe's own, for most arithmetic.
        cast: see above; roles that learn must be played by embedded, hf: or vllm:.
        seed: fixes every random choice: same seed, same run, on the CPU bit for bit.
        settings: as with `--set`: the schedule's (`iterations`), `trainer.KEY`, `loss.KEY`, `policy.KEY` for every
            policy and `policies.NAME.KEY` for one, `ROLE.policy=NAME`, `placement.KEY`; and all that `run` takes
            (`topology.KEY` where the schedule has a key of the same name).
        track: what is told of the metrics beside the run's own file; see experiments.training.tracking.
        name: of the run's directory; None makes one from recipe, env and time.
        told: called with every line of metrics.

    Raises:
        ConfigError: an argument that cannot be used; nothing has been loaded or written then.
        EngineError: a model could not be loaded.
        TrainingError: the run ended before its time; what it had learned is kept, and `resume` goes on from there.
    """
    asked = Asked(recipe, topology, env, cast, seed, settings or {}, backend, address)
    plan = asked.plan()
    require_trackers(track)
    if plan.recipe.conduct:
        plan.recipe.conduct.check(asked)
    _sources(plan, Path(root))
    generic = f"{plan.recipe.name.replace(':', '.')}-{plan.plan.env.name}"
    config = {**plan.config, **asked.stored(), "track": list(track)}
    with claimed(Path(root), name, generic, TRAINING, config) as folder:
        return _go_on(asked, plan, Training(folder), Path(root), track, told)


def resume(
    name: str | Path,
    root: Path | str = RUNS,
    *,
    recipe: Any = None,
    topology: Any = None,
    env: Any = None,
    cast: Any = None,
    address: str | None = None,
    told: Told = lambda line: None,
) -> Training:
    """Finish a run that was killed or stopped, from its last whole state. A run that is finished is left as it is.

    Args:
        name: of the run, or its path.
        root: the folder of runs.
        recipe: like topology, env and cast: what the run was given ready-made in Python, given again.
        topology: see above.
        env: see above.
        cast: see above.
        address: of a Ray cluster; None takes the one that the run began on.
        told: called with every line of metrics.

    Raises:
        ConfigError: no such run; something that has to be given again; a checkpoint that does not fit.
        TrainingError: see `train`.
    """
    training = Training.open(name, Path(root))
    if training.finished:
        return training
    config = training.config
    given = {"recipe": recipe, "topology": topology, "env": env, "cast": cast}
    for key, stored in config["arguments"].items():
        if given[key] is None and stored is None:
            raise ConfigError(f"run {training.name} was given its {key} ready-made in Python; give it again: {key}=…")
        given[key] = stored if given[key] is None else given[key]
    begun = {key: config[key] for key in ("seed", "settings", "backend")}
    asked = Asked(**given, **begun, address=address or config["address"])
    plan = asked.plan()
    for what in ("versions", "templates"):
        if plan.config[what] != config[what]:
            logger.warning("%s have changed since run %s began; it may go on otherwise than it would have", what, name)
    with gone_on_with(training.path):
        return _go_on(asked, plan, training, Path(root), config["track"], told)


def _sources(plan: TrainingPlan, root: Path) -> tuple[Run | None, Training | None]:
    """The stored run that is learned from, and the training whose first policies are taken.

    Raises:
        ConfigError: they are not there.
    """
    data = Run.open(plan.schedule.data, root) if plan.schedule.data else None
    if not plan.schedule.start:
        return data, None
    last = ["", *plan.recipe.stages][-1]
    first = Training(Training.open(plan.schedule.start, root).path / last)
    if not last or plan.recipe.conduct or not (first.path / TRAINING).is_file() or not first.finished:
        raise ConfigError(
            f"start={plan.schedule.start}: expected a training that has made first policies, and a recipe that starts "
            f"from such; found recipe {plan.recipe.name}; leave start out, or name a run of the same recipe"
        )
    return data, first


def _before(stages: Stages) -> tuple[Recipe, Training] | None:
    """The last of the stages that come before the loop, finished; None where there are none."""
    found: tuple[Recipe, Training] | None = None
    for name, recipe in stages.plan.recipe.stages.items():
        found = recipe, stages.train(name, name, weights_of(found[1]) if found else {})
    return found


def _taught(first: Training, recipe: Recipe) -> Sequence[Sample | Pair]:
    """What the first policies were made of."""
    schedule, seed = Schedule(**first.config["schedule"]), first.config["seed"]
    lessons = (
        recipe.teach(first.rollouts(i).episodes(), recipe.credit, schedule, seed_of(seed, "lesson", i))
        for i in range(schedule.iterations)
    )
    return [item for lesson in lessons for item in lesson.items]


def _go_on(
    asked: Asked,
    plan: TrainingPlan,
    training: Training,
    root: Path,
    track: Sequence[str],
    told: Told,
    named: str = "",
) -> Training:
    """Bring the directory back to its last whole state, and go on from it.

    Args:
        asked: the training's arguments.
        plan: what they come to.
        training: where it is recorded.
        root: the folder of runs.
        track: trackers.
        told: gets every line of metrics.
        named: the run that it is part of, for messages; empty for itself.
    """
    stages = Stages(asked, plan, training, partial(_go_on, root=root, track=(), named=named or training.name), told)
    try:
        if plan.recipe.conduct:
            with open_trackers(track, training) as trackers:
                plan.recipe.conduct.run(stages.told_to(trackers))
            return training
        taught = None
        other = _sources(plan, root)[1]
        before = (list(plan.recipe.stages.values())[-1], other) if other else _before(stages)
        if before:
            recipe, last = before
            plan = asked.plan(weights_of(last))
            training.begin({**training.config, "policies": plan.config["policies"]})
            taught = _taught(last, recipe) if plan.schedule.mix_first else None
        registry = _brought_back(plan, training)
        in_event_loop(lambda: _run(plan, training, registry, _sources(plan, root)[0], taught, track, told))
    except TrainingError:
        raise
    except (ConfigError, EngineError, SampleError, TrainerError) as error:
        if not any(training.path.rglob("episodes.db")):
            shutil.rmtree(training.path)  # nothing was played: nothing is left behind
            raise
        raise TrainingError(
            f"{error}; the run stopped after {training.updates} of {plan.schedule.iterations} updates, which are kept: "
            f"palaestra resume {named or training.name} goes on from there"
        ) from None
    return training


def _brought_back(plan: TrainingPlan, training: Training) -> Registry:
    """Strike what was recorded after the last whole state; what is stored complete is not made again."""
    updates = training.updates
    measured = max(1, updates - plan.schedule.lag)

    def stays(line: Line) -> bool:
        if line["kind"] in ("validation", "league"):
            return updates > 0 and line["updates"] < measured
        if line["kind"] == "test":
            return updates > 0 and line["name"] == FIRST
        return line["kind"] == "update" and line["updates"] <= updates

    training.keep(stays)
    training.drop_states(updates)
    registry = Registry.open(training.path / "policies")
    registry.forget(updates or -1)
    return registry


async def _run(
    plan: TrainingPlan,
    training: Training,
    registry: Registry,
    data: Run | None,
    taught: Sequence[Sample | Pair] | None,
    track: Sequence[str],
    told: Told,
) -> None:
    with open_trackers(track, training) as trackers:

        def tell(line: Line) -> None:
            told(line)
            trackers(line)

        async with _opened(plan) as (teacher, companies):
            if training.updates:
                await teacher.load(training.state(training.updates))
            else:
                await _enter_first(plan, registry, teacher)
            own = [learner.name for learner in plan.learners if not (learner.served_as or learner.settings.start)]
            serving = {name: registry.at(name, 0).version for name in own}
            arena = Arena(plan, training, registry, companies[0], companies[1], serving)
            await Loop(plan, training, arena, teacher, data, taught, tell).run()


@contextlib.asynccontextmanager
async def _opened(plan: TrainingPlan) -> AsyncIterator[tuple[Teacher, list[Company]]]:
    """The trainer and the pools; of the two companies the second plays at temperature 0."""
    played, policies = plan.plan, {learner.name: learner.settings for learner in plan.learners}
    casts = [(cast, played.roles) for cast in (played.cast, plan.greedy_cast)]
    is_ray, ship = played.backend == "ray", played.cluster.ship
    with connected(played.address, ship) if is_ray else contextlib.nullcontext():
        async with (
            open_teacher(plan.trainer, policies, plan.placement, played.backend, may_grow(played.address)) as teacher,
            open_companies(casts, played.backend, played.serving, played.address, ship) as companies,
        ):
            yield teacher, companies


async def _enter_first(plan: TrainingPlan, registry: Registry, teacher: Teacher) -> None:
    """Enter the weights that each policy starts from; a new adapter's are written first."""
    versions = await teacher.versions()
    for learner in plan.learners:
        version, directory = versions[learner.name], learner.settings.start or home_of(learner.spec) or ""
        if not version:
            directory = f"{learner.name}/0000"
            version = await teacher.export(learner.name, registry.root / directory)
        elif directory:
            directory = str(Path(directory).absolute())
        registry.add(Version(learner.name, version, 0, directory, await teacher.probe(learner.name)))
