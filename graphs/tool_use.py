"""Tool use: a solver writes Python, reads what that printed, and goes on, until it gives a boxed answer.

After ToRA, arXiv:2309.17452: reasoning and programs take turns, and a program's output is the next message. What the
sandbox shows is a prompt like any other, so it is never trained on. A program comes in one of two forms:

- text: of a reply the first closed block of code is run; a boxed answer outside of code ends the episode and goes
  before code (agents.results.parse_tool_use). For every model, the embedded one among them.
- calls: the model is shown the tool `python` by its JSON schema and calls it as it was trained to (OpenAI's
  `tool_calls`, or the markup of its chat template). All calls of a reply are run and each is answered by a tool's
  message; a reply without calls is read for the boxed answer and ends the episode. Calls that are none (another tool's
  name, arguments that are no program) are answered with what is wrong.

Departures: each program is run on its own, with nothing left of those before it. One that fails shows its message in
place of an output; a reply with neither code nor answer ends the episode without an answer, and so does the last turn
when it is code, which is then not run. Output of a program whose time was up is not shown: how far it came is the
machine's doing.

All episodes of a run share one sandbox (docs/sandbox.md), opened when it is first needed and closed with the run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from langgraph.runtime import Runtime
from pydantic import Field, ValidationError

from agents.moves import OBSERVE, SOLVE_BY_CALLS, SOLVE_WITH_TOOL
from agents.results import ToolUse
from agents.types import EngineError, Message, ToolCall
from envs.errors import ConfigError, clip
from envs.sandbox import Backend, Limits, why_unavailable
from envs.sandbox.tool import DESCRIPTION, LIMITS, TOOL, Outcome, Program, complaint
from graphs.python_tool import sandboxes, shared_sandbox
from graphs.shapes import loop
from graphs.table import Ask, Stage, Table, speak
from graphs.topology import Graph, topology

TOOL_SOLVER = "tool_solver"
TOOLS = (
    {
        "type": "function",
        "function": {"name": TOOL, "description": DESCRIPTION, "parameters": Program.model_json_schema()},
    },
)
"""What the solver is shown with form=calls."""


@topology(roles=lambda **_: (TOOL_SOLVER,), calls=lambda turns=8, **_: turns, opens=lambda **_: sandboxes())
def tool_use(
    turns: Annotated[int, Field(ge=1, le=100)] = 8,
    form: Literal["text", "calls"] = "text",
    sandbox: Backend = "monty",
    seconds: float = LIMITS.seconds,
    memory_mb: int = LIMITS.memory_mb,
    workers: Annotated[int, Field(ge=1, le=1024)] = 2,
) -> Graph:
    """
    Args:
        turns: most replies of the solver.
        form: how programs are written: text, or calls of a tool, for models that were trained on them.
        sandbox: monty or bubblewrap.
        seconds: that a program may take.
        memory_mb: MiB that a program may use.
        workers: most programs at once, in a run.
    """
    limits = Limits(seconds, memory_mb, LIMITS.output_chars)
    if problem := why_unavailable(sandbox):
        raise ConfigError(f"topology tool_use: sandbox {sandbox}: {problem}")

    async def run(code: str) -> str:
        opened = shared_sandbox(sandbox, limits, workers)
        if opened is None:
            raise EngineError("no sandbox is open; play the topology within `async with topology.opened()`")
        return Outcome.of(await opened.run(code)).text

    async def answer(call: ToolCall) -> Message:
        return Message("tool", await _answered(call, run), tool_call_id=call.id)

    async def begin(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        fields = {"question": state.question}
        if form == "calls":
            ask = Ask(TOOL_SOLVER, SOLVE_BY_CALLS, fields, tools=TOOLS)
        else:
            ask = Ask(TOOL_SOLVER, SOLVE_WITH_TOOL, fields)
        return {"turns": await speak(state, runtime, [ask], state.round + 1), "round": state.round + 1}

    async def observe(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        last = state.turns[-1]
        if last.tool_calls:
            outputs = await asyncio.gather(*map(answer, last.tool_calls))
            ask = Ask(TOOL_SOLVER, SOLVE_BY_CALLS, follows=last, tools=TOOLS, outputs=outputs)
        else:
            ask = Ask(TOOL_SOLVER, OBSERVE, {"output": await run(last.result.code)}, follows=last)
        return {"turns": await speak(state, runtime, [ask], state.round + 1), "round": state.round + 1}

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        last = state.turns[-1]
        reason = "answered" if last.answer else "unreadable reply" if last.failure else f"{turns} turns"
        return {"answer": last.answer, "stop_reason": reason}

    def done(state: Table) -> bool:
        last = state.turns[-1]
        goes_on = last.tool_calls or (isinstance(last.result, ToolUse) and last.result.code)
        return len(state.turns) >= turns or not goes_on

    return loop(begin, observe, settle, done)


async def _answered(call: ToolCall, run: Callable[[str], Awaitable[str]]) -> str:
    if call.name != TOOL:
        return f"Error: there is no tool {clip(call.name)}; call {TOOL}"
    try:
        return await run(Program.model_validate_json(call.arguments).code)
    except ValidationError as error:
        return complaint(error)
