"""LangChain's messages and call options, read into ours, and our turns written as LangChain's messages."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    UsageMetadata,
)
from langchain_core.messages import InvalidToolCall as WrongCall
from langchain_core.messages import ToolCall as LangChainCall
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agents.types import Message, Role, ToolCall
from envs.errors import ConfigError, clip
from graphs.turns import Turn

Temperature = Annotated[float | None, Field(ge=0)]
TopP = Annotated[float | None, Field(gt=0, le=1)]
MaxTokens = Annotated[int | None, Field(ge=1)]

_ROLES: tuple[tuple[type[BaseMessage], Role], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
)
_UNSAID = ("tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "reasoning", "thinking", "function_call")
"""Blocks in a message's content that are no text: calls are kept beside it, thoughts are not shown again."""
_IDLE = {"stream", "stream_usage", "parallel_tool_calls", "strict"}
"""Options of other chat models that change nothing here."""


class Options(BaseModel):
    """What a call asks for beside its messages, as given to a chat model's `bind` or `invoke`."""

    model_config = ConfigDict(extra="forbid")

    temperature: Temperature = None
    top_p: TopP = None
    max_tokens: MaxTokens = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    seed: int | None = None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str = "auto"
    """auto, none, required or a tool's name; LangChain's and OpenAI's other spellings are read."""
    held_to: dict[str, Any] | None = Field(default=None, alias="schema")
    """JSON schema that the reply is held to."""
    response_format: dict[str, Any] | None = None
    """OpenAI's way to say the same."""

    @field_validator("tools")
    @classmethod
    def _functions_alone(cls, tools: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for tool in tools:
            if not isinstance(tool.get("function"), dict) or "name" not in tool["function"]:
                raise ValueError(f"expected tools of the type function, found {clip(tool)}")
        return tools

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _choice(cls, choice: Any) -> Any:
        if isinstance(choice, dict):
            choice = choice.get("function", choice).get("name") or choice.get("type")
        spelt = {True: "required", "any": "required", False: "auto", None: "auto"}
        return spelt.get(choice, choice) if isinstance(choice, (str, bool, type(None))) else choice

    @classmethod
    def read(cls, role: str, given: Mapping[str, Any]) -> "Options":
        """
        Raises:
            ConfigError: an option that is unknown or cannot be used.
        """
        try:
            return cls.model_validate({key: value for key, value in given.items() if key not in _IDLE})
        except ValidationError as error:
            raise unusable(role, error) from None

    @property
    def wishes(self) -> dict[str, Any]:
        """Of the sampling, by the names of Sampling's fields."""
        return {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "stop")}

    @property
    def schema_held(self) -> dict[str, Any] | None:
        """JSON schema that the reply is held to while it is sampled."""
        if self.held_to is not None or not self.response_format:
            return self.held_to
        return self.response_format.get("json_schema", {}).get("schema")


def unusable(role: str, error: ValidationError) -> ConfigError:
    """Pydantic's complaint about a chat model's settings, on one line."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    return ConfigError(f"chat model {clip(role)}: {key} cannot be {clip(problem['input'])}: {problem['msg']}")


def from_langchain(messages: Sequence[BaseMessage]) -> tuple[tuple[Message, ...], tuple[str | None, ...]]:
    """The messages, and the id of each.

    Raises:
        ConfigError: content that is no text.
    """
    return tuple(_message(message) for message in messages), tuple(message.id for message in messages)


def to_langchain(turn: Turn, id: str | None) -> AIMessage:
    """A turn as a message.

    Args:
        turn: that was taken.
        id: of the message, by which later calls that hold it are known to have read it; None leaves it to LangChain.
    """
    calls, wrong = _calls(turn.tool_calls)
    return AIMessage(
        content=turn.reply,
        id=id,
        tool_calls=calls,
        invalid_tool_calls=wrong,
        usage_metadata=UsageMetadata(
            input_tokens=turn.prompt_tokens,
            output_tokens=turn.completion_tokens,
            total_tokens=turn.prompt_tokens + turn.completion_tokens,
        ),
        response_metadata={
            "model_name": turn.policy,
            "model_provider": "palaestra",
            "finish_reason": "tool_calls" if turn.tool_calls else turn.finish,
            "turn": turn.id,
            "policy": turn.policy,
            "weight_version": turn.version,
            "token_ids": [*turn.token_ids],
            "logprobs": [*turn.logprobs],
        },
    )


def closed_schema(schema: Any) -> Any:
    """A JSON schema whose objects hold the named keys alone, unless they say otherwise."""
    if isinstance(schema, list):
        return [closed_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: closed_schema(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _message(message: BaseMessage) -> Message:
    role: Role | None = next((role for kind, role in _ROLES if isinstance(message, kind)), None)
    if isinstance(message, ChatMessage):
        role = next((known for _, known in _ROLES[:3] if known == message.role), None)
    if role is None:
        raise ConfigError(f"expected a system, human, AI or tool message, found {type(message).__name__}")
    text = _text(message.content, role)
    if isinstance(message, AIMessage):
        calls = [
            ToolCall(call["id"] or "", call["name"], json.dumps(call["args"], ensure_ascii=False))
            for call in message.tool_calls
        ]
        calls += [
            ToolCall(call["id"] or "", call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls
        ]
        return Message(role, text, tuple(calls))
    return Message(role, text, tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else "")


def _text(content: str | Iterable[str | dict[Any, Any]], role: str) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text" and isinstance(block.get("text"), str):
            parts.append(block["text"])
        elif block.get("type") not in _UNSAID:
            raise ConfigError(f"roles read text alone: the {role} message holds a block of type {block.get('type')!r}")
    return "".join(parts)


def _calls(made: Iterable[ToolCall]) -> tuple[list[LangChainCall], list[WrongCall]]:
    calls: list[LangChainCall] = []
    wrong: list[WrongCall] = []
    for call in made:
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError):
            arguments = None
        if isinstance(arguments, dict):
            calls.append(LangChainCall(name=call.name, args=arguments, id=call.id, type="tool_call"))
        else:
            problem = "the arguments are no JSON object"
            wrong.append(
                WrongCall(name=call.name, args=call.arguments, id=call.id, error=problem, type="invalid_tool_call")
            )
    return calls, wrong
