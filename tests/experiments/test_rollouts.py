"""What a rollout worker is sent and sends back; without Ray. With it: tests/experiments/test_cluster.py."""

import asyncio
import pickle
from typing import Any

import cloudpickle
import pytest
from langgraph.graph import END, START, StateGraph

from agents import Cast, ScriptedEngine, open_company
from envs import ConfigError
from envs.types import Task, Verdict
from experiments.plan import make_plan
from experiments.rollout_worker import Game, Played, RolloutWorker
from experiments.rollouts import _packed, require_sendable
from graphs import Graph, Stage, Table, build, solo
from tests.conftest import WordEnv


def silent() -> Graph:
    async def node(state: Table) -> dict[str, Any]:
        return {"answer": "yes"}

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile()


class Cancelled(WordEnv):
    """Awaits something of its own that was cancelled."""

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        raise asyncio.CancelledError("the env's own")


def test_an_episode_that_is_cancelled_from_within_is_reported() -> None:
    async def played() -> Any:
        env = Cancelled()
        worker = RolloutWorker()
        await worker.begin(0, cloudpickle.dumps(Game(build(silent), env, Cast(), 0)))
        await worker.take([(7, 0, cloudpickle.dumps((env.tasks(1)[0], 0)))], [])
        async with asyncio.timeout(20):
            (found,) = await worker.collect()
        await worker.end(0)
        return found

    found = asyncio.run(played())
    assert isinstance(found, Played) and (found.job, found.episode) == (7, b"")
    assert found.failure.startswith("CancelledError")


def test_workers_draw_as_the_company_does_that_is_to_be_played() -> None:
    """A training measures at temperature 0 with a company of its own."""

    async def temperature() -> float:
        engine = ScriptedEngine({"solver": "yes"})
        plan = make_plan(solo, WordEnv(), Cast.all(engine), 1, 1, 0, "test", 1, {}, "local", None)
        cold = Cast.all(engine, temperature=0.0)
        async with open_company(cold, plan.roles, backend="local") as company:
            game: Game = pickle.loads(_packed(plan, company.cast))
        return game.cast.seat("solver").temperature or 0.0

    assert asyncio.run(temperature()) == 0.0


def test_what_cannot_be_sent_is_refused_before_a_model_is_loaded() -> None:
    ready_made, settings = silent(), {"cluster.rollout_workers": 1}
    plan = make_plan(ready_made, WordEnv(), Cast.all("embedded"), 1, 1, 0, "test", 1, settings, "ray", None)
    with pytest.raises(ConfigError, match="cannot be sent to rollout workers"):
        require_sendable(plan)
