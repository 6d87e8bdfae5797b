"""Tool use: what is run, what the solver is shown of it, and each way to end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents import Cast, ScriptedEngine, open_company
from envs import ConfigError
from envs.sandbox import monty, why_unavailable
from experiments.catalogue import catalogue
from graphs import build, play, tool_use, topology
from graphs.shapes import chain
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
