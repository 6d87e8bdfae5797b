"""A replica that is killed in the middle of a run costs time and nothing else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.company import Company, open_company
from experiments import Run, run, runner

EPISODES = 200


async def kill_in_the_middle(company: Company, counted: list[int], killed: list[int]) -> None:
    (pool,) = company.pools.values()
    while counted[0] < EPISODES:  # calls answered; each episode makes four
        await asyncio.sleep(0.01)
    victim = next(health for health in await pool.health() if health.requests)
    assert victim.pid and victim.pid != os.getpid()
    os.kill(victim.pid, signal.SIGKILL)
    killed.append(victim.pid)


def play(root: Path, name: str, monkeypatch: pytest.MonkeyPatch, kill: bool) -> tuple[Run, list[int], list[Any]]:
    killed: list[int] = []
    health: list[Any] = []

    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[Company]:
        async with open_company(*args, **kwargs) as company:
            counted, complete = [0], company.complete

            async def counting(*asked: Any) -> Any:
                completion = await complete(*asked)
                counted[0] += 1
                return completion

            monkeypatch.setattr(company, "complete", counting)
            killing = asyncio.create_task(kill_in_the_middle(company, counted, killed)) if kill else None
            yield company
            if killing:
                await killing
            for pool in company.pools.values():
                await pool.ready()
                health.extend(await pool.health())

    monkeypatch.setattr(runner, "open_company", opened)
    settings = {"agents": 2, "rounds": 2, "pool.replicas": 2}
    played = run("society", "arithmetic", tasks=EPISODES, seed=11, settings=settings, root=root, name=name)
    return played, killed, health


@pytest.mark.ray
@pytest.mark.model
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_a_run_whose_replica_is_killed_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken, _, _ = play(tmp_path, "unbroken", monkeypatch, kill=False)
    broken, killed, health = play(tmp_path, "broken", monkeypatch, kill=True)
    assert len(killed) == 1
    assert sorted(h.restarts for h in health) == [0, 1] and all(h.alive for h in health)
    assert killed[0] not in [h.pid for h in health]
    summary = broken.summary()
    assert (summary.episodes, summary.failed) == (EPISODES, 0)
    assert len({(e.task.id, e.sample) for e in broken.episodes()}) == EPISODES
    assert summary.digest == unbroken.summary().digest
    assert (broken.summary().calls, broken.summary().tokens) == (unbroken.summary().calls, unbroken.summary().tokens)
