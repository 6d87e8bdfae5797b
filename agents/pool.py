"""Pools: the replicas of one model behind one `complete`.

`LocalPool` runs the engine in this process (notebooks, fast tests); `RayPool` runs replicas as Ray actors. Both bound
what is in flight and answer each request exactly once. Ray is imported only by RayPool.
"""

import asyncio
import itertools
import logging
import os
import re
import socket
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from agents.engines import ModelSpec, make_engine
from agents.replica import Answer, Replica
from agents.types import Completion, EngineError, Request
from envs.errors import ConfigError

logger = logging.getLogger("palaestra.pool")


class Pool(Protocol):
    """The replicas of one model."""

    async def complete(self, request: Request) -> Completion:
        """Answer one request; waits while too much is in flight.

        Raises:
            EngineError: the request cannot be answered.
        """
        ...

    async def ready(self) -> None:
        """Return when every replica has loaded its model.

        Raises:
            ConfigError: the model cannot be used.
            EngineError: a replica could not be started.
        """
        ...

    async def close(self) -> None: ...


class LocalPool:
    """One engine in this process."""

    def __init__(self, spec: ModelSpec):
        self._engine = make_engine(spec)
        self._lent = spec.is_lent
        self._gate = asyncio.Semaphore(spec.pool.max_in_flight)

    async def complete(self, request: Request) -> Completion:
        async with self._gate:
            return await self._engine.complete(request)

    async def ready(self) -> None:
        pass

    async def close(self) -> None:
        if not self._lent:
            await self._engine.close()


class RayPool:
    """Replicas as Ray actors; requests go to the one with the fewest outstanding."""

    def __init__(self, spec: ModelSpec):
        self._gate = asyncio.Semaphore(spec.pool.max_in_flight)
        self._replicas = [_RemoteReplica(spec) for _ in range(spec.pool.replicas)]

    async def complete(self, request: Request) -> Completion:
        async with self._gate:
            replica = min(self._replicas, key=lambda r: (r.dead is not None, len(r.outstanding)))
            return await replica.ask(request)

    async def ready(self) -> None:
        await asyncio.gather(*(replica.ready() for replica in self._replicas))

    async def close(self) -> None:
        await asyncio.gather(*(replica.close() for replica in self._replicas))


class _RemoteReplica:
    """Our end of one replica: what it has been asked, and the loops that send and collect."""

    def __init__(self, spec: ModelSpec):
        self._spec = spec
        self._numbers = itertools.count()
        self._outbox: deque[tuple[int, Request]] = deque()
        self.outstanding: dict[int, tuple[Request, asyncio.Future[Completion]]] = {}
        self.dead: EngineError | None = None
        self._restarts = spec.pool.restarts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._actor = self._start()
        self._collecting = self._spawn(self._collect())

    async def ask(self, request: Request) -> Completion:
        if self.dead:
            raise self.dead
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self.outstanding[number] = (request, future)
        self._outbox.append((number, request))
        if len(self._outbox) == 1:
            # Sent when this turn of the event loop is over: all that is asked in it goes in one call.
            asyncio.get_running_loop().call_soon(self._flush)
        return await future

    async def ready(self) -> None:
        from ray.exceptions import RayError

        try:
            await self._actor.load.remote()
        except ConfigError as error:
            raise ConfigError(str(getattr(error, "cause", error))) from None
        except RayError as error:
            raise EngineError(f"the replica of {self._spec.name} did not start: {_last_line(error)}") from None

    async def close(self) -> None:
        import ray

        self._collecting.cancel()
        for task in list(self._tasks):
            task.cancel()
        ray.kill(self._actor, no_restart=True)

    def _start(self) -> Any:
        import ray

        actor = ray.remote(Replica).options(  # pyright: ignore[reportCallIssue]
            num_cpus=0, num_gpus=self._spec.gpus, max_concurrency=10_000
        )
        try:
            return actor.remote(self._spec)
        except TypeError as error:
            raise ConfigError(
                f"model {self._spec.name} cannot be sent to another process ({_last_line(error)}); "
                "give a function that makes the engine, or play with backend local"
            ) from None

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _flush(self) -> None:
        batch, self._outbox = list(self._outbox), deque()
        if batch:
            self._actor.submit.remote(batch)

    async def _collect(self) -> None:
        from ray.exceptions import RayError

        while True:
            try:
                answers = await self._actor.collect.remote()
            except RayError as error:
                if not self._revive(error):
                    return
            else:
                self._resolve(answers)

    def _resolve(self, answers: list[Answer]) -> None:
        for number, answer in answers:
            _, future = self.outstanding.pop(number)
            if future.done():
                continue
            if isinstance(answer, EngineError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _revive(self, error: Exception) -> bool:
        """Start the replica again and ask anew what it had taken; False when it has died too often."""
        cause = _last_line(error)
        if self._restarts <= 0:
            self.dead = EngineError(f"the replica of {self._spec.name} died: {cause}")
            for _, future in self.outstanding.values():
                if not future.done():
                    future.set_exception(self.dead)
            self.outstanding.clear()
            return False
        self._restarts -= 1
        logger.warning("the replica of %s died (%s); starting it again", self._spec.name, cause)
        self._actor = self._start()
        self._outbox.clear()
        self._actor.submit.remote([(number, request) for number, (request, _) in self.outstanding.items()])
        return True


def _require_reachable(address: str | None) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    if address is None or address in ("local", "auto"):
        return
    try:
        if found is None:
            raise OSError("expected HOST:PORT, ray://HOST:PORT, auto or local")
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {address}: {error}; start one or leave --address out") from None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def start_ray(address: str | None = None) -> bool:
    """Connect to Ray, or start it on this machine; usage reports stay off unless RAY_USAGE_STATS_ENABLED is set.

    Args:
        address: of a cluster; None takes the one that RAY_ADDRESS names or that runs on this machine, else starts one.

    Returns:
        whether it was this call that started it: then `ray.shutdown()` is the caller's to do.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _require_reachable(address)
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, ValueError) as error:
        if address is None:
            raise
        raise ConfigError(f"no Ray cluster answers at {address}: {_last_line(error)}") from None
    return True


def require_gpus(specs: Iterable[ModelSpec], may_grow: bool) -> None:
    """Compare the GPUs that pools will ask for with what Ray has: it would wait for them for ever, and say nothing.

    Raises:
        ConfigError: there are too few; with `may_grow`, for a cluster that adds machines by itself, only a warning.
    """
    import ray

    asked = sum(spec.pool.replicas * spec.gpus for spec in specs)
    have = ray.cluster_resources().get("GPU", 0.0) if asked else 0.0
    if asked <= have:
        return
    few = f"the pools ask for {asked:g} GPUs, Ray has {have:g}"
    if not may_grow:
        raise ConfigError(
            f"{few}; set engine.device=cpu (vllm.device=cpu), fewer pool.replicas, or a fraction with pool.gpus=0.5"
        )
    logger.warning("%s; waiting for the cluster to grow", few)
