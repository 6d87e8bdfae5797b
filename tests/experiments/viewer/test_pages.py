"""What pages are given, against a debate whose every turn is known."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agents import Cast, ScriptedEngine
from envs.types import Env
from experiments import run
from experiments.compare import compare_runs
from experiments.viewer.library import Library
from graphs import Graph, Stage, Table, revise, solve
from tests.experiments.viewer.viewer_helpers import client, debate, looked


@pytest.fixture
def browser(tmp_path: Path, words: Env) -> TestClient:
    debate(tmp_path, words)
    return client(tmp_path)


def positions(browser: TestClient, **asked: Any) -> list[int]:
    return [row["position"] for row in browser.get("/api/runs/talk/episodes", params=asked).json()["rows"]]


def test_a_run_is_a_row_with_its_figures(browser: TestClient, tmp_path: Path) -> None:
    (row,) = browser.get("/api/runs").json()["runs"]
    assert (row["key"], row["kind"], row["topology"], row["env"]) == ("talk", "run", "society", "words")
    assert (row["episodes"], row["planned"], row["failed"], row["unparsed"]) == (5, 5, 1, 1)
    assert row["accuracy"] == 0.5 and row["interval"][0] < 0.5 < row["interval"][1]
    assert row["calls"] == (4 * 6 + 3) / 5 and row["state"] == "ended" and row["cost"] is None
    (tmp_path / "prices.json").write_text(json.dumps({row["model"]: {"prompt": 2.0, "completion": 1.0}}))
    page = browser.get("/api/runs/talk").json()
    spent = (2 * page["prompt_tokens"] + page["completion_tokens"]) / 1e6
    assert page["run"]["cost"] == pytest.approx(spent) and spent > 0


def test_roles_on_several_models_cost_what_each_has_said(tmp_path: Path, words: Env) -> None:
    prices = {
        "python:ScriptedEngine": {"prompt": 0, "completion": 1e6},
        "python:Dear": {"prompt": 0, "completion": 3e6},
    }
    (tmp_path / "prices.json").write_text(json.dumps(prices))

    class Dear(ScriptedEngine):
        pass

    cast = Cast(ScriptedEngine(lambda _: "\\boxed{yes}"), debater_2=Dear(lambda _: "\\boxed{no}!"))
    run("society", words, cast, tasks=2, backend="local", root=tmp_path, name="two", settings={"rounds": 1})
    browser = client(tmp_path)
    assert browser.get("/api/runs").json()["runs"][0]["cost"] is None
    assert looked(browser, "two")["run"]["cost"] == 2 * (2 * len("\\boxed{yes}") + 3 * len("\\boxed{no}!"))


def test_filters_keep_what_they_say(browser: TestClient) -> None:
    page = looked(browser, "talk")
    wanted = {
        "all": [0, 1, 2, 3, 4],
        "right": [0, 1],
        "wrong": [2, 4],
        "failed": [3],
        "unscorable": [],
        "unparsed": [4],
        "disagreement": [1, 2, 3],
        "flipped to right": [1],
        "flipped to wrong": [2],
    }
    assert {name: positions(browser, filter=name) for name in wanted} == wanted
    assert {one["filter"]: one["n"] for one in page["filters"]} == {name: len(kept) for name, kept in wanted.items()}
    assert positions(browser, sort="longest")[-1] == 3, "the failed one made fewest calls"
    assert positions(browser, task="words-3") == [3]
    assert positions(browser, offset=1, limit=2) == [1, 2]


def test_votes_are_counted_with_what_became_of_them(browser: TestClient) -> None:
    page = looked(browser, "talk")
    opening = {(vote["agreeing"], vote["of"]): (vote["episodes"], vote["right"]) for vote in page["opening_votes"]}
    assert opening == {(3, 3): (1, 1), (2, 3): (3, 1)}
    assert page["looked"] == 5
    assert {count["label"]: count["n"] for count in page["statuses"]} == {
        "correct": 2,
        "incorrect": 1,
        "failed": 1,
        "unparsed": 1,
    }


def test_a_page_is_made_from_one_state_of_what_is_known(tmp_path: Path, words: Env) -> None:
    path, kept = debate(tmp_path, words).path, Library(tmp_path)
    goes_on = threading.Event()
    kept._looking.submit(goes_on.wait)
    before = kept.looks(path, kept.outcomes(path))
    goes_on.set()
    assert len(kept.looked(path).by_position) == 5 and before.by_position == {}


def test_the_grid_has_a_letter_a_sample(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words, samples=2)
    grid = client(tmp_path).get("/api/runs/talk/grid", params={"offset": 2, "limit": 2}).json()
    assert (grid["total"], grid["samples"], len(grid["rows"])) == (5, 2, 2)
    assert [row["cells"] for row in grid["rows"]] == ["ii", "ff"] and grid["rows"][0]["positions"] == [4, 5]


def test_an_episode_shows_who_changed_their_mind(browser: TestClient) -> None:
    page = browser.get("/api/runs/talk/episodes/1", params={"filter": "right"}).json()
    turns = {turn["id"]: turn for turn in page["turns"]}
    assert page["status"] == "correct" and page["roles"] == ["debater_1", "debater_2", "debater_3"]
    assert (page["previous"], page["next"], page["place"], page["total"]) == (0, None, 1, 2)
    assert turns["debater_1/0"]["right"] == "incorrect" and turns["debater_1/0"]["mind"] is None
    assert turns["debater_1/1"]["mind"] == {"since": "debater_1/0", "before": "no", "turned": "to right"}
    assert turns["debater_3/1"]["mind"] is None and turns["debater_3/1"]["previous"] == "debater_3/0"
    assert [turn["group"] for turn in page["turns"]] == [0, 0, 1, 1, 1, 1]
    assert page["disagreements"] == ["debater_1/0"]
    edges = {(edge["source"], edge["target"], edge["kind"]) for edge in page["edges"]}
    assert ("debater_2/0", "debater_1/1", "reads") in edges and ("debater_1/0", "debater_1/1", "follows") in edges
    assert [(shown["round"], len(shown["turns"])) for shown in page["rounds"]] == [(1, 3), (2, 3)]


def test_a_turns_prompt_and_tokens_come_on_demand(browser: TestClient) -> None:
    base = "/api/runs/talk/episodes/0/turns/debater_1%2F1"
    prompt = browser.get(f"{base}/prompt").json()
    told = [(message["role"], message["turn"]) for message in prompt["messages"]]
    assert ("assistant", "debater_1/0") in told and told[-1] == ("user", "debater_1/1")
    assert prompt["text"]["text"].endswith(prompt["messages"][-1]["content"]["text"])
    tokens = browser.get(f"{base}/tokens").json()
    assert "".join(tokens["pieces"]) == "I say\n\\boxed{yes}" and len(tokens["logprobs"]) == len(tokens["ids"])
    assert browser.get(f"{base}/reply").json()["text"] == "I say\n\\boxed{yes}"


def test_runs_are_compared_as_the_command_compares_them(tmp_path: Path, words: Env) -> None:
    runs = [debate(tmp_path, words), debate(tmp_path, words, "other", ScriptedEngine(lambda _: "\\boxed{yes}"))]
    page = client(tmp_path).get("/api/compare", params={"runs": ["talk", "other"]}).json()
    row = compare_runs(runs)[1].comparison
    assert row is not None
    (found,) = page["differences"]
    assert (found["difference"], tuple(found["interval"])) == (row.difference, row.interval)
    assert (found["wins"], found["losses"], found["p"], found["holm"]) == (row.wins, row.losses, row.p, row.p)
    assert [task["task"] for task in page["differing"]] == ["words-2", "words-4"] and page["total_differing"] == 2
    assert page["differing"][0]["positions"] == [2, 2]


def test_runs_without_a_common_task_are_said_to_have_none(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    run(
        "solo",
        "arithmetic",
        Cast.all(ScriptedEngine(lambda _: "\\boxed{1}")),
        tasks=3,
        backend="local",
        root=tmp_path,
        name="sums",
    )
    page = client(tmp_path).get("/api/compare", params={"runs": ["talk", "sums"]}).json()
    assert page["differences"] == [] and "shares no judged task" in page["problems"][0]["what"]


def organized() -> Graph:
    """Two agents; what SelfOrg writes down of a round, and something else."""

    async def first(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        runtime.context.notes.append(
            {"round": 1, "contributions": [0.25, 0.75], "edges": [["agent_2", "agent_1", 0.5]]}
        )
        runtime.context.notes.append({"weather": "fair"})
        return await solve(state, runtime, ["agent_1", "agent_2"])

    async def second(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return {**await revise(state, runtime, ["agent_1", "agent_2"]), "answer": "yes", "stop_reason": "done"}

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", END)
    return graph.compile()


def test_a_round_of_a_self_organized_graph_has_contributions_and_weights(tmp_path: Path, words: Env) -> None:
    engine = ScriptedEngine(lambda request: f"{request.key[-9:]} \\boxed{{yes}}")
    run(organized, words, Cast.all(engine), tasks=1, backend="local", root=tmp_path, name="own")
    page = client(tmp_path).get("/api/runs/own/episodes/0").json()
    assert page["rounds"][0]["contributions"] == [["agent_1", 0.25], ["agent_2", 0.75]]
    assert page["rounds"][0]["links"] == [["agent_2", "agent_1", 0.5]]
    assert {turn["id"]: turn["contribution"] for turn in page["turns"]}["agent_2/0"] == 0.75
    weights = {(edge["source"], edge["target"]): edge["weight"] for edge in page["edges"]}
    assert weights["agent_2/0", "agent_1/1"] == 0.5 and weights["agent_1/0", "agent_2/1"] is None
    assert json.loads(page["notes"]) == [{"weather": "fair"}]


def test_critics_marks_stand_on_the_steps_they_are_about(tmp_path: Path, words: Env) -> None:
    def reply(request: Any) -> str:
        if "/critic/" in request.key:
            wrong = "Next step:\nsecond é" in request.messages[-1].content
            return f"Verdict: {'incorrect' if wrong else 'correct'}"
        return "mended\n\\boxed{yes}" if request.opening else "first 𝄞\nsecond é\nthird\n\\boxed{yes}"

    run(
        "stepwise",
        words,
        Cast.all(ScriptedEngine(reply)),
        tasks=1,
        backend="local",
        root=tmp_path,
        name="steps",
        settings={"rounds": 1},
    )
    page = client(tmp_path).get("/api/runs/steps/episodes/0").json()
    solution, mended = (turn for turn in page["turns"] if turn["role"] == "solver")
    text = solution["reply"]["text"].encode("utf-16-le")
    shown = [(text[2 * s["start"] : 2 * s["end"]].decode("utf-16-le").strip(), s["marks"]) for s in solution["steps"]]
    assert [(step, [mark["correct"] for mark in marks]) for step, marks in shown] == [
        ("first 𝄞", [True]),
        ("second é", [False]),
        ("third", [True]),
        ("\\boxed{yes}", []),
    ]
    assert mended["reply"]["text"][: mended["opening"] - 1].startswith("first") and mended["previous"] == solution["id"]
