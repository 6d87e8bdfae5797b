"""A cluster of three machines, made up on this one: where things are put, and that a run comes out as it does here."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agents import Cast, Message, Request, Sampling, ScriptedEngine, open_company
from agents.cluster import start_ray
from agents.company import Company
from agents.pool import ReplicaHealth
from agents.serving import PoolSettings, Serving
from agents.types import Completion
from envs import ConfigError, make_env
from experiments import Run, run, runner
from graphs import Stage, Table, solve

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SOON = {"health_check_period_ms": 1000, "health_check_failure_threshold": 8}
"""For Ray: a machine that is gone is known to be so after eight seconds."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three machines with a GPU each, in zones a, b and c; this process is connected to the first."""
    import ray
    from ray.cluster_utils import Cluster

    before = ray.is_initialized()
    ray.shutdown()
    cluster = Cluster()
    for zone, own in zip("abc", ({"include_dashboard": False, "_system_config": SOON}, {}, {}), strict=True):
        machine = {"num_cpus": 2, "num_gpus": 1, "resources": {f"in-{zone}": 4}, "labels": {"zone": zone}}
        patiently(cluster.add_node, **machine, **own)
    start_ray(cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    if before:
        start_ray()


def patiently(start: Callable[..., Any], **options: Any) -> None:
    """Ray gives a machine 30 seconds to start, which is little for one that does much else."""
    for last in (False, False, True):
        try:
            start(**options)
            return
        except Exception as error:
            if last or "timed out during startup" not in str(error):
                raise


def zone() -> str:
    """Where the process is that asks."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return next(node["Labels"]["zone"] for node in ray.nodes() if node["NodeID"] == here)


class Placed(ScriptedEngine):
    """Says where it is, and which GPUs it has; slowly."""

    def __init__(self) -> None:
        super().__init__(lambda asked: f"{zone()}{os.environ.get('CUDA_VISIBLE_DEVICES', '')}")

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0.2)
        return await super().complete(request)


class Patient(ScriptedEngine):
    """Answers by the request alone, after a while."""

    def __init__(self) -> None:
        super().__init__(lambda asked: f"\\boxed{{{asked.seed % 7}}}")

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0.1)
        return await super().complete(request)


def request(n: int) -> Request:
    return Request(f"t/0/solver/{n}", (Message("user", str(n)),), Sampling(max_tokens=8), n)


def asked_of(model: Any, settings: PoolSettings, count: int) -> list[str]:
    """What the replicas of a pool answer."""

    async def ask() -> list[str]:
        async with open_company(Cast.all(model), ["solver"], serving=Serving(pool=settings)) as company:
            return [
                c.text for c in await asyncio.gather(*(company.complete("solver", request(n)) for n in range(count)))
            ]

    return asyncio.run(ask())


@pytest.mark.usefixtures("cluster")
def test_replicas_are_on_the_machines_that_were_asked_for() -> None:
    assert set(asked_of(Placed, PoolSettings(gpus=1, replicas=2, labels="zone=in(a,b)"), 20)) == {"a0", "b0"}
    assert set(asked_of(Placed, PoolSettings(gpus=0.5, replicas=2, labels="zone=!a", resource="in-c"), 20)) == {"c0"}


@pytest.mark.usefixtures("cluster")
def test_what_no_machine_can_take_whole_is_said_at_once() -> None:
    for settings, what in (
        (PoolSettings(gpus=2), r"ask 1 times for 2 GPUs on one machine, Ray has it 0 times; set engine\.device=cpu"),
        (
            PoolSettings(replicas=2, labels="zone=d"),
            r"ask 2 times for zone=d on one machine, Ray has it 0 times; start",
        ),
        (PoolSettings(gpus=0.6, replicas=4), "ask 4 times for 0.6 GPUs on one machine, Ray has it 3 times"),
        (PoolSettings(gpus=1, replicas=4), "ask for 4 GPUs, Ray has 3"),
    ):
        with pytest.raises(ConfigError, match=what):
            asked_of(Placed, settings, 1)


def in_graph(*nodes: Any) -> Any:
    graph = StateGraph(Table, context_schema=Stage)
    graph.add_sequence(nodes)
    graph.add_edge(START, nodes[0].__name__)
    graph.add_edge(nodes[-1].__name__, END)
    return graph.compile()


def fragile(marker: str = "", always: bool = False) -> Any:
    """Its process ends at the fourth sample: the first time that it comes there, or always."""

    async def end_process(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        if marker and runtime.context.sample == 3:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                if always:
                    os._exit(1)
            else:
                os._exit(1)
        return {}

    async def propose(state: Table, runtime: Runtime[Stage]) -> Any:
        return await solve(state, runtime, ["solver"])

    return in_graph(propose, end_process)


@pytest.mark.usefixtures("cluster")
class TestRolloutWorkers:
    def test_a_run_is_the_same_with_them_on_replicas_of_three_machines(self, tmp_path: Path) -> None:
        def played(**options: Any) -> Run:
            return run("society", cast=Cast.all(Patient), tasks=6, samples=2, seed=3, root=tmp_path, **options)

        here = played(backend="local")
        there = played(settings={"pool.replicas": 3, "pool.gpus": 1, "cluster.rollout_workers": 2})
        assert there.summary().digest == here.summary().digest and there.summary().failed == 0
        assert there.config["cluster"]["rollout_workers"] == 2

    def test_what_a_worker_that_died_was_playing_is_played_by_another(self, tmp_path: Path) -> None:
        def played(workers: int, **settings: Any) -> Run:
            settings = {"cluster.rollout_workers": workers, **settings}
            return run(fragile, cast=Cast.all(Patient()), tasks=3, samples=5, seed=5, root=tmp_path, settings=settings)

        unbroken, broken = played(0), played(2, marker=str(tmp_path / "died"))
        assert (tmp_path / "died").exists() and broken.summary().failed == 0
        assert broken.summary().digest == unbroken.summary().digest

    def test_an_episode_that_always_ends_its_process_fails_alone(self, tmp_path: Path) -> None:
        own = {"marker": str(tmp_path / "died"), "always": True}
        settings = {"cluster.rollout_workers": 1, "cluster.restarts": 1, **own}
        cast = Cast.all(Patient())
        played = run(fragile, cast=cast, tasks=1, samples=5, concurrency=1, settings=settings, root=tmp_path)
        assert [e.failure is None for e in played.episodes()] == [True, True, True, False, True]
        assert "rollout worker 1 died" in (list(played.episodes())[3].failure or ""), "the last time it was alone"

    def test_a_graph_that_is_given_ready_made_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot be sent to rollout workers .*give the function that builds it"):
            run(fragile(), cast=Cast.all(Patient()), settings={"cluster.rollout_workers": 1}, root=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_user_s_module_and_model_are_sent_to_the_machines(self, cluster: Any, tmp_path: Path) -> None:
        project = tmp_path / "project"
        (project / "runs" / "large").mkdir(parents=True)
        (project / "mine.py").write_text(MINE)
        (task,) = make_env("arithmetic").tasks(1)
        recorded = {"task": task.id, "role": "solver", "replies": ["\\boxed{1}"]}
        (project / "model.jsonl").write_text(f"{json.dumps(recorded)}\n")
        command = [
            *("run", "mine:where", "--env", "arithmetic", "--tasks", "1", "--model", "replay:model.jsonl", "--json"),
            *("--address", cluster.address, "--set", "cluster.ship=true", "--set", "cluster.rollout_workers=1"),
        ]
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-m", "palaestra", *command], cwd=project, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (reason,) = json.loads(done.stdout)["stop_reasons"]
        there, found = reason.split(" has ")
        assert "working_dir_files" in there and found.split(" ") == ["mine.py", "model.jsonl"]


MINE = """
import os
from langgraph.graph import END, START, StateGraph
from graphs import Stage, Table, solve

async def propose(state, runtime):
    return await solve(state, runtime, ["solver"])

async def look(state, runtime):
    return {"stop_reason": f"{os.getcwd()} has {' '.join(sorted(f for f in os.listdir() if f != '__pycache__'))}"}

def where():
    graph = StateGraph(Table, context_schema=Stage)
    graph.add_sequence([propose, look])
    graph.add_edge(START, "propose")
    graph.add_edge("look", END)
    return graph.compile()
"""


def test_a_run_that_loses_a_machine_ends_with_the_right_episodes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it go a replica, and whatever of rollout workers is there. Last: the machine does not come back."""
    lost = cluster.list_all_nodes()[-1]
    health: list[ReplicaHealth] = []

    @asynccontextmanager
    async def opened(*args: Any) -> AsyncIterator[Company]:
        async with open_company(*args) as company:
            (pool,) = company.pools.values()
            removing = asyncio.create_task(remove(company))
            yield company
            await removing
            health.extend(await pool.health(10.0))

    async def remove(company: Company) -> None:
        answered, complete = [0], company.complete

        async def counting(*asked: Any) -> Completion:
            completion = await complete(*asked)
            answered[0] += 1
            return completion

        monkeypatch.setattr(company, "complete", counting)
        while answered[0] < 60:  # of 240
            await asyncio.sleep(0.05)
        await asyncio.to_thread(cluster.remove_node, lost, allow_graceful=False)

    def played(workers: int, replicas: int) -> Run:
        settings = {"cluster.rollout_workers": workers, "pool.replicas": replicas, "pool.gpus": 1}
        return run("society", cast=Cast.all(Patient), tasks=40, seed=9, concurrency=4, root=tmp_path, settings=settings)

    unbroken = played(0, 1)
    monkeypatch.setattr(runner, "open_company", opened)
    broken = played(2, 3)
    assert broken.summary().failed == 0 and broken.summary().digest == unbroken.summary().digest
    assert len({(episode.task.id, episode.sample) for episode in broken.episodes()}) == 40
    assert sorted(replica.alive for replica in health) == [False, True, True]
