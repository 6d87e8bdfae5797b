"""Votes and aggregation: who is asked, what is read, and how the outcome is settled."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from agents import Cast, Request, ScriptedEngine, open_company
from agents.types import Completion
from graphs import best_of_n, build, certainty, collective, rpc
from graphs import play as play_one
from tests.conftest import WordEnv

BOX = "\\boxed{{{}}}".format


class Weighted(ScriptedEngine):
    """A scripted engine whose replies come with log-probabilities and certainties: (text, logprob, certainty)."""

    def __init__(self, replies: list[tuple[str, float, float]]):
        super().__init__({"solver": [text for text, _, _ in replies]})
        self._weights = replies

    async def complete(self, request: Request) -> Completion:
        completion = await super().complete(request)
        _, logprob, sure = self._weights[int(request.key.rpartition("/")[2])]
        n = len(completion.token_ids)
        return replace(completion, logprobs=(logprob / n,) * n, certainty=(sure,) * n if request.certainty else ())


def play(play_scripted: Any, topology: Any, script: Any, **settings: Any) -> Any:
    return play_scripted(topology, script, settings)


def test_certainty_lets_the_surest_outvote_the_many(play_scripted: Any) -> None:
    replies = [(BOX("yes"), -1.0, 4.0), (BOX("no"), -1.0, 3.0), (BOX("no"), -1.0, 2.0), (BOX("maybe"), -1.0, 1.0)]
    for power, outcome in ((0.5, "no"), (2, "yes")):
        episode = _with_engine(Weighted(replies), build(certainty, {"samples": 4, "power": power}))
        assert episode.answer == outcome and episode.calls == 4


def test_rpc_counts_what_is_said_twice_once(play_scripted: Any) -> None:
    same = f"b {BOX('no')}"
    replies = [(f"a {BOX('yes')}", math.log(0.04), 0.0), (f"c {BOX('yes')}", math.log(0.03), 0.0)]
    replies += [(same, math.log(0.05), 0.0)] * 2
    episode = _with_engine(Weighted(replies), build(rpc, {"samples": 4, "prune": False}))
    assert episode.answer == "yes"


def test_engines_without_the_figures_fail_the_episode_plainly(play_scripted: Any) -> None:
    episode = play(play_scripted, certainty, {"solver": BOX("yes")}, samples=2)
    assert episode.failure and "self-certainty needs probabilities over the whole vocabulary" in episode.failure


def test_models_vote_by_their_own_consistency(play_scripted: Any) -> None:
    script = {
        "solver_1": [BOX("yes"), BOX("yes"), BOX("yes"), BOX("yes")],
        "solver_2": [BOX("no"), BOX("no"), BOX("no"), BOX("maybe")],
        "solver_3": [BOX("no"), BOX("no"), BOX("yes"), BOX("other")],
    }
    episode = play(play_scripted, collective, script, models=3, samples=4)
    assert episode.answer == "yes" and episode.stop_reason.endswith("consistency 0.50")


class TestBestOfN:
    def test_both_orders_must_agree(self, play_scripted: Any) -> None:
        solutions = [BOX("no"), BOX("yes"), BOX("maybe")]
        verdicts = ["Verdict: B", "Verdict: A", "Verdict: B", "Verdict: B"]
        episode = play(play_scripted, best_of_n, {"solver": solutions, "judge": verdicts}, samples=3)
        assert episode.answer == "yes", "yes won both orders against no, and maybe only one against yes"
        assert [turn.reads for turn in episode.turns[3:]] == [
            ("solver/0", "solver/1"),
            ("solver/1", "solver/0"),
            ("solver/1", "solver/2"),
            ("solver/2", "solver/1"),
        ]

    def test_one_answer_needs_no_judge(self, play_scripted: Any) -> None:
        episode = play(play_scripted, best_of_n, {"solver": [BOX("yes")] * 3, "judge": []}, samples=3)
        assert (episode.answer, episode.calls, episode.stop_reason) == ("yes", 3, "agreed")


@pytest.mark.parametrize("topology", [certainty, rpc, best_of_n, collective])
@pytest.mark.parametrize("reply", ["", "no answer in it"])
def test_replies_without_answers_give_no_answer_and_never_hang(play_scripted: Any, topology: Any, reply: str) -> None:
    episode = play_scripted(topology, lambda request: reply)
    assert episode.answer is None and episode.failure is None and episode.verdict.status == "unparsed"


def _with_engine(engine: ScriptedEngine, topology: Any) -> Any:
    async def run() -> Any:
        env = WordEnv()
        async with open_company(Cast.all(engine), topology.roles, backend="local") as company:
            return await play_one(topology, env, env.tasks(1)[0], company)

    return asyncio.run(run())
