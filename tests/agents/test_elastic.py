"""Pools that grow and shrink: with what is outstanding, and never with weights that are not served."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Message, Request, Sampling, ScriptedEngine
from agents.elastic import wanted
from agents.engines import parse_model
from agents.pool import RayPool
from agents.probe import Probe
from agents.serving import PoolSettings, Serving
from agents.types import Completion
from envs import ConfigError

PROBE = Probe((1, 2, 3), (-1.0, -1.0))


class Weighted(ScriptedEngine):
    """Has weights, a version and a file that says go; the second to be made waits for it, and may score otherwise."""

    def __init__(self, folder: Path, scores: float = -1.0):
        super().__init__({"solver": "yes"})
        self._folder, self._score = folder, -1.0
        number = len(list(folder.glob("made*")))
        (folder / f"made{number}").touch()
        while number and not (folder / "go").exists():
            time.sleep(0.02)
        if number:
            self._score = scores

    async def publish(self, policy: str, version: str, source: Path) -> None:
        self.version = version

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        return (self._score,) * (len(ids) - 1)

    async def complete(self, request: Request) -> Completion:
        while not (self._folder / "answer").exists():
            await asyncio.sleep(0.02)
        return await super().complete(request)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def ask(pool: RayPool, count: int) -> list[Completion]:
    asked = [Request(f"t/0/solver/{n}", (Message("user", "?"),), Sampling(), n) for n in range(count)]
    return list(await asyncio.gather(*map(pool.complete, asked)))


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(0, 8), st.integers(1, 500))
def test_as_many_are_wanted_as_the_load_needs_within_the_bounds(out: int, least: int, more: int, load: int) -> None:
    settings = PoolSettings(replicas=least, max=least + more, load=load)
    found = wanted(out, settings)
    assert least <= found <= least + more
    assert found * load >= out or found == least + more
    assert found == least or (found - 1) * load < out


def test_a_pool_that_has_less_room_than_replicas_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected max to be no less than replicas=3, found 2"):
        PoolSettings(replicas=3, max=2)


def in_pool(folder: Path, use: Callable[[RayPool], Any], scores: float = -1.0) -> Any:
    async def run() -> Any:
        settings = PoolSettings(max=2, load=5, idle_s=0.5, restarts=0)
        pool = RayPool(parse_model(lambda: Weighted(folder, scores), Serving(pool=settings)))
        try:
            await pool.ready()
            return await use(pool)
        finally:
            await pool.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(run())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
class TestAPool:
    def test_one_that_joins_has_what_was_published_while_it_loaded_and_ends_when_it_is_idle(
        self, tmp_path: Path
    ) -> None:
        async def use(pool: RayPool) -> None:
            await pool.publish("", "second", tmp_path, probe=PROBE)
            asked = asyncio.create_task(ask(pool, 6))
            await until((tmp_path / "made1").exists)
            (tmp_path / "answer").touch()
            assert len(await asked) == 6 and len(await pool.health()) == 1
            (tmp_path / "answer").unlink()
            # Whoever publishes does not wait for a machine that the cluster has yet to find.
            await pool.publish("", "third", tmp_path, deadline_s=20, probe=PROBE)
            more = asyncio.create_task(ask(pool, 6))
            (tmp_path / "go").touch()
            await until(lambda: len(pool._replicas) == 2)
            assert [health.versions for health in await pool.health(20)] == [{"": "third"}] * 2
            await asyncio.sleep(1.5)
            assert len(pool._replicas) == 2, "it was ended with requests outstanding"
            (tmp_path / "answer").touch()
            assert {completion.version for completion in await more} == {"third"}
            await until(lambda: list(pool._replicas) == [0])

        in_pool(tmp_path, use)

    def test_one_that_does_not_score_as_the_weights_do_never_serves(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def use(pool: RayPool) -> None:
            (tmp_path / "go").touch()
            await pool.publish("", "second", tmp_path, probe=PROBE)
            asked = asyncio.create_task(ask(pool, 6))
            await until(lambda: "could not be added to its pool" in caplog.text)
            (tmp_path / "answer").touch()
            assert len(await asked) == 6 and [health.number for health in await pool.health()] == [0]

        in_pool(tmp_path, use, scores=-3.0)
        assert "tolerance" in caplog.text
