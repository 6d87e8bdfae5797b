"""Faults of what Ray hosts: a replica is killed, a node goes away."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from experiments.faults.ground import Ground, Outcome

EPISODES = 60
MIDST = "StoreWriter.append:15"


def replica_killed(folder: Path) -> Outcome:
    """SIGKILL of one of two replicas in the midst of a run."""
    ground = Ground(folder, EPISODES)
    unbroken = ground.unbroken()
    two = ("--set", "pool.replicas=2", "--address", "local", "--name", "killed")
    driver = ground.drive(*ground.arguments, *two, point=MIDST, by=signal.SIGSTOP).halted()
    os.kill(driver.actors("Replica")[0].pid, signal.SIGKILL)
    driver.signal(signal.SIGCONT)
    ended = str(driver.wait())
    assert "starting it again" in driver.said, driver.said
    return ground.outcome("a replica (a Ray actor) of two, SIGKILL", ended, "killed", unbroken)


def node_removed(folder: Path) -> Outcome:
    """One of two nodes of a Ray cluster goes away, with one of three replicas; no other node has room for it."""
    from ray.cluster_utils import Cluster

    ground = Ground(folder, EPISODES)
    unbroken = ground.unbroken()
    # In a folder of its own, with a short name: in the common one Ray notes it down, and others on the machine join it.
    where = tempfile.mkdtemp(prefix="ray")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"room": 2}, "temp_dir": where})
    try:
        node = cluster.add_node(num_cpus=1, resources={"room": 1})
        cluster.wait_for_nodes()
        room = ("--set", "pool.replicas=3", "--set", "pool.resource=room")
        at = ("--address", str(cluster.address), "--name", "killed")
        driver = ground.drive(*ground.arguments, *room, *at, point=MIDST, by=signal.SIGSTOP).halted()
        cluster.remove_node(node, allow_graceful=False)
        driver.signal(signal.SIGCONT)
        ended = str(driver.wait())
    finally:
        cluster.shutdown()
        shutil.rmtree(where, ignore_errors=True)
    return ground.outcome("a node of a Ray cluster, with one replica of three", ended, "killed", unbroken)
