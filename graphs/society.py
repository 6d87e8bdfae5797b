"""Society of minds: agents answer, read one another's answers of the round before, and update; then they vote.

Du et al., arXiv:2305.14325. Rounds are synchronous: a prompt of round r holds the others' messages of round r-1 and
never one of round r; an agent's own messages stay in its chat. One agent alone checks its own answer.

Departures: equivalent answers count as one vote (the published code compares strings, so that 18 and 18.0 split);
agents without a readable answer abstain, and if all do the episode has no answer (the published GSM8K scorer counts
such an episode as correct).
"""

from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from graphs.shapes import loop
from graphs.table import Stage, Table, count_votes, revise, solve
from graphs.topology import Graph, topology


def _roles(agents: int = 3, rounds: int = 2) -> tuple[str, ...]:
    return tuple(f"debater_{i}" for i in range(1, agents + 1))


@topology(roles=_roles, calls=lambda agents=3, rounds=2: agents * rounds)
def society(agents: Annotated[int, Field(ge=1)] = 3, rounds: Annotated[int, Field(ge=1)] = 2) -> Graph:
    """
    Args:
        agents: debaters.
        rounds: answers of each, the first one included.
    """
    roles = _roles(agents)

    async def answer(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, roles)

    async def update(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await revise(state, runtime, roles)

    async def decide(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        answer = await count_votes(runtime, state.latest(roles))
        return {"answer": answer, "stop_reason": f"vote after {rounds} rounds"}

    return loop(answer, update, decide, lambda table: table.round >= rounds)
