"""The tool `python` in graphs of LangGraph's own users: what it answers, and the sandbox that a run has."""

import asyncio
import json
import sys
import threading
import time
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agents import Cast, ScriptedEngine, open_company
from envs import ConfigError
from envs.sandbox import Limits, Sandbox, open_sandbox, why_unavailable
from envs.sandbox.tool import Outcome
from graphs import Episode, build, chat_model, play, python_tool, tool_use
from graphs.python_tool import sandboxes, shared_sandbox
from graphs.tool_use import TOOLS
from tests.conftest import PlayScripted, WordEnv

pytestmark = [
    pytest.mark.usefixtures("leaves_nothing"),
    pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty")),
]
YES = "It is \\boxed{yes}"
Opened = dict[Sandbox, tuple[Any, ...]]
SHORT = Limits(seconds=0.5, memory_mb=64, output_chars=100)


def called(*programs: str) -> str:
    calls = [json.dumps({"name": "python", "arguments": {"code": program}}) for program in programs]
    return "".join(f"<tool_call>{call}</tool_call>" for call in calls)


def agent(solver: BaseChatModel) -> Any:
    return create_agent(solver, tools=[python_tool(limits=SHORT)])


def with_nodes() -> Any:
    tool = python_tool(limits=SHORT)

    async def solve(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await chat_model("solver").bind_tools([tool]).ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("solve", solve)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "solve")
    graph.add_conditional_edges("solve", tools_condition)
    graph.add_edge("tools", "solve")
    return graph


@pytest.mark.parametrize("builder", [agent, with_nodes])
def test_it_runs_in_an_agent_and_in_a_tool_node(play_scripted: PlayScripted, builder: Any) -> None:
    episode = play_scripted(builder, {"solver": [called("print(6 * 7)", "print(1 / 0)"), YES]})
    first, second = episode.turns
    assert [m.content for m in second.messages] == ["42", "Error: line 1: ZeroDivisionError: division by zero"]
    assert [m.tool_call_id for m in second.messages] == [call.id for call in first.tool_calls]
    assert second.follows == first.id and episode.answer == "yes"


def test_a_hostile_program_is_held_to_the_limits(play_scripted: PlayScripted, backend: Any) -> None:
    programs = [
        "while True: pass",
        "while True: print('x' * 99)",
        "x = 'x' * 10 ** 9",
        "open('/etc/passwd')",
        "print(1)",
    ]
    graph = create_agent(chat_model("solver"), tools=[python_tool(backend, SHORT)])
    episode = play_scripted(lambda: graph, {"solver": [called(*programs), YES]})
    shown = [message.content for message in episode.turns[1].messages]
    assert shown[0] == "Error: no end within 0.5 s" and shown[1].endswith("Error: it prints more than 100 characters")
    assert shown[2].endswith("MiB of memory") and "Error: line 1: " in shown[3] and shown[4] == "1"


def test_a_call_that_is_none_comes_back_as_an_error(play_scripted: PlayScripted) -> None:
    wrong = ['{"name": "python", "arguments": {"program": "1"}}', '{"name": "python", "arguments": {"code": ""}}']
    calls = "".join(f"<tool_call>{call}</tool_call>" for call in [*wrong, '{"name": "bash", "arguments": {}}'])
    episode = play_scripted(agent, {"solver": [calls, YES]})
    program, code, bash = (message.content for message in episode.turns[1].messages)
    assert "Error: expected" in program and "code: Field required" in program
    assert "code: there is no code" in code and "bash is not a valid tool" in bash
    assert episode.failure is None and episode.answer == "yes"


def test_what_came_of_a_program_is_kept_beside_the_answer() -> None:
    call = {"type": "tool_call", "id": "a", "name": "python", "args": {"code": "print(1)\nprint(1 / 0)"}}
    message = python_tool().invoke(call)
    assert message.content == "1\nError: line 2: ZeroDivisionError: division by zero"
    assert Outcome.model_validate(message.artifact).ended == "error"
    assert message.artifact["output"] == "1\n" and message.tool_call_id == "a"


def test_it_is_the_tool_that_tool_use_has() -> None:
    tool, (other,) = python_tool(), (shown["function"] for shown in TOOLS)
    assert (tool.name, tool.description) == (other["name"], other["description"])
    assert tool.get_input_jsonschema() == other["parameters"]


class TestTheSandboxOfARun:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> Opened:
        """The sandboxes that ran a program, and what they were opened with."""
        used: Opened = {}

        def open_and_tell(*arguments: Any) -> Sandbox:
            sandbox = open_sandbox(*arguments)
            run = sandbox.run

            async def told(code: str) -> Any:
                used[sandbox] = arguments
                return await run(code)

            sandbox.run = told  # pyright: ignore[reportAttributeAccessIssue]
            return sandbox

        monkeypatch.setattr(sys.modules[sandboxes.__module__], "open_sandbox", open_and_tell)
        return used

    def episodes(self, graph: Any, replies: list[str], n: int = 6) -> list[Episode]:
        async def run() -> list[Episode]:
            env, topology = WordEnv(), build(graph)
            cast = Cast.all(ScriptedEngine({"solver": replies, "tool_solver": replies}))
            async with open_company(cast, topology.roles or ("solver",), "local") as company, topology.opened():
                return await asyncio.gather(*(play(topology, env, task, company) for task in env.tasks(n)))

        return asyncio.run(run())

    def test_all_episodes_share_one_and_the_next_run_has_its_own(self, opened: Opened) -> None:
        graph = create_agent(chat_model("solver"), tools=[python_tool(limits=SHORT, workers=3)])
        runs = [self.episodes(graph, [called("print(1)"), YES]) for _ in range(2)]
        assert all(episode.answer == "yes" for run in runs for episode in run)
        assert [*opened.values()] == [("monty", SHORT, 3)] * 2
        assert [e.digest() for e in runs[0]] == [e.digest() for e in runs[1]]

    def test_tool_use_has_the_same(self, opened: Opened) -> None:
        code = "```python\nprint(1)\n```"
        assert all(episode.answer == "yes" for episode in self.episodes(tool_use, [code, YES]))
        assert len(opened) == 1

    def test_outside_of_a_run_each_program_has_its_own(self, opened: Opened) -> None:
        tool = python_tool(limits=SHORT)

        async def twice() -> list[str]:
            return await asyncio.gather(*(tool.ainvoke({"code": f"print({i})"}) for i in range(2)))

        assert asyncio.run(twice()) == ["0", "1"] and tool.invoke({"code": "print(2)"}) == "2"
        assert len(opened) == 3

    async def test_when_the_run_is_over_nothing_is_opened_any_more(self) -> None:
        async with sandboxes():
            inside = shared_sandbox("monty", SHORT, 1)
            assert inside is shared_sandbox("monty", SHORT, 1) is not shared_sandbox("monty", SHORT, 2)
            late = asyncio.create_task(_later(asked := asyncio.Event()))
        assert shared_sandbox("monty", SHORT, 1) is None
        asked.set()
        assert await late is None, "also for what began within it"


async def _later(asked: asyncio.Event) -> Any:
    await asked.wait()
    return shared_sandbox("monty", SHORT, 1)


def test_nodes_that_are_not_async_run_it_too(play_scripted: PlayScripted) -> None:
    threads: list[str] = []
    tool = python_tool()

    def node(state: MessagesState) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return {"messages": [("assistant", tool.invoke({"code": "print('\\\\boxed{yes}')"}))]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    assert play_scripted(lambda: graph, {}).answer == "yes" and threads != ["MainThread"]


def test_a_program_ends_with_whoever_waits_for_it() -> None:
    async def run() -> float:
        tool = python_tool(limits=Limits(seconds=60))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await tool.ainvoke({"code": "while True: pass"})
        return time.monotonic() - started

    assert asyncio.run(run()) < 10


def test_a_sandbox_that_cannot_be_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="unknown sandbox 'docker'"):
        python_tool("docker")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="expected 1 to 1024 workers, found 0"):
        python_tool(workers=0)
