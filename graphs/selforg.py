"""SelfOrg: agents answer alone; how near their replies lie to one another and to the whole decides who reads whom.

"SelfOrg", specified from the paper and its released code, which differ: `variant` names which graph is built
(graphs.contribution). Each round the agents are walked in the graph's order; the first refines its own solution, the
others read those they have edges from, whose replies of this round they see at once; an agent without edges is passed
over. The outcome is the reply nearest to the weighted centre of all: one of the replies, never a new one.

Departures: the agents are solvers without personas, whose moves are solve and revise; contributions never look at a
task's answer (the released code would, where its data held one). Rounds end at a consensus, tested after each.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import REVISE
from graphs import contribution
from graphs.contribution import Variant, Vectors
from graphs.table import Ask, Stage, Table, solve, speak
from graphs.topology import Graph, topology


@dataclass
class SelfOrgTable(Table):
    edges: list[tuple[int, int, float]] = field(default_factory=list)
    """(agent that is read, reader, weight) of the graph that is walked."""
    walk: list[int] = field(default_factory=list)
    """The agents that speak in a round, in its order."""
    order: list[int] = field(default_factory=list)
    """Of these, those that are still to speak in this round."""


def _roles(agents: int = 4, **_: Any) -> tuple[str, ...]:
    return tuple(f"agent_{i}" for i in range(1, agents + 1))


@topology(roles=_roles, calls=lambda agents=4, rounds=2, **_: agents * (1 + rounds))
def selforg(
    agents: Annotated[int, Field(ge=1)] = 4,
    rounds: Annotated[int, Field(ge=0)] = 2,
    neighbours: Annotated[int, Field(ge=1)] = 2,
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.5,
    variant: Variant = "paper",
    exact: bool = False,
    reform: bool = True,
    embedder: str = "minilm",
) -> Graph:
    """
    Args:
        agents: how many.
        rounds: most rounds of reading one another.
        neighbours: most agents that one reads.
        threshold: least similarity of an edge; the released code's configuration has 0.75.
        variant: paper or code.
        exact: Shapley values in place of their surrogate, for up to 8 agents.
        reform: build the graph anew each round.
        embedder: minilm, pool (the first agent's own model), or a sentence-transformers model.
    """
    roles = _roles(agents)

    async def answer(state: SelfOrgTable, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, roles)

    async def organize(state: SelfOrgTable, runtime: Runtime[Stage]) -> dict[str, Any]:
        vectors, values = await _measured(state, runtime)
        edges, walk = state.edges, state.walk
        if reform or not walk:
            built = contribution.organize(vectors, values, neighbours, threshold, variant)
            edges, order = contribution.edges(built), contribution.reading_order(built, values)
            readers = {reader for _, reader, _ in edges}
            walk = [agent for i, agent in enumerate(order) if i == 0 or agent in readers]
        shown = [[roles[read], roles[reader], weight] for read, reader, weight in edges]
        note = {"round": state.round, "contributions": values.tolist(), "edges": shown}
        runtime.context.notes.append(note)
        return {"edges": edges, "walk": walk, "order": walk, "round": state.round + 1}

    async def update(state: SelfOrgTable, runtime: Runtime[Stage]) -> dict[str, Any]:
        agent, *rest = state.order
        peers = state.latest([roles[read] for read, reader, _ in state.edges if reader == agent])
        fields = {"question": state.question, "peers": [peer.reply for peer in peers]}
        ask = Ask(roles[agent], REVISE, fields, reads=peers, follows=state.last(roles[agent]))
        return {"turns": await speak(state, runtime, [ask]), "order": rest}

    async def check(state: SelfOrgTable, runtime: Runtime[Stage]) -> dict[str, Any]:
        vectors, _ = await _measured(state, runtime)
        reason = f"{rounds} rounds" if state.round > rounds else ""
        return {"stop_reason": "consensus" if contribution.consensus(vectors) else reason}

    async def settle(state: SelfOrgTable, runtime: Runtime[Stage]) -> dict[str, Any]:
        best, _ = contribution.centre(*await _measured(state, runtime), variant)
        return {"answer": state.latest(roles)[best].answer, "stop_reason": state.stop_reason or "0 rounds"}

    async def _measured(state: Table, runtime: Runtime[Stage]) -> tuple[Vectors, Vectors]:
        replies = [turn.reply for turn in state.latest(roles)]
        vectors = contribution.unit(await runtime.context.company.embed(replies, embedder, roles[0]))
        return vectors, contribution.shapley(vectors) if exact else contribution.surrogate(vectors)

    async def after_check(state: SelfOrgTable) -> str:
        return "settle" if state.stop_reason else "organize"

    async def after_answer(state: SelfOrgTable) -> str:
        return "organize" if rounds else "settle"

    async def after_update(state: SelfOrgTable) -> str:
        return "update" if state.order else "check"

    graph = StateGraph(SelfOrgTable, context_schema=Stage)
    for node in (answer, organize, update, check, settle):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", after_answer, ["organize", "settle"])
    graph.add_edge("organize", "update")
    graph.add_conditional_edges("update", after_update, ["update", "check"])
    graph.add_conditional_edges("check", after_check, ["settle", "organize"])
    graph.add_edge("settle", END)
    return graph.compile()
