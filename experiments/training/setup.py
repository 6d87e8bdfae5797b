"""What a training run's arguments come to, checked before a model is loaded or anything is written.

Which role learns as which policy: roles on one model share a policy named `main`, unless `--set ROLE.policy=NAME` gives
a role one of its own. A policy is all of its model's weights, or with `policy.rank` a LoRA adapter on them; several
policies on one model have to be adapters.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.cast import Cast, Seat, base_role
from agents.company import Backend
from agents.engines import ModelSpec
from agents.learning.settings import LossSettings, make_loss
from agents.learning.trainer_settings import (
    Placement,
    PolicySettings,
    TrainerSettings,
    make_trainer_settings,
)
from envs.errors import ConfigError, bind_settings, clip, unknown
from envs.types import Env
from experiments.credit import Credit
from experiments.plan import Plan, make_plan
from experiments.training.recipe import Exam, Recipe
from experiments.training.recipes import find_recipe
from experiments.training.schedule import KEYS, Curriculum, Schedule, make_schedule
from graphs import Builder, Graph, Topology

SHARED = "main"
RATES = {"all": 3e-4, "adapter": 3e-3}
"""Learning rates for the embedded model, whose million parameters bear far more than a large model's; for others the
trainer's own holds."""

_NEW = ("rank", "alpha", "targets")
"""Settings of new adapters."""


@dataclass(frozen=True)
class Learner:
    """One policy that learns."""

    name: str
    """The trainer's, on samples and in the records."""
    spec: ModelSpec
    """Whose pool serves it."""
    served_as: str
    """The pool's name for it: empty for the model's own weights."""
    settings: PolicySettings


@dataclass(frozen=True)
class TrainingPlan:
    """A training run whose arguments have been checked."""

    recipe: Recipe
    schedule: Schedule
    curriculum: Curriculum
    plan: Plan
    """Of an iteration's episodes; its cast names the policies."""
    exam: Plan
    """Of measurements; usually the same."""
    learners: tuple[Learner, ...]
    assigned: Mapping[str, str]
    """Role (or its base, or "" for every other) -> policy."""
    trainer: TrainerSettings
    placement: Placement
    config: dict[str, Any]
    """As stored with the run; JSON values."""

    @property
    def greedy_cast(self) -> Cast:
        """The cast at temperature 0."""
        return _changed(self.plan.cast, lambda role, seat: {"temperature": 0.0})

    def policy_of(self, role: str) -> str:
        """The policy that a role's turns train."""
        return next(self.assigned[key] for key in (role, base_role(role), "") if key in self.assigned)


@dataclass
class _Parts:
    """Settings by whose they are."""

    schedule: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    assigned: dict[str, str] = field(default_factory=dict)
    played: dict[str, Any] = field(default_factory=dict)
    exam: dict[str, Any] = field(default_factory=dict)


def make_training_plan(
    recipe: str | Credit | Recipe,
    topology: str | Builder | Graph | Topology | None,
    env: str | Env | None,
    cast: Cast | str | None,
    seed: int,
    settings: Mapping[str, Any],
    backend: Backend,
    address: str | None,
    starts: Mapping[str, Path] | None = None,
) -> TrainingPlan:
    """Check all arguments and draw the tasks; see experiments.training.run.train for the others.

    Args:
        starts: policy -> the weights that an earlier training made for it to start from, in place of new adapters.

    Raises:
        ConfigError: the first thing that cannot be used.
    """
    found = find_recipe(recipe)
    # What is set anyhow keeps its place, so that a run's settings are read as they were given.
    given = {**{key: value for key, value in found.settings.items() if key not in settings}, **settings}
    parts = _sorted(given, found.stages)
    schedule = make_schedule(parts.schedule, found.schedule)
    _check_recipe(found, schedule)
    split = schedule.test_split if found.from_run else schedule.train_split
    played = found.topology if topology is None else topology
    asked = found.env if env is None else env
    plan = make_plan(
        played, asked, cast, 1, schedule.samples, seed, split, schedule.concurrency, parts.played, backend, address
    )
    exam = _exam(found, plan, cast, parts.exam, schedule)
    other = None if exam.env is plan.env else exam.env
    curriculum = Curriculum(plan.env, schedule, seed, not found.from_run, other, found.rules is not None)
    loss = make_loss(parts.loss.pop("preset", found.loss), parts.loss)
    learners, assigned = _learners(plan, schedule, parts, starts or {})
    trainer = _trainer(parts, loss, schedule, seed, learners)
    placement = Placement(**bind_settings(Placement, parts.placement, "the trainer's placement"))
    if backend == "local" and placement != Placement():
        raise ConfigError("placement says where Ray puts the trainer, found backend local; leave one of them out")
    own = {learner.name for learner in learners if learner.served_as}
    named = {key: name for key, name in assigned.items() if name in own}

    def taught(role: str, seat: Seat) -> dict[str, Any]:
        name = next((named[key] for key in (role, base_role(role), "") if key in named), "")
        return {"policy": name} if name else {}

    seated = (*plan.roles, *exam.roles, *filter(None, assigned))
    plan, exam = (replace(each, cast=_with_roles(each.cast, seated, taught)) for each in (plan, exam))
    config = {
        **plan.config,
        "recipe": found.name,
        "schedule": asdict(schedule),
        "trainer": asdict(trainer),
        "placement": asdict(placement),
        "policies": {learner.name: {"model": learner.spec.name, **asdict(learner.settings)} for learner in learners},
        "roles": dict(assigned),
        "exam": {key: exam.config[key] for key in ("topology", "env")},
    }
    return TrainingPlan(found, schedule, curriculum, plan, exam, learners, assigned, trainer, placement, config)


def _exam(recipe: Recipe, plan: Plan, cast: Cast | str | None, own: Mapping[str, Any], schedule: Schedule) -> Plan:
    """The plan of measurements. Its roles are played by those of the training."""
    if recipe.exam is None and not own:
        return plan
    usual = recipe.exam or Exam(plan.topology.name)
    settings = {**usual.settings, **own}
    names = {key: settings.pop(key, None) or getattr(usual, key) for key in ("topology", "env")}
    if recipe.exam and names != {"topology": usual.topology, "env": usual.env}:
        settings = {key: value for key, value in own.items() if key not in names}
    is_own = not names["env"] and not any(key.startswith("env.") for key in settings)
    env = plan.env if is_own else names["env"] or plan.env.name
    exam = make_plan(
        names["topology"], env, cast, 1, 1, plan.seed, schedule.test_split, plan.concurrency, settings,
        plan.backend, plan.address,
    )  # fmt: skip
    if is_own:
        exam.config["env"] = {**plan.config["env"], "split": schedule.test_split}
    strangers = [role for role in exam.roles if base_role(role) not in map(base_role, plan.roles)]
    if plan.roles and strangers:
        raise ConfigError(
            f"exam.topology={exam.topology.name} asks {strangers[0]}, whom {plan.topology.name} does not; expected one "
            f"that asks {' or '.join(plan.roles)} alone"
        )
    return replace(exam, cast=plan.cast, serving=plan.serving, cluster=plan.cluster)


def _check_recipe(recipe: Recipe, schedule: Schedule) -> None:
    if recipe.from_run != bool(schedule.data):
        raise ConfigError(
            f"recipe {recipe.name}: "
            + (
                "expected the stored run that it learns from, found none; set data=RUN"
                if recipe.from_run
                else f"it learns from what it plays, found data={clip(schedule.data)}; leave data out, or take sft"
            )
        )
    if schedule.replay and not recipe.replays:
        raise ConfigError(
            f"recipe {recipe.name}: expected no replay, found replay={schedule.replay}: it learns from what its newest "
            "weights say alone; leave replay out, or take rft or dpo"
        )


def _sorted(settings: Mapping[str, Any], stages: Collection[str]) -> _Parts:
    parts = _Parts()
    for key, value in settings.items():
        scope, dot, name = key.partition(".")
        if not dot:
            (parts.schedule if key in KEYS else parts.played)[key] = value
        elif scope == "topology":
            parts.played[name] = value
        elif scope == "exam":
            parts.exam[name] = value
        elif scope in stages:
            continue  # another training's
        elif scope in ("trainer", "loss", "placement", "policy"):
            getattr(parts, scope)[name] = value
        elif scope == "policies":
            policy, _, name = name.rpartition(".")
            if not policy:
                raise ConfigError(f"setting {clip(key)}: expected policies.NAME.KEY, as in policies.critic.rank")
            parts.policies.setdefault(policy, {})[name] = value
        elif name == "policy":
            parts.assigned[scope] = value
        else:
            parts.played[key] = value
    return parts


def _learners(
    plan: Plan, schedule: Schedule, parts: _Parts, starts: Mapping[str, Path]
) -> tuple[tuple[Learner, ...], dict[str, str]]:
    """The policies that learn, and which role is which."""
    specs = _models(plan, schedule, parts)
    models = set(specs.values())
    assigned: dict[str, str] = {}
    served: dict[str, ModelSpec] = {}
    for role, spec in specs.items():
        name = parts.assigned.get(role) or parts.assigned.get(base_role(role))
        name = name or (SHARED if len(models) == 1 else base_role(role) or SHARED)
        if served.setdefault(name, spec) != spec:
            raise ConfigError(
                f"policy {clip(name)}: expected roles on one model, found {served[name].name} and {spec.name}; give "
                f"{role}.policy another name"
            )
        if name != Path(name).name or name.startswith("."):
            raise ConfigError(f"policy {clip(name)}: expected a plain name, which its folder of weights gets")
        assigned[role] = name
    for name in parts.policies:
        if name not in served:
            raise unknown("policy", name, served)
    learners = tuple(_learner(name, spec, parts, starts.get(name)) for name, spec in served.items())
    for learner in learners:
        beside = [other.name for other in learners if other.spec == learner.spec and other is not learner]
        if beside and not learner.served_as:
            raise ConfigError(
                f"policy {learner.name} is all weights of {learner.spec.name}, which {beside[0]} learns on too; make "
                "both adapters with policy.rank=8, or give their roles models of their own"
            )
    return learners, assigned


def _models(plan: Plan, schedule: Schedule, parts: _Parts) -> dict[str, ModelSpec]:
    """Role that learns -> its model; "" stands for every role of a graph that does not say which it asks."""
    cast, wanted = plan.cast, schedule.learning_roles
    known = list(plan.roles) or list(cast.seats)
    specs = cast.models(known, plan.serving)
    if not plan.roles and cast.default is not None:
        specs[""] = Cast(cast.default).models(["*"], plan.serving)["*"]
    valid = {*specs, *map(base_role, specs)} - {""}
    for role in (*(wanted or ()), *parts.assigned):
        if role not in valid and "" not in specs:
            raise unknown("role", role, valid)
    if "" in specs:
        specs |= {role: cast.models([role], plan.serving)[role] for role in (*(wanted or ()), *parts.assigned)}
    learning = {role: spec for role, spec in specs.items() if _learns(role, wanted)}
    for role, spec in learning.items():
        if adapter := (cast.seat(role) if role else cast.default or Seat()).adapter:
            raise ConfigError(
                f"{role or 'every role'}: expected no adapter of a role that learns, found {adapter}; to begin with it "
                f"set policy.start={adapter}"
            )
        if spec.kind not in ("embedded", "hf", "vllm"):
            raise ConfigError(
                f"{role or 'a role'} is played by {spec.name}, whose weights are not here to be trained; name the "
                "roles that learn, as in roles=solver, or play it with embedded, hf:DIR or vllm:DIR"
            )
    return learning


def _learns(role: str, wanted: Sequence[str] | None) -> bool:
    return wanted is None or role in wanted or base_role(role) in wanted


def _learner(name: str, spec: ModelSpec, parts: _Parts, start: Path | None) -> Learner:
    changes: dict[str, Any] = {**parts.policy, **parts.policies.get(name, {})}
    if start is not None:
        changes = {**{key: value for key, value in changes.items() if key not in _NEW}, "start": str(start)}
    if isinstance(targets := changes.get("targets"), str):
        changes["targets"] = tuple(targets.split(","))
    bound = bind_settings(PolicySettings, changes, f"policy {name}", given={"model", "loss"})
    settings = PolicySettings(model=spec.name, **bound)
    return Learner(name, spec, name if settings.is_adapter else "", settings)


def _trainer(
    parts: _Parts, loss: LossSettings, schedule: Schedule, seed: int, learners: Sequence[Learner]
) -> TrainerSettings:
    given: dict[str, Any] = {"lag": schedule.lag, "seed": seed}
    for key in given:
        if key in parts.trainer:
            raise ConfigError(f"trainer.{key} is the run's own: set {key if key == 'lag' else '--seed'}")
    if all(learner.spec.kind == "embedded" for learner in learners):
        full = any(not learner.served_as for learner in learners)
        given["learning_rate"] = RATES["all" if full else "adapter"]
    return make_trainer_settings({**given, **parts.trainer}, loss)


def _with_roles(cast: Cast, roles: Sequence[str], change: Any) -> Cast:
    """The cast with a seat of its own for each role that is known, changed."""
    seated = Cast(cast.default, **{**cast.seats, **{role: cast.seat(role) for role in roles}})
    return _changed(seated, change)


def _changed(cast: Cast, change: Any) -> Cast:
    """Every seat with what `change` says of its role."""

    def seat(role: str, before: Seat) -> Seat:
        return before.model_copy(update=change(role, before))

    seats = {role: seat(role, before) for role, before in cast.seats.items()}
    return Cast(None if cast.default is None else seat("", cast.default), **seats)
