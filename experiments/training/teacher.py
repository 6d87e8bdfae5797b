"""The loop's end of the trainer: in this process on a thread of its own, or as a Ray actor; awaited alike."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from agents.company import Backend
from agents.learning.samples import Pair, Sample
from agents.learning.trainer_settings import Placement, PolicySettings, TrainerSettings
from agents.probe import Probe

Metrics = dict[str, float]


class Teacher(Protocol):
    """What the loop asks of a trainer; see agents.learning.trainer.Trainer."""

    async def update(
        self, items: Sequence[Sample | Pair], epochs: int = 1, minibatch: int | None = None
    ) -> list[dict[str, Metrics]]: ...

    async def probe(self, policy: str = "") -> Probe: ...

    async def export(self, policy: str, directory: Path | str) -> str: ...

    async def save(self, directory: Path | str) -> None: ...

    async def load(self, directory: Path | str) -> None: ...

    async def versions(self) -> Mapping[str, str]:
        """Policy -> the version that was exported last, or that it starts from; empty for a new adapter."""
        ...


class LocalTeacher:
    """A trainer in this process."""

    def __init__(self, settings: TrainerSettings, policies: Mapping[str, PolicySettings]):
        self._settings, self._policies = settings, policies
        # Torch's number of threads is a thread's own: everything is made and done on this one.
        self._thread = ThreadPoolExecutor(1, "trainer")
        self._trainer: Any = None

    async def open(self) -> None:
        from agents.learning.trainer import Trainer

        self._trainer = await self._do(lambda: Trainer(self._settings, self._policies))

    async def update(
        self, items: Sequence[Sample | Pair], epochs: int = 1, minibatch: int | None = None
    ) -> list[dict[str, Metrics]]:
        return await self._do(lambda: self._trainer.update(items, epochs, minibatch))

    async def probe(self, policy: str = "") -> Probe:
        return await self._do(lambda: self._trainer.probe(policy))

    async def export(self, policy: str, directory: Path | str) -> str:
        return await self._do(lambda: self._trainer.export(policy, directory))

    async def save(self, directory: Path | str) -> None:
        await self._do(lambda: self._trainer.save(directory))

    async def load(self, directory: Path | str) -> None:
        await self._do(lambda: self._trainer.load(directory))

    async def versions(self) -> Mapping[str, str]:
        return self._trainer.status().versions

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _do(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class RemoteTeacher:
    """A trainer's actor."""

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self.update, self.probe, self.export = trainer.update, trainer.probe, trainer.export
        self.save, self.load = trainer.save, trainer.load

    async def versions(self) -> Mapping[str, str]:
        return (await self._trainer.status()).trainer.versions


@asynccontextmanager
async def open_teacher(
    settings: TrainerSettings,
    policies: Mapping[str, PolicySettings],
    placement: Placement,
    backend: Backend = "ray",
    may_grow: bool = False,
) -> AsyncIterator[Teacher]:
    """A trainer that has loaded its policies, for as long as it is needed. With backend ray, Ray has to be connected.

    Raises:
        ConfigError: a model that cannot be trained, or more asked for than Ray has.
        EngineError: weights that cannot be loaded.
    """
    if backend == "local":
        local = LocalTeacher(settings, policies)
        try:
            await local.open()
            yield local
        finally:
            local.close()
        return
    from agents.learning.remote import start_trainer

    trainer = await start_trainer(settings, policies, placement, may_grow)
    try:
        yield RemoteTeacher(trainer)
    finally:
        await trainer.close()
