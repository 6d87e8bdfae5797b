"""Who plays the episodes of a plan: this process, or rollout workers that it hands tasks to.

What comes out is the same. A worker that dies is started again, and what it was playing is played anew.
"""

import asyncio
import itertools
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import cloudpickle

from agents.cast import Cast, Seat
from agents.cluster import connected, last_line
from agents.company import Company
from agents.types import EngineError
from envs.errors import ConfigError
from envs.types import Task
from experiments.plan import ClusterSettings, Plan
from experiments.rollout_worker import Answer, Asked, Game, Job, Played, RolloutWorker
from graphs import Episode, play

Plays = Callable[[Task, int], Awaitable[Episode]]
"""Task and sample -> the episode."""
logger = logging.getLogger("palaestra.rollouts")


class WorkerDiedError(EngineError):
    """It died before the episode ended: another can play it."""


@asynccontextmanager
async def rollouts(plan: Plan, company: Company) -> AsyncIterator[Plays]:
    """What plays a plan's episodes. Rollout workers live as long as the company's pools.

    Raises:
        ConfigError: what is played cannot be sent to another process.
        EngineError: the workers could not open it.
    """
    if not plan.cluster.rollout_workers:
        yield lambda task, sample: play(plan.topology, plan.env, task, company, plan.seed, sample)
        return
    crew = await company.lasting.get("rollout workers", lambda: _open_crew(plan.cluster, plan.address))
    async with crew.playing(_packed(plan, company.cast), company) as plays:
        yield plays


def require_sendable(plan: Plan) -> None:
    """See before models are loaded that rollout workers can be sent what is played. Raises ConfigError."""
    if plan.cluster.rollout_workers:
        _packed(plan, plan.cast)


class Crew:
    """All rollout workers."""

    def __init__(self, settings: ClusterSettings):
        self.games: dict[int, tuple[bytes, Company]] = {}
        """Number -> what is played, and who answers."""
        self._numbers = itertools.count()
        self._restarts = settings.restarts
        self._workers = [_Worker(number, settings.restarts, self.games) for number in range(settings.rollout_workers)]
        self._alone = asyncio.Lock()
        self._last_resort: _Worker | None = None

    @asynccontextmanager
    async def playing(self, game: bytes, company: Company) -> AsyncIterator[Plays]:
        """What plays a game's episodes, for as long as they are to be played."""
        number = next(self._numbers)
        self.games[number] = game, company
        try:
            yield partial(self._play, number)
        finally:
            del self.games[number]
            for worker in self._all:
                worker.forget(number)

    async def close(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._all))

    @property
    def _all(self) -> "list[_Worker]":
        return [*self._workers, *([self._last_resort] if self._last_resort else [])]

    async def _play(self, game: int, task: Task, sample: int) -> Episode:
        failure = "all rollout workers are dead"
        # An episode that kills whoever plays it must not go round for ever, nor take those beside it along.
        for _ in range(max(1, self._restarts)):
            alive = [worker for worker in self._workers if worker.alive]
            if not alive:
                return _failed(task, sample, failure)
            try:
                return await min(alive, key=lambda worker: len(worker.jobs)).play(game, task, sample)
            except WorkerDiedError as error:
                failure = str(error)
        if self._restarts:
            async with self._alone:
                try:
                    return await self._by_itself().play(game, task, sample)
                except WorkerDiedError as error:
                    failure = str(error)
        return _failed(task, sample, failure)

    def _by_itself(self) -> "_Worker":
        """A worker that plays one episode at a time."""
        if self._last_resort is None or not self._last_resort.alive:
            self._last_resort = _Worker(len(self._workers), self._restarts, self.games)
        return self._last_resort


class _Worker:
    """The driver's end of one worker: what it plays, and its lives one after another."""

    def __init__(self, number: int, restarts: int, games: dict[int, tuple[bytes, Company]]):
        self.jobs: dict[int, tuple[asyncio.Future[Episode], Task, int]] = {}
        self.alive = True
        self._number, self._restarts, self._games = number, restarts, games
        self._numbers = itertools.count()
        self._new: list[Job] = []
        self._answers: list[Answer] = []
        self._flushing = False
        self._reset()
        self._living = asyncio.get_running_loop().create_task(self._live(), name=f"rollout worker {number}")

    async def play(self, game: int, task: Task, sample: int) -> Episode:
        """Have it play an episode. Raises WorkerDiedError."""
        try:
            packed = cloudpickle.dumps((task, sample))
        except Exception as error:  # noqa: BLE001 - whatever is in the details of a user's task
            return _failed(task, sample, f"the task cannot be sent to a rollout worker: {last_line(error)}")
        number = next(self._numbers)
        future: asyncio.Future[Episode] = asyncio.get_running_loop().create_future()
        self.jobs[number] = future, task, sample
        try:
            await self._begin(game)
            if not future.done():
                self._new.append((number, game, packed))
                self._flush_soon()
            return await future
        finally:
            self.jobs.pop(number, None)

    def forget(self, game: int) -> None:
        """A game is over."""
        if self._begun.pop(game, None) and self.alive:
            self._actor.end.remote(game)

    async def close(self) -> None:
        import ray

        self.alive = False
        tasks = [self._living, *self._answering]
        for task in tasks:
            task.cancel()
        ray.kill(self._actor, no_restart=True)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset(self) -> None:
        import ray

        actor: Any = ray.remote(RolloutWorker)
        # No CPU is reserved, as with replicas; they are put on different machines where there are some.
        self._actor = actor.options(
            num_cpus=0, scheduling_strategy="SPREAD", max_restarts=0, max_concurrency=10_000
        ).remote()
        self._begun: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def _begin(self, game: int) -> None:
        """Have it open a game, once in a life."""
        from ray.exceptions import RayActorError, RayError

        if game not in self._begun:
            self._begun[game] = begun = asyncio.ensure_future(self._actor.begin.remote(game, self._games[game][0]))
            # Whoever waits for it may have gone.
            begun.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.shield(self._begun[game])
        except RayActorError:
            return  # whoever lives it will tell
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, (ConfigError, EngineError)):
                raise cause from None
            raise EngineError(
                f"rollout worker {self._number} cannot open what is played: {last_line(error)}; the modules of graphs "
                "and envs have to be on every machine, or be sent there by cluster.ship=true"
            ) from None

    async def _live(self) -> None:
        from ray.exceptions import RayError

        while self.alive:
            actor = self._actor
            try:
                for message in await actor.collect.remote():
                    if isinstance(message, Played):
                        self._ended(message)
                    else:
                        answering = asyncio.create_task(self._answer(message))
                        self._answering.add(answering)
                        answering.add_done_callback(self._answering.discard)
            except RayError as error:
                if actor is self._actor:  # else its end was found otherwise, and another is there
                    self._died(last_line(error))

    def _died(self, cause: str) -> None:
        """A life is over: begin the next, or die; whoever waits for an episode is told."""
        import ray

        ray.kill(self._actor, no_restart=True)
        for answering in self._answering:
            answering.cancel()
        jobs, self._new, self._answers = list(self.jobs.values()), [], []
        # A life that came to play is charged to the episodes that were played in it.
        self._restarts -= not any(done.done() and not done.exception() for done in self._begun.values())
        if self._restarts >= 0:
            logger.warning("rollout worker %d died (%s); starting it again", self._number, cause)
            self._reset()
        else:
            logger.warning("rollout worker %d died (%s) and is not started again", self._number, cause)
            self.alive = False
        for future, _, _ in jobs:
            if not future.done():
                future.set_exception(WorkerDiedError(f"rollout worker {self._number} died: {cause}"))

    def _ended(self, played: Played) -> None:
        if played.job not in self.jobs:
            return  # its caller has gone
        future, task, sample = self.jobs[played.job]
        try:
            if played.failure:
                raise ValueError(played.failure)
            episode = pickle.loads(played.episode)
        except Exception as error:  # noqa: BLE001 - classes of the user's that are not here
            episode = _failed(task, sample, str(error))
        if not future.done():
            future.set_result(episode)

    async def _answer(self, asked: Asked) -> None:
        """Have the company answer a call of the worker's."""
        try:
            _, company = self._games[asked.game]
            request = pickle.loads(asked.request)
            if isinstance(request, tuple):
                answer = await company.embed(request, "pool", asked.role)
            else:
                answer = await company.complete(asked.role, request)
        except (ConfigError, EngineError) as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - a defect must reach who asked
            answer = EngineError(f"{type(error).__name__}: {error}")
        self._answers.append((asked.number, answer))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            # When this turn of the event loop is over: all that is ready in it goes in one call.
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.alive and (self._new or self._answers):
            taken = asyncio.ensure_future(self._actor.take.remote(self._new, self._answers))
            taken.add_done_callback(partial(self._check, self._actor))
            self._new, self._answers = [], []

    def _check(self, actor: Any, taken: asyncio.Future[None]) -> None:
        """What it could not read it never answers; that it is gone is seen elsewhere."""
        from ray.exceptions import RayActorError

        error = None if taken.cancelled() else taken.exception()
        if error and not isinstance(error, RayActorError) and self.alive and actor is self._actor:
            self._died(last_line(error))


@asynccontextmanager
async def _open_crew(settings: ClusterSettings, address: str | None) -> AsyncIterator[Crew]:
    with connected(address, settings.ship):
        crew = Crew(settings)
        try:
            yield crew
        finally:
            await crew.close()


def _packed(plan: Plan, cast: Cast) -> bytes:
    """What is played, for workers. Raises ConfigError."""

    def without_model(seat: Seat) -> Seat:
        return seat.model_copy(update={"model": "", "adapter": None, "serving": {}})

    seats = {role: without_model(seat) for role, seat in cast.seats.items()}
    bare = Cast(None if cast.default is None else without_model(cast.default), **seats)
    try:
        return cloudpickle.dumps(Game(plan.topology, plan.env, bare, plan.seed))
    except Exception as error:  # noqa: BLE001 - whatever the user's graph or env raises when it is pickled
        raise ConfigError(
            f"topology {plan.topology.name} on env {plan.env.name} cannot be sent to rollout workers "
            f"({type(error).__name__}: {last_line(error)}); give them by name or as module:function, or set "
            "cluster.rollout_workers=0"
        ) from None


def _failed(task: Task, sample: int, failure: str) -> Episode:
    return Episode(
        task=task, sample=sample, turns=(), answer=None, stop_reason="", verdict=None, failure=failure, seconds=0.0
    )
