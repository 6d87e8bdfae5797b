"""Agent functions: `async def solve(question: str, base_url: str) -> str` plays as a topology.

The function may be written with any framework that speaks to OpenAI's chat completions; the roles it asks are its
model names. For the time of a run a gateway listens on a free loopback port, and each episode has a base_url there.
"""

import asyncio
import inspect
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import partial
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agents.types import seed_of
from envs.errors import ConfigError, bind_settings, clip
from envs.types import final_answer
from experiments.gateway.episodes import Gateway
from graphs.record import CURRENT, Recorder
from graphs.table import Stage, Table
from graphs.topology import Topology

THREADS = 256
"""Functions that are not async run in threads: most of them at once."""

_GIVEN = ("question", "base_url", "api_key", "task_id", "seed")
_workshop: ContextVar["_Workshop"] = ContextVar("palaestra_workshop")
Answering = Callable[[Stage, Recorder], Awaitable[Any]]


def is_agent(function: Any) -> bool:
    """Whether this is an agent function: it takes `question` and `base_url`."""
    try:
        return {"question", "base_url"} <= inspect.signature(function).parameters.keys()
    except (TypeError, ValueError):
        return False


def agent_topology(function: Callable[..., Any], settings: Mapping[str, Any], name: str = "") -> Topology:
    """The topology of an agent function.

    Args:
        function: gets `question`, `base_url`, and of `api_key`, `task_id` and `seed` (the episode's) those that it
            takes; what it returns is the answer. When it is not async it runs in a thread.
        settings: its other keyword arguments.
        name: for records; the function's when empty.

    Raises:
        ConfigError: an unknown or unusable setting.
    """
    name = name or getattr(function, "__name__", type(function).__name__)
    taken = [parameter for parameter in _GIVEN if parameter in inspect.signature(function).parameters]
    for key in settings.keys() & set(_GIVEN):
        raise ConfigError(f"topology {name}: {key} is given by the run; leave out --set {key}=…")
    own = bind_settings(function, settings, f"topology {name}", given=taken)

    async def answer(stage: Stage, recorder: Recorder) -> Any:
        workshop = _workshop.get()
        with workshop.gateway.admit(recorder) as episode:
            given = {
                "question": stage.task.question,
                "base_url": workshop.gateway.base_url(episode),
                "api_key": workshop.gateway.token,
                "task_id": stage.task.id,
                "seed": seed_of(stage.seed, stage.task.id, stage.sample, "agent"),
            }
            return await workshop.run(function, **{key: given[key] for key in taken}, **own)

    roles, calls = getattr(function, "roles", None), getattr(function, "calls", None)
    asked = tuple(roles(**own)) if roles else ()

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        from experiments.gateway.app import make_app
        from experiments.gateway.server import bind, listening, url_of

        gateway = Gateway(asked, secrets.token_urlsafe(32))
        at = bind("127.0.0.1", 0)
        gateway.url = url_of(at)
        workshop = _Workshop(gateway)
        previous = _workshop.set(workshop)
        try:
            async with listening(make_app(gateway), at, gateway.token):
                yield
        finally:
            _workshop.reset(previous)
            await workshop.close()

    topology = outside(name, asked, answer, own, calls(**own) if calls else None, opened)
    return replace(topology, again=partial(agent_topology, function, settings, name))


def outside(
    name: str,
    roles: Sequence[str],
    answer: Answering,
    settings: Mapping[str, Any] | None = None,
    calls: int | None = None,
    opened: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> Topology:
    """A topology of one node: `answer` has agents outside play the episode, and returns what they answered.

    The answer is read as a reply's is, where it is marked; else it is taken as it stands.
    """

    async def agent(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        found = await answer(runtime.context, CURRENT.get())
        if not isinstance(found, str | None):
            raise TypeError(f"expected the answer as text, found {clip(found)}")
        return {"answer": read_answer(found), "stop_reason": "answered"}

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    graph.add_edge("agent", END)
    return Topology(name, graph.compile(), tuple(roles), calls, settings, opened=opened)


def read_answer(text: str | None) -> str | None:
    """The final answer of a text that marks one, else the text itself; None when there is none."""
    return None if text is None else final_answer(text) or text.strip() or None


class _Workshop:
    """Where users' functions run: a thread with an event loop, and threads for those that are not async.

    Never our own loop: a function that blocks its loop, by a client that is not async, would wait for ever for the
    gateway that answers on it.
    """

    def __init__(self, gateway: Gateway):
        self.gateway = gateway
        self._threads = ThreadPoolExecutor(THREADS, "palaestra agent")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="palaestra agents", daemon=True)
        self._thread.start()

    async def run(self, function: Callable[..., Any], **arguments: Any) -> Any:
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            future = asyncio.run_coroutine_threadsafe(_contained_async(function, arguments), self._loop)
        else:
            future = self._threads.submit(copy_context().run, _contained, function, arguments)
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, 5)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stop.wait())


async def _contained_async(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return await function(**arguments)
    except SystemExit as error:
        raise RuntimeError(f"the agent function ended the program (SystemExit: {error})") from None


def _contained(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except SystemExit as error:
        raise RuntimeError(f"the agent function ended the program (SystemExit: {error})") from None
