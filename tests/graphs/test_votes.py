"""Votes and aggregation: who is asked, what is read, and how the outcome is settled."""

import asyncio
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from agents import Cast, Request, ScriptedEngine, open_company
from agents.types import Completion
from envs.types import Task
from graphs import best_of_n, build, certainty, collective, fobar, gsa, p_true, rpc, universal
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


def test_p_true_weighs_solutions_by_their_reviewers_verdicts(play_scripted: Any) -> None:
    def script(request: Request) -> str:
        if "/solver/" in request.key:
            return [BOX("yes"), BOX("no"), BOX("no")][int(request.key[-1])]
        right = "boxed{yes}" in request.messages[-1].content
        if request.choices:
            assert request.opening.endswith("Verdict:") and request.choices == (" correct", " incorrect")
            return json.dumps([-0.01, -5.0] if right else [-2.0, -0.1])
        return f"1 + 1 = 2; 2, correct\nVerdict: {'correct' if right else 'incorrect'}"

    episode = play(play_scripted, p_true, script, samples=3)
    assert episode.answer == "yes" and episode.calls == 9
    assert [turn.reads for turn in episode.turns if turn.role == "reviewer"] == [
        ("solver/0",), ("solver/1",), ("solver/2",), ("solver/0",), ("solver/1",), ("solver/2",)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("review", "opening"),
    [
        ("2, correct\nVerdict: correct", "2, correct\nVerdict:"),
        ("2, correct\n**verdict : Correct**", "2, correct\nVerdict:"),
        ("Verdict: correct\nNo:\nVerdict: incorrect", "Verdict: correct\nNo:\nVerdict:"),
        ("2, correct", "2, correct\nVerdict:"),
        ("", "\nVerdict:"),
    ],
)
def test_the_verdict_that_is_weighed_follows_what_the_review_says(
    play_scripted: Any, review: str, opening: str
) -> None:
    seen: list[str] = []

    def script(request: Request) -> str:
        if request.choices:
            seen.append(request.opening)
            return "[-1, -2]"
        return review if "/reviewer/" in request.key else BOX("yes")

    assert play(play_scripted, p_true, script, samples=1).answer == "yes"
    assert seen == [opening]


def test_models_vote_by_their_own_consistency(play_scripted: Any) -> None:
    script = {
        "solver_1": [BOX("yes"), BOX("yes"), BOX("yes"), BOX("yes")],
        "solver_2": [BOX("no"), BOX("no"), BOX("no"), BOX("maybe")],
        "solver_3": [BOX("no"), BOX("no"), BOX("yes"), BOX("other")],
    }
    episode = play(play_scripted, collective, script, models=3, samples=4)
    assert episode.answer == "yes" and episode.stop_reason.endswith("consistency 0.50")


class TestFobar:
    def script(self, request: Request) -> str:
        prompt = request.messages[-1].content
        if "Find the unknown X" not in prompt:
            return [BOX("12"), BOX("12"), BOX("9")][int(request.key[-1])]
        hidden = next(n for n in ("4", "5") if n not in prompt.split("The answer")[0])
        return BOX(hidden if "problem is 9." in prompt else "77")

    def test_what_is_asked_back_can_overturn_the_vote(self, play_scripted: Any, words: Any) -> None:
        task = words.tasks(1)[0].model_copy(update={"question": "What is 4 + 5?"})
        episode = play_scripted(fobar, self.script, {"samples": 3, "asks": 2}, task=task)
        assert episode.answer == "9" and episode.calls == 3 + 2 * 2
        assert {turn.reads for turn in episode.turns[3:]} == {("solver/0",), ("solver/2",)}

    def test_nothing_is_asked_where_all_agree_or_no_number_is_there(self, play_scripted: Any) -> None:
        assert play(play_scripted, fobar, {"solver": [BOX("yes"), BOX("yes")]}, samples=2).calls == 2
        script = {"solver": [BOX("yes"), BOX("no")]}
        task = Task(id="t", question="Which?", answers=("yes",))
        assert play_scripted(fobar, script, {"samples": 2}, task=task).answer == "yes"


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


@pytest.mark.parametrize(("said", "answer"), [("yes: 2\nChoice: 2", "yes"), ("Choice: 9", "no"), ("the second", "no")])
def test_universal_takes_the_solution_that_is_named(play_scripted: Any, said: str, answer: str) -> None:
    script = {"solver": [BOX("no"), BOX("yes")], "aggregator": [said]}
    episode = play(play_scripted, universal, script, samples=2)
    assert episode.answer == answer and episode.turns[-1].reads == ("solver/0", "solver/1")


def test_gsa_writes_a_solution_of_its_own(play_scripted: Any) -> None:
    script = {"solver": [BOX("no"), BOX("maybe")], "aggregator": [BOX("yes")]}
    episode = play(play_scripted, gsa, script, samples=2)
    assert episode.answer == "yes" and "Solution 2:\n\\boxed{maybe}" in episode.turns[-1].messages[-1].content


@pytest.mark.parametrize("topology", [certainty, rpc, p_true, fobar, best_of_n, universal, gsa, collective])
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
