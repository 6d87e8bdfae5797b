"""A trainer in several processes that Ray Train runs, each with a share of every weight (FSDP2).

The actor hands what it is asked to all workers, in one order; each does it with a trainer of its own, and rank 0
answers. A worker that fails in a way that the trainer does not foresee ends them all.
"""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from typing import Any

from agents.cluster import Ask, last_line
from agents.learning.remote import SAID, ActorStatus
from agents.learning.trainer_settings import (
    Placement,
    PolicySettings,
    TrainerDiedError,
    TrainerSettings,
    TrainerStatus,
)

START_ATTEMPTS = 10
"""How often Ray Train tries to start the workers, a minute each; its own default is without end."""
_Command = tuple[str, tuple[Any, ...]]


class ShardedTrainer:
    """The actor; see agents.learning.remote.TrainerActor, whose methods these are."""

    def __init__(
        self,
        settings: TrainerSettings,
        policies: Mapping[str, PolicySettings],
        placement: Placement,
        ask: Ask,
    ):
        """
        Args:
            settings, policies, placement: see agents.learning.remote.start_trainer.
            ask: of each worker.
        """
        self._settings, self._policies, self._placement, self._ask = settings, policies, placement, ask
        self._commands: dict[int, _Command | None] = {}
        """Those that not every worker has fetched yet; None tells it to end."""
        self._fetched: dict[int, int] = {}
        self._awaited: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        """What was asked and is not answered: the method, and who waits."""
        self._asked = 0
        self._posted = asyncio.Event()
        self._trainer = TrainerStatus(0, {})
        self._ended = ""
        self._place: Any = None
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> Any:
        """Start the workers and wait until they have loaded the models. Returns the placement group that they are in:
        when this process is killed it stays, and with it what they had reserved."""
        self._running = asyncio.create_task(self._run())
        await self.call("status")
        return self._place

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of every worker's trainer, after those that were asked before. Returns what rank 0 does."""
        if self._ended:
            raise TrainerDiedError(self._ended)
        answer = asyncio.get_running_loop().create_future()
        self._awaited[self._asked] = method, answer
        self._post((method, arguments))
        return await answer

    async def status(self) -> ActorStatus:
        doing = self._awaited[min(self._awaited)][0] if self._awaited else ""
        return ActorStatus(os.getpid(), socket.gethostname(), doing, self._trainer)

    async def close(self) -> None:
        self._post(None)
        if self._running:
            await self._running

    async def fetch(self, number: int) -> _Command | None:
        """For workers: what they are asked to do as their `number`-th, once there is such."""
        while number >= self._asked:
            self._posted.clear()
            await self._posted.wait()
        if number not in self._commands:
            raise TrainerDiedError("Ray Train started the workers again, without what they had learned")
        command = self._commands[number]
        self._fetched[number] = self._fetched.get(number, 0) + 1
        if self._fetched[number] == self._placement.workers:
            del self._commands[number], self._fetched[number]
        return command

    async def placed(self, group: Any) -> None:
        """For rank 0: where the workers are."""
        self._place = group

    async def answer(self, number: int, result: Any, error: Exception | None, status: TrainerStatus) -> None:
        """For rank 0: what came of it."""
        self._trainer = status
        _, waiting = self._awaited.pop(number)
        if waiting.done():
            return  # its caller has gone
        if error is None:
            waiting.set_result(result)
        else:
            waiting.set_exception(error)

    def _post(self, command: _Command | None) -> None:
        self._commands[self._asked] = command
        self._asked += 1
        self._posted.set()

    async def _run(self) -> None:
        """Run the workers until they end; whoever still waits for an answer is told."""
        import ray

        me = ray.get_runtime_context().current_actor
        try:
            await asyncio.to_thread(self._fit, me)
            self._ended = "the trainer was closed"
        except Exception as error:  # noqa: BLE001 - whatever ends the workers; the message says what
            self._ended = f"a worker of the trainer ended: {last_line(error)}; restart it, and go on from its last save"
        for _, waiting in self._awaited.values():
            if not waiting.done():
                waiting.set_exception(TrainerDiedError(self._ended))
        self._awaited.clear()

    def _fit(self, me: Any) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        settings, policies, cuda = self._settings, dict(self._policies), self._settings.device == "cuda"

        def work() -> None:
            run_worker(me, settings, policies)

        # Ray Train wants a place to keep what is reported to it; nothing is.
        storage = tempfile.mkdtemp(prefix="palaestra-trainer-")
        try:
            TorchTrainer(
                work,
                scaling_config=ScalingConfig(
                    num_workers=self._placement.workers,
                    use_gpu=cuda,
                    resources_per_worker=dict(self._ask.resources),
                    label_selector=dict(self._ask.labels) or None,
                ),
                torch_config=TorchConfig(
                    backend="nccl" if cuda else "gloo", timeout_s=round(self._placement.timeout_s)
                ),
                run_config=RunConfig(
                    storage_path=storage,
                    failure_config=FailureConfig(max_failures=0, controller_failure_limit=START_ATTEMPTS),
                ),
            ).fit()
        finally:
            shutil.rmtree(storage, ignore_errors=True)


def run_worker(actor: Any, settings: TrainerSettings, policies: Mapping[str, PolicySettings]) -> None:
    """What each worker does: what the actor has been asked, until there is no more."""
    import ray

    from agents.learning.distributed import ShardedWorkers
    from agents.learning.trainer import Trainer

    workers = ShardedWorkers(settings.device, settings.computes_in)
    if workers.rank == 0:
        ray.get(actor.placed.remote(ray.util.get_current_placement_group()))
    trainer: Trainer | None = None
    number = 0
    while (command := ray.get(actor.fetch.remote(number))) is not None:
        method, arguments = command
        result, error = None, None
        try:
            trainer = trainer or Trainer(settings, policies, workers)
            result = getattr(trainer, method)(*arguments)
        except SAID as refused:
            error = refused
        if workers.rank == 0:
            status = trainer.status() if trainer else TrainerStatus(0, {})
            ray.get(actor.answer.remote(number, result, error, status))
        number += 1
