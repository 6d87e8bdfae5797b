"""Tool use: a solver writes Python, reads what that printed, and goes on, until it gives a boxed answer.

After ToRA, arXiv:2309.17452: reasoning and programs take turns, and a program's output is the next message. Of a reply
the first closed block of code is run; a boxed answer outside of code ends the episode and goes before code
(agents.results.parse_tool_use). What the sandbox shows is a prompt like any other, so it is never trained on.

Departures: each program is run on its own, with nothing left of those before it. One that fails shows its message in
place of an output; a reply with neither code nor answer ends the episode without an answer, and so does the last turn
when it is code, which is then not run. Output of a program whose time was up is not shown: how far it came is the
machine's doing.

All episodes of a run share one sandbox (docs/sandbox.md), opened when the run begins. `solving` gives the nodes to
other topologies, whose solver makes several attempts side by side.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
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
from graphs.turns import Turn

TOOL_SOLVER = "tool_solver"
OUTPUT_CHARS = 2000
"""Most that a program may print."""
NOTHING = "(nothing was printed)"
_sandbox: ContextVar[Sandbox] = ContextVar("palaestra_sandbox")


@asynccontextmanager
async def sandbox_opened(
    sandbox: Backend = "monty", seconds: float = 5.0, memory_mb: int = 256, workers: int = 2, **_: Any
) -> AsyncIterator[None]:
    """The sandbox that nodes find, for the time of a run; takes a topology's settings."""
    opened = open_sandbox(sandbox, Limits(seconds, memory_mb, OUTPUT_CHARS), workers)
    outside = _sandbox.set(opened)
    try:
        yield
    finally:
        _sandbox.reset(outside)
        await opened.close()


@topology(roles=lambda **_: (TOOL_SOLVER,), calls=lambda turns=8, **_: turns, opens=sandbox_opened)
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
    check_sandbox("tool_use", sandbox, seconds, memory_mb)
    begin, observe, done = solving(turns)

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        last = state.turns[-1]
        reason = "answered" if last.answer else "unreadable reply" if last.failure else f"{turns} turns"
        return {"answer": last.answer, "stop_reason": reason}

    return loop(begin, observe, settle, done)


def solving(
    turns: int, attempts: int = 1, question: Callable[[Any], str] = lambda state: state.question
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], bool]]:
    """The nodes of a solver with the tool, and whether all attempts have ended.

    Args:
        turns: most replies of an attempt.
        attempts: side by side, none of which knows of another.
        question: what is to be solved.
    """

    # Not annotated as Table: LangGraph would show them no more than that of a table with fields of its own.
    async def begin(state: Any, runtime: Runtime[Stage]) -> dict[str, Any]:
        asks = [Ask(TOOL_SOLVER, SOLVE_WITH_TOOL, {"question": question(state)})] * attempts
        return {"turns": await speak(state, runtime, asks, state.round + 1), "round": state.round + 1}

    async def observe(state: Any, runtime: Runtime[Stage]) -> dict[str, Any]:
        lasts = going_on(state)
        came = await asyncio.gather(*(_opened().run(last.result.code) for last in lasts))
        asks = [
            Ask(TOOL_SOLVER, OBSERVE, {"output": observed(one)}, follows=last)
            for last, one in zip(lasts, came, strict=True)
        ]
        return {"turns": await speak(state, runtime, asks, state.round + 1), "round": state.round + 1}

    def going_on(state: Table) -> list[Turn]:
        """The last turns of the attempts whose program is to be run."""
        lasts = [own[-1] for own in attempts_of(state.turns) if len(own) < turns]
        return [last for last in lasts if isinstance(last.result, ToolUse) and last.result.code]

    return begin, observe, lambda state: not going_on(state)


def attempts_of(turns: Sequence[Turn]) -> list[list[Turn]]:
    """The solver's attempts in the order in which they were begun, each as its turns. All but the first turn of one
    follow a program that was run."""
    begun: dict[str, str] = {}
    found: dict[str, list[Turn]] = {}
    for turn in turns:
        if turn.role == TOOL_SOLVER:
            begun[turn.id] = begun[turn.follows] if turn.follows else turn.id
            found.setdefault(begun[turn.id], []).append(turn)
    return list(found.values())


def check_sandbox(name: str, sandbox: str, seconds: float, memory_mb: int) -> None:
    """Raises ConfigError: a topology's sandbox cannot run here, or its limits cannot be."""
    Limits(seconds, memory_mb, OUTPUT_CHARS)
    if problem := why_unavailable(sandbox):
        raise ConfigError(f"topology {name}: sandbox {sandbox}: {problem}")


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
