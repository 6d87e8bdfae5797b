"""The wire, met by OpenAI's own client: what is asked reaches the engine and comes back, the rest is refused."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from agents import Cast, Completion, EngineError, Message, Request, ScriptedEngine
from experiments.gateway import app as gateway_app
from tests.experiments.serving_helpers import Served, served

ASKED: Any = [{"role": "user", "content": "What is 3 + 4?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
CALLS = '<tool_call>{"name": "add", "arguments": {"a": 3, "b": 4}}</tool_call>'


class Listening(ScriptedEngine):
    """Keeps what it is asked."""

    def __init__(self, script: Callable[[Request], str]):
        super().__init__(script)
        self.asked: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        return await super().complete(request)


def talk(
    tmp_path: Path,
    test: Callable[[Served], Coroutine[Any, Any, Any]],
    says: Callable[[Request], str] | str = "7",
    **options: Any,
) -> list[Request]:
    """Run a test against a server whose engine says this; returns what the engine was asked."""
    engine = Listening((lambda _: says) if isinstance(says, str) else says)

    async def main() -> None:
        async with served(tmp_path, Cast.all(engine), **options) as running:
            await test(running)

    asyncio.run(main())
    return engine.asked


def test_a_call_reaches_the_role_and_comes_back(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        episode = await served.open()
        reply = await served.client(episode).chat.completions.create(
            model="critic",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]},
            ],
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=20,
            stop="\n\n",
            user="somebody",
            presence_penalty=0,
        )
        assert reply.model == "critic" and reply.object == "chat.completion"
        choice = reply.choices[0]
        assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "7", "stop")
        assert choice.logprobs is None and choice.message.tool_calls is None
        assert reply.usage and reply.usage.total_tokens == reply.usage.prompt_tokens + 1
        assert getattr(choice, "turn_id", "") == "critic/0" and getattr(choice, "weight_version", "") == "1"

    request = talk(tmp_path, test)[0]
    assert request.messages == (Message("system", "Be brief."), Message("user", "One\ntwo"))
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop) == (0.5, 0.9, 20, ("\n\n",))
    assert request.key.endswith("/critic/0") and request.tools == () and request.schema is None


def test_what_the_user_set_for_a_role_goes_before_what_its_client_asks_for(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        create = served.client(await served.open()).chat.completions.create
        await create(model="solver", messages=ASKED, temperature=0.5, max_tokens=9)

    request = talk(tmp_path, test, settings={"solver.temperature": "0.1"})[0]
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.1, 9)


def test_tool_calls_there_and_back(tmp_path: Path) -> None:
    def says(request: Request) -> str:
        return "It is 7." if request.messages[-1].role == "tool" else f"Adding. {CALLS}"

    async def test(served: Served) -> None:
        create = served.client(await served.open()).chat.completions.create
        first = (await create(model="solver", messages=ASKED, tools=[TOOL], tool_choice="required")).choices[0]
        assert first.finish_reason == "tool_calls" and first.message.tool_calls
        (call,) = first.message.tool_calls
        assert call.type == "function" and json.loads(call.function.arguments) == {"a": 3, "b": 4}
        back: Any = [*ASKED, first.message, {"role": "tool", "tool_call_id": call.id, "content": "7"}]
        second = await create(model="solver", messages=back, tools=[TOOL])
        assert second.choices[0].message.content == "It is 7."
        by_name: Any = {"type": "function", "function": {"name": "add"}}
        await create(model="solver", messages=ASKED, tools=[TOOL], tool_choice=by_name)
        plain = await create(model="solver", messages=ASKED, tools=[TOOL], tool_choice="none")
        assert plain.choices[0].message.tool_calls is None

    first, second, third, fourth = talk(tmp_path, test, says)
    assert first.tools == (TOOL,) and first.tool_choice == "required"
    assert second.messages == (Message("tool", "7", tool_call_id=second.messages[0].tool_call_id),)
    assert second.tool_choice == "auto" and third.tool_choice == "add" and fourth.tools == ()
    assert second.prefix, "the second call goes on from the ids of the first"


def test_one_call_at_a_time_where_the_client_can_take_no_more(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        create = served.client(await served.open()).chat.completions.create
        for parallel, count in ((True, 2), (False, 1)):
            reply = await create(model="solver", messages=ASKED, tools=[TOOL], parallel_tool_calls=parallel)
            assert len(reply.choices[0].message.tool_calls or ()) == count

    talk(tmp_path, test, CALLS * 2)


def test_several_choices_are_turns_of_their_own(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        episode = await served.open()
        create = served.client(episode).chat.completions.create
        reply = await create(model="solver", messages=ASKED, n=3, seed=5)
        assert [choice.index for choice in reply.choices] == [0, 1, 2]
        said = [choice.message.content for choice in reply.choices]
        assert len(set(said)) == 3
        again = await create(model="solver", messages=ASKED, n=3, seed=6)
        assert not {choice.message.content for choice in again.choices} & set(said), "another seed"
        assert reply.usage and reply.usage.completion_tokens == sum(len(text or "") for text in said)
        await served.answer(episode)
        assert len(next(served.run.episodes()).turns) == 6

    talk(tmp_path, test, lambda request: str(request.seed))


def test_token_ids_and_logprobs_come_when_they_are_asked_for(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        create = served.client(await served.open()).chat.completions.create
        plain = await create(model="solver", messages=ASKED)
        assert not hasattr(plain, "prompt_token_ids") and not hasattr(plain.choices[0], "token_ids")
        reply = await create(
            model="solver", messages=ASKED, logprobs=True, top_logprobs=0, extra_body={"return_token_ids": True}
        )
        choice = reply.choices[0]
        assert bytes(getattr(reply, "prompt_token_ids", ())) == b"What is 3 + 4?"
        assert bytes(getattr(choice, "token_ids", ())) == b"42"
        assert choice.logprobs and choice.logprobs.content
        assert [(entry.token, entry.logprob) for entry in choice.logprobs.content] == [
            ("token_id:52", 0.0),
            ("token_id:50", 0.0),
        ]

    talk(tmp_path, test, "42")


class Sum(BaseModel):
    sum: int


def test_schemas_reach_the_engine(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        completions = served.client(await served.open()).chat.completions
        parsed = await completions.parse(model="solver", messages=ASKED, response_format=Sum)
        assert parsed.choices[0].message.parsed == Sum(sum=7)
        await completions.create(model="solver", messages=ASKED, response_format={"type": "json_object"})
        await completions.create(model="solver", messages=ASKED, response_format={"type": "text"})

    schemas = [request.schema for request in talk(tmp_path, test, '{"sum": 7}')]
    assert schemas[0] and schemas[0]["properties"]["sum"]["type"] == "integer"
    assert schemas[1:] == [{"type": "object"}, None]


async def collected(stream: Any) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in stream]


def test_a_stream_says_the_same_as_a_whole_reply(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        create = served.client(await served.open()).chat.completions.create
        chunks = await collected(
            await create(
                model="solver",
                messages=ASKED,
                tools=[TOOL],
                stream=True,
                n=2,
                logprobs=True,
                stream_options={"include_usage": True},
                extra_body={"return_token_ids": True},
            )
        )
        assert len({chunk.id for chunk in chunks}) == 1
        *spoken, last = chunks
        assert last.choices == [] and last.usage and last.usage.completion_tokens == 2 * len(f"Adding. {CALLS}")
        assert all(chunk.usage is None for chunk in spoken)
        assert bytes(getattr(chunks[0], "prompt_token_ids", ())) == b"What is 3 + 4?"
        for index in (0, 1):
            own = [chunk.choices[0] for chunk in spoken if chunk.choices[0].index == index]
            assert own[0].delta.role == "assistant" and not own[0].delta.content
            assert "".join(choice.delta.content or "" for choice in own) == "Adding."
            (call,) = [call for choice in own for call in choice.delta.tool_calls or ()]
            assert call.index == 0 and call.id and call.function and call.function.name == "add"
            assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["tool_calls"]
            (ids,) = [choice.model_dump()["token_ids"] for choice in own if hasattr(choice, "token_ids")]
            assert bytes(ids) == f"Adding. {CALLS}".encode()
            (logprobs,) = [choice.logprobs.content for choice in own if choice.logprobs]
            assert logprobs and len(logprobs) == len(ids)

    talk(tmp_path, test, f"Adding. {CALLS}")


def test_a_stream_is_kept_open_while_the_reply_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_app, "WAIT_S", 0.01)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            arrived.set()
            await go_on.wait()
            if request.messages[-1].content == "fail":
                raise EngineError("the engine is gone")
            return await super().complete(request)

    async def test() -> None:
        async with served(tmp_path, Cast.all(Slow({"solver": "7"}))) as running:
            body = {"model": "solver", "stream": True, "messages": ASKED}
            url = f"{running.gateway.url}/v1/chat/completions"
            async with running.http.stream("POST", url, json=body) as response:
                lines = response.aiter_lines()
                assert response.headers["content-type"].startswith("text/event-stream")
                assert (await anext(lines)).startswith(":"), "a comment while there is nothing else to say"
                go_on.set()
                data = [line async for line in lines if line.startswith("data:")]
                assert data[-1] == "data: [DONE]" and '"content": "7"' in "".join(data)
            go_on.clear()
            arrived.clear()
            create = running.client().chat.completions.create
            late: Any = await create(model="solver", messages=[{"role": "user", "content": "fail"}], stream=True)
            await arrived.wait()
            go_on.set()
            with pytest.raises(openai.APIError, match="the engine is gone"):
                await collected(late)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("change", "status", "phrase"),
    [
        ({"model": "critik"}, 404, "unknown role 'critik'; did you mean 'critic'?"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "a part of type image_url"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "Invalid JSON"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": "warm"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 0}, 400, "n:"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"stop": [""]}, 400, "stop"),
        ({"top_logprobs": 2, "logprobs": True}, 400, "top_logprobs is not supported"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty is not supported"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias is not supported"),
        ({"functions": []}, 400, "unknown parameter 'functions'"),
        ({"max_token": 5}, 400, "did you mean 'max_tokens'?"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools.0.type"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, change: dict[str, Any], status: int, phrase: str) -> None:
    async def test(served: Served) -> None:
        body = {"model": "solver", "messages": ASKED, **change}
        response = await served.http.post(
            "/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        error = response.json()["error"]
        assert response.status_code == status and phrase in error["message"]
        assert error["type"] == "invalid_request_error" and set(error) == {"message", "type", "param", "code"}
        assert response.headers["x-should-retry"] == "false"

    assert not talk(tmp_path, test)


def test_bodies_that_are_no_json_and_paths_that_are_none(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        for content, kind in ((b"{", "application/json"), (b"[]", "application/json"), (b"{}", "text/plain")):
            response = await served.http.post("/v1/chat/completions", content=content, headers={"Content-Type": kind})
            assert response.status_code == 400 and response.json()["error"]["message"]
        missing = await served.http.post("/v1/responses", json={})
        assert missing.status_code == 404 and "chat/completions" in missing.json()["error"]["message"]
        wrong = await served.http.get("/v1/chat/completions")
        assert wrong.status_code == 405 and wrong.json()["error"]["type"] == "invalid_request_error"

    assert not talk(tmp_path, test)


def test_an_engine_that_cannot_answer_is_asked_once(tmp_path: Path) -> None:
    def says(request: Request) -> str:
        if request.messages[-1].content == "break":
            raise ZeroDivisionError("secret detail")
        raise EngineError("too long a prompt")

    async def test(served: Served) -> None:
        create = served.client(await served.open(), max_retries=2).chat.completions.create
        with pytest.raises(openai.InternalServerError, match="too long a prompt"):
            await create(model="solver", messages=ASKED)
        with pytest.raises(openai.InternalServerError, match="internal error: ZeroDivisionError") as caught:
            await create(model="solver", messages=[{"role": "user", "content": "break"}])
        assert "secret" not in str(caught.value)

    assert len(talk(tmp_path, test, says)) == 2


def test_a_client_that_goes_away_takes_its_call_with_it(tmp_path: Path) -> None:
    arrived, dropped = asyncio.Event(), asyncio.Event()

    class Hanging(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            arrived.set()
            try:
                await asyncio.Event().wait()
            finally:
                dropped.set()
            raise AssertionError("unreachable")

    async def test() -> None:
        async with served(tmp_path, Cast.all(Hanging({}))) as running:
            for stream in (False, True):
                create = running.client().chat.completions.create
                call: Any = create(model="solver", messages=ASKED, stream=stream, n=2)
                task = asyncio.ensure_future(call)
                await asyncio.wait_for(arrived.wait(), 10)
                task.cancel()
                await asyncio.wait_for(dropped.wait(), 10)
                arrived.clear()
                dropped.clear()

    asyncio.run(test())


def test_roles_are_listed_as_models(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        client = served.client(await served.open())
        assert [model.id async for model in client.models.list()] == ["solver", "critic"]
        assert (await client.models.retrieve("critic")).id == "critic"
        with pytest.raises(openai.NotFoundError, match="unknown role 'judge'"):
            await client.models.retrieve("judge")

    talk(tmp_path, test)


def test_the_client_that_is_not_async(tmp_path: Path) -> None:
    def use(url: str) -> None:
        with OpenAI(base_url=url, api_key="none") as client:
            reply = client.chat.completions.create(model="solver", messages=ASKED)
            assert reply.choices[0].message.content == "7"
            with client.chat.completions.create(model="solver", messages=ASKED, stream=True) as stream:
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "7"

    async def test(served: Served) -> None:
        await asyncio.to_thread(use, (await served.open())["base_url"])

    assert len(talk(tmp_path, test)) == 2
