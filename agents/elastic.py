"""Elastic pools: replicas are added as requests pile up, and ended when they are not needed any more.

How many there are is decided by outstanding requests and the clock; what a request is answered with depends on neither.
A replica is added to its pool when it has loaded, has the weights that the pool serves now and scored their probe.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from agents.publishing import Publisher, ReplicaEnd
from agents.serving import PoolSettings
from agents.types import EngineError
from envs.errors import ConfigError

TICK_S = 0.5
"""How often is looked whether there are enough."""
logger = logging.getLogger("palaestra.pool")


def wanted(outstanding: int, settings: PoolSettings) -> int:
    """How many replicas a pool is to have while so many requests are outstanding."""
    most = settings.max or settings.replicas
    return min(most, max(settings.replicas, -(-outstanding // settings.load)))


class Elastic:
    """Sees to it that one pool has as many replicas as it wants; runs until it is closed."""

    def __init__(
        self,
        settings: PoolSettings,
        replicas: dict[int, ReplicaEnd],
        start: Callable[[int], ReplicaEnd],
        publisher: Publisher,
        outstanding: Callable[[], int],
    ):
        """
        Args:
            settings: of the pool.
            replicas: the pool's, by number; written here.
            start: starts the replica of a number, which is never used again.
            publisher: of the pool: a replica is added and taken out between two publishes.
            outstanding: requests that were asked of the pool and are not answered, those that wait among them.
        """
        self._settings, self._replicas, self._start = settings, replicas, start
        self._publisher, self._outstanding = publisher, outstanding
        self._starting: dict[asyncio.Task[None], ReplicaEnd] = {}
        self._next = settings.replicas
        self._failures = 0
        self._enough_since = asyncio.get_running_loop().time()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End with what is starting; the pool's own replicas are left alone."""
        tasks, ends = [self._running, *self._starting], list(self._starting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in ends))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            want = wanted(self._outstanding(), self._settings)
            alive = [replica for replica in self._replicas.values() if replica.state != "dead"]
            missing = want - len(alive) - len(self._starting)
            if want >= len(alive):
                self._enough_since = loop.time()
            if self._failures <= self._settings.restarts:
                for _ in range(missing):
                    self._add()
            if loop.time() - self._enough_since >= self._settings.idle_s:
                await self._end_one(alive)

    def _add(self) -> None:
        replica = self._start(self._next)
        self._next += 1
        task = asyncio.get_running_loop().create_task(self._join(replica))
        self._starting[task] = replica
        task.add_done_callback(lambda done: self._starting.pop(done, None))

    async def _join(self, replica: ReplicaEnd) -> None:
        """Wait until a replica is up, for as long as the cluster takes to find room for it, and let it serve."""
        try:
            await replica.up()
            async with self._publisher.between():
                # What was published while it loaded.
                await self._publisher.bring_up_to_date(replica)
                self._replicas[replica.number] = replica
        except (ConfigError, EngineError) as error:
            self._failures += 1
            logger.warning("replica %d could not be added to its pool: %s", replica.number, error)
            await replica.close()

    async def _end_one(self, alive: Collection[ReplicaEnd]) -> None:
        """End the newest replica that has nothing to do."""
        async with self._publisher.between():
            idle = [replica for replica in alive if replica.state == "ready" and not replica.outstanding]
            if idle and len(alive) > self._settings.replicas:
                replica = self._replicas.pop(max(idle, key=lambda one: one.number).number)
                # The next one has been needed until now, for all that is known.
                self._enough_since = asyncio.get_running_loop().time()
                await replica.close()
