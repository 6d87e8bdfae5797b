"""What clients send: OpenAI's chat completions as pydantic models, and the Call that a request stands for.

Source: OpenAI's API reference, `POST /chat/completions`. `return_token_ids` is vLLM's name. A parameter that would
change the reply, and that we do not have, is refused; one that changes nothing is accepted and left out.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from agents.types import Message, ToolCall
from envs.errors import clip, nearest
from graphs.record import Call

WITHOUT_EFFECT = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Parameters that never change a reply: taken and left out."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "modalities": (["text"],),
}
"""Parameters that are taken only with a value that changes nothing."""


def _text(content: Any) -> Any:
    """A message's content as text: nothing, a string, or parts that are text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise PydanticCustomError("content", "expected text or a list of text parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            raise PydanticCustomError(
                "content", "expected text parts, found a part of type {kind}: roles read text alone", {"kind": kind}
            )
    return "\n".join(part[part["type"]] for part in content)


class _Function(BaseModel):
    name: str
    arguments: str


class _ToolCall(BaseModel):
    id: str = ""
    function: _Function


class ChatMessage(BaseModel):
    """One message. What frameworks send beside these fields (an author's name, annotations) reaches no prompt."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_text)] = ""
    tool_calls: tuple[_ToolCall, ...] | None = None
    tool_call_id: str | None = None

    def plain(self) -> Message:
        role = "system" if self.role == "developer" else self.role
        calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ())
        return Message(role, self.content, calls, self.tool_call_id or "")


class _Offer(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)


class Tool(BaseModel):
    type: Literal["function"]
    function: _Offer


class _Named(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"]
    function: _Named


class _Schema(BaseModel):
    schema_: dict[str, Any] = Field(alias="schema", default={"type": "object"})


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    @property
    def enforced(self) -> Mapping[str, Any] | None:
        if self.type == "text":
            return None
        return self.json_schema.schema_ if self.json_schema else {"type": "object"}


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request for chat completions; `model` is the role that is asked."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1)
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    """False hands over the first call of a reply alone."""
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: int | None = None
    n: int = Field(default=1, ge=1, le=128)
    logprobs: bool = False
    response_format: ResponseFormat | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    return_token_ids: bool = False
    """Give `prompt_token_ids`, and `token_ids` with each choice."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise PydanticCustomError("body", "expected a JSON object")
        given = {key: value for key, value in values.items() if value is not None and key not in WITHOUT_EFFECT}
        for name, neutral in NEUTRAL.items():
            if name in given and given.pop(name) not in neutral:
                raise _unsupported(name, f"{name} is not supported; leave it out")
        for name in given.keys() - cls.model_fields.keys():
            raise _unsupported(name, f"unknown parameter {clip(name)}; {nearest(name, cls.model_fields)}")
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        return given

    def call(self) -> Call:
        """The call that this asks for, n times over."""
        choice = self.tool_choice if isinstance(self.tool_choice, str) else self.tool_choice.function.name
        offered = () if choice == "none" else self.tools
        limit = self.max_completion_tokens or self.max_tokens
        wishes = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": limit,
            "stop": self.stop or None,
        }
        return Call(
            role=self.model,
            messages=tuple(message.plain() for message in self.messages),
            wishes=wishes,
            tools=tuple(tool.model_dump(exclude_unset=True) for tool in offered),
            tool_choice="auto" if choice == "none" else choice,
            schema=self.response_format.enforced if self.response_format else None,
            seed=self.seed,
        )


def _unsupported(parameter: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", "{message}", {"message": message, "parameter": parameter})
