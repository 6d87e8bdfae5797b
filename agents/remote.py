"""A pool's end of one replica that runs as a Ray actor: what it has been asked, and its lives one after another."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents.cluster import as_shipped, last_line, replicas_ask
from agents.engines import ModelSpec
from agents.publishing import Published, ReplicaDiedError, State, install, tolerance_of
from agents.replica import Answer, Asked, Replica, Status
from agents.types import Completion, EngineError, Request
from envs.errors import ConfigError

CLOSE_S = 5.0
"""How long an engine has for closing before its process is killed."""
logger = logging.getLogger("palaestra.pool")


class RemoteReplica:
    """See the module. Requests asked while it starts are sent when it is up and verified."""

    def __init__(self, spec: ModelSpec, number: int, published: Mapping[str, Published]):
        """
        Args:
            spec: what the replica loads, and how it is placed.
            number: within its pool.
            published: policy -> weights that every new life takes over.
        """
        self.number = number
        self.state: State = "starting"
        self.life = self.restarts = 0
        self.last_error = ""
        self._failure: Exception | None = None
        self._spec, self._published = spec, published
        self._tolerance = tolerance_of(spec)
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._outbox: dict[int, Asked] = {}
        self._dropped: list[int] = []
        self._flushing = False
        self._changed = asyncio.Event()
        self._wanted = ""
        self._actor = self._start()
        self._living = asyncio.get_running_loop().create_task(self._live(), name=f"replica {number} of {spec.name}")

    @property
    def outstanding(self) -> int:
        return len(self._asked)

    async def ask(self, request: Request) -> Completion:
        return await self._ask(request)

    async def embed(self, text: str) -> tuple[float, ...]:
        return await self._ask(text)

    async def _ask(self, asked: Asked) -> Any:
        if self._failure:
            raise ReplicaDiedError(str(self._failure))
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._outbox[number] = asked
        self._flush_soon()
        try:
            return await future
        finally:
            if self._asked.pop(number, None) and not self._outbox.pop(number, None):
                self._dropped.append(number)  # its caller has gone
                self._flush_soon()

    async def up(self) -> Status:
        while True:
            await self._until(lambda: self.state != "starting")
            if self._failure:
                raise self._failure
            its_life = self.life
            try:
                return await self.status()
            except ReplicaDiedError:
                # Just now: whoever collects its answers is told, too, and begins its next life.
                await self._until(lambda life=its_life: self.state != "ready" or self.life != life)

    async def status(self) -> Status:
        return await self._call("status")

    async def publish(self, policy: str, version: str, source: str) -> None:
        await self._call("publish", policy, version, as_shipped(source))

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        return await self._call("score", tuple(ids), policy)

    def restart(self, reason: str) -> None:
        if self.state != "ready":
            return
        import ray

        self._wanted, self.state = reason, "starting"
        ray.kill(self._actor, no_restart=True)

    async def close(self) -> None:
        import ray

        if self.state == "dead" and self._living.done():
            return
        self._die(EngineError(f"the pool of {self._spec.name} was closed"))
        self._living.cancel()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._call("close"), CLOSE_S)
        ray.kill(self._actor, no_restart=True)
        await asyncio.gather(self._living, return_exceptions=True)

    def _start(self) -> Any:
        import ray

        spec = self._spec
        actor: Any = ray.remote(Replica)
        actor = actor.options(**replicas_ask(spec).options(), max_concurrency=10_000)
        try:
            return actor.remote(replace(spec, target=as_shipped(spec.target)))
        except TypeError as error:
            raise ConfigError(
                f"model {spec.name} cannot be sent to another process ({last_line(error)}); "
                "give a function that makes the engine, or play with backend local"
            ) from None

    async def _call(self, method: str, *args: Any) -> Any:
        from ray.exceptions import RayActorError, RayError

        try:
            return await getattr(self._actor, method).remote(*args)
        except RayActorError as error:
            raise ReplicaDiedError(last_line(error)) from None
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, (ConfigError, EngineError)):
                raise type(cause)(str(cause)) from None
            raise EngineError(last_line(error)) from None

    async def _live(self) -> None:
        """Load, take over what was published, collect answers; and again when that ends, until it is dead for good."""
        while self.state != "dead":
            try:
                await self._call("load")
                for policy in sorted(self._published):
                    await install(self, policy, self._published[policy], self._tolerance)
                self.life += 1
                self.state = "ready"
                self._changed.set()
                self._flush()
                while True:
                    self._resolve(await self._call("collect"))
            except Exception as error:  # noqa: BLE001 - whatever ends a life; the message says what
                self._end(error)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def _end(self, error: Exception) -> None:
        """A life is over: begin the next, or die; whoever waits for an answer is told."""
        import ray

        ray.kill(self._actor, no_restart=True)
        cause, wanted = self._wanted or last_line(error), bool(self._wanted)
        self.last_error, self._wanted = cause, ""
        name = f"replica {self.number} of {self._spec.name}"
        # An engine that cannot load says so, and would again; a process or a machine that was lost says nothing.
        may_begin = bool(self.life) or isinstance(error, ReplicaDiedError)
        again = wanted or (may_begin and self.restarts < self._spec.pool.restarts)
        if isinstance(error, ConfigError) or not again:
            told = EngineError(f"{name} {'died' if self.life else 'did not start'}: {cause}")
            self._die(error if isinstance(error, ConfigError) and not self.life else told)
        else:
            self.restarts += not wanted
            self.state = "starting"
            self._changed.set()
            logger.warning("%s died (%s); starting it again", name, cause)
            self._actor = self._start()
            self._fail([number for number in self._asked if number not in self._outbox], f"{name} died: {cause}")

    def _die(self, failure: Exception) -> None:
        self.state, self._failure, self.last_error = "dead", failure, str(failure)
        self._changed.set()
        self._outbox.clear()
        self._fail(list(self._asked), str(failure))

    def _fail(self, numbers: list[int], message: str) -> None:
        for number in numbers:
            future = self._asked.pop(number)
            if not future.done():
                future.set_exception(ReplicaDiedError(message))

    def _flush_soon(self) -> None:
        if self.state == "ready" and not self._flushing:
            # When this turn of the event loop is over: all that is asked in it goes in one call.
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.state != "ready":
            return
        if self._outbox:
            batch, self._outbox = self._outbox, {}
            self._send(list(batch.items()))
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self._actor.cancel.remote(dropped)

    def _send(self, batch: list[tuple[int, Asked]]) -> None:
        try:
            self._actor.submit.remote(batch)
        except Exception as error:  # noqa: BLE001 - a request that does not pickle must not take the others with it
            if len(batch) > 1:
                for item in batch:
                    self._send([item])
            elif (future := self._asked.pop(batch[0][0], None)) and not future.done():
                name = getattr(batch[0][1], "key", "a text")
                future.set_exception(EngineError(f"{name} cannot be sent: {last_line(error)}"))

    def _resolve(self, answers: list[Answer]) -> None:
        for number, answer in answers:
            # Absent: its caller has gone.
            future = self._asked.pop(number, None)
            if future is None or future.done():
                continue
            if isinstance(answer, EngineError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
