"""Playing an episode again up to a turn: what was said before is answered from the record, and no model is asked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agents.company import Company
from agents.types import Completion, EngineError, Message, Request
from graphs.turns import Episode, Turn

BY_HAND = "by hand"
"""Policy of a reply that was edited."""


@dataclass(frozen=True)
class Edit:
    """What is changed in a turn itself."""

    message: str | None = None
    """In place of its last message."""
    reply: str | None = None
    """In place of its reply; then nothing is sampled for it."""


@dataclass
class Replaying:
    """A company that answers from a recorded episode until a turn is reached, and lets another answer from then on."""

    company: Company
    episode: Episode
    turn: Turn
    edit: Edit
    recast: Collection[str] = ()
    """Roles that another model plays now: token ids of the record say nothing to it."""
    instructed: Collection[str] = ()
    """Roles with other instructions now."""
    by_id: bool = True
    """Whether turns have the same ids whenever the topology is played; else they are known by what they were asked."""
    replayed: dict[str, Turn] = field(default_factory=dict)
    """Id now -> the turn as recorded."""
    reached: str | None = None
    """The id that the changed turn has now."""
    _waiting: dict[str, Turn] = field(init=False)
    _asked: tuple[Message, ...] = ()
    _said: str | None = None
    """What the changed turn was asked before it was edited, and its new reply."""

    def __post_init__(self) -> None:
        self._waiting = {turn.id: turn for turn in kept(self.episode.turns, self.turn)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.company, name)

    async def complete(self, role: str, request: Request) -> Completion:
        """Answer from the record, or have the company answer. Raises EngineError."""
        id = request.key.removeprefix(f"{self.episode.task.id}/{self.episode.sample}/")
        if (known := self._recorded(role, id, request)) is not None:
            self.replayed[id] = self._waiting.pop(known.id)
            return _completion(known)
        changes = self.reached is None and self._is_turn(role, id, request)
        if changes:
            self.reached, self._asked = id, request.messages
        if changes and self.edit.reply is not None:
            completion = _by_hand(self.edit.reply, request)
        else:
            completion = await self.company.complete(role, self._sent(role, id, request))
        if changes:
            self._said = request.opening + completion.text
        return completion

    def episode_of(self, played: Episode) -> Episode:
        """What was played, with the record in its place, and the clock going on from it."""
        turns = [self._turn(turn) for turn in played.turns]
        seconds = played.seconds + self.turn.asked_s
        return played.model_copy(update={"turns": tuple(turns), "seconds": seconds})

    def _recorded(self, role: str, id: str, request: Request) -> Turn | None:
        named = self._waiting.get(id)
        if self.by_id:
            if named and named.messages != request.messages and role not in self.instructed:
                raise EngineError(
                    f"{id} is asked otherwise than it was recorded: the topology, its templates or its settings have "
                    "changed since; fork a run that was played with these"
                )
            return named
        alike = [turn for turn in self._waiting.values() if turn.role == role and turn.messages == request.messages]
        return named if named in alike else next(iter(alike), None)

    def _is_turn(self, role: str, id: str, request: Request) -> bool:
        if self.by_id:
            return id == self.turn.id
        return role == self.turn.role and request.messages == self.turn.messages

    def _sent(self, role: str, id: str, request: Request) -> Request:
        """As the engine is asked: with the message edited, and without token ids of another model."""
        if id == self.reached:
            request = replace(request, messages=self._edited(request.messages))
        elif role == self.turn.role:
            request = replace(request, history=self._told(request.history))
        if role in self.recast and request.prefix:
            recorded = {(*turn.prompt_ids, *turn.token_ids) for turn in self.replayed.values() if turn.role == role}
            if request.prefix in recorded:
                request = replace(request, prefix=())
        return request

    def _told(self, history: Sequence[Message]) -> tuple[Message, ...]:
        """A conversation that goes on from the changed turn, with its message edited. Others that began alike stay."""
        before, whole = self._asked, tuple(history)
        for i in range(len(whole) - len(before) if before else 0):
            end = i + len(before)
            if whole[i:end] == before and whole[end].content == self._said:
                return (*whole[:i], *self._edited(before), *whole[end:])
        return whole

    def _edited(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if self.edit.message is None:
            return messages
        return (*messages[:-1], replace(messages[-1], content=self.edit.message))

    def _turn(self, turn: Turn) -> Turn:
        if turn.id in self.replayed:
            same: Mapping[str, Any] = {name: getattr(turn, name) for name in ("id", "after", "reads", "follows")}
            return self.replayed[turn.id].model_copy(update=same)
        times = {name: getattr(turn, name) + self.turn.asked_s for name in ("asked_s", "answered_s")}
        edited = {"messages": self._edited(turn.messages)} if turn.id == self.reached else {}
        return turn.model_copy(update={**times, **edited})


def kept(turns: Sequence[Turn], changed: Turn) -> list[Turn]:
    """The turns that a change of one leaves as they were: those before it, and those that were asked together with it.
    Further attempts after it are none of these."""
    place = next(i for i, turn in enumerate(turns) if turn.id == changed.id)
    attempts = f"{changed.id.partition('.')[0]}."
    before = list(turns[:place])
    beside = [turn for turn in turns[place + 1 :] if turn.after == changed.after and not turn.id.startswith(attempts)]
    return before + beside


def _completion(turn: Turn) -> Completion:
    return Completion(
        text=turn.reply.removeprefix(turn.opening),
        finish="length" if turn.finish == "length" else "stop",
        policy=turn.policy,
        version=turn.version,
        prompt_ids=turn.prompt_ids,
        token_ids=turn.token_ids,
        logprobs=turn.logprobs,
        certainty=turn.certainty,
        choice_logprobs=turn.choice_logprobs,
        tool_calls=turn.tool_calls,
        prompt_tokens=turn.prompt_tokens,
        completion_tokens=turn.completion_tokens,
        queue_s=turn.queue_s,
        compute_s=turn.compute_s,
    )


def _by_hand(reply: str, request: Request) -> Completion:
    return Completion(text=reply.removeprefix(request.opening), finish="stop", policy=BY_HAND, version="")
