"""Tool calls read from text, and replies held to a schema by the embedded model."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import EngineError, Message, Request, Sampling
from agents.engines import EMBEDDED
from agents.engines.tools import enforced_schema, split_tool_calls
from agents.engines.transformers import TransformersEngine

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
CALL = '{"name": "add", "arguments": {"a": 1, "b": 2}}'
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5)


def request(**options: Any) -> Request:
    return Request("t/0/solver/0", (Message("user", "What is 2 + 2?"),), Sampling(max_tokens=120), 5, **options)


class TestSplitToolCalls:
    def test_tagged_calls_leave_the_words(self) -> None:
        text, calls = split_tool_calls(f"Let me add.\n<tool_call>\n{CALL}\n</tool_call>", 1, [ADD])
        assert text == "Let me add."
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [("add", {"a": 1, "b": 2})]

    def test_several_calls_have_ids_of_their_own_that_derive_from_the_seed(self) -> None:
        reply = f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>"
        _, calls = split_tool_calls(reply, 1, [ADD])
        assert len({call.id for call in calls}) == 2 and all(call.id.isalnum() for call in calls)
        assert split_tool_calls(reply, 1, [ADD])[1] == calls
        assert split_tool_calls(reply, 2, [ADD])[1] != calls

    def test_a_bare_object_is_a_call_only_of_a_tool_that_was_offered(self) -> None:
        assert split_tool_calls(f" {CALL} ", 1, [ADD])[1][0].name == "add"
        other = CALL.replace("add", "subtract")
        assert split_tool_calls(other, 1, [ADD]) == (other, ())
        llama = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
        assert split_tool_calls(llama, 1, [ADD])[1][0].arguments == '{"a": 1, "b": 2}'

    @pytest.mark.parametrize(
        "text",
        ["<tool_call>{bad}</tool_call>", '<tool_call>{"name": 3, "arguments": {}}</tool_call>', "plain", "[" * 5000],
    )
    def test_what_cannot_be_read_stays_text(self, text: str) -> None:
        assert split_tool_calls(text, 1, [ADD]) == (text, ())

    def test_without_tools_all_is_text(self) -> None:
        assert split_tool_calls(CALL, 1, []) == (CALL, ())

    @given(st.text(), JSON)
    def test_any_arguments_and_any_words_are_kept(self, words: str, value: Any) -> None:
        call = json.dumps({"name": "add", "arguments": {"x": value}})
        if "</tool_call>" in call or "tool_call>" in words:
            return
        text, calls = split_tool_calls(f"{words}<tool_call>{call}</tool_call>", 1, [ADD])
        assert text == words.strip() and json.loads(calls[0].arguments) == {"x": value}


class TestEnforcedSchema:
    def test_a_demanded_tool_is_a_schema(self) -> None:
        assert enforced_schema(request(tools=(ADD,))) is None
        schema = enforced_schema(request(tools=(ADD,), tool_choice="add"))
        assert schema is not None and schema["properties"]["name"] == {"const": "add"}
        assert schema == enforced_schema(request(tools=(ADD,), tool_choice="required"))

    def test_a_tool_that_is_not_offered_cannot_be_demanded(self) -> None:
        with pytest.raises(EngineError, match=r"must be of tool 'multiply'; offered are \['add'\]"):
            enforced_schema(request(tools=(ADD,), tool_choice="multiply"))


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    made = TransformersEngine(EMBEDDED)
    yield made
    asyncio.run(made.close())


SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "answer": {"type": "integer", "minimum": 0, "maximum": 999}},
    "required": ["sure", "answer"],
    "additionalProperties": False,
}


@pytest.mark.model
class TestHeldToASchema:
    def test_every_reply_fits_whatever_the_model_would_say(self, engine: TransformersEngine) -> None:
        async def ask() -> list[Any]:
            requests = [
                Request(f"t/{n}/s/0", (Message("user", "Hello"),), Sampling(), n, schema=SCHEMA) for n in range(20)
            ]
            return await asyncio.gather(*map(engine.complete, requests))

        for completion in asyncio.run(ask()):
            value = json.loads(completion.text)
            assert isinstance(value["sure"], bool) and 0 <= value["answer"] <= 999
            assert completion.finish == "stop" and all(logprob > float("-inf") for logprob in completion.logprobs)

    def test_its_neighbours_in_the_batch_are_as_without_it(self, engine: TransformersEngine) -> None:
        async def ask(*requests: Request) -> Any:
            return (await asyncio.gather(*map(engine.complete, requests)))[0]

        assert asyncio.run(ask(request(), request(schema=SCHEMA))) == asyncio.run(ask(request()))

    def test_a_schema_that_cannot_be_enforced_fails_its_own_request(self, engine: TransformersEngine) -> None:
        async def ask() -> list[Any]:
            asked = (request(schema={"type": "strange"}), request())
            return await asyncio.gather(*map(engine.complete, asked), return_exceptions=True)

        refused, answered = asyncio.run(ask())
        assert isinstance(refused, EngineError) and "cannot be enforced" in str(refused)
        assert answered.text

    def test_tools_are_refused_by_a_template_that_shows_none(self, engine: TransformersEngine) -> None:
        with pytest.raises(EngineError, match="shows no tools"):
            asyncio.run(engine.complete(request(tools=(ADD,))))
