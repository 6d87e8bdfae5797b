"""A role as a chat model: LangChain's own standard tests, and what they do not ask."""

import asyncio
import json
import threading
from typing import Any, Literal

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import OutputParserException
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage, RemoveMessage
from langchain_core.tools import tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel

from agents import Cast, EngineError, Request, ScriptedEngine
from envs import ConfigError
from graphs import RoleModel, chat_model


def example(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """A value that fits a JSON schema of the kinds that occur here."""
    root = root or schema
    if "$ref" in schema:
        return example(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return example(schema["anyOf"][0], root)
    if schema.get("type") == "object":
        return {key: example(value, root) for key, value in schema.get("properties", {}).items()}
    return {"integer": 3, "number": 1.5, "boolean": True, "array": [], "null": None}.get(
        schema.get("type", ""), "你好, こんにちは"
    )


def obliging(request: Request) -> str:
    """What a model that knows tools and JSON would say."""
    if request.schema:
        return json.dumps(example(dict(request.schema)))
    if request.tools and request.tool_choice != "none" and request.messages[-1].role == "user":
        offered = {tool["function"]["name"]: tool["function"] for tool in request.tools}
        wanted = offered.get(request.tool_choice) or next(iter(offered.values()))
        call = {"name": wanted["name"], "arguments": example(wanted["parameters"])}
        return f"<tool_call>{json.dumps(call)}</tool_call>"
    if "Return the result as a JSON" in request.messages[-1].content:
        return '```json\n{"setup": "Knock.", "punchline": "Meow."}\n```'
    return "Hello, I am well."


class _Standard:
    """What both suites of LangChain are told of our model."""

    @property
    def chat_model_class(self) -> type[RoleModel]:
        return RoleModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"role": "solver", "model": ScriptedEngine(obliging)}

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestUnit(_Standard, ChatModelUnitTests):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    pass


class TestIntegration(_Standard, ChatModelIntegrationTests):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    pass


@pytest.mark.model
class TestIntegrationOfTheEmbeddedModel(TestIntegration):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"role": "solver", "model": "embedded", "max_tokens": 24}

    @property
    def has_tool_calling(self) -> bool:
        return False  # its chat template shows no tools: a call that offers some is refused

    @property
    def has_structured_output(self) -> bool:
        return False  # jokes of unbounded length; structured replies of this model are tested below

    @property
    def supports_json_mode(self) -> bool:
        return False  # it writes no JSON of itself


class Verdict(BaseModel):
    """A verdict."""

    verdict: Literal["A", "B"]


class Sum(BaseModel):
    """Two numbers to add."""

    a: int
    b: int


def scripted(*replies: str, role: str = "solver") -> RoleModel:
    return chat_model(role, ScriptedEngine({role: list(replies)}))


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class TestReplies:
    def test_the_metadata_tell_who_said_it_to_the_token(self) -> None:
        reply = scripted("Hi.").invoke("Hello")
        said = reply.response_metadata
        assert said["token_ids"] == [*b"Hi."] and said["logprobs"] == [0.0] * 3
        assert (said["turn"], said["policy"], said["weight_version"]) == ("solver/0", "scripted", "1")
        assert said["finish_reason"] == "stop" and said["model_name"] == "scripted"
        assert reply.usage_metadata == {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}

    def test_tool_calls_that_cannot_be_read_are_kept_apart(self) -> None:
        good = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
        bad = '<tool_call>{"name": "add", "arguments": "one and two"}</tool_call>'
        reply = scripted(f"Let me see. {bad}{good}").bind_tools([add]).invoke("1 + 2?")
        assert reply.content == "Let me see." and reply.response_metadata["finish_reason"] == "tool_calls"
        assert [call["args"] for call in reply.tool_calls] == [{"a": 1, "b": 2}]
        assert [call["args"] for call in reply.invalid_tool_calls] == ["one and two"]

    def test_streaming_gives_one_whole_chunk(self) -> None:
        call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
        (chunk,) = scripted(call).bind_tools([add]).stream("1 + 2?")
        assert isinstance(chunk, AIMessageChunk) and chunk.tool_calls[0]["args"] == {"a": 1, "b": 2}

    def test_each_call_outside_of_an_episode_is_drawn_anew_unless_it_brings_a_seed(self) -> None:
        seeds: list[int] = []
        engine = ScriptedEngine(lambda request: seeds.append(request.seed) or "ok")
        for model in (chat_model("solver", engine), chat_model("solver", engine, seed=5)):
            model.invoke("the same")
            model.invoke("the same")
        assert len({*seeds[:2]}) == 2 and len({*seeds[2:]}) == 1

    def test_it_answers_from_any_thread_and_loop(self) -> None:
        model = chat_model("solver", ScriptedEngine(lambda request: request.messages[-1].content.upper()))

        async def ask(word: str) -> str:
            # invoke() stops this loop, not the one that answers.
            return (await model.ainvoke(word)).text + model.invoke(word).text

        found: list[str] = []
        threads = [threading.Thread(target=lambda w=w: found.append(asyncio.run(ask(w)))) for w in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == ["AA", "BB"] and asyncio.run(ask("c")) == "CC"

    def test_langchains_cache_is_not_asked(self) -> None:
        set_llm_cache(InMemoryCache())
        try:
            model = scripted("one", "two")
            assert [model.invoke("x").text, model.invoke("x").text] == ["one", "two"]
        finally:
            set_llm_cache(None)


class TestAsking:
    def asked(self, messages: Any, model: RoleModel | None = None, **options: Any) -> Request:
        seen: list[Request] = []
        engine = ScriptedEngine(lambda request: seen.append(request) or "ok")
        given = model.model_copy(update={"model": engine}) if model else chat_model("solver", engine)
        given.invoke(messages, **options)
        return seen[0]

    def test_blocks_of_text_are_joined_and_thoughts_left_out(self) -> None:
        blocks: list[str | dict[str, Any]] = [
            "One ",
            {"type": "text", "text": "two "},
            {"type": "reasoning", "reasoning": "hm"},
            {"type": "text", "text": "three"},
        ]
        request = self.asked([HumanMessage(blocks), AIMessage(blocks), ChatMessage(content="!", role="user")])
        assert [(m.role, m.content) for m in request.messages] == [
            ("user", "One two three"),
            ("assistant", "One two three"),
            ("user", "!"),
        ]

    @pytest.mark.parametrize(
        ("message", "complaint"),
        [
            (HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]), "a block of type 'image_url'"),
            (RemoveMessage(id="1"), "found RemoveMessage"),
            (ChatMessage(content="x", role="robot"), "found ChatMessage"),
        ],
    )
    def test_what_is_no_text_is_refused(self, message: Any, complaint: str) -> None:
        with pytest.raises(ConfigError, match=complaint):
            scripted("x").invoke([message])

    def test_sampling_is_as_asked_and_the_call_goes_before_the_model(self) -> None:
        model = chat_model("solver", temperature=0.5, max_tokens=7, stop="END", top_p=0.9)
        sampling = self.asked("x", model, temperature=0.25).sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.25, 0.9, 7)
        assert sampling.stop == ("END",)
        assert self.asked("x", model, stop=["A", "B"]).sampling.stop == ("A", "B")

    def test_what_the_user_set_for_the_role_goes_before(self) -> None:
        seen: list[Request] = []
        cast = Cast.all(ScriptedEngine(lambda request: seen.append(request) or "ok"), temperature=0.125)
        chat_model("solver", cast, temperature=0.5, max_tokens=7).invoke("x")
        assert (seen[0].sampling.temperature, seen[0].sampling.max_tokens) == (0.125, 7)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("any", "required"),
            ("required", "required"),
            (True, "required"),
            ("none", "none"),
            (None, "auto"),
            ("add", "add"),
            ({"type": "function", "function": {"name": "add"}}, "add"),
            ({"type": "any"}, "required"),
        ],
    )
    def test_tool_choice_in_every_spelling(self, given: Any, meant: str) -> None:
        offered = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
        assert self.asked("x", tools=offered, tool_choice=given).tool_choice == meant

    def test_the_schema_of_a_response_format_holds(self) -> None:
        schema = {"type": "object", "properties": {}}
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        assert self.asked("x", response_format=wanted).schema == schema
        assert self.asked("x", response_format={"type": "json_object"}).schema is None

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"tempature": 1}, "tempature cannot be 1"),
            ({"temperature": -1}, "temperature cannot be -1"),
            ({"max_tokens": 0}, "max_tokens cannot be 0"),
            ({"tools": [{"type": "web_search"}]}, "expected tools of the type function"),
        ],
    )
    def test_unusable_options_are_named(self, options: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ConfigError, match=complaint) as caught:
            scripted("x").invoke("x", **options)
        assert "\n" not in str(caught.value)

    def test_unusable_settings_are_named(self) -> None:
        with pytest.raises(ConfigError, match="role cannot be 'my role'"):
            chat_model("my role")
        with pytest.raises(ConfigError, match="top_p cannot be 2"):
            chat_model("solver", top_p=2)

    def test_outside_of_an_episode_it_needs_a_model_of_its_own(self) -> None:
        with pytest.raises(ConfigError, match=r"chat_model\('solver', 'embedded'\)"):
            chat_model("solver").invoke("x")
        with pytest.raises(ConfigError, match="unknown kind of model 'nobody'"):
            chat_model("solver", "nobody").invoke("x")


class TestStructuredOutput:
    def test_the_reply_is_held_to_the_closed_schema(self) -> None:
        seen: list[Request] = []
        model = chat_model("solver", ScriptedEngine(lambda request: seen.append(request) or '{"verdict": "A"}'))
        assert model.with_structured_output(Verdict).invoke("x") == Verdict(verdict="A")
        model.with_structured_output(Verdict, strict=False).invoke("x")
        model.with_structured_output(Verdict, method="json_mode").invoke("x")
        closed, open_, free = (request.schema for request in seen)
        assert closed and closed["additionalProperties"] is False
        assert open_ and "additionalProperties" not in open_ and free is None

    def test_function_calling_demands_the_call(self) -> None:
        model = chat_model("solver", ScriptedEngine(obliging))
        assert model.with_structured_output(Sum, method="function_calling").invoke("x") == Sum(a=3, b=3)

    def test_what_cannot_be_read_is_no_guess(self) -> None:
        model = scripted('{"verdict": "C"}', "hm", '{"verdict": "A"', '{"verdict": "B"}')
        for _ in range(2):
            with pytest.raises(OutputParserException):
                model.with_structured_output(Verdict).invoke("x")
        answers = model.with_structured_output(Verdict, include_raw=True)
        found: Any = answers.invoke("x")
        assert found["parsed"] is None and isinstance(found["parsing_error"], OutputParserException)
        assert found["raw"].text == '{"verdict": "A"'
        found = answers.invoke("x")
        assert found["parsed"] == Verdict(verdict="B") and found["parsing_error"] is None

    def test_an_unknown_method_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="found 'guess'"):
            scripted("x").with_structured_output(Verdict, method="guess")  # pyright: ignore[reportArgumentType]

    @pytest.mark.model
    def test_the_embedded_model_keeps_to_it(self) -> None:
        model = chat_model("judge", "embedded").with_structured_output(Verdict)
        answers = [model.invoke(f"Which is right, {i}?") for i in range(6)]
        assert all(isinstance(answer, Verdict) for answer in answers)

    @pytest.mark.model
    def test_a_reply_that_is_cut_off_is_no_answer(self) -> None:
        schema = {"title": "Words", "type": "object", "properties": {"words": {"type": "string"}}}
        model = chat_model("solver", "embedded", max_tokens=8).with_structured_output(schema)
        with pytest.raises(OutputParserException, match="cut off by max_tokens"):
            model.invoke("x")

    @pytest.mark.model
    def test_the_embedded_model_refuses_tools(self) -> None:
        with pytest.raises(EngineError, match="shows no tools"):
            chat_model("solver", "embedded").bind_tools([add]).invoke("1 + 2?")
