"""Solo, vote and society: calls, what each prompt holds and must not hold, outcomes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agents import Cast, Request, ScriptedEngine
from envs import Arithmetic, ConfigError, final_answer, make_env
from experiments import run
from graphs import TOPOLOGIES, Graph, Stage, Table, build, fit, judge, mad, society, solo, solve, vote
from tests.conftest import PlayScripted


def boxed(answer: str) -> str:
    return f"thinking\n\\boxed{{{answer}}}"


def test_solo(play_scripted: PlayScripted) -> None:
    episode = play_scripted(solo, {"solver": [boxed("yes")]})
    assert (episode.calls, episode.answer, episode.stop_reason) == (1, "yes", "solved")
    assert episode.verdict is not None and episode.verdict.status == "correct"


def test_solo_without_a_readable_answer_is_unparsed(play_scripted: PlayScripted) -> None:
    episode = play_scripted(solo, {"solver": ["no idea"]})
    assert episode.verdict is not None and episode.verdict.status == "unparsed" and episode.verdict.score == 0
    assert episode.turns[0].failure is not None and episode.turns[0].failure.expected == "a final answer in \\boxed{}"


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["18", "20", "18"], "18"),
        (["18", "20", "24"], "18"),
        (["20", "18", "18", "20"], "20"),
        (["18", "20", "20.0"], "20"),
        (["?", "20", "?"], "20"),
    ],
)
def test_vote(play_scripted: PlayScripted, answers: list[str], winner: str) -> None:
    replies = ["hm" if answer == "?" else boxed(answer) for answer in answers]
    episode = play_scripted(vote, {"solver": replies}, {"samples": len(replies)}, env=Arithmetic())
    assert (episode.calls, episode.answer) == (len(replies), winner)


def test_a_vote_without_answers_scores_0_and_not_1(play_scripted: PlayScripted) -> None:
    for topology in (vote, society):
        episode = play_scripted(topology, lambda request: "hm", env=Arithmetic())
        assert episode.answer is None
        assert episode.verdict is not None and (episode.verdict.status, episode.verdict.score) == ("unparsed", 0)


@pytest.mark.parametrize(
    ("agents", "rounds", "calls", "delivered"), [(3, 2, 6, 6), (2, 3, 6, 4), (3, 3, 9, 12), (1, 2, 2, 0)]
)
def test_society_calls_and_peer_messages(
    play_scripted: PlayScripted, agents: int, rounds: int, calls: int, delivered: int
) -> None:
    topology = build(society, {"agents": agents, "rounds": rounds})
    episode = play_scripted(topology, lambda request: boxed("yes"))
    assert episode.calls == topology.calls == calls
    assert sum(len(turn.reads) for turn in episode.turns) == delivered
    assert episode.answer == "yes"


def test_society_is_synchronous_and_each_reads_the_others_alone(play_scripted: PlayScripted) -> None:
    def script(request: Request) -> str:
        role, n = request.key.split("/")[2:]
        return boxed(f"{role} says this in round {int(n) + 1}")

    episode = play_scripted(society, script, {"agents": 3, "rounds": 3})
    for turn in episode.turns:
        prompt = "\n".join(message.content for message in turn.messages)
        others = {f"debater_{i}" for i in (1, 2, 3)} - {turn.role}
        for i in (1, 2, 3):
            for r in (1, 2, 3):
                shown = f"debater_{i} says this in round {r}" in prompt
                assert shown == (f"debater_{i}" in others and r == turn.round - 1)
        if turn.round > 1:
            assert turn.follows == f"{turn.role}/{turn.round - 2}", "its own messages stay in its chat"
            assert set(turn.reads) == {f"{other}/{turn.round - 2}" for other in others}


def test_society_votes_on_the_last_round(play_scripted: PlayScripted) -> None:
    script = {
        "debater_1": [boxed("18"), boxed("18")],
        "debater_2": [boxed("18"), boxed("20")],
        "debater_3": [boxed("18"), boxed("20")],
    }
    assert play_scripted(society, script, env=Arithmetic()).answer == "20"


def test_one_agent_alone_checks_itself(play_scripted: PlayScripted) -> None:
    episode = play_scripted(society, {"debater_1": [boxed("1"), boxed("2")]}, {"agents": 1})
    assert "Check each step of your solution again" in episode.turns[1].messages[0].content
    assert episode.answer == "2"


def test_an_agent_that_cannot_be_read_abstains_but_is_still_read(play_scripted: PlayScripted) -> None:
    script = {"debater_1": ["I cannot say", boxed("yes")], "debater_2": [boxed("yes")] * 2}
    episode = play_scripted(society, script, {"agents": 2})
    assert "I cannot say" in episode.turn("debater_2/1").messages[0].content
    assert episode.answer == "yes"


@pytest.mark.parametrize("name", ["solo", "vote", "rpc", "collective", "society", "mad"])
def test_roles_and_calls_are_known_beforehand(play_scripted: PlayScripted, name: str) -> None:
    topology = build(TOPOLOGIES[name])
    moderation = '{"preference": "No", "answer": ""}'
    conclusion = '{"answer": "yes"}'

    def script(request: Request) -> str:
        role = request.key.split("/")[2]
        return moderation if role == "moderator" else conclusion if role == "judge" else boxed("yes")

    episode = play_scripted(topology, script)
    assert {turn.role for turn in episode.turns} == set(topology.roles)
    assert episode.calls == topology.calls


@pytest.mark.parametrize(
    ("builder", "settings", "message"),
    [
        (society, {"agnets": 2}, "unknown setting of topology society: 'agnets'; did you mean 'agents'"),
        (society, {"agents": 0}, "topology society: agents cannot be 0"),
        (society, {"rounds": "many"}, "topology society: rounds cannot be 'many'"),
        (mad, {"level": 4}, "topology mad: level cannot be 4"),
        (lambda: "graph", {}, "expected a compiled LangGraph graph, found 'graph'"),
    ],
)
def test_unusable_settings(builder: object, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(builder, settings, "" if builder in (society, mad) else "mine")  # pyright: ignore


def test_settings_may_be_text() -> None:
    assert build(society, {"agents": "2", "rounds": "4"}).calls == 8
    assert build(mad, {"base": "true", "rounds": "1"}).calls == 6


def test_vote_over_recorded_solutions(data: Path, tmp_path: Path) -> None:
    """Four recorded models vote on GSM8K: every call is answered from the file, and the vote is a plain count."""
    env = make_env("gsm8k", path=data / "gsm8k_test_900.jsonl")
    lines = (data / "gsm8k_model_solutions_900.jsonl").read_text(encoding="utf-8").splitlines()
    models = ("175b_verification", "175b_finetuning", "6b_verification", "6b_finetuning")
    recorded = [[json.loads(line)[model]["solution"] for model in models] for line in lines[:100]]
    replay = tmp_path / "recorded.jsonl"
    tasks = env.tasks(100)
    rows = ({"task": t.id, "role": "solver", "replies": replies} for t, replies in zip(tasks, recorded, strict=True))
    replay.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    played = run("vote", env, f"replay:{replay}", tasks=100, settings={"samples": 4}, backend="local", root=tmp_path)
    for episode, replies in zip(played.episodes(), recorded, strict=True):
        answers = [answer for reply in replies if (answer := final_answer(reply))]
        groups = asyncio.run(env.group(answers))
        expected = max(groups, key=lambda g: (groups.count(g), -g))
        assert episode.answer == answers[expected]
    assert played.summary().failed == 0


def debate_with_judge() -> Graph:
    async def answer(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, ["a", "b", "c"])

    async def decide(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await judge(state, runtime)

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("answer", answer)
    graph.add_node("decide", decide)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "decide")
    graph.add_edge("decide", END)
    return graph.compile()


@pytest.mark.parametrize(
    ("answers", "verdicts", "winner", "reason"),
    [
        (["1", "1.0", "1"], [], "1", "agreed"),
        (["1", "2", "1"], ["B"], "2", "judged"),
        (["1", "2", "3"], ["A", "B"], "3", "judged"),
        (["1", "2", "3"], ["B", "A"], "2", "judged"),
        (["?", "2", "?"], [], "2", "agreed"),
        (["1", "2", "?"], ["neither"], "1", "judged"),
        (["?", "?", "?"], [], None, "no answer"),
    ],
)
def test_a_judge_decides_between_what_differs(
    play_scripted: PlayScripted, answers: list[str], verdicts: list[str], winner: str | None, reason: str
) -> None:
    script = {role: ["hm" if a == "?" else boxed(a)] for role, a in zip("abc", answers, strict=True)}
    episode = play_scripted(
        debate_with_judge, {**script, "judge": [f"Verdict: {v}" for v in verdicts]}, env=Arithmetic()
    )
    assert (episode.answer, episode.stop_reason, episode.calls) == (winner, reason, 3 + len(verdicts))
    judged = [turn for turn in episode.turns if turn.role == "judge"]
    assert all(len(turn.reads) == 2 for turn in judged) and len({turn.seed for turn in judged}) == len(judged)


def test_a_cast_must_fill_every_role(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown role 'debater_1'; one of: solver"):
        run("society", cast=Cast(solver=ScriptedEngine({})), tasks=1, backend="local", root=tmp_path)


@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name not in ("solo", "stepwise", "step_search")])
def test_a_budget_of_calls_is_spent_as_far_as_the_size_allows(name: str) -> None:
    function = TOPOLOGIES[name]
    sized = fit(function, 25)
    taken = build(function, sized).calls
    assert taken is not None and taken <= 25
    ((key, size),) = sized.items()
    more = build(function, {key: size + 1}).calls
    assert more is not None and more > 25
    with pytest.raises(ConfigError, match="takes at least"):
        fit(function, 0)
