"""Tool calls in a model's text: the markup that open models write, read into ToolCalls.

Two forms are read: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen and many others) anywhere in
the reply, and a reply that is nothing but such an object, with `arguments` or `parameters` (Llama 3). What cannot be
read stays text: nothing is guessed.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agents.types import EngineError, Request, ToolCall
from envs.errors import clip

_TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def split_tool_calls(text: str, seed: int, tools: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[ToolCall, ...]]:
    """Separate a reply's words from its tool calls.

    Args:
        text: the reply.
        seed: of the request; the calls' ids derive from it, so that the same episode has the same ids.
        tools: that the model was offered; with none, all is text.

    Returns:
        the text without the markup that was read, and the calls in order.
    """
    if not tools:
        return text, ()
    calls: list[ToolCall] = []

    def take(found: re.Match[str]) -> str:
        call = _call(found[1], seed, len(calls))
        if call is None:
            return found[0]
        calls.append(call)
        return ""

    words = _TAGGED.sub(take, text)
    if not calls:
        whole = _call(text.strip(), seed, 0)
        if whole is not None and whole.name in tool_names(tools):
            return "", (whole,)
        return text, ()
    return words.strip(), tuple(calls)


def enforced_schema(request: Request) -> Mapping[str, Any] | None:
    """The JSON schema that a reply must fit: the request's own, or that of the tool call which it demands.

    Raises:
        EngineError: it demands a tool that it does not offer.
    """
    if request.tool_choice in ("auto", "none") or request.schema is not None:
        return request.schema
    offered = {str(tool["function"]["name"]): tool["function"].get("parameters") or {} for tool in request.tools}
    if request.tool_choice != "required":
        if request.tool_choice not in offered:
            raise EngineError(f"the call must be of tool {clip(request.tool_choice)}; offered are {sorted(offered)}")
        offered = {request.tool_choice: offered[request.tool_choice]}
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": parameters},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for name, parameters in offered.items()
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def tool_names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(tool.get("function", {}).get("name", "")) for tool in tools]


def call_id(seed: int, index: int) -> str:
    """Nine letters and digits, which every chat template takes."""
    return hashlib.sha256(f"{seed}\x1f{index}".encode()).hexdigest()[:9]


def _call(text: str, seed: int, index: int) -> ToolCall | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if not isinstance(arguments, (dict, str)):
        return None
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(call_id(seed, index), value["name"], written)
