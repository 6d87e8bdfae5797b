"""Calls of graphs that know nothing of our moves: each becomes a Turn, with what it read recovered from its messages.

A framework hands a role plain messages. The recorder finds the role's own earlier turn whose conversation these go on
from, so that the exact token ids are continued and nothing is tokenised again; and the turns of others that they hold,
by message id, by tool call, or by quotation where a graph copies text. Both chat models (graphs.chat_model) and the
gateway (experiments.gateway) ask through it.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agents.results import Statement
from agents.types import Message, Request, seed_of
from envs.types import final_answer
from graphs.table import Stage
from graphs.turns import Turn, make_turn

QUOTED = 12
"""Characters of a reply from which on finding it within a message counts as having read it."""

CURRENT: ContextVar["Recorder"] = ContextVar("palaestra_recorder")
"""The recorder of the episode that this code runs in; unset outside of episodes."""


@dataclass(frozen=True)
class Call:
    """A role asked through a framework's chat interface."""

    role: str
    messages: Sequence[Message]
    ids: Sequence[str | None] = ()
    """The id of each message, where the framework keeps them; those of replies are what `message_id` gave."""
    wishes: Mapping[str, Any] = field(default_factory=dict)
    """Sampling that the graph itself asks for, by the names of Sampling's fields; the user's settings go before."""
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    schema: Mapping[str, Any] | None = None
    seed: int | None = None
    """A seed that the graph itself gives; it enters into the turn's."""
    place: str = ""
    """Names the task of the graph that asks; the same when an interrupted task is run again."""


class Recorder:
    """The calls of one episode.

    A turn's seed derives from the role and the conversation, not from the order of arrival: parallel branches draw the
    same replies whichever asks first. Its number (`role/n`) counts arrivals.
    """

    def __init__(self, stage: Stage):
        self.stage = stage
        self.loop = asyncio.get_running_loop()
        self._numbers: Counter[str] = Counter()
        self._asked: Counter[bytes] = Counter()
        self._conversations: dict[bytes, Turn] = {}
        self._by_id: dict[str, Turn] = {}
        self._repeats: Counter[tuple[str, bytes]] = Counter()
        self._earlier: dict[tuple[str, bytes, int], Turn] = {}
        self._resumed = False

    async def call(self, call: Call) -> Turn:
        """Have the role answer, and record the turn.

        Raises:
            EngineError: the call cannot be answered.
            ConfigError: nobody is cast for the role.
        """
        keys = _chain(call)
        before = self._replayed(call.place, keys[-1])
        if isinstance(before, Turn):
            return before
        follows, start = self._followed(call, keys)
        reads = self._read(call, start, follows)
        id = f"{call.role}/{self._numbers[call.role]}"
        self._numbers[call.role] += 1
        request = self._request(call, id, keys[-1], follows, start)
        asked_s = self.stage.seconds()
        completion = await self.stage.company.complete(call.role, request)
        turn = make_turn(
            request,
            completion,
            id=id,
            role=call.role,
            move="chat",
            round=1 + max((turn.round for turn in (*reads, *([follows] if follows else []))), default=0),
            after=len(self.stage.ledger),
            reads=tuple(turn.id for turn in reads),
            follows=follows.id if follows else None,
            result=Statement(answer=final_answer(completion.text)),
            asked_s=asked_s,
            answered_s=self.stage.seconds(),
        )
        self.stage.ledger.append(turn)
        self._conversations[_link(keys[-1], Message("assistant", turn.reply, turn.tool_calls))] = turn
        self._by_id[message_id(turn)] = turn
        self._by_id.update((made.id, turn) for made in turn.tool_calls)
        self._earlier[before] = turn
        return turn

    def resume(self) -> None:
        """An interrupted graph goes on: its interrupted tasks start from their first line, and what they had already
        asked is answered from the record, once and in the same order."""
        self._repeats.clear()
        self._resumed = True

    def turns(self) -> tuple[Turn, ...]:
        """All turns, in an order that does not depend on arrival: by round, role and seed."""
        return tuple(sorted(self.stage.ledger, key=lambda turn: (turn.round, turn.role, turn.seed)))

    def _replayed(self, place: str, key: bytes) -> "Turn | tuple[str, bytes, int]":
        """The turn of this very call before the interruption, else the key to store it under."""
        index = self._repeats[place, key]
        self._repeats[place, key] += 1
        again = self._earlier.get((place, key, index)) if self._resumed else None
        return again or (place, key, index)

    def _followed(self, call: Call, keys: Sequence[bytes]) -> tuple[Turn | None, int]:
        """The role's own turn that the messages go on from, and where the new ones begin."""
        for end in range(len(call.messages) - 1, 0, -1):
            turn = self._conversations.get(keys[end])
            if turn is not None:
                return turn, end
        return None, 0

    def _read(self, call: Call, start: int, follows: Turn | None) -> list[Turn]:
        """Other turns whose words the new messages hold, in the order they were taken."""
        ids = {*call.ids[start:], *(message.tool_call_id for message in call.messages[start:])}
        read = {turn.id for key in ids if key and (turn := self._by_id.get(key))}
        new = [message.content for message in call.messages[start:]]
        for turn in self.stage.ledger:
            words = turn.reply.strip()
            if turn.id not in read and words and any(_holds(content, words) for content in new):
                read.add(turn.id)
        own = follows.id if follows else None
        return [turn for turn in self.stage.ledger if turn.id in read and turn.id != own]

    def _request(self, call: Call, id: str, key: bytes, follows: Turn | None, start: int) -> Request:
        stage, repeat = self.stage, self._asked[key]
        self._asked[key] += 1
        given = () if call.seed is None else (call.seed,)
        return Request(
            key=f"{stage.task.id}/{stage.sample}/{id}",
            messages=tuple(call.messages[start:]),
            sampling=stage.company.sampling(call.role, call.wishes),
            seed=seed_of(stage.seed, stage.task.id, stage.sample, call.role, key.hex(), repeat, *given),
            prefix=(*follows.prompt_ids, *follows.token_ids) if follows and follows.token_ids else (),
            history=tuple(call.messages[:start]),
            tools=call.tools,
            tool_choice=call.tool_choice,
            schema=call.schema,
        )


def message_id(turn: Turn) -> str:
    """What a reply's message is called in the framework: unique in its episode."""
    return f"turn:{turn.id}"


def _chain(call: Call) -> list[bytes]:
    """A digest of each beginning of the conversation, role and tools included: entry i covers the first i messages."""
    keys = [_digest(call.role, json.dumps(call.tools, sort_keys=True, default=str))]
    for message in call.messages:
        keys.append(_link(keys[-1], message))
    return keys


def _link(key: bytes, message: Message) -> bytes:
    # Without the ids of tool calls: some frameworks give them new ones.
    calls = [(call.name, _plain_json(call.arguments)) for call in message.tool_calls]
    return _digest(key.hex(), message.role, message.content, json.dumps(calls))


def _digest(*parts: str) -> bytes:
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _plain_json(text: str) -> str:
    """Arguments in one form: frameworks read them and write them anew."""
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _holds(content: str, words: str) -> bool:
    return content.strip() == words or (len(words) >= QUOTED and words in content)
