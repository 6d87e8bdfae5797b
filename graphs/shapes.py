"""The two shapes that most topologies have: nodes in a row, and a node repeated until something holds."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from langgraph.graph import END, START, StateGraph

from graphs.table import Stage, Table
from graphs.topology import Graph


def chain(*nodes: Callable[..., Any]) -> Graph:
    """A graph whose nodes run one after another, under their functions' names."""
    graph = StateGraph(Table, context_schema=Stage)
    for node in nodes:
        graph.add_node(node.__name__, node)
    for before, after in pairwise([START, *(node.__name__ for node in nodes), END]):
        graph.add_edge(before, after)
    return graph.compile()


def loop(
    first: Callable[..., Any],
    again: Callable[..., Any],
    last: Callable[..., Any],
    done: Callable[[Any], bool],
    table: type[Table] = Table,
) -> Graph:
    """A graph that runs `first`, then `again` until the table is `done`, then `last`."""
    graph = StateGraph(table, context_schema=Stage)
    names = [node.__name__ for node in (first, again, last)]

    # Async like the nodes: LangGraph sends a plain function to a thread, each time.
    async def after(state: Any) -> str:
        return names[2] if done(state) else names[1]

    for name, node in zip(names, (first, again, last), strict=True):
        graph.add_node(name, node)
    graph.add_edge(START, names[0])
    for name in names[:2]:
        graph.add_conditional_edges(name, after, names[1:])
    graph.add_edge(names[2], END)
    return graph.compile()


def lane_roles(role: str, lanes: int) -> list[str]:
    """`role`, or `role_1`, `role_2`, … where several play side by side."""
    return [role] if lanes == 1 else [f"{role}_{i}" for i in range(1, lanes + 1)]
