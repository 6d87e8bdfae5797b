"""The trainer as a Ray actor: the same as in this process, and what becomes of it when it is killed."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agents.learning import SampleError
from agents.learning.remote import RemoteTrainer, start_trainer
from agents.learning.trainer_settings import Placement, PolicySettings, TrainerDiedError, TrainerSettings
from envs import ConfigError
from tests.agents.trainer_helpers import make_model, make_replies, open_trainer

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_started")]
SETTINGS = TrainerSettings(learning_rate=1e-2, warmup_steps=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def with_trainer(model: Path, use: Callable[[RemoteTrainer], Awaitable[Any]], rank: int = 4) -> Any:
    async def run() -> Any:
        trainer = await start_trainer(SETTINGS, {"a": PolicySettings(f"hf:{model}", rank=rank)})
        try:
            return await use(trainer)
        finally:
            await trainer.close()

    return asyncio.run(run())


def test_it_does_what_a_trainer_in_this_process_does(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = open_trainer(model, "a", rank=4, warmup_steps=3)
    version = here.export("a", tmp_path / "here")
    replies = make_replies(here, "a")

    async def use(there: RemoteTrainer) -> None:
        assert await there.export("a", "there") == version
        assert await there.step(replies) == here.step(replies)
        assert await there.update(replies, 2, 4) == here.update(replies, 2, 4)
        assert await there.probe("a") == here.probe("a")
        assert await there.score((5, 6, 7), "a") == here.score((5, 6, 7), "a")
        status = await there.status()
        assert status.trainer == here.status() and status.doing == "" and status.pid != os.getpid()

    with_trainer(model, use)
    assert (tmp_path / "there" / "adapter_model.safetensors").is_file()


def test_errors_arrive_as_they_were_raised_and_it_goes_on(model: Path) -> None:
    here = open_trainer(model, "a", warmup_steps=3)

    async def use(there: RemoteTrainer) -> None:
        replies = make_replies(here, "a")
        with pytest.raises(SampleError, match="policy that this trainer has, found 'b'") as refused:
            await there.step(make_replies(open_trainer(model, "b"), "b"))
        assert refused.value.key == "task-0/0/solver/0"
        with pytest.raises(ConfigError, match=r"did you mean 'a'|one of: a"):
            await there.export("b", "/nowhere")
        assert await there.step(replies) == here.step(replies)

    async def opened(policy: PolicySettings, placement: Placement | None = None) -> None:
        await start_trainer(SETTINGS, {"a": policy}, placement)

    with_trainer(model, use, rank=0)
    with pytest.raises(ConfigError, match="no adapter can be put on"):
        asyncio.run(opened(PolicySettings(f"hf:{model}", rank=2, targets=("no_such_layer",))))
    with pytest.raises(ConfigError, match="ask for 1 no-such-resource, Ray has 0"):
        asyncio.run(opened(PolicySettings(), Placement(resource="no-such-resource")))


def test_it_answers_for_its_status_while_it_works(model: Path) -> None:
    here = open_trainer(model, "a")

    async def use(there: RemoteTrainer) -> None:
        working = asyncio.create_task(there.update(make_replies(here, "a", number=8), 10, 4))
        while (status := await there.status()).doing != "update" or not status.trainer.steps:
            assert not working.done()
        await working
        assert (await there.status()).trainer.steps == 20

    with_trainer(model, use, rank=0)


@pytest.mark.parametrize("rank", [0, 4])
def test_killed_between_steps_it_goes_on_from_its_last_save_to_the_same_metrics(
    model: Path, tmp_path: Path, rank: int
) -> None:
    here = open_trainer(model, "a", rank=rank, warmup_steps=3)
    here.export("a", tmp_path / "here")
    replies = make_replies(here, "a")
    unbroken = [here.step(replies) for _ in range(3)]

    async def use(there: RemoteTrainer) -> None:
        await there.export("a", tmp_path / "there")
        assert await there.step(replies) == unbroken[0]
        await there.save(tmp_path / "saved")
        assert await there.step(replies) == unbroken[1]
        pid = (await there.status()).pid
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TrainerDiedError, match="restart it, and go on from its last save"):
            await there.step(replies)
        status = await there.restart()
        assert status.trainer.steps == 1 and status.pid != pid
        assert [await there.step(replies) for _ in range(2)] == unbroken[1:]

    with_trainer(model, use, rank)
