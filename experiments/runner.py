"""Run a topology over the tasks of an env: many episodes at once, each stored as it ends.

Called by the command and from Python; hands a `Run` on. Everything that can be wrong with the arguments is found
before a model is loaded.
"""

import asyncio
import contextlib
import itertools
import json
import platform
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import palaestra
from agents.cast import Cast
from agents.company import Backend, Company, open_company
from agents.moves import templates_hash
from agents.serving import SCOPES, Serving
from envs import ENVS, make_env, open_env
from envs.errors import ConfigError, clip, unknown
from envs.types import Env, Split, Task
from experiments.gateway.agent import agent_topology, is_agent
from experiments.progress import Progress
from experiments.runs import CONFIG, RESULT, RUNS, Run
from experiments.store import StoreReader, StoreWriter
from graphs import TOPOLOGIES, Builder, Episode, Graph, Topology, build, load_function, play
from graphs.topology import GRAPHS

CONCURRENCY = 256
_Value = TypeVar("_Value")


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

    @property
    def episodes(self) -> int:
        return len(self.tasks) * self.samples

    def jobs(self) -> Iterator[tuple[int, Task, int]]:
        """(position, task, sample) of every episode, in order."""
        pairs = ((task, sample) for task in self.tasks for sample in range(self.samples))
        return ((position, task, sample) for position, (task, sample) in enumerate(pairs))


def run(
    topology: str | Builder | Graph | Topology,
    env: str | Env = "arithmetic",
    cast: Cast | str | None = None,
    *,
    tasks: int | None = None,
    samples: int = 1,
    seed: int = 0,
    split: Split = "test",
    concurrency: int = CONCURRENCY,
    settings: Mapping[str, Any] | None = None,
    backend: Backend = "ray",
    address: str | None = None,
    name: str | None = None,
    root: Path | str = RUNS,
    progress: bool | None = None,
) -> Run:
    """Play a topology over an env's tasks and return the stored run. Works in scripts and notebooks.

    Args:
        topology: a name of `graphs.TOPOLOGIES`, `module:function`, a function that returns a graph, or a graph.
        env: a name of `envs.ENVS`, `module:function`, or an env.
        cast: who plays; a model's name fills every role with it; None is the embedded model.
        tasks: how many of the env's tasks; None takes all of a file, 100 of a generated env.
        samples: episodes a task.
        seed: fixes every random choice: same seed, same episodes, whatever the concurrency.
        split: which of the env's splits.
        concurrency: most episodes in flight.
        settings: `env.KEY`, `ROLE.KEY`, the topology's own keys, and `engine.KEY`, `vllm.KEY`, … of agents.serving; as
            with `--set`.
        backend: "ray" hosts the models in Ray actors, "local" in this process.
        address: of a Ray cluster; None takes the one that RAY_ADDRESS names or that runs here, else starts Ray here.
        name: of the run's directory; None makes one from topology, env and time.
        root: the folder of runs.
        progress: show progress on stderr; None does so when it is a terminal.

    Raises:
        ConfigError: an argument that cannot be used; nothing has been loaded or written then.
        EngineError: a model could not be loaded.
    """
    plan = make_plan(topology, env, cast, tasks, samples, seed, split, concurrency, settings, backend, address)
    directory = claim_directory(plan, name, Path(root))
    return in_event_loop(lambda: execute(plan, directory, progress))


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
    played = _topology(topology, parts.topology)
    opened = _env(env, parts.env)
    full_cast = _cast(cast, parts.seats, played.roles and (*played.roles, *played.may_ask))
    serving = Serving().set(parts.serving)
    roles = _asked(played, full_cast)
    full_cast.models(roles or full_cast.seats, serving)
    drawn = _drawn(opened, tasks, split)
    config = {
        "topology": {"name": played.name, "settings": dict(played.settings or {})},
        "env": {"name": opened.name, "settings": {key: str(value) for key, value in parts.env.items()}, "split": split},
        "cast": full_cast.describe(roles),
        "tasks": len(drawn),
        "samples": samples,
        "seed": seed,
        "concurrency": concurrency,
        **asdict(serving),
        "backend": backend,
        "templates": templates_hash(),
        "versions": versions(),
    }
    config = json.loads(json.dumps(config, default=str))
    return Plan(played, opened, full_cast, drawn, samples, seed, concurrency, serving, backend, address, config)


def _asked(topology: Topology, cast: Cast) -> tuple[str, ...]:
    """The roles to be played: the topology's, and of those it may ask too the ones that have a seat of their own."""
    return (*topology.roles, *(role for role in topology.may_ask if role in cast.seats))


def _drawn(env: Env, n: int | None, split: Split) -> Sequence[Task]:
    """The env's tasks, checked to be some and to have names of their own."""
    drawn = env.tasks(n, split)
    if not drawn:
        raise ConfigError(f"env {env.name} has no {split} tasks")
    twice = [id for id, count in Counter(task.id for task in drawn).items() if count > 1]
    if twice:
        raise ConfigError(f"env {env.name}: the task id {clip(twice[0])} occurs twice; runs are compared by it")
    return drawn


def claim_directory(plan: Plan, name: str | None, root: Path) -> Path:
    """Make the run's directory and write its configuration.

    Raises:
        ConfigError: a name that is taken or no file name, a folder that cannot be written.
    """
    created = datetime.now(UTC)
    if name is not None and (not name or name != Path(name).name or name.startswith(".")):
        raise ConfigError(
            f"run name {clip(name)}: expected a plain folder name, without / and not beginning with a dot"
        )
    generic = f"{plan.topology.name.replace(':', '.')}-{plan.env.name}-{created:%Y%m%d-%H%M%S}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        directory = _new_directory(root, generic) if name is None else root / name
        if name is not None:
            directory.mkdir()
        config = {**plan.config, "created": created.isoformat(timespec="seconds")}
        (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        if name is not None and (root / name).exists():
            taken = f"run {name!r} is already in {root}/; choose another --name or remove {root / name}"
            raise ConfigError(taken) from None
        raise ConfigError(f"cannot write the run to {root}: {error.strerror}; choose a folder with --runs") from None
    return directory


def _new_directory(root: Path, name: str) -> Path:
    """Make `name`, or `name-2`, …: runs that start in one second each get their own."""
    for candidate in itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            (root / candidate).mkdir()
            return root / candidate
    raise AssertionError("unreachable: the names do not end")


async def execute(plan: Plan, directory: Path, progress: bool | None = None) -> Run:
    """Play every episode of a plan into its directory."""
    async with opened(plan, directory) as (company, writer):
        with Progress(plan.topology.name, plan.episodes, progress) as shown:
            await _play_all(plan, company, writer, shown)
    return Run(directory)


@contextlib.asynccontextmanager
async def opened(plan: Plan, directory: Path) -> AsyncIterator[tuple[Company, StoreWriter]]:
    """A plan's company and the store of its episodes; a run that stores nothing leaves nothing behind."""
    writer = StoreWriter(directory)
    roles = _asked(plan.topology, plan.cast)
    try:
        async with (
            open_company(plan.cast, roles, plan.backend, plan.serving, plan.address) as company,
            plan.topology.opened(),
        ):
            started = time.monotonic()
            yield company, writer
            seconds = time.monotonic() - started
    finally:
        await asyncio.to_thread(writer.close)
        stored = bool(StoreReader(directory).outcomes())
        if not stored:
            shutil.rmtree(directory)
    if stored:
        (directory / RESULT).write_text(json.dumps({"seconds": round(seconds, 3)}) + "\n", encoding="utf-8")


async def _play_all(plan: Plan, company: Company, writer: StoreWriter, shown: Progress) -> None:
    """`concurrency` workers draw from one iterator of jobs: what is in memory is what is in flight."""
    jobs = plan.jobs()

    async def worker() -> None:
        for position, task, sample in jobs:
            episode = await play(plan.topology, plan.env, task, company, plan.seed, sample)
            shown.ended(await store(writer, position, episode))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(plan.concurrency, plan.episodes)):
            group.create_task(worker())


async def store(writer: StoreWriter, position: int, episode: Episode) -> Episode:
    """Store an episode; one that is no JSON, as a failed one without its contents. Returns what was stored."""
    try:
        await writer.append(position, episode)
    except (OSError, sqlite3.Error):
        raise
    except Exception as error:  # noqa: BLE001 - what a graph or a parser of the user's made is no JSON
        episode = _without_contents(episode, f"cannot be stored: {type(error).__name__}: {error}")
        await writer.append(position, episode)
    return episode


def _without_contents(episode: Episode, failure: str) -> Episode:
    return Episode(
        task=Task(id=episode.task.id, question="", answers=()),
        sample=episode.sample,
        turns=(),
        answer=None,
        stop_reason="",
        verdict=None,
        failure=" ".join(failure.split()).encode("utf-8", "replace").decode(),
        seconds=episode.seconds,
    )


def in_event_loop(start: Callable[[], Awaitable[_Value]]) -> _Value:
    """Run a coroutine to its end; from a notebook, whose thread has a loop already, on a thread of its own."""
    started: list[Any] = []

    async def main() -> _Value:
        started.extend((asyncio.get_running_loop(), asyncio.current_task()))
        return await start()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    outcome: list[Any] = []

    def on_thread() -> None:
        try:
            outcome.extend([True, asyncio.run(main())])
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            outcome.extend([False, error])

    thread = threading.Thread(target=on_thread, name="palaestra run")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        if started:
            loop, task = started
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if not outcome[0]:
        raise outcome[1]
    return outcome[1]


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
    seats: list[tuple[str, str, Any]]


def _sorted_settings(settings: Mapping[str, Any]) -> _Settings:
    """`env.level` → env, `judge.model` → the judge's seat, `rounds` → topology."""
    parts = _Settings({}, {}, {}, [])
    for key, value in settings.items():
        scope, dot, name = key.partition(".")
        if not dot:
            parts.topology[key] = value
        elif scope == "env":
            parts.env[name] = value
        elif scope in SCOPES:
            parts.serving[key] = value
        else:
            parts.seats.append((scope, name, value))
    return parts


def _topology(topology: str | Builder | Graph | Topology, settings: dict[str, Any]) -> Topology:
    if isinstance(topology, str):
        if ":" in topology:
            return _built(load_function(topology, "topology", also=GRAPHS), settings, topology)
        if topology not in TOPOLOGIES:
            raise unknown("topology", topology, [*TOPOLOGIES, "module:function"])
        return build(TOPOLOGIES[topology], settings, topology)
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
                {f"{name}.{key}" for name in valid} | {f"{scope}.…" for scope in ("env", *SCOPES)},
            )
        full = full.set(role, key, value)
    return full
