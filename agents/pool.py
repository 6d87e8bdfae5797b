"""Pools: the replicas of one model behind one `complete`.

`LocalPool` runs the engine in this process (notebooks, fast tests); `RayPool` runs replicas as Ray actors. Both bound
what is in flight, route each request (agents.routing), answer it exactly once, also when a replica dies on the way, and
publish new weights (agents.publishing).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from agents.elastic import Elastic
from agents.engines import ModelSpec
from agents.local import LocalReplica
from agents.probe import Probe
from agents.publishing import Door, Published, Publisher, ReplicaDiedError, ReplicaEnd, State
from agents.remote import RemoteReplica
from agents.routing import Router
from agents.types import Completion, EngineError, Request
from envs.errors import ConfigError, clip

if TYPE_CHECKING:
    import numpy as np

    from agents.embed import Vectors

Answered = TypeVar("Answered")


@dataclass(frozen=True)
class ReplicaHealth:
    """How one replica is."""

    number: int
    state: State
    alive: bool
    """Ready, and it answered when it was asked just now."""
    requests: int
    """Outstanding."""
    tokens: int
    """Outstanding, by estimate: of prompts and of replies to come."""
    restarts: int
    """After deaths."""
    last_error: str
    pid: int | None = None
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Policy -> version of its weights; the model's own under the empty name."""


class Pool(Protocol):
    """The replicas of one model."""

    async def complete(self, request: Request) -> Completion:
        """Answer one request; waits while too much is in flight, and while weights are published.

        Raises:
            EngineError: the request cannot be answered.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> "np.ndarray":
        """Vectors of length 1 by the model itself, with its own weights, not a policy's; bounded as `complete` is.

        (len(texts), dimensions) float32. Equal texts have equal vectors; they are remembered while the weights stay.

        Raises:
            EngineError: the engine gives none, or one that is 0 or no number.
        """
        ...

    async def ready(self) -> None:
        """Return when every replica has loaded its model.

        Raises:
            ConfigError: the model cannot be used.
            EngineError: a replica could not be started.
        """
        ...

    async def publish(
        self, policy: str, version: str, source: Path, deadline_s: float | None = None, probe: Probe | None = None
    ) -> Published:
        """Put new weights on every replica and verify them there; on any failure all go back to those they had.

        Args:
            policy: empty for the model's own weights, else the name of an adapter.
            version: never used before for this policy, nor by a publish that failed on a replica.
            source: a directory in Hugging Face format, for an adapter in PEFT's, which every replica can read. It has
                to stay as it is until the policy's next publish.
            deadline_s: from the moment that earlier publishes are over; None takes the setting `pool.publish_s`.
            probe: how the weights score; None measures it from the directory (agents.probe).

        Raises:
            PublishError: which replica failed, how, and what is served now.
        """
        ...

    async def score(self, ids: Sequence[int], policy: str = "") -> list[tuple[float, ...]]:
        """What each replica that is ready makes of token ids; see agents.types.Publishable.

        Raises:
            EngineError: the engine cannot score, or the policy was never published.
        """
        ...

    async def health(self, wait_s: float = 2.0) -> list[ReplicaHealth]:
        """Ask every replica how it is; one that does not answer within `wait_s` is not alive."""
        ...

    async def close(self) -> None:
        """Fail what is in flight, close the engines, stop the replicas. May be called again."""
        ...


class _ReplicaPool:
    """What both kinds have in common."""

    def __init__(self, spec: ModelSpec, start: Callable[[int, dict[str, Published]], ReplicaEnd], replicas: int):
        self._spec = spec
        self._published: dict[str, Published] = {}
        self._gate = asyncio.Semaphore(spec.pool.max_in_flight)
        self._door = Door()
        self._replicas = {number: start(number, self._published) for number in range(replicas)}
        self._router = Router()
        self._publisher = Publisher(spec, self._replicas.values(), self._published, self._door)
        self._outstanding = 0
        """Requests, those that wait for room among them."""
        self._closed = False

    async def complete(self, request: Request) -> Completion:
        return await self._admitted(lambda: self._complete(request))

    async def embed(self, texts: Sequence[str]) -> "np.ndarray":
        import numpy as np

        unique = list(dict.fromkeys(texts))
        found = await asyncio.gather(*map(self._vector, unique), return_exceptions=True)
        # Only when all have ended: what is raised must not depend on which failed first.
        vectors: list[np.ndarray] = []
        for vector in found:
            if isinstance(vector, BaseException):
                raise vector
            vectors.append(vector)
        return np.stack([vectors[unique.index(text)] for text in texts])

    async def ready(self) -> None:
        await asyncio.gather(*(replica.up() for replica in self._replicas.values()))

    async def publish(
        self, policy: str, version: str, source: Path, deadline_s: float | None = None, probe: Probe | None = None
    ) -> Published:
        return await self._publisher.publish(policy, version, source, deadline_s, probe)

    async def score(self, ids: Sequence[int], policy: str = "") -> list[tuple[float, ...]]:
        ready = (replica for replica in self._replicas.values() if replica.state == "ready")
        return list(await asyncio.gather(*(replica.score(ids, policy) for replica in ready)))

    async def health(self, wait_s: float = 2.0) -> list[ReplicaHealth]:
        return list(await asyncio.gather(*(self._health(replica, wait_s) for replica in self._replicas.values())))

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(replica.close() for replica in self._replicas.values()))
        self._door.open()

    async def _admitted(self, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        """Ask when there is room and no publish is under way; again when the replica dies that was asked."""
        self._outstanding += 1
        try:
            async with self._gate:
                await self._door.enter()
                try:
                    return await self._asked_until_answered(ask)
                finally:
                    self._door.leave()
        finally:
            self._outstanding -= 1

    async def _asked_until_answered(self, ask: Callable[[], Awaitable[Answered]]) -> Answered:
        deaths = 0
        while True:
            try:
                return await ask()
            except ReplicaDiedError as error:
                # A request that kills whoever takes it must not go round for ever.
                deaths += 1
                if self._closed or deaths > self._spec.pool.restarts:
                    raise EngineError(str(error)) from None

    async def _complete(self, request: Request) -> Completion:
        if request.policy and request.policy not in self._published:
            raise EngineError(f"policy {clip(request.policy)} was never published to {self._spec.name}")
        completion = None
        route = self._router.choose(request, self._candidates())
        try:
            completion = await self._replicas[route.replica].ask(request)
            return completion
        finally:
            self._router.finish(route, request, completion)

    async def _vector(self, text: str) -> "np.ndarray":
        known = self._vectors.get((self._version, text))
        return await self._admitted(lambda: self._embed(text)) if known is None else known

    async def _embed(self, text: str) -> "np.ndarray":
        replica = min(self._candidates(), key=self._router.tokens.__getitem__)
        vector = await self._replicas[replica].embed(text)
        return self._vectors.keep((self._version, text), text, vector)

    @property
    def _version(self) -> str:
        """Of the weights that were published last; empty for those that the model came with."""
        weights = self._published.get("")
        return weights.version if weights else ""

    @cached_property
    def _vectors(self) -> "Vectors":
        from agents.embed import Vectors

        return Vectors()

    def _candidates(self) -> list[int]:
        """Replicas that may be asked: those that are ready; while there is none, those that are starting."""
        states: tuple[State, ...] = ("ready", "starting")
        for state in states if not self._closed else ():
            if found := [number for number, replica in self._replicas.items() if replica.state == state]:
                return found
        if self._closed:
            raise EngineError(f"the pool of {self._spec.name} is closed")
        raise EngineError(list(self._replicas.values())[-1].last_error)

    async def _health(self, replica: ReplicaEnd, wait_s: float) -> ReplicaHealth:
        status = None
        if replica.state == "ready":
            try:
                status = await asyncio.wait_for(replica.status(), wait_s)
            except (TimeoutError, EngineError, ConfigError) as error:
                replica.last_error = str(error) or f"it did not answer within {wait_s:g} s"
        return ReplicaHealth(
            replica.number,
            replica.state,
            status is not None,
            self._router.requests[replica.number],
            round(self._router.tokens[replica.number]),
            replica.restarts,
            replica.last_error,
            status.pid if status else None,
            status.host if status else "",
            status.versions if status else {},
        )


class LocalPool(_ReplicaPool):
    """One engine in this process."""

    def __init__(self, spec: ModelSpec):
        super().__init__(spec, lambda _, published: LocalReplica(spec, published), 1)


class RayPool(_ReplicaPool):
    """Replicas as Ray actors; with the setting `pool.max`, as many as are needed."""

    def __init__(self, spec: ModelSpec):
        super().__init__(spec, partial(RemoteReplica, spec), spec.pool.replicas)
        self._elastic = None
        if (spec.pool.max or 0) > spec.pool.replicas:
            start = partial(RemoteReplica, spec, published=self._published)
            self._elastic = Elastic(spec.pool, self._replicas, start, self._publisher, lambda: self._outstanding)

    async def close(self) -> None:
        if self._elastic:
            await self._elastic.close()
        await super().close()
