"""Agent functions in a run: they get a base_url and nothing else of ours; their calls are recorded as any others."""

import asyncio
import sys
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from agents import Cast, Completion, Request, ScriptedEngine
from agents.types import seed_of
from envs import ConfigError
from experiments import Run, run
from graphs import topology


class Jittery(ScriptedEngine):
    """Answers in an order that has nothing to do with that of the requests."""

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep((seed_of(request.seed, "delay") % 7) / 1000)
        return await super().complete(request)


def reply(request: Request) -> str:
    return f"I think so. \\boxed{{{request.seed % 5}}}"


def play(tmp_path: Path, function: Any, script: Any = reply, **options: Any) -> Run:
    cast = options.pop("cast", None) or Cast.all(Jittery(script))
    options = {"tasks": 4, "backend": "local", "root": tmp_path, **options}
    return run(function, options.pop("env", "arithmetic"), cast, **options)


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def ask(client: AsyncOpenAI, role: str, text: str, **options: Any) -> str:
    said = await client.chat.completions.create(model=role, messages=user(text), **options)
    return said.choices[0].message.content or ""


async def debate(question: str, base_url: str, api_key: str, rounds: int = 1) -> str:
    """Three at once, several times; then a fourth decides."""
    async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
        said = [question, question]
        for _ in range(rounds):
            said = await asyncio.gather(ask(client, "a", said[1]), ask(client, "b", said[0]), ask(client, "c", said[0]))
        return await ask(client, "judge", "\n".join(said))


def blocking(question: str, base_url: str, api_key: str, task_id: str, seed: int) -> str:
    with OpenAI(base_url=base_url, api_key=api_key) as client:
        said = client.chat.completions.create(model="solver", messages=user(f"{task_id} {seed} {question}"))
        return said.choices[0].message.content or ""


def test_a_function_plays_as_a_topology(tmp_path: Path) -> None:
    played = play(tmp_path, debate, settings={"rounds": "2"}, name="mine")
    summary = played.summary()
    assert (summary.topology, summary.episodes, summary.failed, summary.calls) == ("debate", 4, 0, 4 * 7)
    assert played.config["topology"]["settings"] == {"rounds": 2}
    for episode in played.episodes():
        judge = episode.turns[-1]
        assert judge.role == "judge" and episode.answer == judge.answer, "the boxed answer is read"
        assert {turn.role for turn in episode.turns if turn.id in judge.reads} == {"a", "b", "c"}
        assert episode.verdict and episode.verdict.status in ("correct", "incorrect")


def test_the_digest_is_the_same_at_any_concurrency(tmp_path: Path) -> None:
    options = {"tasks": 8, "samples": 2, "settings": {"rounds": 3}}
    digests = {play(tmp_path, debate, concurrency=c, seed=7, **options).summary().digest for c in (1, 16)}
    assert len(digests) == 1
    assert play(tmp_path, debate, seed=8, **options).summary().digest not in digests


def test_a_function_that_is_not_async_runs_in_a_thread_of_its_own(tmp_path: Path) -> None:
    played = play(tmp_path, blocking, lambda request: request.messages[0].content, tasks=20, seed=3)
    asked = [episode.turns[0].messages[0].content.split() for episode in played.episodes()]
    assert [words[0] for words in asked] == [episode.task.id for episode in played.episodes()]
    assert len({words[1] for words in asked}) == 20, "each episode has a seed of its own"
    again = play(tmp_path, blocking, lambda request: request.messages[0].content, tasks=20, seed=3, concurrency=1)
    assert again.summary().digest == played.summary().digest


def test_an_async_function_that_blocks_its_loop_does_not_stop_the_run(tmp_path: Path) -> None:
    async def inconsiderate(question: str, base_url: str, api_key: str) -> str:
        return blocking(question, base_url, api_key, "", 0)

    assert play(tmp_path, inconsiderate).summary().failed == 0


def test_answers_are_taken_as_they_are_when_none_is_marked(tmp_path: Path) -> None:
    answers: dict[str, Any] = {"plain": " 12 ", "marked": "So:\nAnswer: 13", "none": None, "blank": " ", "number": 14}
    found = {}
    for name, answer in answers.items():

        async def given(question: str, base_url: str, answer: Any = answer) -> Any:
            return answer

        episode = next(play(tmp_path, given, tasks=1).episodes())
        found[name] = episode.answer or episode.failure or (episode.verdict and episode.verdict.status)
    expected = "TypeError: expected the answer as text, found 14"
    assert found == {"plain": "12", "marked": "13", "none": "unparsed", "blank": "unparsed", "number": expected}


def test_what_a_function_raises_fails_its_episode_and_keeps_its_turns(tmp_path: Path) -> None:
    async def wrong(question: str, base_url: str, api_key: str) -> str:
        async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
            await ask(client, "solver", question)
        raise ZeroDivisionError("my mistake")

    async def leaving(question: str, base_url: str) -> str:
        sys.exit(3)

    def leaving_a_thread(question: str, base_url: str) -> str:
        sys.exit(3)

    played = play(tmp_path, wrong)
    assert {(e.failure, len(e.turns)) for e in played.episodes()} == {("ZeroDivisionError: my mistake", 1)}
    for function in (leaving, leaving_a_thread):
        assert "SystemExit: 3" in (next(play(tmp_path, function, tasks=1).episodes()).failure or "")


def test_calls_after_the_end_are_refused(tmp_path: Path) -> None:
    left: list[tuple[str, str]] = []

    async def forgetful(question: str, base_url: str, api_key: str) -> str:
        if left:
            async with AsyncOpenAI(base_url=left[0][0], api_key=api_key) as client:
                with pytest.raises(openai.NotFoundError, match="not open"):
                    await ask(client, "solver", question)
        left.append((base_url, api_key))
        return "1"

    assert play(tmp_path, forgetful, concurrency=1).summary().failed == 0
    assert len({url for url, _ in left}) == 4 and len({key for _, key in left}) == 1
    with pytest.raises(OSError):
        urllib.request.urlopen(left[0][0].partition("/episodes")[0] + "/health", timeout=5)
    assert not any(left[0][1].encode() in f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())


def test_roles_said_beforehand_are_checked(tmp_path: Path) -> None:
    @topology(roles=lambda: ("solver",), calls=lambda: 1)
    async def mine(question: str, base_url: str, api_key: str) -> str:
        async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
            with pytest.raises(openai.NotFoundError, match="did you mean 'solver'"):
                await ask(client, "solvr", question)
            return await ask(client, "solver", question)

    played = play(tmp_path, mine)
    assert played.summary().failed == 0 and set(played.config["cast"]) == {"solver"}
    with pytest.raises(ConfigError, match="unknown role in setting"):
        play(tmp_path, mine, settings={"critic.temperature": 0})


def test_a_role_that_nobody_plays_is_an_error_in_the_function(tmp_path: Path) -> None:
    cast = Cast(a=ScriptedEngine(reply), b=ScriptedEngine(reply), c=ScriptedEngine(reply))
    episode = next(play(tmp_path, debate, cast=cast, tasks=1).episodes())
    assert "NotFoundError" in (episode.failure or "") and "unknown role 'judge'" in (episode.failure or "")
    assert len(episode.turns) == 3


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"round": 2}, "did you mean 'rounds'"),
        ({"rounds": "two"}, "rounds cannot be 'two'"),
        ({"base_url": "http://elsewhere"}, "base_url is given by the run"),
    ],
)
def test_settings_are_checked_first(tmp_path: Path, settings: dict[str, Any], phrase: str) -> None:
    with pytest.raises(ConfigError, match=phrase):
        play(tmp_path, debate, settings=settings)
    assert not list(tmp_path.iterdir())


def test_a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import asyncio\n\n\nasync def solve(question: str, base_url: str) -> str:\n    return 'Answer: 5'\n"
    (tmp_path / "my_agents.py").write_text(code)
    played = play(tmp_path, "my_agents:solve", tasks=1)
    assert played.config["topology"]["name"] == "my_agents:solve" and next(played.episodes()).answer == "5"


@pytest.mark.model
def test_token_ids_of_a_conversation_are_exact(tmp_path: Path) -> None:
    async def converse(question: str, base_url: str, api_key: str) -> str:
        async with AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
            messages = user(question)
            for _ in range(3):
                reply = await client.chat.completions.create(model="solver", messages=messages, logprobs=True)
                messages += [reply.choices[0].message, *user("Are you sure?")]
            return messages[-2].content or ""

    played = play(tmp_path, converse, cast=Cast.all("embedded"), tasks=6, seed=7)
    assert played.summary().failed == 0
    for episode in played.episodes():
        first, second, third = episode.turns
        for earlier, later in ((first, second), (second, third)):
            ids = (*earlier.prompt_ids, *earlier.token_ids)
            assert later.follows == earlier.id and later.prompt_ids[: len(ids)] == ids
            assert len(later.prompt_ids) > len(ids) and len(later.logprobs) == len(later.token_ids) > 0
