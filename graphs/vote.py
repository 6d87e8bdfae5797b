"""Vote: self-consistency. One solver samples k solutions; the most frequent answer is the outcome.

Wang et al., arXiv:2203.11171. Answers that the env holds equivalent count as one; ties go to the answer seen first;
solutions without a readable answer abstain.
"""

from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from graphs.shapes import chain
from graphs.solo import SOLVER
from graphs.table import Stage, Table, count_votes, solve
from graphs.topology import Graph, topology


@topology(roles=lambda samples=6: (SOLVER,), calls=lambda samples=6: samples)
def vote(samples: Annotated[int, Field(ge=1)] = 6) -> Graph:
    """
    Args:
        samples: solutions drawn; 6 is the number of calls of the default `society`.
    """

    async def sample(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, [SOLVER] * samples)

    async def count(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return {"answer": await count_votes(runtime, state.turns), "stop_reason": f"vote of {samples}"}

    return chain(sample, count)
