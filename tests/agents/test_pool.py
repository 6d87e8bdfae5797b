"""Replicas and pools: many requests to one call, each answered once, also when a replica dies."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import Cast, EngineError, Message, Request, Sampling, ScriptedEngine, open_company
from agents.engines import ModelSpec, parse_model
from agents.pool import LocalPool, Pool, RayPool, ReplicaHealth
from agents.replica import Replica
from agents.serving import EngineSettings, PoolSettings, Serving
from agents.types import Completion, EngineDiedError
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


class Waiting(ScriptedEngine):
    """The first to make the file answers nothing and writes who it is into it; all others echo."""

    def __init__(self, folder: Path):
        super().__init__(lambda asked: asked.messages[0].content)
        self._folder = folder

    async def complete(self, request: Request) -> Completion:
        try:
            with (self._folder / "waits").open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            if (self._folder / "waits").read_text() != str(os.getpid()):
                return await super().complete(request)
        try:
            await asyncio.Event().wait()
            raise AssertionError("nobody wakes it")
        except asyncio.CancelledError:
            (self._folder / "cancelled").touch()
            raise

    async def close(self) -> None:
        (self._folder / "closed").touch()


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for what happens in another process."""
    async with asyncio.timeout(60):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


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


def test_closing_the_local_pool_fails_what_is_in_flight(tmp_path: Path) -> None:
    async def run() -> None:
        pool = LocalPool(parse_model(lambda: Waiting(tmp_path)))
        asked = asyncio.create_task(ask_all(pool, 3))
        await until((tmp_path / "waits").exists)
        (health,) = await pool.health()
        assert (health.pid, health.alive, health.requests, health.versions) == (os.getpid(), True, 3, {"": "1"})
        await pool.close()
        await pool.close()
        assert all(isinstance(answer, EngineError) and "closed" in str(answer) for answer in await asked)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert (tmp_path / "closed").exists()


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
            replica: Any = pool._replicas[0]
            calls = 0
            send = replica._send

            def counted(batch: Any) -> None:
                nonlocal calls
                calls += 1
                send(batch)

            replica._send = counted
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

    def test_one_that_is_killed_from_outside_loses_nothing(self, tmp_path: Path) -> None:
        async def use(pool: RayPool) -> tuple[list[Any], list[ReplicaHealth]]:
            asked = asyncio.create_task(ask_all(pool, 40))
            waits = int(await until(lambda: (tmp_path / "waits").exists() and (tmp_path / "waits").read_text()))
            victim = next(health for health in await pool.health() if health.pid == waits)
            assert victim.alive and victim.requests > 0 and victim.tokens > 0
            os.kill(waits, signal.SIGKILL)
            answers = await asked
            await pool.ready()
            return answers, await pool.health()

        answers, health = in_ray_pool(lambda: Waiting(tmp_path), PoolSettings(replicas=2), use)
        assert [answer.text for answer in answers] == [str(n) for n in range(40)]
        assert sorted(h.restarts for h in health) == [0, 1] and all(h.alive for h in health)
        assert all((h.requests, h.tokens) == (0, 0) for h in health)
        assert "died" in next(h for h in health if h.restarts).last_error

    @pytest.mark.parametrize("restarts", [1, 0])
    def test_one_that_is_lost_while_it_starts_is_started_again(self, tmp_path: Path, restarts: int) -> None:
        def lost_at_first() -> ScriptedEngine:
            if not (tmp_path / "born").exists():
                (tmp_path / "born").touch()
                os._exit(1)
            return echo()

        async def use(pool: RayPool) -> list[ReplicaHealth]:
            check_echoes(await ask_all(pool, 20))
            return await pool.health()

        if not restarts:
            with pytest.raises(EngineError, match=r"replica 0 .* did not start: "):
                in_ray_pool(lost_at_first, PoolSettings(restarts=restarts), use)
        else:
            (health,) = in_ray_pool(lost_at_first, PoolSettings(restarts=restarts), use)
            assert (health.alive, health.restarts) == (True, 1)

    def test_a_pool_whose_replica_was_lost_just_now_is_ready_once_it_is_back(self) -> None:
        async def use(pool: RayPool) -> list[ReplicaHealth]:
            (before,) = await pool.health()
            assert before.pid
            os.kill(before.pid, signal.SIGKILL)
            await pool.ready()
            return await pool.health()

        (health,) = in_ray_pool(echo, PoolSettings(restarts=1), use)
        assert (health.alive, health.restarts) == (True, 1)

    def test_while_one_starts_again_the_others_are_asked(self, tmp_path: Path) -> None:
        def slow_to_start() -> ScriptedEngine:
            born = len(list(tmp_path.glob("born*")))
            (tmp_path / f"born{os.getpid()}").touch()
            while born >= 2 and not (tmp_path / "go").exists():
                time.sleep(0.02)
            return echo()

        async def use(pool: RayPool) -> None:
            victim, other = await pool.health()
            assert victim.pid
            os.kill(victim.pid, signal.SIGKILL)
            await until(lambda: len(list(tmp_path.glob("born*"))) == 3)
            answers = await ask_all(pool, 10)
            assert {answer.text.split(" by ")[1] for answer in answers} == {str(other.pid)}
            starting = (await pool.health())[0]
            assert (starting.state, starting.alive) == ("starting", False)
            (tmp_path / "go").touch()
            await pool.ready()
            assert [health.alive for health in await pool.health()] == [True, True]

        in_ray_pool(slow_to_start, PoolSettings(replicas=2), use)

    def test_a_caller_that_gives_up_frees_its_place_and_the_replica_drops_its_request(self, tmp_path: Path) -> None:
        async def use(pool: RayPool) -> list[ReplicaHealth]:
            asked = asyncio.create_task(pool.complete(request(0)))
            await until((tmp_path / "waits").exists)
            second = asyncio.create_task(pool.complete(request(1)))
            asked.cancel()
            await until((tmp_path / "cancelled").exists)
            (tmp_path / "waits").write_text("nobody")
            second.cancel()
            assert (await pool.complete(request(2))).text == "2"
            assert await asyncio.gather(asked, second, return_exceptions=True) and asked.cancelled()
            return await pool.health()

        (health,) = in_ray_pool(lambda: Waiting(tmp_path), PoolSettings(max_in_flight=1), use)
        assert (health.requests, health.tokens, health.restarts) == (0, 0, 0)

    def test_closing_fails_what_is_in_flight_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        async def run() -> None:
            pool = RayPool(parse_model(lambda: Waiting(tmp_path), Serving(pool=PoolSettings(max_in_flight=3))))
            await pool.ready()
            (health,) = await pool.health()
            asked = asyncio.create_task(ask_all(pool, 9))
            await until((tmp_path / "waits").exists)
            await asyncio.gather(pool.close(), pool.close())
            for answer in await asked:
                assert isinstance(answer, EngineError) and "closed" in str(answer)
            await pool.close()
            with pytest.raises(EngineError, match="closed"):
                await pool.complete(request(0))
            assert (tmp_path / "closed").exists() and health.pid
            await until(lambda: is_gone(health.pid or 0))
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(run())

    def test_a_request_that_cannot_travel_fails_alone(self) -> None:
        async def use(pool: RayPool) -> list[Any]:
            odd = replace(request(0), tools=({"lock": threading.Lock()},))
            asked = [pool.complete(odd), *(pool.complete(request(n)) for n in range(1, 5))]
            return list(await asyncio.gather(*asked, return_exceptions=True))

        odd, *others = in_ray_pool(echo, PoolSettings(), use)
        assert isinstance(odd, EngineError) and "t/0/solver/0 cannot be sent" in str(odd)
        assert [answer.text.split(" by ")[0] for answer in others] == ["1", "2", "3", "4"]

    @pytest.mark.parametrize("make", [RayPool, LocalPool])
    def test_an_engine_whose_own_process_died_is_made_anew(self, tmp_path: Path, make: Any) -> None:
        class Headless(ScriptedEngine):
            """Of all that are made, the first is dead from its first request on."""

            dead = False

            async def complete(self, request: Request) -> Completion:
                if not (tmp_path / "once").exists():
                    (tmp_path / "once").touch()
                    self.dead = True
                if self.dead:
                    raise EngineDiedError("its process is gone")
                return await super().complete(request)

        async def run() -> tuple[list[Any], list[ReplicaHealth]]:
            pool = make(parse_model(lambda: Headless({"solver": "yes"})))
            try:
                await pool.ready()
                return await ask_all(pool, 5), await pool.health()
            finally:
                await pool.close()

        answers, (health,) = asyncio.run(run())
        assert [answer.text for answer in answers] == ["yes"] * 5
        assert health.restarts == 1 and health.last_error == "its process is gone"

    def test_resources_that_are_not_there_are_said_at_once(self) -> None:
        async def opened() -> None:
            serving = Serving(pool=PoolSettings(resource="worker", replicas=2))
            async with open_company(Cast.all("embedded"), ["solver"], serving=serving):
                pytest.fail("opened")

        with pytest.raises(ConfigError, match=r"ask for 2 worker, Ray has 0; start Ray's nodes with"):
            asyncio.run(opened())

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


PLACED = """
import asyncio, os, ray
from agents import Message, Request, Sampling, ScriptedEngine
from agents.engines import parse_model
from agents.pool import RayPool
from agents.serving import PoolSettings, Serving

def engine():
    placed = ray.get_runtime_context().get_assigned_resources()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return ScriptedEngine(lambda asked: f"{seen}|{placed.get('GPU', 0):g}|{placed.get('worker', 0):g}|{os.getpid()}")

async def placed(**settings):
    pool = RayPool(parse_model(engine, Serving(pool=PoolSettings(**settings))))
    await pool.ready()
    asked = [pool.complete(Request(f"t/0/s/{n}", (Message("user", str(n)),), Sampling(), n)) for n in range(20)]
    texts = {completion.text.rpartition("|")[0::2] for completion in await asyncio.gather(*asked)}
    await pool.close()
    print(sorted(where for where, _ in texts), flush=True)

async def main():
    await placed(gpus=2)
    await placed(gpus=0.5, replicas=4, resource="worker")

ray.init(address="local", num_cpus=1, num_gpus=2, resources={"worker": 4}, include_dashboard=False)
asyncio.run(main())
"""


@pytest.mark.ray
@pytest.mark.slow
def test_replicas_take_whole_gpus_fractions_and_resources_but_no_cpus() -> None:
    done = subprocess.run([sys.executable, "-c", PLACED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    whole, shared = done.stdout.splitlines()
    assert whole == "['0,1|2|0']"
    assert shared == "['0|0.5|1', '0|0.5|1', '1|0.5|1', '1|0.5|1']"


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
