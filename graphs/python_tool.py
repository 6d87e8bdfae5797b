"""The tool `python` as a LangChain tool, for graphs that know nothing of Palaestra, and the sandboxes that a run has.

`tools=[python_tool()]` in create_agent, or ToolNode([python_tool()]): what the model writes is run in a sandbox
(docs/sandbox.md) that all episodes of the run share. Outside of a run each program has a sandbox of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.tools import StructuredTool

from envs.sandbox import Backend, Limits, Sandbox, open_sandbox
from envs.sandbox.tool import DESCRIPTION, LIMITS, TOOL, Outcome, Program, complaint
from graphs.private import backstage, reach, wait
from graphs.record import CURRENT

_Key = tuple[Backend, Limits, int]
_Answer = tuple[str, dict[str, Any]]
_sandboxes: ContextVar["_Sandboxes"] = ContextVar("palaestra_sandboxes")


class _Sandboxes:
    """Those of a run, each opened when it is first asked for."""

    def __init__(self) -> None:
        self._opened: dict[_Key, Sandbox] = {}
        self._closed = False

    def get(self, key: _Key) -> Sandbox | None:
        """None when the run is over: a thread that nothing can stop may still ask."""
        if key not in self._opened and not self._closed:
            self._opened[key] = open_sandbox(*key)
        return self._opened.get(key)

    async def close(self) -> None:
        opened, self._opened, self._closed = self._opened, {}, True
        for sandbox in opened.values():
            await sandbox.close()


@asynccontextmanager
async def sandboxes() -> AsyncIterator[None]:
    """Have all that asks for a sandbox within the block share it, and close it at the end."""
    own = _Sandboxes()
    outside = _sandboxes.set(own)
    try:
        yield
    finally:
        _sandboxes.reset(outside)
        await own.close()


def shared_sandbox(sandbox: Backend, limits: Limits, workers: int) -> Sandbox | None:
    """The run's sandbox of this kind; None where there is no run."""
    run = _sandboxes.get(None)
    return run and run.get((sandbox, limits, workers))


def python_tool(sandbox: Backend = "monty", limits: Limits = LIMITS, workers: int = 2) -> StructuredTool:
    """A tool that runs programs.

    A program that fails is an answer, and so are arguments that are no program: nothing is raised for what a model
    asks. The answer's `artifact` says what came of the program: `ended`, `message` and `output`, as in
    envs.sandbox.tool.Outcome.

    Args:
        sandbox: "monty" or "bubblewrap".
        limits: of each program.
        workers: most programs at once, in a run.

    Raises:
        ConfigError: a sandbox that cannot run here, or workers that cannot be.
    """
    key: _Key = (sandbox, limits, workers)
    open_sandbox(*key)  # holds nothing until its first program: says what is wrong with the settings

    def asked(code: str) -> tuple[asyncio.AbstractEventLoop, Coroutine[Any, Any, _Answer]]:
        recorder = CURRENT.get(None)
        return recorder.loop if recorder else backstage().loop, _answer(shared_sandbox(*key), key, code)

    async def run(code: str) -> _Answer:
        return await reach(*asked(code))

    def run_and_wait(code: str) -> _Answer:
        return wait(*asked(code), TOOL)

    return StructuredTool(
        name=TOOL,
        description=DESCRIPTION,
        args_schema=Program,
        func=run_and_wait,
        coroutine=run,
        response_format="content_and_artifact",
        handle_validation_error=complaint,  # pyright: ignore[reportArgumentType] - LangChain allows for pydantic 1, too
    )


async def _answer(sandbox: Sandbox | None, key: _Key, code: str) -> _Answer:
    if sandbox is None:
        own = open_sandbox(*key)
        try:
            return await _answer(own, key, code)
        finally:
            await own.close()
    outcome = Outcome.of(await sandbox.run(code))
    return outcome.text, outcome.model_dump()
