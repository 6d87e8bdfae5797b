"""Tool use: what is run, what the solver is shown of it, and each way to end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents import Cast, ScriptedEngine, open_company
from agents.types import Message, Request
from envs import ConfigError
from envs.sandbox import monty, why_unavailable
from experiments.catalogue import catalogue
from experiments.credit import samples_of
from experiments.faults.chat_server import ChatServer, says
from graphs import build, play, tool_use, topology
from graphs.shapes import chain
from graphs.tool_use import TOOLS
from graphs.turns import Episode
from tests.conftest import PlayScripted, WordEnv

pytestmark = pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty"))
YES = "\\boxed{yes}"


def code(program: str) -> str:
    return f"I compute it.\n```python\n{program}\n```"


def shown(episode: Episode, n: int) -> str:
    """The last message that the solver's turn `n` was asked with."""
    return episode.turn(f"tool_solver/{n}").messages[-1].content


def test_a_program_is_run_and_its_output_is_the_next_message(play_scripted: PlayScripted) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [code("print(6 * 7)"), code("x = 1\nprint(x)"), YES]})
    assert (episode.calls, episode.answer, episode.stop_reason) == (3, "yes", "answered")
    assert "Problem: Question 0?" in shown(episode, 0) and "Output" not in shown(episode, 0)
    assert shown(episode, 1) == "Output:\n42" and shown(episode, 2) == "Output:\n1"
    first, second, third = episode.turns
    assert (first.move, second.move, third.move) == ("solve_with_tool", "observe", "observe")
    assert (second.follows, third.follows) == (first.id, second.id)
    assert [turn.round for turn in episode.turns] == [1, 2, 3]
    assert second.prompt_ids[: len(first.prompt_ids) + len(first.token_ids)] == (*first.prompt_ids, *first.token_ids)
    assert first.messages[0].content == "You are a solver who can run Python code."


def test_the_answer_may_come_at_once(play_scripted: PlayScripted) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [YES]})
    assert (episode.calls, episode.answer, episode.stop_reason) == (1, "yes", "answered")


def test_a_boxed_answer_outside_of_code_goes_before_code(play_scripted: PlayScripted) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [f"{code('print(1)')}\n{YES}"]})
    assert (episode.calls, episode.answer) == (1, "yes")
    inside = code("print('\\\\boxed{no}')")
    episode = play_scripted(tool_use, {"tool_solver": [inside, YES]})
    assert (episode.answer, shown(episode, 1)) == ("yes", "Output:\n\\boxed{no}"), "printed by code, it is no answer"


def test_the_first_closed_block_alone_is_run(play_scripted: PlayScripted) -> None:
    reply = f"{code('print(1)')}\nOutput:\n5\n{code('print(2)')}"
    assert shown(play_scripted(tool_use, {"tool_solver": [reply, YES]}), 1) == "Output:\n1"


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("print(1)\nprint(1 / 0)", "1\nError: line 2: ZeroDivisionError: division by zero"),
        ("x =", "Error: line 1: SyntaxError: Expected an expression"),
        ("print(1)\nwhile True: print(2)", "Error: it prints more than 2000 characters"),
        ("print('so far')\nwhile True: pass", "Error: no end within 0.5 s"),
        ("open('/etc/passwd')", "Error: line 1: PermissionError: Permission denied: '/etc/passwd'"),
        ("x = 1", "(nothing was printed)"),
    ],
)
def test_the_message_of_a_failed_program_is_what_is_shown(
    play_scripted: PlayScripted, program: str, output: str
) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [code(program), YES]}, {"seconds": 0.5})
    head, _, last = shown(episode, 1).partition("\n")
    assert head == "Output:" and (last == output or (last.startswith("1\n2\n2\n") and last.endswith(f"\n{output}")))
    assert episode.answer == "yes"


def test_nothing_is_left_for_the_next_program(play_scripted: PlayScripted) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [code("x = 1\nprint(x)"), code("print(x)"), YES]})
    assert shown(episode, 2) == "Output:\nError: line 1: NameError: name 'x' is not defined"


def test_it_ends_at_the_last_turn_whose_code_is_not_run(play_scripted: PlayScripted) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [code("print(1)")] * 2}, {"turns": 2})
    assert (episode.calls, episode.answer, episode.stop_reason) == (2, None, "2 turns")
    assert episode.verdict is not None and episode.verdict.status == "unparsed"
    assert play_scripted(tool_use, {"tool_solver": [code("print(1)")]}, {"turns": 1}).calls == 1
    assert build(tool_use, {"turns": 3}).calls == 3 and build(tool_use).roles == ("tool_solver",)


@pytest.mark.parametrize("reply", ["", "I do not know.", "```python\nprint(1)", "```python\n\n```"])
def test_a_reply_with_neither_code_nor_answer_ends_without_an_answer(play_scripted: PlayScripted, reply: str) -> None:
    episode = play_scripted(tool_use, {"tool_solver": [code("print(1)"), reply]})
    assert (episode.calls, episode.answer, episode.stop_reason) == (2, None, "unreadable reply")
    assert episode.turns[-1].failure is not None


def test_python_itself_where_there_is_bubblewrap(play_scripted: PlayScripted) -> None:
    if problem := why_unavailable("bubblewrap"):
        pytest.skip(problem)
    program = "from fractions import Fraction\nprint(sum(Fraction(1, n) for n in range(1, 4)))"
    episode = play_scripted(tool_use, {"tool_solver": [code(program), YES]}, {"sandbox": "bubblewrap"})
    assert shown(episode, 1) == "Output:\n11/6"


def test_the_episodes_of_a_run_share_a_sandbox_and_are_the_same_at_any_concurrency() -> None:
    async def run(at_once: int) -> list[str]:
        env, played = WordEnv(), build(tool_use, {"workers": at_once})
        cast = Cast.all(ScriptedEngine({"tool_solver": [code("import random\nprint(random.random())"), YES]}))
        gate = asyncio.Semaphore(at_once)

        async def one(task: Any) -> str:
            async with gate:
                return (await play(played, env, task, company)).digest()

        async with open_company(cast, played.roles, backend="local") as company, played.opened():
            return await asyncio.gather(*map(one, env.tasks(20)))

    assert asyncio.run(run(1)) == asyncio.run(run(8))


def test_played_without_a_sandbox_it_says_so() -> None:
    async def run() -> Episode:
        env, played = WordEnv(), build(tool_use)
        async with open_company(
            Cast.all(ScriptedEngine({"tool_solver": [code("1")]})), played.roles, "local"
        ) as company:
            return await play(played, env, env.tasks(1)[0], company)

    failure = asyncio.run(run()).failure
    assert (
        failure is not None and "no sandbox is open; play the topology within `async with topology.opened()`" in failure
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"turns": 0}, "turns cannot be 0"),
        ({"sandbox": "docker"}, "sandbox cannot be 'docker': Input should be 'monty' or 'bubblewrap'"),
        ({"seconds": -1}, "sandbox limit seconds: expected a number from 0.01 to 3600, found -1.0"),
        ({"memory_mb": "1"}, "sandbox limit memory_mb"),
    ],
)
def test_settings_are_checked_when_it_is_built(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(tool_use, settings)


def test_a_sandbox_that_is_missing_is_said_when_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "envs.sandbox.BACKENDS", {"monty": type("Form", (), {"why_unavailable": lambda: monty.INSTALL})}
    )
    with pytest.raises(ConfigError, match="topology tool_use: sandbox monty: pip install 'palaestra"):
        build(tool_use)
    assert "pip install 'palaestra[tools]'" in catalogue(Path("runs"))["topologies"]["tool_use"]


def test_what_a_topology_opens_gets_its_settings_and_is_closed(play_scripted: PlayScripted) -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def opens(size: int = 1) -> AsyncIterator[None]:
        seen.append(size)
        yield
        seen.append("closed")

    @topology(roles=lambda size=1: ("solver",), opens=opens)
    def mine(size: int = 1):
        async def look(state: Any, runtime: Any) -> dict[str, Any]:
            seen.append("played")
            return {"answer": "yes"}

        return chain(look)

    play_scripted(mine, {}, {"size": 3})
    assert seen == [3, "played", "closed"]


def called(name: str = "python", **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


class TestCalls:
    """With form=calls."""

    def play(self, play_scripted: PlayScripted, *replies: str, **settings: Any) -> Episode:
        return play_scripted(tool_use, {"tool_solver": [*replies]}, {"form": "calls", **settings})

    def test_a_call_is_run_and_answered_by_a_tools_message(self, play_scripted: PlayScripted) -> None:
        episode = self.play(play_scripted, f"I compute it. {called(code='print(6 * 7)')}", YES)
        assert (episode.calls, episode.answer, episode.stop_reason) == (2, "yes", "answered")
        first, second = episode.turns
        assert first.reply == "I compute it." and first.result is None and first.failure is None
        assert second.messages == (Message("tool", "42", tool_call_id=first.tool_calls[0].id),)
        assert (first.move, second.move, second.follows) == ("solve_by_calls", "solve_by_calls", first.id)
        assert first.messages[1].content.endswith("\n\nProblem: Question 0?")

    def test_the_tool_is_shown_at_every_turn_and_the_conversation_goes_on(self) -> None:
        asked: list[Request] = []

        def reply(request: Request) -> str:
            asked.append(request)
            return YES if len(asked) == 3 else called(code=f"print({len(asked)})")

        episode = asyncio.run(played(ScriptedEngine(reply), {"form": "calls"}))
        assert [request.tools for request in asked] == [TOOLS] * 3 and asked[0].tool_choice == "auto"
        assert [message.role for message in asked[2].history] == ["system", "user", "assistant", "tool", "assistant"]
        assert asked[2].history[2].tool_calls == episode.turns[0].tool_calls
        assert [message.content for message in asked[2].messages] == ["2"]

    def test_what_the_sandbox_shows_is_never_trained_on(self, play_scripted: PlayScripted) -> None:
        episode = self.play(play_scripted, called(code="print(6 * 7)"), YES)
        first, second = samples_of([episode]).samples
        assert second.prompt_ids == (*first.prompt_ids, *first.token_ids, *b"42"), "what came before, then the output"
        assert bytes(second.token_ids) == YES.encode() and all(second.trained)

    def test_all_calls_of_a_reply_are_run_and_each_is_answered(self, play_scripted: PlayScripted) -> None:
        programs = ["import time\ntime.sleep(0.2)\nprint(1)", "print(1 / 0)", "print(3)"]
        episode = self.play(play_scripted, "".join(called(code=program) for program in programs), YES, workers=1)
        first, second = episode.turns
        assert [m.content for m in second.messages] == ["1", "Error: line 1: ZeroDivisionError: division by zero", "3"]
        assert [m.tool_call_id for m in second.messages] == [call.id for call in first.tool_calls]
        assert len({call.id for call in first.tool_calls}) == 3

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (called("bash", code="ls"), "Error: there is no tool 'bash'; call python"),
            (called(), "code: Field required"),
            (called(code=""), "code: there is no code"),
            (called(program="print(1)"), "code: Field required"),
            ('<tool_call>{"name": "python", "arguments": "print(1)"}</tool_call>', "Invalid JSON: expected value"),
        ],
    )
    def test_a_call_that_is_none_comes_back_as_an_error(
        self, play_scripted: PlayScripted, call: str, said: str
    ) -> None:
        episode = self.play(play_scripted, f"{call}{called(code='print(2)')}", YES)
        wrong, right = episode.turns[1].messages
        assert wrong.role == "tool" and wrong.content.startswith("Error: ") and said in wrong.content
        assert right.content == "2" and episode.answer == "yes"

    def test_calls_go_before_an_answer_in_the_same_reply(self, play_scripted: PlayScripted) -> None:
        episode = self.play(play_scripted, f"\\boxed{{no}} {called(code='print(1)')}", YES)
        assert (episode.calls, episode.answer) == (2, "yes")

    def test_it_ends_at_the_last_turn_whose_calls_are_not_run(self, play_scripted: PlayScripted) -> None:
        episode = self.play(play_scripted, *[called(code="print(1)")] * 2, turns=2)
        assert (episode.calls, episode.answer, episode.stop_reason) == (2, None, "2 turns")
        assert episode.failure is None and episode.turns[-1].failure is None

    @pytest.mark.parametrize("reply", ["", "I do not know.", "<tool_call>{python: print(1)}</tool_call>", code("1")])
    def test_a_reply_with_neither_calls_nor_answer_ends_without_one(
        self, play_scripted: PlayScripted, reply: str
    ) -> None:
        episode = self.play(play_scripted, called(code="print(1)"), reply)
        assert (episode.calls, episode.answer, episode.stop_reason) == (2, None, "unreadable reply")

    def test_a_hostile_program_is_held_to_the_limits(self, play_scripted: PlayScripted) -> None:
        calls = [called(code="while True: pass"), called(code="open('/etc/passwd')"), called(code="print(1)")]
        episode = self.play(play_scripted, "".join(calls), YES, seconds=0.5)
        shown = [message.content for message in episode.turns[1].messages]
        assert shown[0] == "Error: no end within 0.5 s" and "PermissionError" in shown[1] and shown[2] == "1"

    def test_in_the_text_form_a_call_is_no_call(self, play_scripted: PlayScripted) -> None:
        episode = play_scripted(tool_use, {"tool_solver": [called(code="print(1)")]})
        assert (episode.calls, episode.stop_reason, episode.turns[0].tool_calls) == (1, "unreadable reply", ())

    def test_a_server_of_openais_protocol_calls_the_tool(self) -> None:
        def makes(*calls: tuple[str, str]) -> Any:
            functions = [{"id": "x", "type": "function", "function": {"name": n, "arguments": a}} for n, a in calls]
            return says(None, finish="tool_calls", tool_calls=functions)

        program, bad = ("python", json.dumps({"code": "print(6 * 7)"})), ("python", "print(")
        with ChatServer(makes(program, bad), says(YES)) as server:
            episode = asyncio.run(played(f"openai:tiny@{server.url}", {"form": "calls"}))
        assert (episode.answer, episode.stop_reason, episode.failure) == ("yes", "answered", None)
        first, second = server.asked
        assert first["tools"] == second["tools"] == [*TOOLS] and first["tool_choice"] == "auto"
        *_, asked, ran, refused = second["messages"]
        assert [call["function"]["arguments"] for call in asked["tool_calls"]] == [program[1], bad[1]]
        assert [call["id"] for call in asked["tool_calls"]] == [ran["tool_call_id"], refused["tool_call_id"]]
        assert (ran["role"], ran["content"]) == ("tool", "42") and refused["content"].startswith("Error: ")

    @pytest.mark.model
    def test_a_model_whose_template_shows_no_tools_says_so(self) -> None:
        failure = asyncio.run(played("embedded", {"form": "calls"})).failure
        assert failure is not None and "shows no tools; take a model that was trained on them" in failure


async def played(model: Any, settings: dict[str, Any]) -> Episode:
    env, topology_ = WordEnv(), build(tool_use, settings)
    async with open_company(Cast.all(model), topology_.roles, "local") as company, topology_.opened():
        return await play(topology_, env, env.tasks(1)[0], company)
