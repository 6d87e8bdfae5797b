"""Replicas and pools: many requests to one call, each answered once, also when a replica dies."""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import Cast, EngineError, Message, Request, Sampling, ScriptedEngine, open_company
from agents.engines import ModelSpec, parse_model
from agents.pool import LocalPool, Pool, RayPool
from agents.replica import Replica
from agents.serving import EngineSettings, PoolSettings, Serving
from agents.types import Completion
from envs import ConfigError


def request(n: int) -> Request:
    return Request(f"t/0/solver/{n}", (Message("user", str(n)),), Sampling(), n)


def echo() -> ScriptedEngine:
    def script(asked: Request) -> str:
        if asked.key.endswith("/13"):
            raise EngineError("thirteen is refused")
        if asked.key.endswith("/14"):
            raise KeyError("a defect")
        return f"{asked.messages[0].content} by {os.getpid()}"

    return ScriptedEngine(script)


class Slow(ScriptedEngine):
    """Answers after a while, and counts what it does at once."""

    busy = most = 0

    async def complete(self, request: Request) -> Completion:
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0.01)
        self.busy -= 1
        return await super().complete(request)


class Dying(ScriptedEngine):
    """Takes its process down when asked for 5, the first time: a file remembers."""

    def __init__(self, marker: str):
        super().__init__(lambda asked: asked.messages[0].content)
        self._marker = marker

    async def complete(self, request: Request) -> Completion:
        if request.key.endswith("/5"):
            try:
                os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(1)
        await asyncio.sleep(0.05)
        return await super().complete(request)


class Doomed(ScriptedEngine):
    """Takes its process down when asked for 0, every time."""

    async def complete(self, request: Request) -> Completion:
        if request.key.endswith("/0"):
            os._exit(1)
        return await super().complete(request)


async def ask_all(pool: Pool, count: int) -> list[Any]:
    return await asyncio.gather(*(pool.complete(request(n)) for n in range(count)), return_exceptions=True)


def check_echoes(answers: list[Any]) -> None:
    for n, answer in enumerate(answers):
        if n == 13:
            assert isinstance(answer, EngineError) and str(answer) == "thirteen is refused"
        elif n == 14:
            assert isinstance(answer, EngineError) and "KeyError" in str(answer)
        else:
            assert answer.text.split(" by ")[0] == str(n)


def test_the_replica_answers_each_number_once_as_they_are_done() -> None:
    async def run() -> list[Any]:
        replica = Replica(parse_model(echo))
        await replica.load()
        await replica.submit([(n, request(n)) for n in range(20)])
        await replica.submit([(n, request(n)) for n in range(20, 30)])
        answers: dict[int, Any] = {}
        while len(answers) < 30:
            for number, answer in await replica.collect():
                assert number not in answers
                answers[number] = answer
        return [answers[n] for n in range(30)]

    check_echoes(asyncio.run(run()))


def test_the_local_pool_bounds_what_is_in_flight() -> None:
    engine = Slow({"solver": "x"})

    async def run() -> None:
        pool = LocalPool(parse_model(engine, Serving(pool=PoolSettings(max_in_flight=5))))
        await ask_all(pool, 40)
        await pool.close()

    asyncio.run(run())
    assert engine.most == 5


def in_ray_pool(model: Callable[[], Any], settings: PoolSettings, use: Callable[[RayPool], Any]) -> Any:
    async def run() -> Any:
        pool = RayPool(parse_model(model, Serving(pool=settings)))
        try:
            await pool.ready()
            return await use(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
class TestRayPool:
    def test_requests_are_spread_and_each_is_answered_once(self) -> None:
        async def use(pool: RayPool) -> list[Any]:
            return await ask_all(pool, 200)

        answers = in_ray_pool(echo, PoolSettings(replicas=2), use)
        check_echoes(answers)
        processes = [answer.text.split(" by ")[1] for answer in answers if isinstance(answer, Completion)]
        assert len(set(processes)) == 2 and str(os.getpid()) not in processes
        assert min(processes.count(process) for process in set(processes)) > 50

    def test_many_requests_go_in_one_call(self) -> None:
        async def use(pool: RayPool) -> int:
            replica = pool._replicas[0]
            calls = 0
            flush = replica._flush

            def counted() -> None:
                nonlocal calls
                calls += 1
                flush()

            replica._flush = counted  # pyright: ignore
            await ask_all(pool, 500)
            return calls

        assert in_ray_pool(echo, PoolSettings(), use) == 1

    def test_a_replica_that_dies_is_started_again_and_asked_again(self, tmp_path: Any) -> None:
        marker = str(tmp_path / "died")

        async def use(pool: RayPool) -> list[Any]:
            return await ask_all(pool, 30)

        answers = in_ray_pool(lambda: Dying(marker), PoolSettings(replicas=2), use)
        assert [answer.text for answer in answers] == [str(n) for n in range(30)]
        assert Path(marker).exists()

    def test_one_that_always_dies_fails_its_callers_in_the_end(self) -> None:
        async def use(pool: RayPool) -> tuple[list[Any], list[Any]]:
            first = await ask_all(pool, 3)
            return first, await ask_all(pool, 1)

        for answers in in_ray_pool(lambda: Doomed({}), PoolSettings(restarts=1), use):
            assert all(isinstance(answer, EngineError) and "died" in str(answer) for answer in answers)

    def test_the_others_go_on_without_one_that_always_dies(self) -> None:
        async def use(pool: RayPool) -> tuple[list[Any], list[Any]]:
            first = await ask_all(pool, 1)
            return first, await asyncio.gather(*(pool.complete(request(n)) for n in range(1, 30)))

        failed, answers = in_ray_pool(
            lambda: Doomed(lambda asked: asked.messages[0].content), PoolSettings(replicas=2, restarts=0), use
        )
        assert isinstance(failed[0], EngineError)
        assert [answer.text for answer in answers] == [str(n) for n in range(1, 30)]

    def test_a_model_that_does_not_load_is_said_at_once(self) -> None:
        def broken() -> Any:
            raise ConfigError("no such weights")

        async def use(pool: RayPool) -> None:
            pytest.fail("a pool without a model was ready")

        with pytest.raises(ConfigError, match=r"^no such weights$"):
            in_ray_pool(broken, PoolSettings(), use)

    def test_gpus_that_are_not_there_are_said_at_once(self) -> None:
        async def opened() -> None:
            async with open_company(Cast.all("embedded"), ["solver"], serving=Serving(EngineSettings(device="cuda"))):
                pytest.fail("opened")

        if not torch.cuda.is_available():
            with pytest.raises(ConfigError, match=r"ask for 1 GPUs, Ray has 0; set engine\.device=cpu"):
                asyncio.run(opened())

    def test_an_engine_that_cannot_travel_is_refused(self) -> None:
        engine = echo()
        engine.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]

        async def opened() -> None:
            async with open_company(Cast.all(engine), ["solver"]):
                pytest.fail("opened")

        with pytest.raises(ConfigError, match="cannot be sent to another process"):
            asyncio.run(opened())

    def test_the_embedded_model_answers_alike_here_and_there(self) -> None:
        asked = [
            Request(f"t/0/solver/{n}", (Message("user", f"What is {n} + 7?"),), Sampling(max_tokens=12), n)
            for n in range(8)
        ]

        async def answers(backend: Any) -> list[Any]:
            async with open_company(Cast.all("embedded"), ["solver"], backend) as company:
                return list(await asyncio.gather(*(company.complete("solver", r) for r in asked)))

        assert asyncio.run(answers("ray")) == asyncio.run(answers("local"))


def test_a_replica_on_cuda_asks_ray_for_a_gpu_unless_told_otherwise() -> None:
    on_cpu, on_cuda = (ModelSpec("hf", "x", EngineSettings(device=device)) for device in ("cpu", "cuda"))
    assert [spec.gpus for spec in (on_cpu, on_cuda)] == [0, 1]
    assert replace(on_cuda, pool=PoolSettings(gpus=0.25)).gpus == 0.25


def test_a_company_needs_every_role_and_model_before_it_opens() -> None:
    async def opened(cast: Cast, roles: list[str]) -> None:
        async with open_company(cast, roles, backend="local"):
            pytest.fail("opened")

    with pytest.raises(ConfigError, match="unknown role 'judge'"):
        asyncio.run(opened(Cast(solver="embedded"), ["judge"]))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        asyncio.run(opened(Cast(solver="embedded", judge="hf:/nowhere"), ["solver", "judge"]))


def test_a_role_that_was_not_opened_is_said_to_be_none() -> None:
    async def run() -> None:
        async with open_company(Cast(solver=echo, judge=lambda: Doomed({})), ["solver"], backend="local") as company:
            await company.complete("judge", request(0))

    with pytest.raises(EngineError, match="nobody was told that judge would be asked"):
        asyncio.run(run())


def test_two_models_have_two_pools_and_one_model_has_one() -> None:
    made: list[str] = []

    def first() -> ScriptedEngine:
        made.append("first")
        return ScriptedEngine({"solver": "1", "critic": "1"}, "first")

    def second() -> ScriptedEngine:
        made.append("second")
        return ScriptedEngine({"judge": "2"}, "second")

    async def run() -> list[str]:
        cast = Cast(solver=first, critic=first, judge=second)
        async with open_company(cast, ["solver", "critic", "judge"], backend="local") as company:
            return [
                (await company.complete(role, Request(f"t/0/{role}/0", (), Sampling(), 0))).policy
                for role in ("solver", "critic", "judge")
            ]

    assert asyncio.run(run()) == ["first", "first", "second"]
    assert sorted(made) == ["first", "second"]


def test_specs_and_requests_survive_the_way_to_another_process() -> None:
    import pickle

    for thing in (request(3), ModelSpec("hf", "x", EngineSettings(device="cuda")), EngineError("e")):
        copy = pickle.loads(pickle.dumps(thing))
        assert copy == thing or str(copy) == str(thing)
