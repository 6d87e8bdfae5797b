"""Pose: a proposer makes up a problem, and a solver answers it several times: how far it agrees says how hard that is.

The game of Agent0's curriculum (the task's question is the brief that the proposer gets) and, with `tool=false`, of
R-Zero's. The solver's attempts are those of `tool_use`, or plain solutions. What it came to is in the episode's note:
question, the proposer's own answer, all answers and which of them the env holds equivalent, and how many programs each
attempt ran. Nobody knows the right answer: what the votes are worth is decided by whoever reads the note
(experiments.pseudo_labels).

A proposal that cannot be read ends the episode. The answer of the episode is the problem that was posed: env
`proposals` says whether it is one such as was asked for.

Departures: the published code asks labels of a solver without tools, off the protocol that it is then trained under;
here both are the same. It counts the marks of programs in the proposer's own text; here those that were run count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import PROPOSE, SOLVE
from agents.results import Proposal
from envs.sandbox import Backend
from envs.sandbox.tool import LIMITS
from graphs.python_tool import sandboxes
from graphs.table import Ask, Stage, Table, plurality, speak
from graphs.tool_use import TOOL_SOLVER, Form, attempts_of, runs_of, sandboxed, solving
from graphs.topology import Graph, topology
from graphs.turns import Turn

PROPOSER, SOLVER = "proposer", "solver"
NOT_POSED = "no problem was posed"


def solver_of(tool: bool) -> str:
    """The role that answers."""
    return TOOL_SOLVER if tool else SOLVER


@dataclass
class Posed(Table):
    """A problem and the answers to it."""

    problem: Proposal | None = None


def _calls(answers: int = 10, tool: bool = True, turns: int = 12, **_: Any) -> int:
    return 1 + answers * (turns if tool else 1)


@topology(roles=lambda tool=True, **_: (PROPOSER, solver_of(tool)), calls=_calls, opens=lambda **_: sandboxes())
def pose(
    answers: Annotated[int, Field(ge=1)] = 10,
    tool: bool = True,
    turns: Annotated[int, Field(ge=1, le=100)] = 12,
    form: Form = "text",
    sandbox: Backend = "monty",
    seconds: float = LIMITS.seconds,
    memory_mb: int = LIMITS.memory_mb,
    workers: Annotated[int, Field(ge=1, le=1024)] = 2,
) -> Graph:
    """
    Args:
        answers: attempts of the solver.
        tool: whether it runs programs.
        turns: most replies of an attempt with the tool.
        form: how it writes programs; see tool_use.
        sandbox: monty or bubblewrap.
        seconds: that a program may take.
        memory_mb: MiB that a program may use.
        workers: most programs at once, in a run.
    """

    async def propose(state: Posed, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns = await speak(state, runtime, [Ask(PROPOSER, PROPOSE, {"brief": state.question})], 1)
        problem = turns[0].result
        reason = "" if isinstance(problem, Proposal) else NOT_POSED
        return {"turns": turns, "round": 1, "problem": problem, "stop_reason": reason}

    async def solve(state: Posed, runtime: Runtime[Stage]) -> dict[str, Any]:
        asks = [Ask(SOLVER, SOLVE, {"question": _question(state)})] * answers
        return {"turns": await speak(state, runtime, asks, 2), "round": 2}

    async def settle(state: Posed, runtime: Runtime[Stage]) -> dict[str, Any]:
        attempts = attempts_of(state.turns) if tool else [[turn] for turn in state.by(SOLVER)]
        assert state.problem is not None
        note = await _note(runtime, state.problem, attempts)
        runtime.context.notes.append(note)
        votes = [group for group in note["groups"] if group is not None]
        reason = f"{votes.count(plurality(votes) or 0)} of {answers} agree" if votes else "no answer"
        return {"answer": state.problem.question, "stop_reason": reason}

    graph = StateGraph(Posed, context_schema=Stage)
    graph.add_node("propose", propose)
    graph.add_node("settle", settle)
    if tool:
        run = sandboxed("pose", sandbox, seconds, memory_mb, workers)
        begin, observe, done = solving(run, turns, form, answers, _question)

        async def after_attempts(state: Posed) -> str:
            return "settle" if done(state) else "observe"

        graph.add_node("begin", begin)
        graph.add_node("observe", observe)
        for node in ("begin", "observe"):
            graph.add_conditional_edges(node, after_attempts, ["settle", "observe"])
    else:
        graph.add_node("solve", solve)
        graph.add_edge("solve", "settle")
    first = "begin" if tool else "solve"
    graph.add_edge(START, "propose")

    async def after_proposal(state: Posed) -> str:
        return END if state.stop_reason else first

    graph.add_conditional_edges("propose", after_proposal, [END, first])
    graph.add_edge("settle", END)
    return graph.compile()


def _question(state: Posed) -> str:
    return state.problem.question if state.problem else ""


async def _note(runtime: Runtime[Stage], problem: Proposal, attempts: Sequence[Sequence[Turn]]) -> dict[str, Any]:
    """What the problem came to, as JSON values.

    `groups` names for each answer the place of the first that is equivalent, None for an attempt without an answer;
    `own_group` is that of the proposer's own answer, -1 where nobody else gave it.
    """
    answers = [own[-1].answer for own in attempts]
    places = [i for i, answer in enumerate(answers) if answer is not None]
    found = await runtime.context.env.group([*(answers[i] for i in places), problem.answer])  # pyright: ignore[reportArgumentType]
    groups: list[int | None] = [None] * len(answers)
    for i, group in zip(places, found[:-1], strict=True):
        groups[i] = places[group]
    return {
        "problem": problem.question,
        "own": problem.answer,
        "answers": answers,
        "groups": groups,
        "own_group": places[found[-1]] if found[-1] < len(places) else -1,
        "calls": list(map(runs_of, attempts)),
    }
