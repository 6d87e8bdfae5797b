"""Publishing to vLLM through a pool: new log-probabilities, a stale layer that is caught, a replica that is killed."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.engines import EMBEDDED, parse_model
from agents.pool import RayPool
from agents.probe import Probe
from agents.publishing import PublishError
from agents.serving import PoolSettings, Serving, VllmSettings
from tests.agents.test_vllm import check_logprobs, requests, save_changed, save_tied, truth

pytestmark = [pytest.mark.ray, pytest.mark.model, pytest.mark.slow, pytest.mark.xdist_group("vllm")]


def with_pool(model: Any, use: Callable[[RayPool], Any], replicas: int = 1) -> None:
    async def run() -> None:
        settings = Serving(vllm=VllmSettings(context=256), pool=PoolSettings(replicas=replicas))
        pool = RayPool(parse_model(model, settings))
        try:
            await pool.ready()
            await use(pool)
        finally:
            await pool.close()

    asyncio.run(run())


async def gap(pool: RayPool, probe: Probe) -> float:
    return max(probe.compare(found, 1.0) for found in await pool.score(probe.ids))


@pytest.mark.usefixtures("ray_started")
def test_weights_are_published_and_a_killed_replica_serves_them_again(tmp_path: Path) -> None:
    new = save_changed(tmp_path / "new")

    async def use(pool: RayPool) -> None:
        before = await asyncio.gather(*map(pool.complete, requests(8)))
        assert await gap(pool, truth(EMBEDDED)) < 1e-4
        published = await pool.publish("", "step-1", new)
        assert published.gap < 1e-4 and await gap(pool, truth(new)) < 1e-4
        after = await asyncio.gather(*map(pool.complete, requests(8)))
        check_logprobs(after, new)
        assert {c.version for c in after} == {"step-1"} and "step-1" not in {c.version for c in before}
        (victim,) = await pool.health()
        assert victim.pid
        os.kill(victim.pid, signal.SIGKILL)
        again = await asyncio.gather(*map(pool.complete, requests(8)))
        assert {c.version for c in again} == {"step-1"}
        check_logprobs(again, new)
        assert (await pool.health())[0].restarts == 1

    with_pool(f"vllm:{EMBEDDED}", use)


@pytest.mark.usefixtures("ray_started")
def test_a_stale_output_layer_fails_the_publish_and_the_old_weights_serve_on(tmp_path: Path) -> None:
    tied, other = save_tied(tmp_path / "tied", seed=1), save_tied(tmp_path / "other", seed=2)
    stale = tmp_path / "stale"
    stale.touch()

    def as_vllm_does_it() -> Any:
        """Reloads as vLLM itself would, which on the CPU keeps a tied output layer; while the file is there."""
        from agents.engines.vllm import VllmEngine

        class Engine(VllmEngine):
            async def _publish_weights(self, version: str, source: str) -> None:
                llm: Any = self._llm
                call = llm.collective_rpc

                async def reload(method: str, args: Any = ()) -> Any:
                    return await call("reload_weights", kwargs={"weights_path": source})

                llm.collective_rpc = reload if stale.exists() else call
                try:
                    await super()._publish_weights(version, source)
                finally:
                    llm.collective_rpc = call

        return Engine(str(tied), VllmSettings(context=256))

    async def use(pool: RayPool) -> None:
        before = await asyncio.gather(*map(pool.complete, requests(4)))
        with pytest.raises(PublishError, match=r"replica 0: log-probability .* the source has .*; every replica has"):
            await pool.publish("", "step-1", other)
        assert await gap(pool, truth(tied)) < 1e-4
        after = await asyncio.gather(*map(pool.complete, requests(4)))
        assert {c.version for c in after} == {c.version for c in before}
        check_logprobs(after, tied)
        stale.unlink()
        await pool.publish("", "step-2", other)
        assert await gap(pool, truth(other)) < 1e-4
        (health,) = await pool.health()
        assert health.versions == {"": "step-2"} and health.restarts == 0

    with_pool(as_vllm_does_it, use)
