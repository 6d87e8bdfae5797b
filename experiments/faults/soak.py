"""Playing under full load while faults come at random, for as long as one likes: is anything lost, does memory grow?

One run after another, all the same: a society of two, where two replicas in Ray answer for one, from recorded replies,
and an endpoint for the other. A call to the endpoint in twenty is refused, reset, broken off or late. Replicas are
killed all the time; in the first half of the time the process that plays is killed or stopped, too, and another goes
on. In the second half it lives on, and its memory is watched. Every run has to end as the one that nothing happened to.
"""

import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agents.cast import Cast
from agents.cluster import start_ray
from experiments.faults.chat_server import Behaviour, ChatServer, breaks_off, refuses, resets
from experiments.faults.drivers import Driver
from experiments.faults.endpoint_scenarios import Moody, late
from experiments.faults.ground import recorded
from experiments.interrupts import stopping_on_sigterm
from experiments.resuming import resume
from experiments.runner import run
from experiments.runs import CONFIG, RESULT, Run

TASKS, CONCURRENCY = 200, 64
REPLICA_S, DRIVER_S, LOOK_S = 15.0, 60.0, 2.0
"""Mean seconds between two kills of a replica, and of the process; and between two looks at its memory."""
ENDPOINT = (refuses(429, headers={"Retry-After": "0"}), refuses(503), resets, breaks_off, late)
MB = 1e6


@dataclass
class Report:
    """What a soak found."""

    minutes: float
    runs: int = 0
    episodes: int = 0
    failed: int = 0
    others: int = 0
    """Runs that did not end as the unbroken one."""
    faults: dict[str, int] = field(default_factory=dict)
    broke: list[str] = field(default_factory=list)
    """What the process said when it ended by itself before its time."""
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """Of the process that lived last: minutes since it began, MB resident in it, MB in its replicas together."""

    def met(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1

    @property
    def held(self) -> bool:
        return self.runs > 0 and not (self.failed or self.others or self.broke)

    @property
    def grown(self) -> tuple[float, float] | None:
        """MB that the process that lived last had in the second quarter of its life, and in the last."""
        seen = [resident for _, resident, _ in self.memory]
        quarter = len(seen) // 4
        if not quarter:
            return None
        return statistics.median(seen[quarter : 2 * quarter]), statistics.median(seen[-quarter:])

    def words(self) -> str:
        faults = ", ".join(f"{count} × {what}" for what, count in sorted(self.faults.items()))
        grown = self.grown
        memory = "too short to say" if grown is None else f"{grown[0]:.0f} MB, later {grown[1]:.0f} MB"
        lived = self.memory[-1][0] if self.memory else 0.0
        return (
            f"{self.minutes:.1f} minutes, {self.runs} runs, {self.episodes} episodes, {self.failed} failed, "
            f"{self.others} runs otherwise than the unbroken one\nfaults: {faults}\n"
            f"memory of the process that lived last, for {lived:.1f} minutes: {memory}"
            + "".join(f"\nended by itself: {said}" for said in self.broke)
        )


def soak(folder: Path, minutes: float, seed: int, told: Callable[[str], None]) -> Report:
    """Play so long under faults.

    Args:
        folder: empty, for the runs.
        minutes: after which no further run begins.
        seed: of the faults; when they come, and what they meet, also depends on the machine.
        told: gets a line a run and a fault.
    """
    chance, report, root = random.Random(seed), Report(minutes), folder / "runs"
    moody = Moody(lambda _: None)
    (printed := folder / "printed").mkdir()
    with ChatServer(moody) as server:
        model = recorded(folder / "model.jsonl", TASKS)
        unbroken = _play(root, "unbroken", model, server.url, "local").summary().digest
        told(f"unbroken: {unbroken[:12]}")
        moody.strikes = lambda _: _endpoint_fault(chance, report)
        began = time.time()
        ends = began + 60 * minutes
        asked = [str(root), model, server.url, str(ends)]
        _watch(lambda: Driver(asked, printed, play=_rounds), began, ends, chance, report, told)
    for path in sorted(root.glob("round-*")):
        summary = Run(path).summary()
        report.runs += 1
        report.episodes += summary.episodes
        report.failed += summary.failed + TASKS - summary.episodes
        report.others += summary.digest != unbroken
    return report


def _watch(
    begin: Callable[[], Driver],
    began: float,
    ends: float,
    chance: random.Random,
    report: Report,
    told: Callable[[str], None],
) -> None:
    """Kill until the end, and have another process go on whenever one was."""
    driver, alive = begin(), time.time()
    while driver.runs:
        time.sleep(LOOK_S)
        now = time.time()
        replicas = driver.actors("Replica") if driver.runs else []
        report.memory.append(((now - alive) / 60, _resident(driver.pid), sum(_resident(one.pid) for one in replicas)))
        if replicas and now < ends and chance.random() < LOOK_S / REPLICA_S:
            os.kill(chance.choice(replicas).pid, signal.SIGKILL)
            report.met("replica killed")
        by = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        if driver.runs and now < (began + ends) / 2 and chance.random() < LOOK_S / DRIVER_S:
            driver.signal(by)
            report.met(f"process, {by.name}")
            told(f"{(now - began) / 60:.1f} min: {by.name}, {driver.wait()}")
            driver, alive = begin(), time.time()
            report.memory.clear()
        if not driver.runs and now < ends and "palaestra resume" in driver.said:
            report.met("run stopped, with how it goes on")
            driver, alive = begin(), time.time()
    if status := driver.wait():
        report.broke.append(f"{status}: {driver.said[-500:]}")


def _endpoint_fault(chance: random.Random, report: Report) -> Behaviour | None:
    if chance.random() > 1 / 20:
        return None
    report.met("call to the endpoint")
    return chance.choice(ENDPOINT)


def _resident(pid: int) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / MB
    except psutil.Error:
        return 0.0


def _rounds(arguments: list[str]) -> int:
    """Play one run after another, beginning with one that was cut short. Returns the exit status."""
    root, model, url, ends = Path(arguments[0]), *arguments[1:3], float(arguments[3])
    stopped: list[int] = []
    try:
        with stopping_on_sigterm(stopped):
            start_ray("local")
            number = 0
            while True:
                path = root / f"round-{number:04d}"
                if (path / CONFIG).is_file() and not (path / RESULT).is_file():
                    resume(path)
                elif not (path / RESULT).is_file():
                    if time.time() > ends:
                        return 0
                    _play(root, path.name, model, url, "ray")
                number += 1
    except KeyboardInterrupt:
        return 128 + (stopped[0] if stopped else signal.SIGINT)


def _play(root: Path, name: str, model: str, url: str, backend: str) -> Run:
    settings = {"agents": 2, "rounds": 2, "env.level": 2, "debater_2.model": f"openai:tiny@{url}"}
    # Each replica dies more often here than a pool would have it in earnest.
    serving = {"pool.replicas": 2, "pool.restarts": 1000, "endpoint.timeout_s": 2.0, "endpoint.retries": 20}
    where = {"backend": backend, "root": root, "name": name, "concurrency": CONCURRENCY, "progress": False}
    return run("society", "arithmetic", Cast.all(model), tasks=TASKS, settings=settings | serving, **where)
