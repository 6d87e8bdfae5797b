"""A pool's end of one replica whose engine runs in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from agents.engines import ModelSpec
from agents.publishing import Published, ReplicaDiedError, State, install, tolerance_of
from agents.replica import Replica, Status
from agents.types import Completion, EngineDiedError, EngineError, Request

Answered = TypeVar("Answered")


class LocalReplica:
    """See the module. A new engine is made after a publish that went wrong, and when the engine's own process died."""

    number = 0

    def __init__(self, spec: ModelSpec, published: Mapping[str, Published]):
        """
        Args:
            spec: the engine to make, or one that was lent: that is never closed and cannot be made anew.
            published: policy -> weights that a new engine takes over.
        """
        self.state: State = "ready"
        self.life, self.restarts = 1, 0
        self.last_error = ""
        self._spec, self._published = spec, published
        self._replica = Replica(spec)
        self._replica.engine  # noqa: B018 - loaded at once, so that errors come from here
        self._asked: set[asyncio.Future[Any]] = set()
        self._starting: asyncio.Task[None] | None = None

    @property
    def outstanding(self) -> int:
        return len(self._asked)

    async def ask(self, request: Request) -> Completion:
        return await self._ask(lambda replica: replica.engine.complete(request))

    async def embed(self, text: str) -> tuple[float, ...]:
        return await self._ask(lambda replica: replica.embed(text))

    async def _ask(self, ask: Callable[[Replica], Awaitable[Answered]]) -> Answered:
        if self.state != "ready":
            await self.up()
        replica = self._replica
        task = asyncio.ensure_future(ask(replica))
        self._asked.add(task)
        try:
            return await task
        except EngineDiedError as error:
            if replica is self._replica and self.state == "ready":
                if self.restarts >= self._spec.pool.restarts:
                    self.state, self.last_error = "dead", str(error)
                else:
                    self.restarts += 1
                    self.restart(str(error))
            raise ReplicaDiedError(str(error)) from None
        except asyncio.CancelledError:
            if self.state == "dead" and task.cancelled():
                raise EngineError(self.last_error) from None
            raise
        finally:
            self._asked.discard(task)

    async def up(self) -> Status:
        if self._starting:
            await self._starting
        if self.state == "dead":
            raise EngineError(self.last_error)
        return await self.status()

    async def status(self) -> Status:
        return await self._replica.status()

    async def publish(self, policy: str, version: str, source: str) -> None:
        await self._replica.publish(policy, version, source)

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        return await self._replica.score(ids, policy)

    def restart(self, reason: str) -> None:
        if self.state != "ready":
            return
        self.last_error = reason
        if self._spec.is_lent:
            self.state, self.last_error = "dead", f"{reason}; the engine was lent, so that it cannot be made anew"
            return
        self.state = "starting"
        self._starting = asyncio.ensure_future(self._start_again())

    async def close(self) -> None:
        self.state, self.last_error = "dead", f"the pool of {self._spec.name} was closed"
        for task in self._asked:
            task.cancel()
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if not self._spec.is_lent:
            await self._replica.close()

    async def _start_again(self) -> None:
        # The old engine is left alone: one that hangs would hang its closing too.
        self._replica = Replica(self._spec)
        try:
            await asyncio.to_thread(lambda: self._replica.engine)
            for policy in sorted(self._published):
                await install(self, policy, self._published[policy], tolerance_of(self._spec))
        except Exception as error:  # noqa: BLE001 - kept as what everybody who asks is told
            self.state, self.last_error = "dead", f"{type(error).__name__}: {error}"
            return
        self.life += 1
        self.state = "ready"
