"""A rollout worker: a Ray actor that plays many episodes at once, and has the driver answer every model call.

Graphs, prompts, parsers and verdicts are computed here; pools, publishes and the store stay with the driver, and so do
the keys of endpoints. One call brings all that is to be played and all answers there are, one call takes back all
that was played and asked.
"""

import asyncio
import itertools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from agents.cast import Cast
from agents.company import Company, Lasting
from agents.serving import Serving
from agents.types import Completion, EngineError, Request
from envs.types import Env
from graphs import Topology, play

if TYPE_CHECKING:
    import numpy as np

Job = tuple[int, int, bytes]
"""Its number, that of its game, and the task and the sample, pickled."""
Answer = tuple[int, Any]
"""To the call of a number: a completion, vectors or an error."""


@dataclass(frozen=True)
class Game:
    """What is played: all that a plan's episodes need but the pools."""

    topology: Topology
    env: Env
    cast: Cast
    """Without models: how replies are drawn, and instructions."""
    seed: int


@dataclass(frozen=True)
class Asked:
    """A model call that the driver is to answer."""

    number: int
    game: int
    role: str
    request: bytes
    """A Request, or a tuple of texts to be embedded; pickled."""


@dataclass(frozen=True)
class Played:
    """An episode that has ended."""

    job: int
    episode: bytes
    """Pickled; empty where that cannot be."""
    failure: str = ""


class RolloutWorker:
    """Made with `ray.remote` by experiments.rollouts; an ordinary class."""

    def __init__(self) -> None:
        self._games: dict[int, tuple[asyncio.Queue[Job], asyncio.Task[None]]] = {}
        # It ends with the process.
        self._lasting = Lasting()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._outbox: list[Asked | Played] = []
        self._written = asyncio.Event()

    async def begin(self, number: int, game: bytes) -> None:
        """Open a game under a number of the driver's."""
        jobs: asyncio.Queue[Job] = asyncio.Queue()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A task of its own: what the topology opens reaches its nodes by context variables, and is closed where it was.
        host = asyncio.create_task(self._host(number, pickle.loads(game), jobs, opened))
        self._games[number] = jobs, host
        await opened

    async def end(self, number: int) -> None:
        """Close a game; what is still played of it is given up."""
        if number in self._games:
            _, host = self._games.pop(number)
            host.cancel()
            await asyncio.gather(host, return_exceptions=True)

    async def take(self, jobs: Sequence[Job], answers: Sequence[Answer]) -> None:
        """Begin episodes, and go on with those that waited for an answer."""
        for job in jobs:
            self._games[job[1]][0].put_nowait(job)
        for number, answer in answers:
            if (waiting := self._waiting.get(number)) and not waiting.done():
                (waiting.set_exception if isinstance(answer, Exception) else waiting.set_result)(answer)

    async def collect(self) -> list[Asked | Played]:
        """Wait until something is asked or played, then return all that is, each once."""
        await self._written.wait()
        self._written.clear()
        outbox, self._outbox = self._outbox, []
        return outbox

    async def _host(self, number: int, game: Game, jobs: asyncio.Queue[Job], opened: asyncio.Future[None]) -> None:
        company = DistantCompany(self, number, game.cast, self._lasting)
        try:
            async with game.topology.opened(), asyncio.TaskGroup() as group:
                opened.set_result(None)
                while True:
                    group.create_task(self._play(game, company, await jobs.get()))
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)

    async def _play(self, game: Game, company: Company, job: Job) -> None:
        number, _, packed = job
        try:
            task, sample = pickle.loads(packed)
            episode = await play(game.topology, game.env, task, company, game.seed, sample)
            played = Played(number, cloudpickle.dumps(episode))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The graph's own doing: who waits for the episode must hear of it.
            played = Played(number, b"", f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - what a graph or a parser of the user's made does not pickle
            played = Played(number, b"", f"cannot be sent: {type(error).__name__}: {error}")
        self._write(played)

    async def ask(self, game: int, role: str, asked: Request | tuple[str, ...]) -> Any:
        """For companies: have the driver answer. Raises EngineError."""
        number = next(self._numbers)
        try:
            packed = cloudpickle.dumps(asked)
        except Exception as error:  # noqa: BLE001 - a request that does not pickle fails alone
            raise EngineError(f"{getattr(asked, 'key', 'a text')} cannot be sent: {error}") from None
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._write(Asked(number, game, role, packed))
        try:
            return await waiting
        finally:
            del self._waiting[number]

    def _write(self, message: Asked | Played) -> None:
        self._outbox.append(message)
        self._written.set()


class DistantCompany(Company):
    """A company whose pools are with the driver."""

    def __init__(self, worker: RolloutWorker, game: int, cast: Cast, lasting: Lasting):
        super().__init__(cast, {}, Serving(), lasting)
        self._worker, self._game = worker, game

    async def complete(self, role: str, request: Request) -> Completion:
        return await self._worker.ask(self._game, role, request)

    async def embed(self, texts: Sequence[str], embedder: str = "minilm", role: str = "") -> "np.ndarray":
        if embedder == "pool":
            return await self._worker.ask(self._game, role, tuple(texts))
        return await super().embed(texts, embedder, role)
