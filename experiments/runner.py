"""Run a topology over the tasks of an env: many episodes at once, each stored as it ends.

Called by the command and from Python; hands a `Run` on. Everything that can be wrong with the arguments is found
before a model is loaded.
"""

import asyncio
import contextlib
import itertools
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from agents.cast import Cast
from agents.company import Backend, Company, open_company
from envs.errors import ConfigError, clip
from envs.types import Env, Split, Task
from experiments.plan import CONCURRENCY, Plan, make_plan
from experiments.progress import Progress
from experiments.rollouts import rollouts
from experiments.runs import CONFIG, RESULT, RUNS, Run
from experiments.store import FILE, StoreReader, StoreWriter
from graphs import Builder, Episode, Graph, Topology

_Value = TypeVar("_Value")


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


def claim_directory(plan: Plan, name: str | None, root: Path) -> Path:
    """Make the run's directory and write its configuration.

    Raises:
        ConfigError: a name that is taken or no file name, a folder that cannot be written.
    """
    directory = claim_folder(root, name, f"{plan.topology.name.replace(':', '.')}-{plan.env.name}")
    config = {**plan.config, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    with _said_plainly(root):
        (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return directory


def claim_folder(root: Path, name: str | None, generic: str) -> Path:
    """Make a folder of runs: `name`, or without one `generic` with the time.

    Raises:
        ConfigError: a name that is taken or no file name, a folder that cannot be written.
    """
    if name is not None and (not name or name != Path(name).name or name.startswith(".")):
        raise ConfigError(
            f"run name {clip(name)}: expected a plain folder name, without / and not beginning with a dot"
        )
    with _said_plainly(root):
        root.mkdir(parents=True, exist_ok=True)
        if name is None:
            return _new_directory(root, f"{generic}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        try:
            (root / name).mkdir()
        except FileExistsError:
            taken = f"run {name!r} is already in {root}/; choose another --name or remove {root / name}"
            raise ConfigError(taken) from None
    return root / name


@contextlib.contextmanager
def _said_plainly(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write the run to {root}: {error.strerror}; choose a folder with --runs") from None


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
            await play_all(plan, company, writer, shown, asyncio.Semaphore(plan.concurrency))
    return Run(directory)


@contextlib.asynccontextmanager
async def opened(plan: Plan, directory: Path) -> AsyncIterator[tuple[Company, StoreWriter]]:
    """A plan's company and the store of its episodes."""
    with kept_if_played(directory):
        async with (
            open_company(plan.cast, plan.roles, plan.backend, plan.serving, plan.address, plan.cluster.ship) as company,
            recording(plan, directory) as writer,
        ):
            yield company, writer


@contextlib.contextmanager
def kept_if_played(directory: Path) -> Iterator[None]:
    """A run that stores nothing leaves nothing behind."""
    try:
        yield
    finally:
        if not ((directory / FILE).is_file() and StoreReader(directory).outcomes()):
            shutil.rmtree(directory)


@contextlib.asynccontextmanager
async def recording(plan: Plan, directory: Path) -> AsyncIterator[StoreWriter]:
    """The store of a plan's episodes, and what its graph needs, for as long as it is played."""
    writer = StoreWriter(directory)
    try:
        async with plan.topology.opened():
            started = time.monotonic()
            yield writer
            seconds = time.monotonic() - started
    finally:
        await asyncio.to_thread(writer.close)
    (directory / RESULT).write_text(json.dumps({"seconds": round(seconds, 3)}) + "\n", encoding="utf-8")


async def play_all(
    plan: Plan,
    company: Company,
    writer: StoreWriter,
    shown: Progress,
    gate: asyncio.Semaphore,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Play every episode of a plan, and return when all are stored.

    Args:
        plan: what is played.
        company: who plays.
        writer: where to.
        shown: told of each.
        gate: bounds what is in flight, and with it what is in memory; plans may share one.
        begun: called when the last episode has begun.
    """

    async def one(position: int, task: Task, sample: int) -> None:
        try:
            episode = await plays(task, sample)
            shown.ended(await store(writer, position, episode))
        finally:
            gate.release()

    async with rollouts(plan, company) as plays, asyncio.TaskGroup() as group:
        for position, task, sample in plan.jobs():
            await gate.acquire()
            group.create_task(one(position, task, sample))
        begun()


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
