"""Tool use: a solver writes Python, reads what that printed, and goes on, until it gives a boxed answer.

After ToRA, arXiv:2309.17452: reasoning and programs take turns, and a program's output is the next message. Of a reply
the first closed block of code is run; a boxed answer outside of code ends the episode and goes before code
(agents.results.parse_tool_use). What the sandbox shows is a prompt like any other, so it is never trained on.

Departures: each program is run on its own, with nothing left of those before it. One that fails shows its message in
place of an output; a reply with neither code nor answer ends the episode without an answer, and so does the last turn
when it is code, which is then not run. Output of a program whose time was up is not shown: how far it came is the
machine's doing.

All episodes of a run share one sandbox (docs/sandbox.md), opened when the run begins.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import OBSERVE, SOLVE_WITH_TOOL
from agents.results import ToolUse
from agents.types import EngineError
from envs.errors import ConfigError
from envs.sandbox import Backend, Limits, Ran, Sandbox, Stopped, open_sandbox, why_unavailable
from graphs.shapes import loop
from graphs.table import Ask, Stage, Table, speak
from graphs.topology import Graph, topology

TOOL_SOLVER = "tool_solver"
OUTPUT_CHARS = 2000
"""Most that a program may print."""
NOTHING = "(nothing was printed)"
_sandbox: ContextVar[Sandbox] = ContextVar("palaestra_sandbox")


@asynccontextmanager
async def _sandbox_opened(
    turns: int = 8, sandbox: Backend = "monty", seconds: float = 5.0, memory_mb: int = 256, workers: int = 2
) -> AsyncIterator[None]:
    opened = open_sandbox(sandbox, Limits(seconds, memory_mb, OUTPUT_CHARS), workers)
    outside = _sandbox.set(opened)
    try:
        yield
    finally:
        _sandbox.reset(outside)
        await opened.close()


@topology(roles=lambda **_: (TOOL_SOLVER,), calls=lambda turns=8, **_: turns, opens=_sandbox_opened)
def tool_use(
    turns: Annotated[int, Field(ge=1, le=100)] = 8,
    sandbox: Backend = "monty",
    seconds: float = 5.0,
    memory_mb: int = 256,
    workers: Annotated[int, Field(ge=1)] = 2,
) -> Graph:
    """
    Args:
        turns: most replies of the solver.
        sandbox: monty or bubblewrap.
        seconds: that a program may take.
        memory_mb: MiB that a program may use.
        workers: most programs at once, in a run.
    """
    Limits(seconds, memory_mb, OUTPUT_CHARS)
    if problem := why_unavailable(sandbox):
        raise ConfigError(f"topology tool_use: sandbox {sandbox}: {problem}")

    async def begin(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        ask = Ask(TOOL_SOLVER, SOLVE_WITH_TOOL, {"question": state.question})
        return {"turns": await speak(state, runtime, [ask], state.round + 1), "round": state.round + 1}

    async def observe(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        last = state.turns[-1]
        output = observed(await _opened().run(last.result.code))
        ask = Ask(TOOL_SOLVER, OBSERVE, {"output": output}, follows=last)
        return {"turns": await speak(state, runtime, [ask], state.round + 1), "round": state.round + 1}

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        last = state.turns[-1]
        reason = "answered" if last.answer else "unreadable reply" if last.failure else f"{turns} turns"
        return {"answer": last.answer, "stop_reason": reason}

    def done(state: Table) -> bool:
        result = state.turns[-1].result
        return len(state.turns) >= turns or not (isinstance(result, ToolUse) and result.code)

    return loop(begin, observe, settle, done)


def observed(came: Ran | Stopped) -> str:
    """What the solver is shown of a program: what was printed, and why it stopped where it did."""
    if isinstance(came, Ran):
        return came.output.strip("\n") or NOTHING
    printed = "" if came.kind in ("time", "crash") else came.output.strip("\n")
    return f"{printed}\nError: {came.message}".lstrip("\n")


def _opened() -> Sandbox:
    try:
        return _sandbox.get()
    except LookupError:
        raise EngineError("no sandbox is open; play the topology within `async with topology.opened()`") from None
