"""Publishing: new weights on all replicas, seen in their log-probabilities, or the old ones on all of them."""

import asyncio
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from agents import Cast, EngineError, Message, Request, Sampling, ScriptedEngine, open_company
from agents.engines import EMBEDDED, parse_model
from agents.engines.transformers import TransformersEngine
from agents.pool import LocalPool, Pool, RayPool
from agents.probe import Probe, measure, measure_directory, probe_ids
from agents.publishing import PublishError
from agents.serving import PoolSettings, Serving
from envs import ConfigError

transformers_logging.disable_progress_bar()


def embedded() -> Any:
    return AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()


def changed(folder: Path, seed: int) -> tuple[Path, Probe]:
    """The embedded model with other weights, and how they score."""
    model = embedded()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(folder)
    return folder, measure(model)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    return changed(tmp_path_factory.mktemp("weights") / "new", 1)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    return changed(tmp_path_factory.mktemp("weights") / "newer", 2)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model: Any = get_peft_model(embedded(), config).eval()
    folder = tmp_path_factory.mktemp("adapters") / "critic"
    model.save_pretrained(folder)
    return folder, measure(model)


@pytest.fixture(scope="module")
def old() -> Probe:
    return measure(embedded())


def request(n: int, policy: str = "") -> Request:
    return Request(
        f"t/0/solver/{n}", (Message("user", f"What is {n} + 7?"),), Sampling(max_tokens=16), n, policy=policy
    )


async def ask(pool: Pool, count: int, policy: str = "") -> list[Any]:
    return list(await asyncio.gather(*(pool.complete(request(n, policy)) for n in range(count))))


async def scores(pool: Any, probe: Probe, policy: str = "") -> list[float]:
    """How far each replica's log-probabilities are from the probe's."""
    found = await pool.score(probe.ids, policy)
    return [max(abs(a - b) for a, b in zip(one, probe.logprobs, strict=True)) for one in found]


def with_pool(make: Callable[[Any], Any], model: Any, use: Callable[[Any], Any], **settings: Any) -> Any:
    async def run() -> Any:
        pool = make(parse_model(model, Serving(pool=PoolSettings(**settings))))
        try:
            await pool.ready()
            return await use(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


class TestProbe:
    def test_it_is_the_same_every_time_and_within_the_vocabulary(self) -> None:
        assert probe_ids(1343) == probe_ids(1343) != probe_ids(1344)
        assert len(probe_ids(50)) == 32 and set(probe_ids(50)) <= set(range(50))

    def test_a_gap_is_said_with_both_values(self) -> None:
        probe = Probe((1, 2, 3), (-1.0, -2.0))
        assert probe.compare((-1.0, -2.0005), 1e-3) == pytest.approx(5e-4)
        with pytest.raises(EngineError, match=r"-2\.5000 for token 2 of the probe where the source has -2\.0000"):
            probe.compare((-1.0, -2.5), 1e-3)
        with pytest.raises(EngineError, match="nan"):
            probe.compare((-1.0, math.nan), 1e3)
        with pytest.raises(EngineError, match="scored 1 tokens of the probe, expected 2"):
            probe.compare((-1.0,), 1.0)

    @pytest.mark.model
    def test_a_directory_scores_as_the_model_in_memory(
        self, new: tuple[Path, Probe], adapter: tuple[Path, Probe], old: Probe
    ) -> None:
        async def run() -> None:
            assert await measure_directory(new[0]) == new[1]
            assert await measure_directory(EMBEDDED, adapter[0]) == adapter[1]
            assert (await measure_directory(EMBEDDED, ids=(5, 6, 7))).ids == (5, 6, 7)
            with pytest.raises(EngineError, match=r"no config\.json"):
                await measure_directory(adapter[0].parent / "nothing")

        asyncio.run(run())
        assert new[1].logprobs != old.logprobs != adapter[1].logprobs


@pytest.mark.model
class TestTransformersEngine:
    def test_scores_are_those_of_a_plain_forward_pass(self, old: Probe) -> None:
        ids = tuple(range(3, 203))
        with torch.no_grad():
            logits = embedded()(input_ids=torch.tensor([ids])).logits[0]
        plain = [float(logits[i].log_softmax(-1)[ids[i + 1]]) for i in range(len(ids) - 1)]

        async def run() -> Any:
            engine = TransformersEngine(EMBEDDED)
            try:
                return await asyncio.gather(engine.score(ids), engine.complete(request(1)), engine.score(old.ids))
            finally:
                await engine.close()

        found, _, of_probe = asyncio.run(run())
        assert found == pytest.approx(plain, abs=1e-4) and of_probe == pytest.approx(old.logprobs, abs=1e-4)

    def test_weights_of_another_shape_are_refused_whole(self, tmp_path: Path, old: Probe) -> None:
        model = embedded()
        model.model.layers[3].mlp.up_proj = torch.nn.Linear(128, 300, bias=False)
        model.save_pretrained(tmp_path / "other")
        model = embedded()
        state = model.state_dict()
        state.pop("model.norm.weight")
        model.save_pretrained(tmp_path / "incomplete", state_dict=state)

        async def run() -> None:
            engine = TransformersEngine(EMBEDDED)
            before = engine.version
            for folder, message in (("other", "up_proj"), ("incomplete", r"missing tensors, .*norm\.weight")):
                with pytest.raises(EngineError, match=message):
                    await engine.publish("", "2", tmp_path / folder)
                with pytest.raises(EngineError, match=message):
                    await measure_directory(tmp_path / folder)
            with pytest.raises(EngineError, match=r"no config\.json"):
                await engine.publish("", "2", tmp_path)
            assert engine.version == before and await engine.score(old.ids) == old.logprobs
            await engine.close()

        asyncio.run(run())

    def test_policies_in_one_batch_answer_as_they_do_alone(
        self, adapter: tuple[Path, Probe], new: tuple[Path, Probe], old: Probe
    ) -> None:
        async def run() -> None:
            engine = TransformersEngine(EMBEDDED, max_batch=8)
            await engine.publish("critic", "1", adapter[0])
            assert (await engine.score(old.ids, "critic")) == pytest.approx(adapter[1].logprobs, abs=1e-4)
            assert (await engine.score(old.ids)) == pytest.approx(old.logprobs, abs=1e-4)
            asked = [request(n, "critic" if n % 3 else "") for n in range(30)]
            alone = [await engine.complete(one) for one in asked]
            assert list(await asyncio.gather(*map(engine.complete, asked))) == alone
            assert {(c.policy, c.version) for c in alone} == {("embedded_model", engine.version), ("critic", "1")}
            assert alone[1].logprobs != (await engine.complete(request(1))).logprobs
            with pytest.raises(EngineError, match="nobody was never published"):
                await engine.complete(request(1, "nobody"))
            with pytest.raises(EngineError, match=r"no adapter_config\.json"):
                await engine.publish("critic", "2", new[0])
            await engine.publish("critic", "2", adapter[0])
            await engine.publish("", "2", new[0])
            assert (await engine.score(old.ids)) == pytest.approx(new[1].logprobs, abs=1e-4)
            assert (await engine.complete(request(1, "critic"))).version == "2"
            await engine.close()

        asyncio.run(run())


def ignoring(name: str) -> TransformersEngine:
    """An engine that keeps one tensor as it is whatever is published."""
    engine = TransformersEngine(EMBEDDED)
    take_over = engine.weights.take_over

    def stale(tensors: Mapping[str, Any]) -> None:
        take_over({key: tensor for key, tensor in tensors.items() if key != name})

    engine.weights.take_over = stale
    return engine


@pytest.mark.model
class TestLocalPool:
    def test_weights_and_adapters_are_published(
        self, new: tuple[Path, Probe], adapter: tuple[Path, Probe], old: Probe
    ) -> None:
        async def use(pool: LocalPool) -> None:
            first = await ask(pool, 4)
            with pytest.raises(EngineError, match="'critic' was never published"):
                await pool.complete(request(0, "critic"))
            published = await pool.publish("", "2", new[0])
            assert published.gap < 1e-4 and published.probe == new[1]
            second = await ask(pool, 4)
            assert {c.version for c in first}.isdisjoint({"2"}) and {c.version for c in second} == {"2"}
            assert [c.logprobs for c in first] != [c.logprobs for c in second]
            await pool.publish("critic", "1", adapter[0])  # measured on the weights that are published
            assert {(c.policy, c.version) for c in await ask(pool, 4, "critic")} == {("critic", "1")}
            (health,) = await pool.health()
            assert health.versions == {"": "2", "critic": "1"}

        with_pool(LocalPool, "embedded", use)

    def test_a_version_is_never_used_again(self, new: tuple[Path, Probe], newer: tuple[Path, Probe]) -> None:
        async def use(pool: LocalPool) -> None:
            first = (await pool.health())[0].versions[""]
            await pool.publish("", "2", new[0])
            for version, source in (("2", newer[0]), ("2", new[0]), (first, newer[0])):
                with pytest.raises(PublishError, match=rf"version {version} .*used already.*name another"):
                    await pool.publish("", version, source)
            assert (await pool.health())[0].versions == {"": "2"}

        with_pool(LocalPool, "embedded", use)

    def test_two_at_once_go_one_after_the_other(self, new: tuple[Path, Probe], newer: tuple[Path, Probe]) -> None:
        async def use(pool: LocalPool) -> None:
            done = await asyncio.gather(pool.publish("", "2", new[0]), pool.publish("", "3", newer[0]))
            assert [p.version for p in done] == ["2", "3"] and await scores(pool, newer[1]) == [0.0]

        with_pool(LocalPool, "embedded", use)

    def test_what_is_in_flight_ends_on_the_weights_it_began_with(self, new: tuple[Path, Probe]) -> None:
        async def use(pool: LocalPool) -> None:
            before = asyncio.create_task(ask(pool, 40))
            await asyncio.sleep(0)
            publishing = asyncio.create_task(pool.publish("", "2", new[0], probe=new[1]))
            while not pool._publisher._lock.locked():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            after = asyncio.create_task(ask(pool, 40))
            first = (await pool.health())[0].versions[""]
            assert {c.version for c in await before} == {first}
            await publishing
            assert "2" in {c.version for c in await after}

        with_pool(LocalPool, "embedded", use)

    def test_a_stale_tensor_is_found_and_the_rest_goes_back(self, new: tuple[Path, Probe], old: Probe) -> None:
        engine = ignoring("lm_head.weight")

        async def use(pool: LocalPool) -> None:
            pool._replicas[0]._replica.__dict__["engine"] = engine  # pyright: ignore
            with pytest.raises(PublishError, match=r"replica 0: log-prob.* -\d.* the source has -\d.* before"):
                await pool.publish("", "2", new[0])
            assert await scores(pool, old) == [pytest.approx(0.0, abs=1e-4)]
            assert (await pool.complete(request(1))).version != "2"
            with pytest.raises(PublishError, match="used already"):
                await pool.publish("", "2", new[0])

        with_pool(LocalPool, "embedded", use)

    def test_an_engine_that_was_lent_and_cannot_go_back_is_out_of_service(self, new: tuple[Path, Probe]) -> None:
        async def run() -> None:
            engine = ignoring("lm_head.weight")
            pool = LocalPool(parse_model(engine))
            with pytest.raises(PublishError, match=r"did not come back .*was lent"):
                await pool.publish("", "2", new[0])
            with pytest.raises(EngineError, match="was lent"):
                await pool.complete(request(1))
            await pool.close()
            await engine.close()

        asyncio.run(run())

    def test_engines_without_weights_say_so(self, new: tuple[Path, Probe]) -> None:
        async def use(pool: LocalPool) -> None:
            with pytest.raises(PublishError, match="can neither take over weights nor score"):
                await pool.publish("", "2", new[0], probe=new[1])
            assert (await pool.complete(request(1))).text == "x"

        with_pool(LocalPool, lambda: ScriptedEngine({"solver": "x"}), use)

    def test_a_source_that_is_not_there_changes_nothing(self, tmp_path: Path, old: Probe) -> None:
        async def use(pool: LocalPool) -> None:
            with pytest.raises(PublishError, match=r"no config\.json.*the weights are as before"):
                await pool.publish("", "2", tmp_path / "nowhere")
            with pytest.raises(PublishError, match="measuring the probe took longer than 1e-06 s"):
                await pool.publish("", "2", EMBEDDED, deadline_s=1e-6)
            assert await scores(pool, old) == [pytest.approx(0.0, abs=1e-4)]

        with_pool(LocalPool, "embedded", use)

    def test_what_stays_in_flight_beyond_the_deadline_fails_the_publish(self, new: tuple[Path, Probe]) -> None:
        async def run() -> None:
            answer, publishes = asyncio.Event(), []

            class Busy(ScriptedEngine):
                async def complete(self, request: Request) -> Any:
                    await answer.wait()
                    return await super().complete(request)

                async def publish(self, policy: str, version: str, source: Path) -> None:
                    publishes.append(version)

                async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
                    return new[1].logprobs

            pool = LocalPool(parse_model(Busy({"solver": "x"})))
            asked = asyncio.create_task(pool.complete(request(1)))
            await asyncio.sleep(0)
            with pytest.raises(PublishError, match=r"requests in flight took longer than 0\.05 s; .* as before"):
                await pool.publish("", "2", new[0], deadline_s=0.05, probe=new[1])
            answer.set()
            assert (await asked).version == (await pool.complete(request(2))).version == "1" and not publishes
            await pool.close()

        asyncio.run(run())

    def test_roles_that_differ_in_their_adapter_share_a_pool(self, adapter: tuple[Path, Probe]) -> None:
        from agents.cast import Seat

        async def run() -> None:
            cast = Cast(solver="embedded", critic=Seat(adapter=str(adapter[0])), judge=Seat(adapter=str(adapter[0])))
            async with open_company(cast, ["solver", "critic", "judge"], "local") as company:
                assert len(company.pools) == 1
                solver, critic, judge = [await company.complete(role, request(1)) for role in cast.seats]
            assert solver.policy == "embedded" and critic.policy.startswith("critic-") and judge == critic
            assert critic.version and critic.version != solver.version and critic.logprobs != solver.logprobs

        asyncio.run(run())

    def test_adapters_that_cannot_be_are_refused_before_anything_is_loaded(self, tmp_path: Path) -> None:
        from agents.cast import Seat

        async def opened(model: str) -> None:
            async with open_company(Cast(critic=Seat(model=model, adapter=str(tmp_path))), ["critic"]):
                pytest.fail("opened")

        with pytest.raises(ConfigError, match=r"found no adapter_config\.json"):
            asyncio.run(opened("embedded"))
        with pytest.raises(ConfigError, match="takes none"):
            asyncio.run(opened("openai:tiny@http://127.0.0.1:1/v1"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
def test_closing_ends_a_publish_that_is_under_way(tmp_path: Path, new: tuple[Path, Probe]) -> None:
    class Stuck(ScriptedEngine):
        async def publish(self, policy: str, version: str, source: Path) -> None:
            (tmp_path / "begun").touch()
            await asyncio.Event().wait()

        async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
            return new[1].logprobs

    async def use(pool: RayPool) -> None:
        publishing = asyncio.create_task(pool.publish("", "2", new[0], probe=new[1]))
        async with asyncio.timeout(60):
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.02)
        waiting = asyncio.create_task(pool.complete(request(1)))
        await asyncio.sleep(0)
        await pool.close()
        for task in (publishing, waiting):
            with pytest.raises(EngineError, match="closed"):
                await task

    with_pool(RayPool, lambda: Stuck({"solver": "x"}), use)


class Hanging(TransformersEngine):
    """The first to be published to while the file is there takes it away and does not end."""

    trap = Path()

    async def publish(self, policy: str, version: str, source: Path) -> None:
        try:
            self.trap.unlink()
        except FileNotFoundError:
            await super().publish(policy, version, source)
        else:
            await asyncio.Event().wait()


@pytest.mark.ray
@pytest.mark.model
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
class TestRayPool:
    def test_all_replicas_serve_it_and_one_that_is_killed_then_serves_it_again(
        self, new: tuple[Path, Probe], adapter: tuple[Path, Probe], old: Probe
    ) -> None:
        async def use(pool: RayPool) -> None:
            assert await scores(pool, old) == pytest.approx([0.0, 0.0], abs=1e-4)
            before = await ask(pool, 20)
            await pool.publish("critic", "7", adapter[0])
            await pool.publish("", "2", new[0])
            assert await scores(pool, new[1]) == pytest.approx([0.0, 0.0], abs=1e-4)
            after, critic = await ask(pool, 20), await ask(pool, 20, "critic")
            assert {c.version for c in after} == {"2"} and {c.version for c in critic} == {"7"}
            assert [c.logprobs for c in after] != [c.logprobs for c in before]
            victim = (await pool.health())[0]
            assert victim.versions == {"": "2", "critic": "7"} and victim.pid
            os.kill(victim.pid, signal.SIGKILL)
            again = asyncio.gather(ask(pool, 20), ask(pool, 20, "critic"))
            assert await again == [after, critic]
            while (health := (await pool.health())[0]).pid in (None, victim.pid):
                await pool.ready()
            assert health.versions == victim.versions and health.restarts == 1
            assert await scores(pool, new[1]) == pytest.approx([0.0, 0.0], abs=1e-4)

        with_pool(RayPool, "embedded", use, replicas=2)

    def test_stale_weights_are_caught_and_every_replica_goes_back(self, new: tuple[Path, Probe], old: Probe) -> None:
        def stale() -> TransformersEngine:
            return ignoring("model.layers.2.mlp.up_proj.weight")

        async def use(pool: RayPool) -> None:
            before = await ask(pool, 20)
            with pytest.raises(PublishError, match=r"where the source has .*every replica has the weights"):
                await pool.publish("", "2", new[0])
            assert await scores(pool, old) == pytest.approx([0.0, 0.0], abs=1e-4)
            assert await ask(pool, 20) == before
            assert [health.restarts for health in await pool.health()] == [0, 0]

        with_pool(RayPool, stale, use, replicas=2)

    def test_a_replica_that_hangs_fails_the_publish_at_its_deadline(
        self, tmp_path: Path, new: tuple[Path, Probe], newer: tuple[Path, Probe]
    ) -> None:
        trap = tmp_path / "trap"

        def hanging() -> Hanging:
            engine = Hanging(EMBEDDED)
            engine.trap = trap
            return engine

        async def use(pool: RayPool) -> None:
            await pool.publish("", "2", new[0])
            trap.touch()
            started = time.monotonic()
            publishing = asyncio.create_task(pool.publish("", "3", newer[0], deadline_s=3))
            waiting = asyncio.create_task(ask(pool, 20))
            with pytest.raises(PublishError, match=r"replica \d: it was not done within 3 s; every replica has"):
                await publishing
            assert time.monotonic() - started < 60
            assert {c.version for c in [*await waiting, *await ask(pool, 20)]} == {"2"}
            assert await scores(pool, new[1]) == pytest.approx([0.0, 0.0], abs=1e-4)
            await pool.publish("", "4", newer[0])
            assert await scores(pool, newer[1]) == pytest.approx([0.0, 0.0], abs=1e-4)

        with_pool(RayPool, hanging, use, replicas=2)

    def test_one_that_is_cancelled_leaves_the_old_weights(
        self, tmp_path: Path, new: tuple[Path, Probe], old: Probe
    ) -> None:
        trap = tmp_path / "trap"
        trap.touch()

        def hanging() -> Hanging:
            engine = Hanging(EMBEDDED)
            engine.trap = trap
            return engine

        async def use(pool: RayPool) -> None:
            publishing = asyncio.create_task(pool.publish("", "2", new[0]))
            async with asyncio.timeout(60):
                while trap.exists():
                    await asyncio.sleep(0.02)
            publishing.cancel()
            answers = await ask(pool, 10)
            assert "2" not in {c.version for c in answers} and publishing.cancelled()
            await pool.ready()
            assert await scores(pool, old) == pytest.approx([0.0, 0.0], abs=1e-4)

        with_pool(RayPool, hanging, use, replicas=2)
