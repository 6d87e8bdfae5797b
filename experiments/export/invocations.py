"""A role is asked and goes on from what its tools give back: turns that other programs take as one call of an agent."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from agents.types import Message, ToolCall
from graphs.turns import Turn


def invocations(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """The turns, those together of which each goes on from the one before with the outputs of its tools."""
    found: dict[str, list[Turn]] = {}
    for turn in turns:
        before = found.get(turn.follows or "", [])
        goes_on = before and before[-1].id == turn.follows and any(m.role == "tool" for m in turn.messages)
        found[turn.id] = before if goes_on else []
        found[turn.id].append(turn)
    yield from {id(together): together for together in found.values()}.values()


def tool_runs(turns: Sequence[Turn]) -> Iterator[tuple[Turn, ToolCall, Message, Turn]]:
    """(turn that asked, call, output, turn that read it) for each tool run within an invocation."""
    for turn, later in pairwise(turns):
        outputs = {message.tool_call_id: message for message in later.messages if message.role == "tool"}
        for call in turn.tool_calls:
            if call.id in outputs:
                yield turn, call, outputs[call.id], later
