"""OpenAI's protocol as the endpoint engine speaks it, chat completions and embeddings: requests to bodies and back.

Servers differ and err: what they send is checked here, and names of models are compared with care. It makes no
connection.
"""

import json
import re
import time
from collections.abc import Set
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

import httpx2
from pydantic import BaseModel, Field, ValidationError

from agents.engines.tools import call_id
from agents.types import Message, Request, ToolCall

_MARKERS = re.compile(
    r"<\|[^\s|<>]{1,40}\|>|<｜[^\s｜<>]{1,40}｜>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]"
)
_NO_DIFFERENCE = re.compile(r"[:@-]latest$|\.gguf$")
_DATED = r"[-@:](?:\d{3,4}|\d{8}|\d{4}-\d\d-\d\d|\d\d-\d\d(?:\d\d)?)"


class Function(BaseModel):
    name: str
    arguments: str | dict[str, Any] = ""


class Call(BaseModel):
    function: Function


class Words(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Logprob(BaseModel):
    logprob: float


class Logprobs(BaseModel):
    content: list[Logprob] | None = None


class Choice(BaseModel):
    message: Words
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reply(BaseModel):
    """What is read of a reply."""

    choices: Annotated[list[Choice], Field(min_length=1)]
    model: str | None = None
    system_fingerprint: str | None = None
    usage: Usage | None = None
    prompt_token_ids: list[int] | None = None

    @property
    def text(self) -> str:
        """The words; of a refusal those that it gives for it."""
        return self.choices[0].message.content or self.choices[0].message.refusal or ""

    @property
    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Token ids of the prompt and of the completion; None where the server does not give both."""
        prompt, completion = self.prompt_token_ids, self.choices[0].token_ids
        return None if prompt is None or completion is None else (tuple(prompt), tuple(completion))

    @property
    def logprobs(self) -> tuple[float, ...]:
        """For each token of the completion, nats."""
        given = self.choices[0].logprobs
        return tuple(entry.logprob for entry in (given and given.content) or ())

    def tool_calls(self, seed: int) -> tuple[ToolCall, ...]:
        """Ids derive from the request's seed: servers draw theirs anew, and an episode played again would differ."""
        functions = [call.function for call in self.choices[0].message.tool_calls or ()]
        return tuple(ToolCall(call_id(seed, i), f.name, _json_text(f.arguments)) for i, f in enumerate(functions))


class Embedding(BaseModel):
    embedding: Annotated[list[float], Field(min_length=1)]


class Embeddings(BaseModel):
    """What is read of the reply to one text."""

    data: Annotated[list[Embedding], Field(min_length=1, max_length=1)]
    model: str | None = None


def read_reply(body: bytes) -> Reply:
    """
    Raises:
        ValueError: not JSON, or not all that a reply must have.
    """
    try:
        return Reply.model_validate_json(body)
    except ValidationError:
        # Halves of surrogate pairs, into which some servers cut a text, are no text here; without them it may be one.
        try:
            mended = json.dumps(json.loads(body), ensure_ascii=False)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return Reply.model_validate_json(mended.encode("utf-8", "replace"))


def write_request(model: str, request: Request, without: Set[str] = frozenset()) -> bytes:
    """The body of a request.

    Args:
        model: the name that the server knows it by.
        request: its history goes before its messages; a prefix cannot be sent.
        without: what to leave out: `max_tokens` (then under its newer name), `seed`, `logprobs`, `token ids` (with
            logprobs).
    """
    # A message may hold halves of surrogate pairs, which are no UTF-8.
    text = json.dumps(_payload(model, request, without), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def write_text(model: str, text: str) -> bytes:
    """The body of a request for the embedding of a text."""
    body = {"model": model, "input": _defused(text)}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def is_same_model(asked: str, served: str) -> bool:
    """Whether a server's name for a model can mean the one that was asked for.

    Case, `:latest` and `.gguf` make no difference; either name may have more folders before it; the server may add a
    date or a build (`gpt-4o-2024-08-06` for `gpt-4o`). Any other ending is another model (`gpt-4o-mini`, `llama-3.1`).
    """
    wanted, found = (_NO_DIFFERENCE.sub("", name.lower()).strip("/").split("/") for name in (asked, served))
    shared = min(len(wanted), len(found))
    if wanted[-shared:-1] != found[-shared:-1]:
        return False
    return bool(re.fullmatch(f"{re.escape(wanted[-1])}(?:{_DATED})?", found[-1]))


def words_of(response: httpx2.Response) -> str:
    """What a server says of a refusal: the message where it has one, else the body."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return response.text
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else response.text


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None when it holds neither."""
    if header is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d*)?\s*", header, re.ASCII):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _payload(model: str, request: Request, without: Set[str]) -> dict[str, Any]:
    sampling = request.sampling
    payload: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in (*request.history, *request.messages)],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_completion_tokens" if "max_tokens" in without else "max_tokens": sampling.max_tokens,
    }
    if "seed" not in without:
        payload["seed"] = request.seed
    if sampling.stop:
        payload["stop"] = [*sampling.stop]
    if request.tools:
        choice = request.tool_choice
        named = {"type": "function", "function": {"name": choice}}
        payload["tools"] = [*request.tools]
        payload["tool_choice"] = choice if choice in ("auto", "none", "required") else named
    if request.schema is not None:
        held = {"name": "reply", "schema": request.schema, "strict": True}
        payload["response_format"] = {"type": "json_schema", "json_schema": held}
    if "token ids" not in without:
        payload["return_token_ids"] = True
        if "logprobs" not in without:
            payload["logprobs"] = True
    return payload


def _message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": _defused(message.content)}
    if message.tool_call_id:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["content"] = plain["content"] or None
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return plain


def _defused(text: str) -> str:
    # Servers take chat markers in a message's text for markers; broken up, no reply can forge a message with them.
    return _MARKERS.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _json_text(arguments: str | dict[str, Any]) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
