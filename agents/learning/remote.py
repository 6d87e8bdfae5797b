"""The trainer as a Ray actor, and the caller's end of it.

The actor works on one thread, in the order in which it is asked, and meanwhile answers for its status. With several
workers it hands what it is asked to processes that Ray Train runs (agents.learning.sharded). Directories that it is
given have to be where its processes can reach them.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.cluster import Ask, last_line, require_resources
from agents.engines import parse_model
from agents.learning.samples import Pair, Sample, SampleError
from agents.learning.trainer_settings import (
    Placement,
    PolicySettings,
    TrainerDiedError,
    TrainerError,
    TrainerSettings,
    TrainerStatus,
)
from agents.probe import Probe
from agents.serving import read_labels
from agents.types import EngineError
from envs.errors import ConfigError

Metrics = dict[str, float]
SAID = (ConfigError, EngineError, SampleError, TrainerError)
"""Errors that leave the trainer as it was, or as their message says."""
CLOSE_S = 10.0
"""How long workers have for ending before they are killed."""
logger = logging.getLogger("palaestra.trainer")


@dataclass(frozen=True)
class ActorStatus:
    """What a trainer's actor says of itself."""

    pid: int
    host: str
    doing: str
    """The call that is under way; empty when there is none."""
    trainer: TrainerStatus


class TrainerActor:
    """One process with a trainer. Made with `ray.remote` by `start_trainer`; an ordinary class."""

    def __init__(self, settings: TrainerSettings, policies: Mapping[str, PolicySettings]):
        self._settings, self._policies = settings, policies
        # Torch's number of threads is a thread's own: everything is made and done on this one.
        self._thread = ThreadPoolExecutor(1, "trainer")
        self._trainer: Any = None
        self._doing = "open"

    async def open(self) -> None:
        """Load the models. Not in the constructor: there Ray would lose an error's type."""
        self._trainer = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        self._doing = ""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the trainer, after those that were asked before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, method, arguments)

    async def status(self) -> ActorStatus:
        trainer = self._trainer.status() if self._trainer else TrainerStatus(0, {})
        return ActorStatus(os.getpid(), socket.gethostname(), self._doing, trainer)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> Any:
        from agents.learning.trainer import Trainer

        return Trainer(self._settings, self._policies)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        self._doing = method
        try:
            return getattr(self._trainer, method)(*arguments)
        finally:
            self._doing = ""


class RemoteTrainer:
    """A trainer that runs as a Ray actor; its methods are those of agents.learning.trainer.Trainer, to be awaited.

    All raise TrainerDiedError when its process is gone; `restart` then begins again from the last save.
    """

    def __init__(self, start: Callable[[], Any]):
        """
        Args:
            start: starts an actor with `open`, `call`, `status` and `close`; `open` returns the placement group that
                outlives it, if there is one.
        """
        self._start = start
        self._actor: Any = None
        self._place: Any = None
        self._saved: str | None = None

    async def open(self) -> None:
        """Start the actor and wait until it has loaded its models."""
        self._actor = self._start()
        try:
            self._place = await self._ask("open")
        except BaseException:
            await self.close()
            raise

    async def step(self, items: Sequence[Sample | Pair]) -> dict[str, Metrics]:
        return await self._ask("call", "step", items)

    async def update(
        self, items: Sequence[Sample | Pair], epochs: int = 1, minibatch: int | None = None
    ) -> list[dict[str, Metrics]]:
        return await self._ask("call", "update", items, epochs, minibatch)

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        return await self._ask("call", "score", ids, policy)

    async def probe(self, policy: str = "") -> Probe:
        return await self._ask("call", "probe", policy)

    async def export(self, policy: str, directory: Path | str) -> str:
        return await self._ask("call", "export", policy, str(Path(directory).absolute()))

    async def save(self, directory: Path | str) -> None:
        directory = str(Path(directory).absolute())
        await self._ask("call", "save", directory)
        self._saved = directory

    async def load(self, directory: Path | str) -> None:
        directory = str(Path(directory).absolute())
        await self._ask("call", "load", directory)
        self._saved = directory

    async def status(self) -> ActorStatus:
        """How it is; answered also while it works."""
        return await self._ask("status")

    async def restart(self) -> ActorStatus:
        """Kill the actor if it is still there, start another, and have it load what was saved or loaded last.

        What was learned after that is to be learned again: the status says after how many steps it is.
        """
        self._kill()
        await self.open()
        if self._saved:
            await self.load(self._saved)
        return await self.status()

    async def close(self) -> None:
        """End the actor, whatever it is doing. May be called again."""
        from ray.exceptions import RayError

        if self._actor is None:
            return
        try:
            await asyncio.wait_for(self._actor.close.remote(), CLOSE_S)
        except (RayError, TimeoutError) as error:
            logger.warning("the trainer did not close by itself (%s) and is killed", last_line(error))
        self._kill()

    def _kill(self) -> None:
        import ray

        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)
            self._actor = None
        if self._place is not None:
            ray.util.remove_placement_group(self._place)
            self._place = None

    async def _ask(self, method: str, *arguments: Any) -> Any:
        from ray.exceptions import RayActorError, RayError

        if self._actor is None:
            raise TrainerDiedError("the trainer was closed")
        try:
            return await getattr(self._actor, method).remote(*arguments)
        except RayActorError as error:
            raise TrainerDiedError(
                f"the trainer's process died ({last_line(error)}); restart it, and go on from its last save"
            ) from None
        except RayError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, SAID) else TrainerError(last_line(error)) from None


async def start_trainer(
    settings: TrainerSettings,
    policies: Mapping[str, PolicySettings],
    placement: Placement | None = None,
    may_grow: bool = False,
) -> RemoteTrainer:
    """Start a trainer on the Ray that this process is connected to, and wait until it has loaded its models.

    Args:
        settings: see agents.learning.trainer.Trainer, as for `policies`.
        policies: paths in them are taken from this process's working directory.
        placement: how many processes, and where.
        may_grow: whether the cluster adds machines by itself: then it is no error that there are too few now.

    Raises:
        ConfigError: a model that cannot be trained, or more asked for than Ray has.
        EngineError: weights that cannot be loaded.
    """
    placement = placement or Placement()
    found = {name: _absolute(policy) for name, policy in policies.items()}
    gpus = float(settings.device == "cuda") if placement.gpus is None else placement.gpus
    cpus = placement.cpus if placement.workers > 1 else 0.0
    resources = {"GPU": gpus, "CPU": cpus} | ({placement.resource: 1.0} if placement.resource else {})
    ask = Ask("the trainer's workers", resources, read_labels(placement.labels), placement.workers)
    require_resources([ask], may_grow)
    trainer = RemoteTrainer(lambda: _start(settings, found, placement, ask))
    await trainer.open()
    return trainer


def _start(settings: TrainerSettings, policies: Mapping[str, PolicySettings], placement: Placement, ask: Ask) -> Any:
    import ray

    if placement.workers > 1:
        from agents.learning.sharded import ShardedTrainer

        actor: Any = ray.remote(ShardedTrainer)
        return actor.options(num_cpus=0, max_restarts=0).remote(settings, policies, placement, ask)
    actor = ray.remote(TrainerActor)
    return actor.options(**ask.options()).remote(settings, policies)


def _absolute(policy: PolicySettings) -> PolicySettings:
    start = str(Path(policy.start).absolute()) if policy.start else ""
    return replace(policy, model=parse_model(policy.model).name, start=start)
