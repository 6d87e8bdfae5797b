"""What clients get: turns as OpenAI's chat completions, whole or as server-sent events, and errors in its form.

Beside OpenAI's fields each choice names its turn and the version of the weights that sampled it; token ids come under
vLLM's names when they are asked for. No tokenizer is at hand here, so a token in `logprobs` is named by its id, as
vLLM does on request: `token_id:17`.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from agents.types import ToolCall
from experiments.gateway.protocol import ChatRequest
from graphs.turns import Turn

DONE = "data: [DONE]\n\n"
WAITING = ": waiting\n\n"
"""A comment: keeps a connection open, and clients pass over it."""

Json = dict[str, Any]


def completion(asked: ChatRequest, turns: Sequence[Turn]) -> Json:
    """The whole reply; one choice a turn."""
    choices = []
    for index, turn in enumerate(turns):
        calls = _tool_calls(asked, turn)
        message: Json = {"role": "assistant", "content": turn.reply or (None if calls else ""), "refusal": None}
        if calls:
            message["tool_calls"] = [_tool_call(call) for call in calls]
        choice = {"index": index, "message": message, "finish_reason": _finish(asked, turn)}
        choices.append({**choice, **_details(asked, turn)})
    return {**_head(asked, "chat.completion"), **_prompt(asked, turns), "choices": choices, "usage": _usage(turns)}


def stream(asked: ChatRequest, turns: Sequence[Turn]) -> Iterator[str]:
    """The reply as server-sent events: for each choice its role, its words, its tool calls, and how it ended."""
    with_usage = asked.stream_options.include_usage
    head = {**_head(asked, "chat.completion.chunk"), **({"usage": None} if with_usage else {})}

    def event(index: int, delta: Json, finish: str | None = None, details: Json | None = None) -> Json:
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None, **(details or {})}
        return {**head, "choices": [choice]}

    for index, turn in enumerate(turns):
        yield _event({**event(index, {"role": "assistant", "content": ""}), **_prompt(asked, turns)})
        yield _event(event(index, {"content": turn.reply}, details=_details(asked, turn)))
        for number, call in enumerate(_tool_calls(asked, turn)):
            yield _event(event(index, {"tool_calls": [{"index": number, **_tool_call(call)}]}))
        yield _event(event(index, {}, _finish(asked, turn)))
    if with_usage:
        yield _event({**head, "choices": [], "usage": _usage(turns)})
    yield DONE


def error(message: str, kind: str, code: str | None = None, parameter: str | None = None) -> Json:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def error_event(problem: Json) -> str:
    """An error in a stream that has begun."""
    return _event(problem)


def _event(body: Json) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _head(asked: ChatRequest, kind: str) -> Json:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


def _prompt(asked: ChatRequest, turns: Sequence[Turn]) -> Json:
    return {"prompt_token_ids": turns[0].prompt_ids or None} if asked.return_token_ids else {}


def _details(asked: ChatRequest, turn: Turn) -> Json:
    details: Json = {"logprobs": _logprobs(turn) if asked.logprobs else None}
    if asked.return_token_ids:
        details["token_ids"] = turn.token_ids or None
    return {**details, "turn_id": turn.id, "weight_version": turn.version}


def _logprobs(turn: Turn) -> Json | None:
    """None from an engine that gives none."""
    if not (turn.logprobs and turn.token_ids):
        return None
    tokens = zip(turn.token_ids, turn.logprobs, strict=True)
    content = [
        {"token": f"token_id:{id}", "logprob": logprob, "bytes": None, "top_logprobs": []} for id, logprob in tokens
    ]
    return {"content": content, "refusal": None}


def _tool_calls(asked: ChatRequest, turn: Turn) -> tuple[ToolCall, ...]:
    return turn.tool_calls if asked.parallel_tool_calls else turn.tool_calls[:1]


def _tool_call(call: ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _finish(asked: ChatRequest, turn: Turn) -> str:
    return "tool_calls" if _tool_calls(asked, turn) else turn.finish


def _usage(turns: Sequence[Turn]) -> Json:
    prompt, sampled = turns[0].prompt_tokens, sum(turn.completion_tokens for turn in turns)
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}
