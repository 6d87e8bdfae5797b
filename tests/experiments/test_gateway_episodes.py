"""Tasks handed out over HTTP: recorded, judged and stored as those of a run are; and who may ask."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agents import Cast, Completion, Request, ScriptedEngine
from envs.types import Env
from experiments.gateway import episodes as gateway_episodes
from experiments.gateway.app import HEADER, make_app
from experiments.gateway.episodes import Gateway
from experiments.gateway.guard import Guard
from tests.experiments.serving_helpers import Served, served

ASKED: Any = [{"role": "user", "content": "Yes or no?"}]


def test_an_episode_from_its_task_to_its_verdict(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {"solver": "I say \\boxed{yes}", "critic": "I say yes, too."}, words) as running:
            episode = await running.open()
            assert (episode["question"], episode["task"], episode["sample"]) == ("Question 0?", "words-0", 0)
            create = running.client(episode).chat.completions.create
            said = (await create(model="solver", messages=ASKED)).choices[0].message.content
            checked: Any = [{"role": "user", "content": f"He says: {said} Is it so?"}]
            await create(model="critic", messages=checked)
            verdict = await running.answer(episode, said)
            assert (verdict["status"], verdict["score"], verdict["answer"]) == ("correct", 1.0, "yes")
            assert (await running.answer(await running.open(), "  no "))["status"] == "incorrect"
            assert (await running.answer(await running.open(), None))["status"] == "unparsed"
        stored = list(running.run.episodes())
        assert [e.task.id for e in stored] == ["words-0", "words-1", "words-2"]
        assert [turn.id for turn in stored[0].turns] == ["solver/0", "critic/0"]
        assert stored[0].turns[1].reads == ("solver/0",) and stored[0].stop_reason == "answered"
        assert [e.answer for e in stored] == ["yes", "no", None]
        summary = running.run.summary()
        assert (summary.topology, summary.episodes, summary.failed, summary.calls) == ("serve", 3, 0, 2)

    asyncio.run(main())


def test_which_episode_is_handed_out(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {}, words, samples=2) as running:
            chosen = await running.open(task="words-1", sample=1)
            assert (chosen["id"], chosen["task"], chosen["sample"]) == ("4", "words-1", 1)
            assert (await running.open(task="words-1"))["sample"] == 0
            opened = [(e["task"], e["sample"]) for e in [await running.open() for _ in range(4)]]
            assert opened == [("words-0", 0), ("words-0", 1), ("words-2", 0), ("words-2", 1)]
            for body, status, code in (
                ({}, 404, "no_tasks_left"),
                ({"task": "words-1"}, 409, "task_handed_out"),
                ({"task": "words-9"}, 404, "task_not_found"),
                ({"task": "words-1", "sample": 2}, 404, "task_not_found"),
                ({"tusk": "words-1"}, 400, "extra_forbidden"),
            ):
                response = await running.http.post("/episodes", json=body)
                assert (response.status_code, response.json()["error"]["code"]) == (status, code)

    asyncio.run(main())


def test_an_episode_is_answered_once(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {"solver": "yes"}, words) as running:
            episode = await running.open()
            twice = [running.http.post("/episodes/1/answer", json={"answer": a}) for a in ("yes", "no")]
            statuses = sorted([response.status_code for response in await asyncio.gather(*twice)])
            assert statuses == [200, 409]
            for again in (
                running.http.post("/episodes/1/answer", json={"answer": "yes"}),
                running.http.delete("/episodes/1"),
            ):
                assert (await again).json()["error"]["code"] == "episode_ended"
            assert (await running.http.delete("/episodes/2")).status_code == 404
            with pytest.raises(openai.NotFoundError, match="not open"):
                await running.client(episode).chat.completions.create(model="solver", messages=ASKED)
        assert len(list(running.run.episodes())) == 1

    asyncio.run(main())


def test_what_is_given_up_or_left_idle_fails_and_keeps_its_turns(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {"solver": "yes"}, words, idle_s=0.5) as running:
            call = {"model": "solver", "messages": ASKED}
            idle = await running.open()
            await running.http.post(f"{idle['base_url']}/chat/completions", json=call)
            while not running.run.store.outcomes():
                await asyncio.sleep(0.01)
        (episode,) = running.run.episodes()
        assert episode.failure == "AbandonedError: nothing was asked for 0.5 s" and episode.verdict is None
        assert len(episode.turns) == 1
        async with served(tmp_path / "more", {"solver": "yes"}, words) as running:
            given_up = await running.open()
            await running.client(given_up).chat.completions.create(model="solver", messages=ASKED)
            outcome = (await running.http.delete("/episodes/1")).json()
            assert (outcome["status"], outcome["calls"]) == ("failed", 1)
            await running.open()
        failures = [episode.failure for episode in running.run.episodes()]
        assert failures == ["AbandonedError: given up by its client", "AbandonedError: the server was stopped"]

    asyncio.run(main())


def test_a_call_that_goes_on_is_not_idle_and_ends_with_its_episode(tmp_path: Path, words: Env) -> None:
    arrived, dropped = asyncio.Event(), asyncio.Event()

    class Hanging(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            arrived.set()
            try:
                await asyncio.Event().wait()
            finally:
                dropped.set()
            raise AssertionError("unreachable")

    async def main() -> None:
        async with served(tmp_path, Cast.all(Hanging({})), words) as running:
            client = running.client(await running.open())
            assert running.gateway.episodes["1"].idle_s > 0
            call = asyncio.ensure_future(client.chat.completions.create(model="solver", messages=ASKED))
            await arrived.wait()
            assert running.gateway.episodes["1"].idle_s == 0
            await running.http.delete("/episodes/1")
            with pytest.raises(openai.ConflictError, match="the episode has ended"):
                await call
            assert dropped.is_set()

    asyncio.run(main())


def test_a_header_names_the_episode_too(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {"solver": "yes"}, words) as running:
            episode = await running.open()
            client = running.client(default_headers={HEADER: episode["id"]})
            await client.chat.completions.create(model="solver", messages=ASKED)
            await running.answer(episode)
            with pytest.raises(openai.NotFoundError, match="episode '1' is not open"):
                await client.chat.completions.create(model="solver", messages=ASKED)
        assert len(next(running.run.episodes()).turns) == 1

    asyncio.run(main())


def test_calls_without_an_episode_are_answered_and_not_stored(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, lambda request: str(request.seed), words) as running:
            create = running.client().chat.completions.create
            said = {(await create(model="solver", messages=ASKED)).choices[0].message.content for _ in range(3)}
            assert len(said) == 3, "each draws anew"
        assert not running.run.path.exists(), "a run that stores nothing leaves nothing behind"

    asyncio.run(main())


def test_a_conversation_goes_on_from_the_ids_that_were_sampled(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, lambda request: f"{len(request.prefix)}.", words) as running:
            episode = await running.open()
            create = running.client(episode).chat.completions.create
            messages = list(ASKED)
            for _ in range(3):
                reply = await create(model="solver", messages=messages)
                messages += [reply.choices[0].message, {"role": "user", "content": "Sure?"}]
            await running.answer(episode)
        turns = next(running.run.episodes()).turns
        assert [turn.follows for turn in turns] == [None, "solver/0", "solver/1"]
        for earlier, later in itertools.pairwise(turns):
            ids = (*earlier.prompt_ids, *earlier.token_ids)
            assert later.prompt_ids[: len(ids)] == ids

    asyncio.run(main())


def test_what_is_open_is_bounded(tmp_path: Path, words: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_episodes, "CALLS", 2)

    async def main() -> None:
        async with served(tmp_path, {"solver": "yes"}, words, concurrency=1) as running:
            episode = await running.open()
            full = await running.http.post("/episodes")
            assert full.status_code == 429 and "--concurrency" in full.json()["error"]["message"]
            create = running.client(episode).chat.completions.create
            await create(model="solver", messages=ASKED, n=2)
            with pytest.raises(openai.RateLimitError, match="may make 2 calls"):
                await create(model="solver", messages=ASKED)
            await running.answer(episode)
            assert (await running.open())["id"] == "2"

    asyncio.run(main())


def test_a_gateway_that_closes_tells_its_clients_to_wait(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {"solver": "yes"}, words) as running:
            running.gateway.closing = True
            call = {"model": "solver", "messages": ASKED}
            for refused in (running.http.post("/episodes"), running.http.post("/v1/chat/completions", json=call)):
                response = await refused
                assert response.status_code == 503 and int(response.headers["retry-after"]) > 0
                assert "x-should-retry" not in response.headers
            assert (await running.http.get("/health")).json()["status"] == "closing"

    asyncio.run(main())


def test_the_same_agents_play_the_same_episodes(tmp_path: Path, words: Env) -> None:
    async def play(root: Path, order: list[int]) -> str:
        async def one(running: Served, task: int) -> None:
            episode = await running.open(task=f"words-{task}")
            create = running.client(episode).chat.completions.create
            asked = [create(model=role, messages=ASKED) for role in ("solver", "critic", "solver")]
            said = [reply.choices[0].message.content or "" for reply in await asyncio.gather(*asked)]
            await running.answer(episode, max(said))

        async with served(root, lambda request: str(request.seed), words, tasks=5) as running:
            await asyncio.gather(*(one(running, task) for task in order))
        return running.run.summary().digest

    digests = {
        asyncio.run(play(tmp_path / str(i), order)) for i, order in enumerate([[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]])
    }
    assert len(digests) == 1


def test_who_shows_no_token_is_not_answered(tmp_path: Path, words: Env) -> None:
    async def main() -> None:
        async with served(tmp_path, {"solver": "yes"}, words, token="a-secret-token") as running:
            assert "a-secret-token" not in repr(running.gateway)
            await running.client(await running.open()).chat.completions.create(model="solver", messages=ASKED)
            async with httpx.AsyncClient(base_url=running.gateway.url) as http:
                for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "a-secret-token"}):
                    response = await http.post("/episodes", headers=wrong)
                    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
                    assert "a-secret-token" not in response.text
                assert (await http.get("/health")).json()["open_episodes"] == 1, "health needs none"
            with pytest.raises(openai.AuthenticationError):
                await running.client(api_key="wrong").models.list()
        assert b"a-secret-token" not in b"".join(f.read_bytes() for f in running.run.path.iterdir())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:9000"}, 403),
    ],
)
def test_pages_of_other_sites_reach_nothing(headers: dict[str, str], status: int) -> None:
    async def main() -> int:
        app = Guard(make_app(Gateway(("solver",))), None, loopback=True)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return (await http.get("/v1/models", headers=headers)).status_code

    assert asyncio.run(main()) == status


def test_bodies_are_bounded(words: Env) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 100

    async def main() -> None:
        app = Guard(make_app(Gateway(("solver",))), None, loopback=True, body=1000)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            bodies: list[Any] = [b" " * 2000, chunks()]
            for body in bodies:
                response = await http.post("/v1/chat/completions", content=body)
                assert response.status_code == 413 and "1,000 bytes" in response.json()["error"]["message"]

    asyncio.run(main())
