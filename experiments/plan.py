"""The plan of a run: what its arguments come to, checked before a model is loaded or anything is written."""

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import palaestra
from agents.cast import Cast
from agents.company import Backend
from agents.moves import templates_hash
from agents.serving import SCOPES, Serving
from envs import ENVS, make_env, open_env
from envs.errors import ConfigError, bind_settings, clip, unknown
from envs.types import Env, Split, Task
from experiments.gateway.agent import agent_topology, is_agent
from graphs import TOPOLOGIES, Builder, Graph, Topology, build, load_function
from graphs.topology import GRAPHS

CONCURRENCY = 256
CLUSTER = "cluster"
"""Scope of ClusterSettings."""


@dataclass(frozen=True)
class ClusterSettings:
    """What a run asks of Ray beside its pools."""

    rollout_workers: Annotated[int, Field(ge=0)] = 0
    """Ray actors that play episodes, where this process is too slow for the engines. 0: itself."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often a rollout worker is started again that died before it played; also how many deaths of workers an
    episode outlives, played alone the last time."""
    ship: bool = False
    """Send the working directory, with modules and checkpoints in it, to every machine; see agents.cluster."""


@dataclass(frozen=True)
class Plan:
    """A run whose arguments have been checked: what is played, on what, by whom."""

    topology: Topology
    env: Env
    cast: Cast
    tasks: Sequence[Task]
    samples: int
    seed: int
    concurrency: int
    serving: Serving
    backend: Backend
    address: str | None
    config: dict[str, Any]
    """As stored with the run; JSON values."""
    cluster: ClusterSettings = ClusterSettings()

    @property
    def roles(self) -> tuple[str, ...]:
        """To be played: the topology's, and of those it may ask too the ones that have a seat of their own."""
        may = self.topology.may_ask
        return (*self.topology.roles, *(role for role in may if role in self.cast.seats))

    @property
    def episodes(self) -> int:
        return len(self.tasks) * self.samples

    def jobs(self) -> Iterator[tuple[int, Task, int]]:
        """(position, task, sample) of every episode, in order."""
        pairs = ((task, sample) for task in self.tasks for sample in range(self.samples))
        return ((position, task, sample) for position, (task, sample) in enumerate(pairs))


def make_plan(
    topology: str | Builder | Graph | Topology,
    env: str | Env,
    cast: Cast | str | None,
    tasks: int | None,
    samples: int,
    seed: int,
    split: Split,
    concurrency: int,
    settings: Mapping[str, Any] | None,
    backend: Backend,
    address: str | None,
) -> Plan:
    """Check all arguments and draw the tasks; see `run` for them.

    Raises:
        ConfigError: the first thing that cannot be used.
    """
    for what, value, least in (("tasks", tasks, 1), ("samples", samples, 1), ("concurrency", concurrency, 1)):
        if value is not None and value < least:
            raise ConfigError(f"{what}: expected a whole number of at least {least}, found {value}")
    if backend == "ray":
        for shadowed, where in palaestra.shadowed(Path.cwd()).items():
            raise ConfigError(f"in Ray's processes {palaestra.explain(shadowed, where)}, or play with --backend local")
    parts = _sorted_settings(settings or {})
    played = open_topology(topology, parts.topology)
    opened = _env(env, parts.env)
    full_cast = _cast(cast, parts.seats, played.roles and (*played.roles, *played.may_ask))
    serving = Serving().set(parts.serving)
    drawn = _drawn(opened, tasks, split)
    cluster = _cluster(parts.cluster, backend)
    plan = Plan(played, opened, full_cast, drawn, samples, seed, concurrency, serving, backend, address, {}, cluster)
    full_cast.models(plan.roles or full_cast.seats, serving)
    for role in plan.roles or full_cast.seats:
        if full_cast.seat(role).policy:
            raise ConfigError(
                f"{role}.policy names what `palaestra train` is to teach; to play with what it learned, give its "
                f"folder of weights: {role}.adapter=DIR, or {role}.model=hf:DIR"
            )
    config = {
        "topology": {"name": played.name, "settings": dict(played.settings or {})},
        "env": {
            "name": opened.name,
            "opened_as": env if isinstance(env, str) else None,
            "settings": {key: str(value) for key, value in parts.env.items()},
            "split": split,
        },
        "cast": full_cast.describe(plan.roles),
        "tasks": len(drawn),
        "samples": samples,
        "seed": seed,
        "concurrency": concurrency,
        **asdict(serving),
        "cluster": asdict(cluster),
        "backend": backend,
        "templates": templates_hash(),
        "versions": versions(),
    }
    plan.config.update(json.loads(json.dumps(config, default=str)))
    return plan


def _cluster(settings: Mapping[str, Any], backend: Backend) -> ClusterSettings:
    found = ClusterSettings(**bind_settings(ClusterSettings, settings, "the cluster"))
    if found != ClusterSettings() and backend == "local":
        raise ConfigError("cluster.… says what is asked of Ray, found backend local; leave one of them out")
    return found


def reopen_env(config: Mapping[str, Any]) -> Env:
    """The env of a stored run, by its configuration.

    Raises:
        ConfigError: the run was given its env ready-made, or the env is not there any more.
    """
    env = config["env"]
    if not env.get("opened_as"):
        raise ConfigError(f"env {env['name']} was given ready-made in Python; give it again there: env=…")
    return _env(env["opened_as"], env["settings"])


def _drawn(env: Env, n: int | None, split: Split) -> Sequence[Task]:
    """The env's tasks, checked to be some and to have names of their own."""
    drawn = env.tasks(n, split)
    if not drawn:
        raise ConfigError(f"env {env.name} has no {split} tasks")
    twice = [id for id, count in Counter(task.id for task in drawn).items() if count > 1]
    if twice:
        raise ConfigError(f"env {env.name}: the task id {clip(twice[0])} occurs twice; runs are compared by it")
    return drawn


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in ("palaestra", "torch", "transformers", "ray", "langgraph", "math-verify"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class _Settings:
    topology: dict[str, Any]
    env: dict[str, Any]
    serving: dict[str, Any]
    cluster: dict[str, Any]
    seats: list[tuple[str, str, Any]]


def _sorted_settings(settings: Mapping[str, Any]) -> _Settings:
    """`env.level` → env, `judge.model` → the judge's seat, `rounds` → topology."""
    parts = _Settings({}, {}, {}, {}, [])
    for key, value in settings.items():
        scope, dot, name = key.partition(".")
        if not dot:
            parts.topology[key] = value
        elif scope == "env":
            parts.env[name] = value
        elif scope == CLUSTER:
            parts.cluster[name] = value
        elif scope in SCOPES:
            parts.serving[key] = value
        else:
            parts.seats.append((scope, name, value))
    return parts


def find_topology(name: str) -> Any:
    """The function (or ready-made graph) that a topology's name, or `module:function`, stands for.

    Raises:
        ConfigError: there is none.
    """
    if ":" in name:
        return load_function(name, "topology", also=GRAPHS)
    if name not in TOPOLOGIES:
        raise unknown("topology", name, [*TOPOLOGIES, "module:function"])
    return TOPOLOGIES[name]


def open_topology(topology: str | Builder | Graph | Topology, settings: dict[str, Any]) -> Topology:
    """A topology by its name, or of what builds it, with its settings. Raises ConfigError."""
    if isinstance(topology, str):
        return _built(find_topology(topology), settings, topology)
    if not isinstance(topology, Topology):
        return _built(topology, settings)
    if settings:
        raise ConfigError(f"{next(iter(settings))}: the topology is given ready-made; pass the function that builds it")
    return topology


def _built(function: Any, settings: dict[str, Any], name: str = "") -> Topology:
    return agent_topology(function, settings, name) if is_agent(function) else build(function, settings, name)


def _env(env: str | Env, settings: dict[str, Any]) -> Env:
    if not isinstance(env, str):
        if settings:
            raise ConfigError(f"env.{next(iter(settings))}: the env is given ready-made; set it where the env is made")
        return env
    if ":" in env:
        return open_env(load_function(env, "env"), settings, env)
    if env not in ENVS:
        raise unknown("env", env, [*ENVS, "module:function"])
    return make_env(env, **settings)


def _cast(cast: Cast | str | None, seats: list[tuple[str, str, Any]], roles: Sequence[str]) -> Cast:
    from agents.cast import base_role

    full = cast if isinstance(cast, Cast) else Cast.all(cast or "embedded")
    valid = {*roles, *map(base_role, roles)}
    for role, key, value in seats:
        if roles and role not in valid:
            raise unknown(
                "role in setting",
                f"{role}.{key}",
                {f"{name}.{key}" for name in valid} | {f"{scope}.…" for scope in ("env", CLUSTER, *SCOPES)},
            )
        full = full.set(role, key, value)
    return full
