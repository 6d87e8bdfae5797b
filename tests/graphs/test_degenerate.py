"""Every topology on replies that say nothing or all say the same, and at its smallest: it ends and says what came."""

import asyncio
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import pytest

from agents import Cast, Request, ScriptedEngine, open_company
from agents.company import Company
from agents.types import Completion
from graphs import TOPOLOGIES, Episode, build, play
from tests.conftest import WordEnv

BOX = "\\boxed{yes}"
SMALLEST = ("samples", "agents", "lanes", "pool", "models")
EXTRACTED = ("mad", "judge_steps", "pose")
"""Those whose answer is in words of another role, or a problem, which such replies are not."""
GIVEN = {"steps": ["one", "two"], "judge": [0, 1], "first_wrong": None}
"""For who judges what a task brings along."""


class Measured(ScriptedEngine):
    """One reply to everything, with the figures that votes ask for."""

    def __init__(self, reply: str):
        super().__init__(lambda request: "[-0.1, -2.0]" if request.choices else reply)

    async def complete(self, request: Request) -> Completion:
        completion = await super().complete(request)
        tokens = len(completion.token_ids)
        return replace(completion, logprobs=(-0.1,) * tokens, certainty=(1.0,) * tokens)


class RunnableWords(WordEnv):
    async def check(self, task: Any, reply: str) -> str | None:
        return None if BOX in reply else "It says nothing."


@pytest.fixture(autouse=True)
def embedded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    async def embed(self: Company, texts: Any, embedder: str = "", role: str = "") -> np.ndarray:
        return np.tile(np.array([0.6, 0.8]), (len(texts), 1))

    monkeypatch.setattr(Company, "embed", embed)


def episode(name: str, reply: str, **settings: Any) -> Episode:
    async def run() -> Episode:
        env, topology = RunnableWords(), build(TOPOLOGIES[name], settings)
        cast, task = Cast.all(Measured(reply)), env.tasks(1)[0].model_copy(update={"details": GIVEN})
        async with open_company(cast, topology.roles, backend="local") as company, topology.opened():
            return await asyncio.wait_for(play(topology, env, task, company, seed=1), 60)

    return asyncio.run(run())


@pytest.mark.parametrize("name", TOPOLOGIES)
class TestEveryTopology:
    @pytest.mark.parametrize("reply", ["", " \n ", "I do not know.", "Verdict:", "Choice: 0", "{"])
    def test_replies_without_an_answer(self, name: str, reply: str) -> None:
        played = episode(name, reply)
        assert played.failure is None and played.answer is None
        assert played.verdict is not None and played.verdict.status == "unparsed"

    def test_identical_replies(self, name: str) -> None:
        played = episode(name, BOX)
        assert played.failure is None and (played.answer == "yes" or name in EXTRACTED)

    def test_one_agent(self, name: str) -> None:
        settings = {key: 1 for key in signature(TOPOLOGIES[name]).parameters if key in SMALLEST}
        played = episode(name, BOX, **settings)
        assert played.failure is None and (played.answer == "yes" or name in EXTRACTED)
