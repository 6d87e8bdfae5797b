"""Run a topology over the tasks of an env: many episodes at once, each stored as it ends.

Called by the command and from Python; hands a `Run` on. Everything that can be wrong with the arguments is found
before a model is loaded. A run that was killed is gone on with: what its store holds is not played again.
"""

import asyncio
import contextlib
import gc
import operator
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
from experiments.arguments import arguments_again, require_same, store_arguments
from experiments.folder import claimed, gone_on_with, write_whole
from experiments.plan import CONCURRENCY, Plan, make_plan
from experiments.progress import Progress
from experiments.rollouts import Plays, require_sendable, rollouts
from experiments.runs import CONFIG, RESULT, RUNS, Run
from experiments.store import FILE, StoreError, StoreReader, StoreWriter
from graphs import Builder, Episode, Graph, Topology

_Value = TypeVar("_Value")
WAVE, WAVE_S = 16, 0.01
"""So many episodes begin at once, and the next so many seconds later. All at once they go in step: this process would
rest while all of them wait for their models, and then be late with all of them."""


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
        StoreError: an episode could not be written; those before are kept, and `resume` goes on from there.
    """
    arguments: dict[str, Any] = {
        "topology": topology,
        "env": env,
        "cast": cast,
        "tasks": None if tasks is None else operator.index(tasks),
        "samples": operator.index(samples),
        "seed": operator.index(seed),
        "split": split,
        "concurrency": operator.index(concurrency),
        "settings": settings,
        "backend": backend,
        "address": address,
    }
    plan = make_plan(**arguments)
    generic = f"{plan.topology.name.replace(':', '.')}-{plan.env.name}"
    config = {**_stamped(plan), **store_arguments(arguments)}
    with claimed(Path(root), name, generic, CONFIG, config) as directory, kept_if_played(directory):
        return in_event_loop(lambda: execute(plan, directory, progress))


def resume_run(
    stored: Run,
    *,
    topology: str | Builder | Graph | Topology | None = None,
    env: str | Env | None = None,
    cast: Cast | str | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    failed: bool = False,
    progress: bool | None = None,
) -> Run:
    """Finish a run that was killed or stopped: it ends with the episodes of one that never was.

    Args:
        stored: the run. One that is finished is left as it is.
        topology: like env, cast and settings: what was given ready-made in Python, given again.
        env: see above.
        cast: see above.
        settings: see above; of these alone that were no plain values.
        address: of a Ray cluster; None takes the one that the run began on.
        failed: ask those episodes again, too, that are stored as failed. The failures are kept beside.
        progress: as in `run`.

    Raises:
        ConfigError: another process plays it; something has to be given again, or is not what it was.
        EngineError, StoreError: as in `run`.
    """
    if (stored.path / RESULT).is_file() and not (failed and stored.summary().failed):
        return stored
    given = {"topology": topology, "env": env, "cast": cast, "settings": settings, "address": address}
    with gone_on_with(stored.path):
        plan = make_plan(**arguments_again(stored.config, given, stored.name))
        require_same(plan.config, stored.config, stored.name)
        in_event_loop(lambda: execute(plan, stored.path, progress, failed))
    return stored


def _stamped(plan: Plan) -> dict[str, Any]:
    return {**plan.config, "created": datetime.now(UTC).isoformat(timespec="seconds")}


def claim_directory(plan: Plan, name: str | None, root: Path) -> Path:
    """Make the run's directory and write its configuration.

    Raises:
        ConfigError: a name that is taken or no file name, a folder that cannot be written.
    """
    generic = f"{plan.topology.name.replace(':', '.')}-{plan.env.name}"
    with claimed(root, name, generic, CONFIG, _stamped(plan)) as directory:
        return directory


async def execute(plan: Plan, directory: Path, progress: bool | None = None, failed: bool = False) -> Run:
    """Play every episode of a plan that its directory does not hold yet; with `failed`, those that failed again."""
    require_sendable(plan)
    async with _writing(plan, directory, failed) as writer:
        if len(writer.stored) < plan.episodes:
            company = open_company(plan.cast, plan.roles, plan.backend, plan.serving, plan.address, plan.cluster.ship)
            async with company as opened, _timed(plan, directory, writer):
                with Progress(plan.topology.name, plan.episodes, progress) as shown:
                    await play_all(plan, opened, writer, shown)
        else:
            _mark(plan, directory, writer, None)
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
        if not ((directory / FILE).is_file() and StoreReader(directory).rows("SELECT 1 FROM episodes LIMIT 1")):
            shutil.rmtree(directory)


@contextlib.asynccontextmanager
async def recording(plan: Plan, directory: Path, failed: bool = False) -> AsyncIterator[StoreWriter]:
    """The store of a plan's episodes, and what its graph needs, for as long as it is played."""
    async with _writing(plan, directory, failed) as writer, _timed(plan, directory, writer):
        yield writer


@contextlib.asynccontextmanager
async def _writing(plan: Plan, directory: Path, failed: bool) -> AsyncIterator[StoreWriter]:
    writer = StoreWriter(directory, failed)
    try:
        for position, task, sample in plan.jobs() if writer.stored else ():
            if writer.stored.get(position, (task.id, sample)) != (task.id, sample):
                found = f"{clip(writer.stored[position][0])}, and is now {clip(task.id)}"
                raise ConfigError(
                    f"run {directory.name} cannot be gone on with: the task of episode {position + 1} was {found}; "
                    "bring back the tasks that it was played on, or play it anew under another name"
                )
        yield writer
    finally:
        await asyncio.to_thread(writer.close)


@contextlib.asynccontextmanager
async def _timed(plan: Plan, directory: Path, writer: StoreWriter) -> AsyncIterator[None]:
    async with plan.topology.opened():
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
    _mark(plan, directory, writer, seconds)


def _mark(plan: Plan, directory: Path, writer: StoreWriter, seconds: float | None) -> None:
    """Say that a run is whole. How long one took that was killed in between is not known."""
    if len(writer.stored) < plan.episodes or not (directory / RESULT).is_file():
        taken = None if seconds is None or writer.stored else round(seconds, 3)
        write_whole(directory / RESULT, {"seconds": taken})


async def play_all(
    plan: Plan,
    company: Company,
    writer: StoreWriter,
    shown: Progress,
) -> None:
    """Play every episode of a plan that is not stored yet, and return when all are.

    Args:
        plan: what is played.
        company: who plays.
        writer: where to.
        shown: told of each.
    """
    # It bounds what is in flight, and with it what is in memory.
    gate = asyncio.Semaphore(plan.concurrency)

    async def one(position: int, task: Task, sample: int) -> None:
        try:
            shown.ended(await play_one(plays, writer, position, task, sample))
        finally:
            gate.release()

    shown.stored(len(writer.stored))
    open_jobs = (job for job in plan.jobs() if job[0] not in writer.stored)
    async with rollouts(plan, company) as plays, asyncio.TaskGroup() as group:
        for begun, (position, task, sample) in enumerate(open_jobs, 1):
            await gate.acquire()
            group.create_task(one(position, task, sample))
            if begun < plan.concurrency and not begun % WAVE:
                await asyncio.sleep(WAVE_S)


async def play_one(plays: Plays, writer: StoreWriter, position: int, task: Task, sample: int) -> Episode:
    """Play an episode and store it under its position."""
    return await store(writer, position, await plays(task, sample))


async def store(writer: StoreWriter, position: int, episode: Episode) -> Episode:
    """Store an episode; one that is no JSON, as a failed one without its contents. Returns what was stored."""
    try:
        await writer.append(position, episode)
    except (StoreError, sqlite3.Error):
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
    """Run a coroutine to its end; from a notebook, whose thread has a loop already, on a thread of its own.

    Of several errors at once the first is raised in place of their group.
    """
    with _alone(), collecting_seldom():
        return _in_event_loop(start)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Thousands of episodes in flight are no garbage: looking through them at Python's own pace (each 700 new objects)
    takes a third of the time of a run whose engine answers at once."""
    before = gc.get_threshold()
    if 0 < before[0] < 20_000:
        gc.set_threshold(20_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _in_event_loop(start: Callable[[], Awaitable[_Value]]) -> _Value:
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
