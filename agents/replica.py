"""The replica: a Ray actor that hosts one engine, or the same without Ray in the pool's own process.

One call brings as many requests as are ready, one call takes back as many completions as are done; the engine inside
works on all of them at once.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from agents.engines import ModelSpec, make_engine
from agents.types import Completion, Embeds, Engine, EngineDiedError, EngineError, Publishable, Request

Asked = Request | str
"""A request to be completed, or a text to be embedded."""
Answer = tuple[int, Completion | tuple[float, ...] | EngineError]


@dataclass(frozen=True)
class Status:
    """What a replica says of itself."""

    pid: int
    host: str
    versions: dict[str, str]
    """Policy -> version of its weights; the engine's own under the empty name."""


class Replica:
    """Made with `ray.remote(Replica)` by the pool; an ordinary class, so that tests need no Ray."""

    def __init__(self, spec: ModelSpec):
        self._spec = spec
        self._answers: list[Answer] = []
        self._answered = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._adapters: dict[str, str] = {}
        self._died: EngineDiedError | None = None

    @cached_property
    def engine(self) -> Engine:
        # Not in the constructor: there Ray would take an error for a process that died, and lose its type.
        return make_engine(self._spec)

    async def load(self) -> Status:
        """Load the model.

        Raises:
            ConfigError: it cannot be used.
        """
        self.engine  # noqa: B018
        return await self.status()

    async def status(self) -> Status:
        return Status(os.getpid(), socket.gethostname(), {"": self.engine.version, **self._adapters})

    async def submit(self, asked: list[tuple[int, Asked]]) -> None:
        """Take in what is asked under the caller's numbers; the answers come from `collect`."""
        for number, one in asked:
            task = self._tasks[number] = asyncio.create_task(self._answer(number, one))
            task.add_done_callback(lambda _, number=number: self._tasks.pop(number, None))

    async def cancel(self, numbers: list[int]) -> None:
        """Drop requests whose callers have gone; nothing is answered for them."""
        for number in numbers:
            if task := self._tasks.get(number):
                task.cancel()

    async def collect(self) -> list[Answer]:
        """Wait until something is answered, then return all that is, each answer once.

        Raises:
            EngineDiedError: nothing will be any more; what it had been asked can be asked of another replica.
        """
        await self._answered.wait()
        self._answered.clear()
        if self._died:
            raise self._died
        answers, self._answers = self._answers, []
        return answers

    async def publish(self, policy: str, version: str, source: str) -> None:
        """Have the engine take over weights, and confirm their version; see agents.types.Publishable.

        Raises:
            EngineError: the engine cannot, or names another version afterwards.
        """
        engine = self._publishable()
        await engine.publish(policy, version, Path(source))
        if policy:
            self._adapters[policy] = version
        elif self.engine.version != version:
            raise EngineError(f"the engine says it has version {self.engine.version} after publishing {version}")

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]`; see agents.types.Publishable."""
        return await self._publishable().score(ids, policy)

    async def embed(self, text: str) -> tuple[float, ...]:
        """The vector of a text; see agents.types.Embeds."""
        if not isinstance(self.engine, Embeds):
            raise EngineError(
                f"the engine of {self._spec.name} gives no embeddings; embedded, hf:DIR and openai:NAME@URL do, and "
                "so does embedder minilm beside any engine"
            )
        return await self.engine.embed(text)

    async def close(self) -> None:
        """Close the engine, if it was ever loaded."""
        if "engine" in self.__dict__:
            await self.engine.close()

    def _publishable(self) -> Publishable:
        if not isinstance(self.engine, Publishable):
            raise EngineError(
                f"the engine of {self._spec.name} can neither take over weights nor score token ids; "
                "embedded, hf:DIR and vllm:DIR can"
            )
        return self.engine

    async def _answer(self, number: int, asked: Asked) -> None:
        try:
            answer = await (self.embed(asked) if isinstance(asked, str) else self.engine.complete(asked))
        except EngineDiedError as error:
            self._died = error
            self._answered.set()
            return
        except EngineError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - an engine's defect must reach the caller, not stop the replica
            answer = EngineError(f"{type(error).__name__}: {error}")
        self._answers.append((number, answer))
        self._answered.set()
