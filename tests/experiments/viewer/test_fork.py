"""Forks: what was said before is taken as recorded, what is changed is changed, and the rest is played anew."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from agents import Cast, Request, ScriptedEngine
from envs import ConfigError
from envs.types import Env
from experiments import Run, run
from experiments.viewer.fork import fork
from experiments.viewer.replaying import BY_HAND
from graphs.turns import Episode
from tests.experiments.viewer.viewer_helpers import client, debate, say


class Listening(ScriptedEngine):
    """Keeps what it is asked."""

    def __init__(self, script: Any):
        super().__init__(script, "listening")
        self.asked: dict[str, Request] = {}

    async def complete(self, request: Request) -> Any:
        self.asked[request.key.split("/", 2)[2]] = request
        return await super().complete(request)


def branch_of(parent: Run, words: Env, turn: str, engine: Any, episode: Any = 1, **changes: Any) -> tuple[Run, Episode]:
    settings = {"debater.model": engine, **changes.pop("settings", {})}
    made = fork(parent.name, episode, turn, root=parent.path.parent, env=words, settings=settings, **changes)
    return made, next(made.episodes())


def test_only_what_comes_after_the_turn_is_asked(tmp_path: Path, words: Env) -> None:
    parent, engine = debate(tmp_path, words), Listening(say)
    made, episode = branch_of(parent, words, "debater_2/1", engine)
    recorded = next(parent.episodes(1))
    assert set(engine.asked) == {"debater_2/1"}, "its neighbours of the same round were asked together with it"
    assert [turn.id for turn in episode.turns] == [turn.id for turn in recorded.turns]
    same = [turn == other for turn, other in zip(episode.turns, recorded.turns, strict=True)]
    assert same == [turn.id != "debater_2/1" for turn in episode.turns]
    assert episode.digest() == recorded.digest(), "the same words again"
    assert made.name == "talk-fork-1" and made.config["fork"]["run"] == "talk" and made.config["fork"]["position"] == 1


def test_an_edited_reply_is_read_by_those_that_come_after_it(tmp_path: Path, words: Env) -> None:
    parent, engine = debate(tmp_path, words), Listening(say)
    made, episode = branch_of(parent, words, "debater_1/0", engine, reply="I was told: \\boxed{yes}")
    assert set(engine.asked) == {"debater_1/1", "debater_2/1", "debater_3/1"}
    assert "I was told" in engine.asked["debater_2/1"].messages[-1].content
    edited = episode.turn("debater_1/0")
    assert (edited.policy, edited.answer, edited.token_ids) == (BY_HAND, "yes", ())
    assert made.config["fork"]["changes"][-1] == "reply of debater_1/0, edited"


def test_an_edited_message_is_what_the_model_sees_and_what_is_stored(tmp_path: Path, words: Env) -> None:
    parent, engine = debate(tmp_path, words), Listening(say)
    _, episode = branch_of(parent, words, "debater_1/0", engine, message="Say no.")
    assert engine.asked["debater_1/0"].messages[-1].content == "Say no."
    assert episode.turn("debater_1/0").messages[-1].content == "Say no."
    later = engine.asked["debater_1/1"]
    assert "Say no." in [message.content for message in later.history], "an endpoint is told the edited conversation"


def test_a_conversation_that_only_began_alike_is_not_edited(tmp_path: Path, words: Env) -> None:
    parent, engine = debate(tmp_path, words), Listening(say)
    branch_of(parent, words, "debater_2/0", engine, message="Say no.")
    assert "Say no." in [message.content for message in engine.asked["debater_2/1"].history]
    assert "Say no." not in [message.content for message in engine.asked["debater_1/1"].history]


def test_another_model_is_not_sent_the_first_ones_token_ids(tmp_path: Path, words: Env) -> None:
    parent, engine = debate(tmp_path, words), Listening(say)
    branch_of(parent, words, "debater_1/1", engine)
    asked = engine.asked["debater_1/1"]
    assert asked.prefix == () and [message.role for message in asked.history][-1] == "assistant"


def test_another_seed_holds_from_the_turn_on(tmp_path: Path, words: Env) -> None:
    parent, engine = debate(tmp_path, words), Listening(say)
    _, episode = branch_of(parent, words, "debater_1/1", engine, seed=99)
    recorded = next(parent.episodes(1))
    assert episode.turn("debater_1/0").seed == recorded.turn("debater_1/0").seed
    assert episode.turn("debater_1/1").seed == engine.asked["debater_1/1"].seed != recorded.turn("debater_1/1").seed


def pair() -> Any:
    """A graph that knows nothing of our moves: two critics read a draft at the same time, and a writer reads both."""

    def build(writer: BaseChatModel, critic: BaseChatModel) -> Any:
        async def draft(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await writer.ainvoke(state["messages"])]}

        async def review(state: MessagesState) -> dict[str, Any]:
            drafted = state["messages"][-1].content
            said = [critic.ainvoke([HumanMessage(f"{what}: {drafted}")]) for what in ("Style", "Sums")]
            return {"messages": [HumanMessage(" ".join(str(one.content) for one in await asyncio.gather(*said)))]}

        async def final(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await writer.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        for node in (draft, review, final):
            graph.add_node(node.__name__, node)
        for one, other in pairwise((START, "draft", "review", "final", END)):
            graph.add_edge(one, other)
        return graph.compile()

    return build


def test_a_foreign_graph_is_replayed_by_what_its_turns_were_asked(tmp_path: Path, words: Env) -> None:
    def reply(request: Request) -> str:
        asked = request.messages[-1].content
        return (
            f"checked {asked.partition(':')[0]}"
            if "/critic/" in request.key
            else f"draft of {len(asked)} \\boxed{{yes}}"
        )

    parent = run(pair(), words, Cast.all(ScriptedEngine(reply)), tasks=1, backend="local", root=tmp_path, name="pair")
    recorded = next(parent.episodes())
    assert recorded.failure is None and len(recorded.turns) == 4
    engine = Listening(reply)
    changed = next(turn for turn in recorded.turns if "Sums" in turn.messages[-1].content)
    settings = {"writer.model": engine, "critic.model": engine}
    made = fork(
        "pair", 0, changed.id, root=tmp_path, env=words, topology=pair(), settings=settings, reply="42 is wrong"
    )
    episode = next(made.episodes())
    assert set(engine.asked) == {recorded.turns[-1].id}, "the draft and the other critic are as recorded"
    assert "42 is wrong" in engine.asked[recorded.turns[-1].id].messages[-1].content
    assert episode.failure is None and len(made.config["fork"]["replayed"]) == 2


def test_a_failed_episode_can_be_gone_on_with(tmp_path: Path, words: Env) -> None:
    parent = debate(tmp_path, words)
    engine = ScriptedEngine(lambda request: "\\boxed{yes}")
    _, episode = branch_of(parent, words, "debater_3/0", engine, episode=3)
    assert next(parent.episodes(3)).failure is not None
    assert episode.failure is None and episode.answer == "yes" and len(episode.turns) == 6


def test_a_fork_shows_beside_its_parent(tmp_path: Path, words: Env) -> None:
    parent = debate(tmp_path, words)
    engine = ScriptedEngine(lambda request: "\\boxed{no}")
    branch_of(parent, words, "debater_1/1", engine)
    browser = client(tmp_path)
    page = browser.get("/api/runs/talk-fork-1/episodes/0").json()
    assert page["parent"]["run"] == "talk" and page["parent"]["position"] == 1
    assert [turn["id"] for turn in page["turns"] if not turn["replayed"]] == ["debater_1/1"]
    diff = browser.get("/api/runs/talk-fork-1/episodes/0/diff").json()
    assert [pair["id"] for pair in diff["turns"] if not pair["same"]] == ["debater_1/1"]
    assert (diff["parent_status"], diff["branch_status"]) == ("correct", "correct")
    (fork,) = browser.get("/api/runs/talk/episodes/1").json()["forks"]
    assert (fork["run"], fork["turn"]) == ("talk-fork-1", "debater_1/1")
    assert browser.get("/api/runs/talk/episodes/0").json()["forks"] == []


@pytest.mark.parametrize(
    ("turn", "changes", "message"),
    [
        ("debater_9/0", {}, "unknown turn of episode 2 of talk: 'debater_9/0'; did you mean"),
        ("debater_1/0", {"settings": {"judge.model": "embedded"}}, "unknown role in setting 'judge.model'"),
        ("debater_1/0", {"settings": {"rounds": 3}}, "unknown role in setting 'rounds'"),
        ("debater_1/0", {"model": "hff:x"}, "unknown kind of model 'hff'"),
        ("debater_1/0", {"message": "a", "reply": "b"}, "expected a message or a reply"),
        ("debater_1/0", {"models": ["embedded"]}, "expected none but embedded to be asked"),
    ],
)
def test_a_change_that_cannot_be_leaves_nothing_behind(
    tmp_path: Path, words: Env, turn: str, changes: dict[str, Any], message: str
) -> None:
    parent = debate(tmp_path, words)
    with pytest.raises(ConfigError, match=message):
        branch_of(parent, words, turn, ScriptedEngine(say), **changes)
    assert [path.name for path in tmp_path.iterdir()] == ["talk"]


def test_a_run_of_foreign_code_is_not_forked_from_the_page(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    browser = client(tmp_path)
    found = browser.get("/api/runs/talk/episodes/1/fork").json()
    assert not found["possible"] and "env words is code of its own" in found["why_not"]
    wish = {"run": "talk", "position": 1, "turn": "debater_1/0", "models": ["embedded"]}
    assert browser.post("/api/fork", json=wish).status_code == 400


@pytest.mark.model
def test_a_fork_from_the_page_that_changes_nothing_is_the_same_episode(tmp_path: Path) -> None:
    parent = run("mad", "arithmetic", Cast.all("embedded"), tasks=2, seed=7, backend="local", root=tmp_path, name="mad")
    recorded = next(parent.episodes(1))
    browser, turn = client(tmp_path), recorded.turns[1].id
    shown = browser.get("/api/runs/mad/episodes/1/fork").json()
    assert shown["possible"] and {model for _, model in shown["roles"]} == {"embedded"}
    wish = {"run": "mad", "position": 1, "turn": turn, "models": ["embedded"]}
    answer = browser.post("/api/fork", json=wish)
    assert answer.json() == {"run": "mad-fork-1", "position": 0, "turn": turn, "changes": []}
    made = Run(tmp_path / "mad-fork-1")
    episode = next(made.episodes())
    assert episode.digest() == recorded.digest()
    assert made.config["fork"]["replayed"] == [recorded.turns[0].id]
    times = [turn.asked_s for turn in episode.turns]
    assert times == sorted(times), "the clock goes on from the record's"
    refused = browser.post("/api/fork", json={**wish, "model": "hf:/nowhere"})
    assert refused.status_code == 400 and "found hf:/nowhere" in refused.json()["detail"]
