"""How a run goes about its episodes: none waits for others to begin, and garbage is looked for seldom."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph

from agents import Cast, Request, ScriptedEngine
from experiments import run
from experiments.runner import collecting_seldom
from graphs import Graph, Stage, Table, solve


def test_episodes_begin_one_after_another(tmp_path: Path) -> None:
    events: list[str] = []

    def one_call() -> Graph:
        async def node(state: Table, runtime: Any) -> dict[str, Any]:
            events.append("began")
            return await solve(state, runtime, ["solver"])

        graph = StateGraph(Table, context_schema=Stage)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        graph.add_edge("node", END)
        return graph.compile()

    class Slow(ScriptedEngine):
        async def complete(self, request: Request) -> Any:
            events.append("asked")
            await asyncio.sleep(0.01)
            return await super().complete(request)

    cast = Cast.all(Slow({"solver": "\\boxed{7}"}))
    played = run(one_call, "arithmetic", cast, tasks=40, concurrency=40, backend="local", root=tmp_path)
    assert played.summary().episodes == 40
    # In step, all forty would have begun before one of them asks.
    assert events.index("asked") < 30


@pytest.mark.parametrize(("before", "within"), [(700, 20_000), (50_000, 50_000), (0, 0)])
def test_garbage_is_looked_for_seldom_while_a_run_goes_on(before: int, within: int) -> None:
    usual = gc.get_threshold()
    try:
        gc.set_threshold(before)
        with collecting_seldom():
            assert gc.get_threshold()[0] == within
        assert gc.get_threshold() == (before, *usual[1:])
    finally:
        gc.set_threshold(*usual)
