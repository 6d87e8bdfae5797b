"""A role as a LangChain chat model: what a LangGraph graph of anybody's needs to play here.

`chat_model("solver")` stands where `ChatOpenAI(…)` stood. In an episode its calls go to whoever is cast for the role
and are recorded as turns (graphs.record); outside of one it answers with a model of its own.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Literal

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.json import parse_json_markdown
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator

from agents.cast import Cast
from agents.engines import Model
from envs.errors import ConfigError, clip
from graphs.messages import (
    MaxTokens,
    Options,
    Temperature,
    TopP,
    closed_schema,
    from_langchain,
    to_langchain,
    unusable,
)
from graphs.private import answer, backstage, reach, wait
from graphs.record import CURRENT, Call, Recorder, message_id


class RoleModel(BaseChatModel):
    """A role, as an ordinary chat model.

    Replies carry in `response_metadata` the turn's id, token ids, log-probabilities, policy and weight version. Engines
    answer when a reply is complete, so that streaming yields it as one chunk. The sampling that a graph asks for yields
    to what the user set for the role. LangChain's global cache is not asked: what it served would be no turn.
    """

    role: str = Field(pattern=r"^[A-Za-z_][\w-]*$")
    model: Any = Field(default=None, exclude=True, repr=False)
    """Who answers outside of episodes: a model's name (agents.engines.FORMS), an engine, or a Cast."""
    temperature: Temperature = None
    top_p: TopP = None
    max_tokens: MaxTokens = None
    stop: list[str] | None = None
    seed: int | None = None
    cache: BaseCache | bool | None = Field(default=False, exclude=True)
    _numbers: Iterator[int] = PrivateAttr(default_factory=itertools.count)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @property
    def _llm_type(self) -> str:
        return "palaestra"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"role": self.role, **self._sampling()}

    def _sampling(self) -> dict[str, Any]:
        names = ("temperature", "top_p", "max_tokens", "stop", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = self._llm_type
        params.setdefault("ls_model_name", self.role)
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model.

        Args:
            tools: in any form that LangChain converts to OpenAI's.
            tool_choice: auto, none, any (or required, or True), or the name of the tool that must be called.
            strict: whether the schemas shown are OpenAI's strict ones.
            parallel_tool_calls: a model may always make several calls.
            kwargs: options of the call.
        """
        offered = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        choice = {} if tool_choice is None or tool_choice is False else {"tool_choice": tool_choice}
        return self.bind(tools=offered, **choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """A model whose replies are read into a schema.

        Args:
            schema: pydantic class, TypedDict, JSON schema, or OpenAI's description of a function.
            include_raw: give `{"raw": message, "parsed": …, "parsing_error": …}` and raise nothing.
            method: json_schema holds the reply to the schema while it is sampled (an engine that cannot fails the
                call); function_calling demands a tool call; json_mode leaves it to the prompt to ask for JSON.
            strict: False allows keys that the schema does not name.
            kwargs: options of the call.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if method not in ("json_schema", "json_mode"):
            raise ConfigError(
                f"with_structured_output: expected json_schema, function_calling or json_mode, found {clip(method)}"
            )
        wanted = convert_to_json_schema(schema)
        held = {"schema": wanted if strict is False else closed_schema(wanted)} if method == "json_schema" else {}
        shown = {"kwargs": {"method": method, "strict": strict}, "schema": wanted}
        model = self.bind(**held, ls_structured_output_format=shown, **kwargs)

        def read(message: AIMessage) -> Any:
            return _read(message, schema)

        def read_or_say_why(message: AIMessage) -> dict[str, Any]:
            try:
                return {"raw": message, "parsed": read(message), "parsing_error": None}
            except OutputParserException as error:
                return {"raw": message, "parsed": None, "parsing_error": error}

        return model | RunnableLambda(read_or_say_why if include_raw else read)

    def batch(self, inputs: list[LanguageModelInput], config: Any = None, **kwargs: Any) -> list[AIMessage]:
        """As in LangChain; in an episode from one thread, so that who asks first does not depend on threads."""
        recorder = CURRENT.get(None)
        if recorder is None:
            return super().batch(inputs, config, **kwargs)
        return wait(recorder.loop, self.abatch(inputs, config, **kwargs), self.role)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        loop, asked = self._asked(messages, stop, run_manager, kwargs)
        return ChatResult(generations=[ChatGeneration(message=wait(loop, asked, self.role))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        loop, asked = self._asked(messages, stop, run_manager, kwargs)
        return ChatResult(generations=[ChatGeneration(message=await reach(loop, asked))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        loop, asked = self._asked(messages, stop, run_manager, kwargs)
        chunk = _chunk(wait(loop, asked, self.role))
        if run_manager:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        loop, asked = self._asked(messages, stop, run_manager, kwargs)
        chunk = _chunk(await reach(loop, asked))
        if run_manager:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    def _asked(
        self, messages: list[BaseMessage], stop: list[str] | None, run_manager: Any, options: dict[str, Any]
    ) -> tuple[asyncio.AbstractEventLoop, Coroutine[Any, Any, AIMessage]]:
        """The call, ready to be awaited, and the event loop to await it on."""
        given = {**self._sampling(), **options, **({} if stop is None else {"stop": stop})}
        wanted = Options.read(self.role, given)
        said, ids = from_langchain(messages)
        metadata = (run_manager and run_manager.metadata) or {}
        call = Call(
            role=self.role,
            messages=said,
            ids=ids,
            wishes=wanted.wishes,
            tools=wanted.tools,
            tool_choice=wanted.tool_choice,
            schema=wanted.schema_held,
            seed=wanted.seed,
            place=metadata.get("langgraph_checkpoint_ns", ""),
        )
        recorder = CURRENT.get(None)
        if recorder is not None:
            return recorder.loop, _play(recorder, call)
        if self.model is None:
            raise ConfigError(
                f"{self.role} was asked outside of an episode, where nobody is cast: play the graph with palaestra "
                f"run, or give it a model of its own, chat_model({self.role!r}, 'embedded')"
            )
        return backstage().loop, _alone(self.model, call, next(self._numbers))


def chat_model(
    role: str,
    model: Model | Cast | None = None,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | list[str] | None = None,
    seed: int | None = None,
) -> RoleModel:
    """A role as a LangChain chat model.

    Args:
        role: who is asked; in an episode, who the cast says plays it.
        model: who answers outside of episodes: a model's name such as "embedded", an engine, or a Cast.
        temperature: this and the rest hold unless the user set them for the role.
        top_p: probability mass that is sampled from.
        max_tokens: of a reply.
        stop: a reply ends before the first of these.
        seed: enters into every call's own.

    Raises:
        ConfigError: a name or a setting that cannot be used.
    """
    sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "stop": stop, "seed": seed}
    try:
        return RoleModel(role=role, model=model, **sampling)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        raise unusable(role, error) from None


async def _play(recorder: Recorder, call: Call) -> AIMessage:
    turn = await recorder.call(call)
    return to_langchain(turn, message_id(turn))


async def _alone(model: Model | Cast, call: Call, number: int) -> AIMessage:
    return to_langchain(await answer(model, call, number), None)


def _chunk(message: AIMessage) -> ChatGenerationChunk:
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"], ensure_ascii=False), id=call["id"], index=i)
        for i, call in enumerate(message.tool_calls)
    ]
    wrong = [
        tool_call_chunk(name=call["name"], args=call["args"], id=call["id"], index=i)
        for i, call in enumerate(message.invalid_tool_calls, len(calls))
    ]
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=message.content,
            id=message.id,
            tool_call_chunks=[*calls, *wrong],
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
    )


def _read(message: AIMessage, schema: Any) -> Any:
    """The JSON of a reply, in the schema's class where it is one. LangChain's own parsers would make up the end of a
    reply that was cut short."""
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException(
            f"the reply was cut off by max_tokens: {clip(message.text)}", llm_output=message.text
        )
    try:
        value = parse_json_markdown(message.text, parser=json.loads)
        if not isinstance(schema, type) or not is_basemodel_subclass(schema):
            return value
        validate: Any = getattr(schema, "model_validate", None) or schema.parse_obj  # pyright: ignore[reportAttributeAccessIssue]
        return validate(value)
    except (ValueError, RecursionError) as error:  # pydantic's errors are ValueErrors
        problem = " ".join(str(error).split())
        raise OutputParserException(
            f"expected JSON that fits the schema, found {clip(message.text)}: {problem}", llm_output=message.text
        ) from None
