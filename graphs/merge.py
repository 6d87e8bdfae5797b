"""A model settles on one of many solutions, or writes one in their light.

- `universal`: the model names the solution whose answer most of them agree on; needs no parser for answers. Universal
  self-consistency, Chen et al., arXiv:2311.17311, and Self-Agreement, arXiv:2311.08154. A choice that cannot be read,
  or of a number that is not there, leaves the first solution standing.
- `gsa`: the model reads all solutions and writes a new one; nothing is selected. Generative self-aggregation,
  arXiv:2503.04104.
"""

from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agents.moves import AGGREGATE, CHOOSE, Move
from agents.results import Choice
from graphs.shapes import chain
from graphs.solo import SOLVER
from graphs.table import Ask, Stage, Table, solve, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn
from graphs.votes import Samples

AGGREGATOR = "aggregator"


def _roles(samples: int = 5) -> tuple[str, ...]:
    return SOLVER, AGGREGATOR


async def _sample(state: Table, runtime: Runtime[Stage], samples: int) -> dict[str, Any]:
    return await solve(state, runtime, [SOLVER] * samples)


async def _ask(state: Table, runtime: Runtime[Stage], move: Move, solutions: Sequence[Turn]) -> Turn:
    fields = {"question": state.question, "solutions": [turn.reply for turn in solutions]}
    return (await speak(state, runtime, [Ask(AGGREGATOR, move, fields, reads=solutions)]))[-1]


@topology(roles=_roles, calls=lambda samples=5: samples + 1)
def universal(samples: Samples = 5) -> Graph:
    """The model names the solution that most agree with.

    Args:
        samples: solutions that the model chooses from.
    """

    async def sample(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await _sample(state, runtime, samples)

    async def choose(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        solutions = state.by(SOLVER)
        turn = await _ask(state, runtime, CHOOSE, solutions)
        number = turn.result.number if isinstance(turn.result, Choice) else 1
        chosen = solutions[number - 1 if 1 <= number <= len(solutions) else 0]
        return {"turns": [turn], "answer": chosen.answer, "stop_reason": f"chosen from {samples}"}

    return chain(sample, choose)


@topology(roles=_roles, calls=lambda samples=5: samples + 1)
def gsa(samples: Samples = 5) -> Graph:
    """The model reads all solutions and writes a new one.

    Args:
        samples: solutions that the model reads.
    """

    async def sample(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await _sample(state, runtime, samples)

    async def write(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turn = await _ask(state, runtime, AGGREGATE, state.by(SOLVER))
        return {"turns": [turn], "answer": turn.answer, "stop_reason": f"written from {samples}"}

    return chain(sample, write)
