"""Faults of what Ray hosts: a replica is killed, a node goes away."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.faults.ground import Ground, Outcome

EPISODES = 60
MIDST = 15
MOMENTS = (1, MIDST, 50)
"""Numbers of the episodes before whose storing something is killed."""


def replica_killed(folder: Path, moments: Sequence[int] = (MIDST,)) -> Outcome:
    """SIGKILL of one of two replicas, in a run for each moment."""
    return _actor_killed(folder, "Replica", "a replica", "pool.replicas=2", moments)


def worker_killed(folder: Path, moments: Sequence[int] = (MIDST,)) -> Outcome:
    """SIGKILL of one of two rollout workers, in a run for each moment."""
    return _actor_killed(folder, "RolloutWorker", "a rollout worker", "cluster.rollout_workers=2", moments)


def _actor_killed(folder: Path, kind: str, what: str, two: str, moments: Sequence[int]) -> Outcome:
    ground = Ground(folder, EPISODES)
    unbroken, outcomes = ground.unbroken(), []
    fault = f"{what} (a Ray actor) of two, SIGKILL before episode {', '.join(map(str, moments))} is stored"
    for moment in moments:
        asked = ("--set", two, "--address", "local", "--name", f"killed-{moment}")
        driver = ground.drive(*ground.arguments, *asked, point=_storing(moment), by=signal.SIGSTOP).halted()
        os.kill(driver.actors(kind)[0].pid, signal.SIGKILL)
        driver.signal(signal.SIGCONT)
        ended = str(driver.wait())
        assert "starting it again" in driver.said, driver.said
        outcomes.append(ground.outcome(fault, ended, f"killed-{moment}", unbroken))
    return Outcome(
        fault,
        ", ".join(sorted({outcome.ended for outcome in outcomes})),
        sum(outcome.episodes for outcome in outcomes),
        sum(outcome.expected for outcome in outcomes),
        all(outcome.same for outcome in outcomes),
    )


def _storing(moment: int) -> str:
    return f"StoreWriter.append:{moment}"


def node_removed(folder: Path) -> Outcome:
    """One of two nodes of a Ray cluster goes away, with one of three replicas; no other node has room for it."""
    from ray.cluster_utils import Cluster

    ground = Ground(folder, EPISODES)
    unbroken = ground.unbroken()
    with _ray_folder():
        head = {"num_cpus": 2, "resources": {"room": 2}, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            node = cluster.add_node(num_cpus=1, resources={"room": 1})
            cluster.wait_for_nodes()
            room = ("--set", "pool.replicas=3", "--set", "pool.resource=room")
            at = ("--address", str(cluster.address), "--name", "killed")
            driver = ground.drive(*ground.arguments, *room, *at, point=_storing(MIDST), by=signal.SIGSTOP).halted()
            cluster.remove_node(node, allow_graceful=False)
            driver.signal(signal.SIGCONT)
            ended = str(driver.wait())
        finally:
            cluster.shutdown()
    return ground.outcome("a node of a Ray cluster, with one replica of three", ended, "killed", unbroken)


@contextlib.contextmanager
def _ray_folder() -> Iterator[None]:
    """A folder of Ray's own with a short name: in the common one a cluster is noted down, and others on the machine
    would join it."""
    before = os.environ.get("RAY_TMPDIR")
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        try:
            yield
        finally:
            os.environ.pop("RAY_TMPDIR")
            if before is not None:
                os.environ["RAY_TMPDIR"] = before
