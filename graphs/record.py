"""Calls of graphs that know nothing of our moves: each becomes a Turn, with what it read recovered from its messages.

A framework hands a role plain messages. The recorder finds the role's own earlier turn whose conversation these go on
from, so that the exact token ids are continued and nothing is tokenised again; and the turns of others that they hold,
by message id, by tool call, or by quotation where a graph copies text. Both chat models (graphs.chat_model) and the
gateway (experiments.gateway) ask through it.
"""

import asyncio
import contextlib
import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from agents.moves import render_instructions
from agents.results import Statement
from agents.types import EngineError, Message, Request, seed_of
from envs.types import final_answer
from graphs.places import NOWHERE, Place, Places, is_visible, shared
from graphs.table import Stage
from graphs.turns import Turn, in_order, make_turn

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
    """LangGraph's namespace of the task that asks; the same when an interrupted task is run again."""
    anew: bool = False
    """Never answered from the record: the caller does not run again when an interrupted graph goes on."""


class Recorder:
    """The calls of one episode. For one event loop; only `places` is told from other threads.

    A turn's seed derives from the role, the conversation and the place in the graph, not from the order of arrival:
    parallel branches draw the same replies whichever asks first. Its number (`role/n`) counts arrivals.
    """

    def __init__(self, stage: Stage):
        self.stage = stage
        self.loop = asyncio.get_running_loop()
        self.places = Places()
        self._closed = False
        self._numbers: Counter[str] = Counter()
        self._asked: Counter[tuple[Place, bytes]] = Counter()
        self._place_of: dict[str, Place] = {}
        self._conversations: dict[bytes, list[Turn]] = {}
        self._by_id: dict[str, Turn] = {}
        self._words: dict[str, list[str]] = {}
        self._repeats: Counter[tuple[Place, bytes]] = Counter()
        self._earlier: dict[tuple[Place, bytes, int], Turn] = {}
        self._resumed = 0
        self._phases: dict[str, int] = {}

    async def call(self, call: Call) -> Turn:
        """Have the role answer, and record the turn.

        Raises:
            EngineError: the call cannot be answered.
            ConfigError: nobody is cast for the role.
        """
        if self._closed:
            raise EngineError(f"{call.role} was asked when its episode had ended")
        call = self._instructed(call)
        place, keys = self.places.of(call.place), _chain(call)
        repeat = None if call.anew else (place, keys[-1], self._repeat(place, keys[-1]))
        if self._resumed and repeat in self._earlier:
            return self._earlier[repeat]
        follows, start = self._followed(call, keys, place)
        reads = self._read(call, start, place, follows)
        id = f"{call.role}/{self._numbers[call.role]}"
        self._numbers[call.role] += 1
        request = self._request(call, id, place, keys[-1], follows, start)
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
        self._keep(turn, place, keys[-1])
        # A graph that is interrupted is at rest: what comes after that comes after all before it.
        self._phases[turn.id] = 2 * self._resumed + call.anew
        if repeat:
            self._earlier[repeat] = turn
        return turn

    def resume(self) -> None:
        """An interrupted graph goes on: its interrupted tasks start from their first line, and what they had already
        asked is answered from the record, once and in the same order."""
        self._repeats.clear()
        self._resumed += 1

    def close(self) -> None:
        """The episode has ended: whoever still asks (a thread that nothing can stop) is refused."""
        self._closed = True

    def turns(self) -> tuple[Turn, ...]:
        """All turns, in an order that does not depend on arrival: by their place in the graph, none before a turn that
        it reads or follows."""
        ledger = self.stage.ledger
        if not self._place_of:
            return in_order(ledger)
        index = {turn.id: i for i, turn in enumerate(ledger)}
        sources = [{s for s in (*turn.reads, turn.follows) if s in index} for turn in ledger]
        readers: dict[str, list[int]] = {}
        for i, named in enumerate(sources):
            for source in named:
                readers.setdefault(source, []).append(i)
        ready = [self._rank(turn, i) for i, turn in enumerate(ledger) if not sources[i]]
        heapq.heapify(ready)
        ordered: list[Turn] = []
        while ready:
            turn = ledger[heapq.heappop(ready)[-1]]
            ordered.append(turn)
            for i in readers.get(turn.id, ()):
                sources[i].discard(turn.id)
                if not sources[i]:
                    heapq.heappush(ready, self._rank(ledger[i], i))
        return tuple(ordered)

    def _rank(self, turn: Turn, index: int) -> tuple[int, Place, int, str, int, int]:
        place = self._place_of.get(turn.id, NOWHERE)
        return self._phases.get(turn.id, 0), place, turn.round, turn.role, turn.seed, index

    def _instructed(self, call: Call) -> Call:
        """With the instructions that the user set for the role in place of the graph's own."""
        own = self.stage.company.instructions(call.role)
        if own is None:
            return call
        text = render_instructions(call.role, own, {"question": self.stage.task.question})
        opening = [Message("system", text)] if text else []
        begin = next((i for i, message in enumerate(call.messages) if message.role != "system"), len(call.messages))
        ids = (*(None for _ in opening), *call.ids[begin:]) if call.ids else ()
        return replace(call, messages=(*opening, *call.messages[begin:]), ids=ids)

    def _repeat(self, place: Place, key: bytes) -> int:
        """How often this very call was made before, since the graph last began or went on."""
        self._repeats[place, key] += 1
        return self._repeats[place, key] - 1

    def _keep(self, turn: Turn, place: Place, key: bytes) -> None:
        self.stage.ledger.append(turn)
        self._place_of[turn.id] = place
        said = _link(key, Message("assistant", turn.reply, turn.tool_calls))
        self._conversations.setdefault(said, []).append(turn)
        self._by_id[message_id(turn)] = turn
        self._words[turn.id] = [words for words in _words(turn) if words not in self.stage.task.question]
        self._by_id.update((made.id, turn) for made in turn.tool_calls)

    def _followed(self, call: Call, keys: Sequence[bytes], place: Place) -> tuple[Turn | None, int]:
        """The role's own turn that the messages go on from, and where the new ones begin."""
        for end in range(len(call.messages) - 1, 0, -1):
            same = [turn for turn in self._conversations.get(keys[end], ()) if self._is_visible(turn, place)]
            if same:
                named = self._by_id.get(call.ids[end - 1] or "") if call.ids else None
                # Parallel branches may have said the same: this one's own is the nearest.
                nearest = min(same, key=lambda turn: (-shared(self._place_of[turn.id], place), self._rank(turn, 0)))
                return (named if named in same else nearest), end
        return None, 0

    def _read(self, call: Call, start: int, place: Place, follows: Turn | None) -> list[Turn]:
        """Other turns whose words the new messages hold, in the order they were taken."""
        new = call.messages[start:]
        named = [self._by_id.get(id or "") for id in call.ids[start:]] or [None] * len(new)
        answered = (self._by_id.get(message.tool_call_id) for message in new)
        read = {turn.id for turn in (*named, *answered) if turn}
        # What comes with its id quotes nobody else.
        quoting = [message.content for message, turn in zip(new, named, strict=True) if not turn]
        alike: dict[str, list[Turn]] = {}
        for turn in self.stage.ledger if quoting else ():
            if turn.id in read or not self._is_visible(turn, place):
                continue
            for words in self._words.get(turn.id, ()):
                if any(_holds(content, words) for content in quoting):
                    alike.setdefault(words, []).append(turn)
        read.update(turn.id for turns in alike.values() for turn in turns if not self._said_again(turn, turns))
        own = follows.id if follows else None
        return [turn for turn in self.stage.ledger if turn.id in read and turn.id != own]

    def _said_again(self, turn: Turn, alike: Sequence[Turn]) -> bool:
        """Whether its branch said the same later: then that is what was quoted."""
        here = self._place_of.get(turn.id, NOWHERE)
        later = (self._place_of.get(other.id, NOWHERE) for other in alike)
        return any(is_visible(here, there) and not is_visible(there, here) for there in later)

    def _is_visible(self, turn: Turn, place: Place) -> bool:
        return is_visible(self._place_of.get(turn.id, NOWHERE), place)

    def _request(self, call: Call, id: str, place: Place, key: bytes, follows: Turn | None, start: int) -> Request:
        stage, repeat = self.stage, self._asked[place, key]
        self._asked[place, key] += 1
        given = () if call.seed is None else (call.seed,)
        return Request(
            key=f"{stage.task.id}/{stage.sample}/{id}",
            messages=tuple(call.messages[start:]),
            sampling=stage.company.sampling(call.role, call.wishes),
            seed=seed_of(stage.seed, stage.task.id, stage.sample, call.role, place, key.hex(), repeat, *given),
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
    # Without the ids of tool calls, and in any order: some frameworks give new ids, or keep unreadable calls apart.
    calls = sorted((call.name, _plain_json(call.arguments)) for call in message.tool_calls)
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


def _words(turn: Turn) -> list[str]:
    """What may be found of a turn where it is quoted: its reply, and texts in the JSON that it or a tool call is."""
    found = [turn.reply.strip()] if turn.reply.strip() else []
    for text in (turn.reply, *(call.arguments for call in turn.tool_calls)):
        with contextlib.suppress(ValueError, RecursionError):
            found += [words for words in _texts(json.loads(text)) if len(words) >= QUOTED]
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _holds(content: str, words: str) -> bool:
    return content.strip() == words or (len(words) >= QUOTED and words in content)
