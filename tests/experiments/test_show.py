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

from agents import Cast, Message, ScriptedEngine
from envs import Arithmetic, ConfigError, Task
from experiments import Run, run
from experiments.compare import compare_runs
from experiments.show import asked_alike, printable, render_comparison, render_episode, render_summary, save_svg
from graphs import Stage, Table, chat_model
from graphs.turns import Turn
from tests.graphs.spc_helpers import game, sabotage

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


def asked_three_times(tmp_path: Path, answers: list[str]) -> Run:
    task = "".join(Arithmetic().tasks(1)[0].answers)
    said = [f"I say {i}.\n\\boxed{{{task if answer == 'right' else answer}}}" for i, answer in enumerate(answers)]
    cast = Cast.all(ScriptedEngine({"solver": said}))
    settings = {"samples": len(answers)}
    return run("vote", "arithmetic", cast, tasks=1, settings=settings, backend="local", root=tmp_path)


def test_turns_that_were_asked_the_same_are_one_entry_with_a_tally(tmp_path: Path) -> None:
    played = asked_three_times(tmp_path, ["-1", "right", "right", "[b]x", "right"])
    right = played.find("1").task.answers[0]
    text = shown(render_episode(played, played.find("1")))
    assert f"solver  solves  5 times   → {right} ✓ ×3  → -1 ✗ ×1  → [b]x ✗ ×1" in text
    assert "I say" not in text and "5 turns; those that were asked the same are one entry" in text
    whole = shown(render_episode(played, played.find("1"), every=True))
    assert all(f"I say {i}." in whole for i in range(5)) and "one entry" not in whole and "times" not in whole


def test_two_that_were_asked_the_same_are_two_entries(tmp_path: Path) -> None:
    played = asked_three_times(tmp_path, ["1", "2"])
    text = shown(render_episode(played, played.find("1")))
    assert "I say 0." in text and "I say 1." in text and "one entry" not in text


def test_of_many_answers_the_most_frequent_are_shown(tmp_path: Path) -> None:
    played = asked_three_times(tmp_path, ["1", "2", "3", "4", "5", "6", "7", "7"])
    text = shown(render_episode(played, played.find("1")))
    assert "→ 7 ✗ ×2  → 1 ✗ ×1  → 2 ✗ ×1  → 3 ✗ ×1  → 4 ✗ ×1  and 2 others" in text


def test_a_game_of_spc_is_a_few_entries_and_some_plain_words(tmp_path: Path, play_scripted: Any) -> None:
    episode = game(play_scripted, right=7, sneaky=(sabotage(f"5 + 4 = 8 {HOSTILE}"),))
    played = play(tmp_path, lambda request: "hm", "solo")
    text = shown(render_episode(played, episode))
    places = [
        "solver  solves  reading solver  8 times   → yes ✓ ×7  → no ✗ ×1",
        "from behind 5 + 4 = 9",
        "sabotages a step",
        "solver  solves  reading sneaky  8 times   → no ✗ ×8",
        "from behind 5 + 4 = 8",
        "checks a step",
        "In plain words",
        "Step 2 is played for: 5 + 4 = 9",
        "Outcome",
    ]
    assert sorted(map(text.index, places)) == [text.index(place) for place in places]
    assert text.count("● solver") == 4, "the solution that others read is shown beside the other"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text) and "[bold red]not markup[/]" in text
    assert shown(render_episode(played, episode, every=True)).count("● solver") == 2 + 2 * 8


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=12), st.data())
def test_entries_hold_every_turn_once_and_only_what_was_asked_alike(
    drawn: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    turns = [scripted_turn(i, *place) for i, place in enumerate(drawn)]
    read = data.draw(st.sets(st.integers(0, max(0, len(turns) - 1))))
    if turns:
        turns.append(scripted_turn(len(turns), 9, 9, 9, tuple(f"solver/{i}" for i in sorted(read))))
    entries = asked_alike(turns)
    assert sorted(turn.id for entry in entries for turn in entry) == sorted(turn.id for turn in turns)
    firsts = [turns.index(entry[0]) for entry in entries]
    assert firsts == sorted(firsts)
    for entry in entries:
        assert len(entry) == 1 or len(entry) >= 3
        assert len({(turn.after, turn.messages, turn.opening) for turn in entry}) == 1
        assert len(entry) == 1 or not {f"solver/{i}" for i in read} & {turn.id for turn in entry}


def scripted_turn(number: int, after: int, prompt: int, opening: int, reads: tuple[str, ...] = ()) -> Turn:
    return Turn(
        id=f"solver/{number}", role="solver", move="solve", round=1, after=after, reads=reads, follows=None,
        messages=(Message("user", str(prompt)),), opening=str(opening), reply=str(opening), policy="", version="",
        finish="stop", temperature=1, top_p=1, seed=0, prompt_tokens=0, completion_tokens=0,
    )  # fmt: skip


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
