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
`solving` gives the nodes to other topologies, whose solver makes several attempts side by side.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
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
from graphs.turns import Turn

TOOL_SOLVER = "tool_solver"
Form = Literal["text", "calls"]
Runs = Callable[[str], Awaitable[str]]
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
    form: Form = "text",
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
    begin, observe, done = solving(sandboxed("tool_use", sandbox, seconds, memory_mb, workers), turns, form)

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        last = state.turns[-1]
        reason = "answered" if last.answer else "unreadable reply" if last.failure else f"{turns} turns"
        return {"answer": last.answer, "stop_reason": reason}

    return loop(begin, observe, settle, done)


def sandboxed(name: str, sandbox: Backend, seconds: float, memory_mb: int, workers: int) -> Runs:
    """What runs a topology's programs, in the sandbox that all episodes of a run share.

    Raises:
        ConfigError: it cannot run here, or its limits cannot be.
    """
    limits = Limits(seconds, memory_mb, LIMITS.output_chars)
    if problem := why_unavailable(sandbox):
        raise ConfigError(f"topology {name}: sandbox {sandbox}: {problem}")

    async def run(code: str) -> str:
        opened = shared_sandbox(sandbox, limits, workers)
        if opened is None:
            raise EngineError("no sandbox is open; play the topology within `async with topology.opened()`")
        return Outcome.of(await opened.run(code)).text

    return run


def solving(
    run: Runs,
    turns: int,
    form: Form = "text",
    attempts: int = 1,
    question: Callable[[Any], str] = lambda state: state.question,
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], bool]]:
    """The nodes of a solver with the tool, and whether all attempts have ended.

    Args:
        run: gives the output of a program.
        turns: most replies of an attempt.
        form: how programs are written.
        attempts: side by side, none of which knows of another.
        question: what is to be solved.
    """
    first = SOLVE_BY_CALLS if form == "calls" else SOLVE_WITH_TOOL
    tools = TOOLS if form == "calls" else ()

    # Not annotated as Table: LangGraph would show them no more than that of a table with fields of its own.
    async def begin(state: Any, runtime: Runtime[Stage]) -> dict[str, Any]:
        asks = [Ask(TOOL_SOLVER, first, {"question": question(state)}, tools=tools)] * attempts
        return {"turns": await speak(state, runtime, asks, state.round + 1), "round": state.round + 1}

    async def observe(state: Any, runtime: Runtime[Stage]) -> dict[str, Any]:
        asks = await asyncio.gather(*(_shown(last, run) for last in going_on(state)))
        return {"turns": await speak(state, runtime, asks, state.round + 1), "round": state.round + 1}

    def going_on(state: Table) -> list[Turn]:
        """The last turns of the attempts of which something is to be run."""
        lasts = [own[-1] for own in attempts_of(state.turns) if len(own) < turns]
        return [last for last in lasts if last.tool_calls or (isinstance(last.result, ToolUse) and last.result.code)]

    return begin, observe, lambda state: not going_on(state)


def attempts_of(turns: Sequence[Turn]) -> list[list[Turn]]:
    """The solver's attempts in the order in which they were begun, each as its turns. All but the first turn of one
    follow what was run."""
    begun: dict[str, str] = {}
    found: dict[str, list[Turn]] = {}
    for turn in turns:
        if turn.role == TOOL_SOLVER:
            begun[turn.id] = begun[turn.follows] if turn.follows else turn.id
            found.setdefault(begun[turn.id], []).append(turn)
    return list(found.values())


def runs_of(attempt: Sequence[Turn]) -> int:
    """How many programs an attempt ran; calls that were none count as well."""
    return sum(len(turn.tool_calls) or 1 for turn in attempt[:-1])


async def _shown(last: Turn, run: Runs) -> Ask:
    """The solver asked to go on from what its last turn had run."""
    if not last.tool_calls:
        return Ask(TOOL_SOLVER, OBSERVE, {"output": await run(last.result.code)}, follows=last)

    async def answer(call: ToolCall) -> Message:
        return Message("tool", await _answered(call, run), tool_call_id=call.id)

    outputs = await asyncio.gather(*map(answer, last.tool_calls))
    return Ask(TOOL_SOLVER, SOLVE_BY_CALLS, follows=last, tools=TOOLS, outputs=outputs)


async def _answered(call: ToolCall, run: Runs) -> str:
    if call.name != TOOL:
        return f"Error: there is no tool {clip(call.name)}; call {TOOL}"
    try:
        return await run(Program.model_validate_json(call.arguments).code)
    except ValidationError as error:
        return complaint(error)
