"""What the thread of the transformers engine is asked, and how its answers find back to their event loops."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agents.engines.choices import Choices
from agents.types import Completion, Request


@dataclass(eq=False)
class Row:
    """A request on its way through the batch."""

    request: Request
    future: "asyncio.Future[Completion]"
    loop: asyncio.AbstractEventLoop
    arrived: float
    prompt: list[int] = field(default_factory=list)
    limit: int = 0
    """Most tokens to sample."""
    matcher: Any = None
    """Follows the reply where it is held to a schema."""
    choices: Choices | None = None
    """What the reply is picked from, where nothing is sampled."""
    uniforms: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    certainty: list[float] = field(default_factory=list)
    started: float = 0.0


@dataclass(eq=False)
class Job:
    """Something else to be done on the engine's thread."""

    do: Callable[[], Any]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    at_once: bool = False
    """Whether it leaves the rows under way as they are, and is done between two of their steps; else it waits until
    none is."""

    def answer(self) -> None:
        """Do it, and hand the result to its caller."""
        try:
            result = self.do()
        except Exception as error:  # noqa: BLE001 - its caller's to see
            result = error
        answer([(self, result)])


Results = Sequence[tuple[Row | Job, Any]]
"""What each is answered: a completion or a job's result, or an exception."""


def answer(results: Results) -> None:
    """Hand results to their callers: one wake-up of each event loop, however many rows are done."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Row | Job, Any]]] = {}
    for row, result in results:
        by_loop.setdefault(row.loop, []).append((row, result))
    for loop, batch in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, batch)


def _resolve(batch: Results) -> None:
    for row, result in batch:
        if row.future.done():
            continue
        if isinstance(result, Exception):
            row.future.set_exception(result)
        else:
            row.future.set_result(result)
