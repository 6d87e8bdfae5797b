"""Solo: one solver, one call. The baseline of every comparison."""

from typing import Any

from langgraph.runtime import Runtime

from graphs.shapes import chain
from graphs.table import Stage, Table, solve
from graphs.topology import Graph, topology

SOLVER = "solver"


async def answer(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
    update = await solve(state, runtime, [SOLVER])
    return {**update, "answer": update["turns"][-1].answer, "stop_reason": "solved"}


@topology(roles=lambda: (SOLVER,), calls=lambda: 1)
def solo() -> Graph:
    return chain(answer)
