"""Faults of the process that plays, and of its disk: killed, stopped, begun twice, out of room."""

import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.faults.drivers import Driver, stored
from experiments.faults.ground import ENV, Ground, Outcome
from experiments.runs import Run
from experiments.sweeps import Sweep

POINTS = (
    "StoreWriter.__init__:1",  # what was asked for is written, and there is no store
    "StoreWriter.__init__:1+",  # an empty one
    "StoreWriter.append:30",
    "StoreWriter.append:50+",
    "StoreWriter.close:1",  # whole and marked, the store not closed
)
MIDST = "StoreWriter.append:40"
FILE_LIMIT = 600_000
"""Bytes: about a quarter of the run."""


def _killed(begin: Callable[[], Driver], folder: Path, counts: Sequence[int]) -> int:
    """Kill a process with SIGKILL as soon as so many episodes are stored, again and again. Returns how often it was."""
    killed = 0
    for count in counts:
        driver = begin()
        if driver.once(lambda count=count: stored(folder) >= count):
            driver.signal(signal.SIGKILL)
        killed += driver.wait() == -signal.SIGKILL
    return killed


def _moments(episodes: int, kills: int, seed: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(1, episodes * 9 // 10), kills))


def driver_killed(folder: Path, kills: int = 4, seed: int = 0) -> Outcome:
    """SIGKILL at random moments of a run."""
    ground = Ground(folder)
    unbroken = ground.unbroken()
    moments = _moments(ground.episodes, kills, seed)
    killed = _killed(lambda: ground.go_on("killed"), ground.root / "killed", moments)
    status = ground.go_on("killed").wait()
    return ground.outcome(
        f"the process of a run, SIGKILL, {killed} times at random moments", f"resume: {status}", "killed", unbroken
    )


def driver_killed_at(folder: Path, points: Sequence[str] = POINTS) -> Outcome:
    """SIGKILL at certain points of the code."""
    ground = Ground(folder)
    unbroken = ground.unbroken()
    killed = sum(ground.go_on("killed", point=point).wait() == -signal.SIGKILL for point in points)
    status = ground.go_on("killed").wait()
    fault = f"the process of a run, SIGKILL before, in and after a write, {killed} times"
    return ground.outcome(fault, f"resume: {status}", "killed", unbroken)


def sweep_killed(folder: Path, kills: int = 3, seed: int = 0) -> Outcome:
    """SIGKILL at random moments of a sweep, in its arms, in self-consistency, before the table."""
    ground = Ground(folder, 40)
    asked = ("solo", "vote,samples=3", "society,agents=2,rounds=2", *ENV, "--tasks", "40", "--model", ground.model)

    def begin(name: str) -> Driver:
        there = (ground.root / name / "asked.json").is_file()
        return ground.drive(*(("resume", name) if there else ("sweep", *asked, "--backend", "local", "--name", name)))

    assert begin("unbroken").wait() == 0
    unbroken, path = Sweep(ground.root / "unbroken"), ground.root / "killed"
    arms = [*unbroken.table.arms, *unbroken.table.rulers]
    killed = _killed(lambda: begin("killed"), path, _moments(len(arms) * ground.episodes, kills, seed))
    status = begin("killed").wait()
    pairs = [(Run(path / arm.run), Run(unbroken.path / arm.run)) for arm in arms]
    same = all(one.summary().digest == other.summary().digest for one, other in pairs)
    return Outcome(
        f"the process of a sweep, SIGKILL, {killed} times at random moments",
        f"resume: {status}",
        stored(path),
        len(arms) * ground.episodes,
        same and Sweep(path).table == unbroken.table,
    )


def stopped(folder: Path, by: signal.Signals) -> Outcome:
    """SIGTERM or SIGINT in the midst of a run."""
    ground = Ground(folder)
    unbroken, path = ground.unbroken(), ground.root / "stopped"
    driver = ground.go_on("stopped", point=MIDST, by=by)
    status, kept = driver.wait(), stored(path)
    assert "palaestra resume stopped" in driver.said, driver.said
    ended = f"{status}, {kept} stored; resume: {ground.go_on('stopped').wait()}"
    return ground.outcome(f"the process of a run, {by.name}", ended, "stopped", unbroken)


def begun_twice(folder: Path) -> Outcome:
    """A second process on the same run, while the first stands still; then the first is killed."""
    ground = Ground(folder)
    unbroken = ground.unbroken()
    first = ground.go_on("shared", point=MIDST, by=signal.SIGSTOP).halted()
    second = ground.go_on("shared")
    refused = second.wait()
    assert f"is being written by process {first.pid}" in second.said, second.said
    first.signal(signal.SIGKILL)
    first.wait()
    ended = f"the second: {refused}, refused; once the first is killed, resume: {ground.go_on('shared').wait()}"
    return ground.outcome("two processes on one run", ended, "shared", unbroken)


def disk_full(folder: Path) -> Outcome:
    """No file can grow any more (RLIMIT_FSIZE)."""
    ground = Ground(folder)
    unbroken, path = ground.unbroken(), ground.root / "full"
    driver = ground.go_on("full", file_limit=FILE_LIMIT)
    status, kept = driver.wait(), stored(path)
    assert "cannot be written" in driver.said and "palaestra resume full" in driver.said, driver.said
    ended = f"{status}, {kept} stored; with room again, resume: {ground.go_on('full').wait()}"
    return ground.outcome("a disk without room", ended, "full", unbroken)
