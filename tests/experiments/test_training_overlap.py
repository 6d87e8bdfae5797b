"""Overlap: with a lag the engines work on while the trainer does. On a clock of its own: no figure depends on this
machine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from experiments.training import Training
from tests.experiments.training_helpers import trained
from tests.virtual_time import VirtualTime

REQUEST_S, UPDATE_S, PUBLISH_S = 1.0, 3.0, 0.05


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train with an engine that takes a second a request, and a trainer that takes three an update."""
    from agents.engines.transformers import TransformersEngine
    from experiments.store import StoreWriter
    from experiments.training.teacher import LocalTeacher
    from tests.agents.trainer_helpers import make_model

    intervals: list[tuple[float, float]] = []

    def slowed(method: Any, seconds: float) -> Any:
        async def slow(*args: Any, **options: Any) -> Any:
            await asyncio.sleep(seconds)
            return await awaited(method)(*args, **options)

        return slow

    def awaited(method: Any) -> Any:
        async def working(*args: Any, **options: Any) -> Any:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualTime)
            with loop.real_work():
                return await method(*args, **options)

        return working

    slow = slowed(TransformersEngine.complete, REQUEST_S)

    async def complete(*args: Any) -> Any:
        begun = asyncio.get_running_loop().time()
        try:
            return await slow(*args)
        finally:
            intervals.append((begun, asyncio.get_running_loop().time()))

    monkeypatch.setattr(TransformersEngine, "complete", complete)
    monkeypatch.setattr(TransformersEngine, "publish", slowed(TransformersEngine.publish, PUBLISH_S))
    monkeypatch.setattr(TransformersEngine, "score", awaited(TransformersEngine.score))
    monkeypatch.setattr(StoreWriter, "append", awaited(StoreWriter.append))
    monkeypatch.setattr(LocalTeacher, "update", slowed(LocalTeacher.update, UPDATE_S))
    monkeypatch.setattr(asyncio.events, "new_event_loop", VirtualTime)
    model = make_model(tmp_path / "tiny")

    def play(lag: int) -> tuple[Training, float]:
        """The run, and the share of the time from the first request to the last in which the engine had one."""
        intervals.clear()
        settings = {"lag": lag, "iterations": 6, "tasks": 4, "samples": 4, "concurrency": 4}
        training = trained(tmp_path, model, name=f"lag{lag}", settings=settings)
        return training, busy(intervals)

    return play


def busy(intervals: list[tuple[float, float]]) -> float:
    ends = sorted(intervals)
    covered, until = 0.0, ends[0][0]
    for begin, end in ends:
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered / (until - ends[0][0])


def test_with_a_lag_generation_is_busy_while_the_trainer_works(played: Any) -> None:
    by_turns, share_by_turns = played(0)
    overlapped, share = played(1)
    iteration = 4 * REQUEST_S
    assert share_by_turns == pytest.approx(iteration / (iteration + UPDATE_S + PUBLISH_S), abs=0.05)
    assert share >= 0.95
    staleness = [line["policies"]["main"]["staleness_max"] for line in overlapped.lines("update")]
    assert staleness == [0, 1, 1, 1, 1, 1]
    assert len(by_turns.lines("update")) == len(staleness)


def test_busy_is_the_share_that_is_covered() -> None:
    assert busy([(0, 1), (0.5, 2), (3, 4)]) == 0.75
    assert busy([(0, 4), (1, 2)]) == 1
