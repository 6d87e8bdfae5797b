"""What the benchmarks of orchestration play: a debate of seven calls, debaters that answer at once, and the meters.

The debate is Du et al.'s society (arXiv:2305.14325) with a judge at its end, as the README builds it: three debaters,
two rounds, and a judge between the two answers that are left. It is three calls deep.
"""

import asyncio
import os
import resource
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from langgraph.graph import END, START, StateGraph

from agents.cast import Cast
from agents.company import Backend
from agents.engines.scripted import ScriptedEngine, role_and_number
from agents.types import Completion, Request
from experiments.benchmarks.loopback import TEXTS
from experiments.plan import make_plan
from experiments.progress import Progress
from experiments.runner import claim_directory, opened, play_all
from experiments.runs import Run
from graphs import Graph, Stage, Table, judge, revise, solve

DEBATERS = ("a", "b", "c")
CALLS = 7
DEPTH = 3
"""Calls of a debate of which each waits for the one before."""


def debate(rounds: int = 2) -> Graph:
    """The debate that is measured."""

    async def propose(state: Table, runtime: Any) -> dict[str, Any]:
        return await solve(state, runtime, DEBATERS)

    async def rebut(state: Table, runtime: Any) -> dict[str, Any]:
        return await revise(state, runtime, DEBATERS)

    async def decide(state: Table, runtime: Any) -> dict[str, Any]:
        return await judge(state, runtime)

    async def after_rebuttal(state: Table) -> str:
        return "decide" if state.agreed or state.round >= rounds else "rebut"

    graph = StateGraph(Table, context_schema=Stage)
    for node in (propose, rebut, decide):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "propose")
    graph.add_edge("propose", "rebut")
    graph.add_conditional_edges("rebut", after_rebuttal, ["rebut", "decide"])
    graph.add_edge("decide", END)
    return graph.compile()


class Debaters(ScriptedEngine):
    """They never agree, so that a judge has to be asked; each answer takes `latency_s`."""

    def __init__(self, latency_s: float = 0.0):
        super().__init__(_reply)
        self._latency_s = latency_s

    async def complete(self, request: Request) -> Completion:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        return await super().complete(request)


def _reply(request: Request) -> str:
    role, _ = role_and_number(request.key)
    return TEXTS[{"judge": "judge", "a": "first"}.get(role, "other")]


@dataclass(frozen=True)
class Spent:
    """CPU seconds, user and system."""

    driver: float
    """Of this process: the graphs, the pools, the store."""
    replicas: float
    """Of the Ray actors that host the engines, the engines in them."""
    ray: float
    """Of Ray's own processes on this machine, those that wait for work included."""

    def __sub__(self, earlier: "Spent") -> "Spent":
        return Spent(self.driver - earlier.driver, self.replicas - earlier.replicas, self.ray - earlier.ray)

    @property
    def total(self) -> float:
        return self.driver + self.replicas + self.ray


def spent(replicas: Collection[int]) -> Spent:
    """CPU time until now.

    Args:
        replicas: process ids.
    """
    hosted = rest = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        if process.pid in replicas:
            hosted += times.user + times.system
        else:
            rest += times.user + times.system
    return Spent(time.process_time(), hosted, rest)


def peak_mb() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@dataclass(frozen=True)
class Played:
    """Debates that were played, from the first that began to the last on disk."""

    run: Run
    calls: int
    seconds: float
    """By the event loop's clock."""
    cpu: Spent

    def ms_per_call(self, cpu_s: float) -> float:
        return 1e3 * cpu_s / self.calls


async def played(
    episodes: int, in_flight: int, root: Path, backend: Backend, latency_s: float = 0.0, samples: int = 1
) -> Played:
    """Play debates as `palaestra run` does; what it takes to open and close the pools is not measured.

    Args:
        episodes: how many; divided by `samples` they are the tasks.
        in_flight: most episodes at once.
        root: where the run's folder is made.
        backend: "ray" wants a Ray of this process alone (`connected("local")`), or that of others is measured too.
        latency_s: of each call.
        samples: episodes a task.
    """
    cast = Cast.all(lambda: Debaters(latency_s))
    env, tasks = "arithmetic", episodes // samples
    plan = make_plan(debate, env, cast, tasks, samples, 0, "test", in_flight, None, backend, None)
    directory = claim_directory(plan, None, root)
    async with opened(plan, directory) as (company, writer):
        health = [one for pool in company.pools.values() for one in await pool.health()]
        replicas = {one.pid for one in health if one.pid} - {os.getpid()}
        clock = asyncio.get_running_loop().time
        started, before = clock(), spent(replicas)
        with Progress("debates", plan.episodes) as shown:
            await play_all(plan, company, writer, shown)
        seconds, cpu = clock() - started, spent(replicas) - before
    return Played(Run(directory), CALLS * plan.episodes, seconds, cpu)
