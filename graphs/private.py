"""Models asked outside of episodes, from any thread and any event loop: a company of their own, closed at exit.

All of them live on one event loop, on a thread of its own, which is started when the first is asked.
"""

import asyncio
import atexit
import contextlib
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from agents.cast import Cast
from agents.company import Company, open_company
from agents.engines import Model
from agents.types import EngineError, Request, seed_of
from graphs.record import Call
from graphs.turns import Turn, make_turn

CLOSE_S = 10.0
"""How long engines have for closing at exit."""
_Value = TypeVar("_Value")
_starting = threading.Lock()


class _Backstage:
    """The event loop and the companies on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._companies: dict[str | int, tuple[Model | Cast, asyncio.Task[Company]]] = {}
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="palaestra models")
        self._thread.start()
        atexit.register(self._close)

    async def company(self, model: Model | Cast) -> Company:
        """The model's company: one for each name, one for each engine or cast."""
        key = model if isinstance(model, str) else id(model)
        if key not in self._companies:
            cast = model if isinstance(model, Cast) else Cast.all(model)
            opened = self._stack.enter_async_context(open_company(cast, (), backend="local"))
            self._companies[key] = model, asyncio.create_task(opened)
        opening = self._companies[key][1]
        try:
            return await asyncio.shield(opening)
        except Exception:
            self._companies.pop(key, None)  # whoever asks next tries again
            raise

    def _close(self) -> None:
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._stack.aclose(), self.loop).result(CLOSE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE_S)


_backstage: list[_Backstage] = []


def backstage() -> _Backstage:
    with _starting:
        if not _backstage:
            _backstage.append(_Backstage())
    return _backstage[0]


async def answer(model: Model | Cast, call: Call, number: int) -> Turn:
    """Ask a model of its own; on the loop of `backstage`. Nothing is recorded.

    Args:
        model: who answers.
        call: what is asked.
        number: of the call among those of its chat model; seeds it where the call brings no seed.

    Raises:
        ConfigError: no such model.
        EngineError: the call cannot be answered.
    """
    company = await backstage().company(model)
    request = Request(
        key=f"chat/0/{call.role}/{number}",
        messages=tuple(call.messages),
        sampling=company.sampling(call.role, call.wishes),
        seed=seed_of("chat", call.role, *([number] if call.seed is None else ["seed", call.seed])),
        tools=call.tools,
        tool_choice=call.tool_choice,
        schema=call.schema,
    )
    completion = await company.complete(call.role, request)
    place: dict[str, Any] = {"round": 1, "after": 0, "reads": (), "follows": None}
    return make_turn(request, completion, id=f"{call.role}/{number}", role=call.role, move="chat", **place)


def wait(loop: asyncio.AbstractEventLoop, asked: Coroutine[Any, Any, _Value], who: str) -> _Value:
    """Have a coroutine run on an event loop, and block this thread until it has ended.

    Raises:
        EngineError: this is the loop's own thread, which would wait for itself.
    """
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        asked.close()
        raise EngineError(
            f"{who} was asked with invoke() within an async node, which would stop every other episode: await its "
            "ainvoke(), or make the node a plain function"
        )
    return asyncio.run_coroutine_threadsafe(asked, loop).result()


async def reach(loop: asyncio.AbstractEventLoop, asked: Coroutine[Any, Any, _Value]) -> _Value:
    """Await a coroutine on an event loop, from this one or another."""
    if asyncio.get_running_loop() is loop:
        return await asked
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, loop))
