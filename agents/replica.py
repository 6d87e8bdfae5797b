"""The replica: a Ray actor that hosts one engine.

One call brings as many requests as are ready, one call takes back as many completions as are done; the engine inside
works on all of them at once.
"""

import asyncio
from functools import cached_property

from agents.engines import ModelSpec, make_engine
from agents.types import Completion, Engine, EngineError, Request

Answer = tuple[int, Completion | EngineError]


class Replica:
    """Made with `ray.remote(Replica)` by the pool; an ordinary class, so that tests need no Ray."""

    def __init__(self, spec: ModelSpec):
        self._spec = spec
        self._answers: list[Answer] = []
        self._answered = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @cached_property
    def _engine(self) -> Engine:
        # Not in the constructor: there Ray would take an error for a process that died, and lose its type.
        return make_engine(self._spec)

    async def load(self) -> None:
        """Load the model.

        Raises:
            ConfigError: it cannot be used.
        """
        self._engine  # noqa: B018

    async def submit(self, requests: list[tuple[int, Request]]) -> None:
        """Take in requests under the caller's numbers; their answers come from `collect`."""
        for number, request in requests:
            task = asyncio.create_task(self._answer(number, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> list[Answer]:
        """Wait until something is answered, then return all that is, each answer once."""
        await self._answered.wait()
        self._answered.clear()
        answers, self._answers = self._answers, []
        return answers

    async def _answer(self, number: int, request: Request) -> None:
        try:
            answer = await self._engine.complete(request)
        except EngineError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - an engine's defect must reach the caller, not stop the replica
            answer = EngineError(f"{type(error).__name__}: {error}")
        self._answers.append((number, answer))
        self._answered.set()
