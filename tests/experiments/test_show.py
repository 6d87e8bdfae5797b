"""Transcripts: everything said is shown, as plain text; what models write can do nothing to a terminal or a page."""

import json
import re
import xml.etree.ElementTree
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from rich.console import Console

from agents import Cast, ScriptedEngine
from envs import Arithmetic, ConfigError, Task
from experiments import Run, run
from experiments.compare import compare_runs
from experiments.show import printable, render_comparison, render_episode, render_summary, save_svg
from graphs import Stage, Table, chat_model

HOSTILE = "[bold red]not markup[/] \x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnirts <script>alert('x')</script>"


def play(tmp_path: Path, script: Any, topology: str = "mad") -> Run:
    return run(topology, "arithmetic", Cast.all(ScriptedEngine(script)), tasks=2, backend="local", root=tmp_path)


def shown(rendered: Any) -> str:
    console = Console(width=100, record=True, file=StringIO())
    console.print(rendered)
    return console.export_text()


def moderator(preference: str) -> str:
    return f'{{"reason": "mine: 5; theirs: 6", "preference": "{preference}", "side": "Negative", "answer": "6"}}'


def test_a_transcript_tells_the_debate(tmp_path: Path) -> None:
    script = {
        "affirmative": ["I say five.\n\\boxed{5}", "Still five.\n\\boxed{5}"],
        "negative": ["I say six.\n\\boxed{6}", "Still six, friend."],
        "moderator": [moderator("No"), moderator("Yes")],
    }
    played = play(tmp_path, script)
    text = shown(render_episode(played, played.find("1")))
    order = ["Problem", "What is", "Round 1", "I say five.", "I say six.", "no preference", "Round 2", "Still five."]
    order += ["Still six, friend.", "for the negative: 6", "Outcome", "break in round 2 → 6", "6 calls"]
    places = [text.index(phrase) for phrase in order]
    assert places == sorted(places)
    assert "reading affirmative" in text and "5 ✗" in text
    assert "Round 1 of the debate has ended." not in text
    assert "Round 1 of the debate has ended." in shown(render_episode(played, played.find("1"), prompts=True))


def test_failures_are_shown(tmp_path: Path) -> None:
    played = play(tmp_path, {"affirmative": ["\\boxed{1}"]})
    assert "failed: EngineError: no reply is scripted for" in shown(render_episode(played, played.find("failed")))
    assert "2 failed" in shown(render_summary(played.summary()))
    unread = play(tmp_path, lambda request: "hm", "solo")
    assert "not readable: expected a final answer" in shown(render_episode(unread, unread.find("1")))


def test_what_models_write_stays_text(tmp_path: Path) -> None:
    played = play(tmp_path, lambda request: HOSTILE, "solo")
    text = shown(render_episode(played, played.find("1"), prompts=True))
    assert "[bold red]not markup[/]" in text and "<script>" in text
    assert "\\x1b[31mred" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_a_foreign_graphs_turns_are_drawn_and_their_tool_calls_stay_text(tmp_path: Path) -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        first = chat_model("solver").bind_tools([{"type": "function", "function": {"name": "x"}}]).invoke("Go.")
        result = ToolMessage(HOSTILE, tool_call_id=first.tool_calls[0]["id"])
        return {"messages": [chat_model("critic").invoke([first, result])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    call = f"<tool_call>{json.dumps({'name': HOSTILE, 'arguments': {HOSTILE: HOSTILE}})}</tool_call>"
    engine = ScriptedEngine({"solver": call, "critic": HOSTILE})
    played = run(graph.compile(), "arithmetic", Cast.all(engine), tasks=1, backend="local", root=tmp_path)
    text = shown(render_episode(played, played.find("1")))
    assert "○  solver/0" in text and "●  critic/0" in text and "● critic/0  reads solver/0" in text
    assert text.count("[bold red]not markup[/]") >= 6
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_answers_and_names_are_no_markup(tmp_path: Path) -> None:
    class Odd(Arithmetic):
        def tasks(self, n: int | None = None, split: Any = "test") -> Any:
            return [Task(id="[b]id[/b]", question="?", answers=("1", "[a, b]", "[/b]"))]

    async def stop(state: Table) -> dict[str, Any]:
        return {"answer": "1", "stop_reason": "[/i] ended"}

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("stop", stop)
    graph.add_edge(START, "stop")
    graph.add_edge("stop", END)
    cast = Cast.all(ScriptedEngine({}))
    played = run(graph.compile(), Odd(), cast, backend="local", root=tmp_path, name="[u]mine")
    episode = shown(render_episode(played, played.find("1")))
    assert "answer: 1 or [a, b] or [/b]" in episode and "[/i] ended" in episode and "[b]id[/b]" in episode
    summary = shown(render_summary(played.summary()))
    assert "[u]mine" in summary and "[/i] ended" in summary
    assert "[u]mine" in shown(render_comparison(compare_runs([played, played])))


@given(st.text())
def test_printable_leaves_no_control_characters(text: str) -> None:
    clean = printable(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", clean)
    assert printable(clean) == clean


def test_the_picture_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    played = play(tmp_path, lambda request: HOSTILE, "solo")
    path = tmp_path / "debate.svg"
    save_svg(render_episode(played, played.find("1")), path, "a debate")
    content = path.read_text(encoding="utf-8")
    elements = {element.tag.split("}")[-1] for element in xml.etree.ElementTree.fromstring(content).iter()}
    assert "script" not in elements and "text" in elements
    assert "url(http" not in content and "@font-face" not in content
    with pytest.raises(ConfigError, match="cannot write"):
        save_svg("x", tmp_path / "no" / "folder.svg", "x")
