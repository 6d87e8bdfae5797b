"""The records of play: Turn, Failure, Episode. What is stored, shown, exported and trained on is made of these."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator

from agents import results
from agents.types import Completion, Message, Request, ToolCall
from envs.types import Task, Verdict


class Failure(BaseModel):
    """Why a turn has no result: a reply that could not be parsed."""

    model_config = ConfigDict(frozen=True)

    expected: str
    """What the move's parser looked for. What was found is the turn's reply."""


class Turn(BaseModel):
    """One model call in an episode."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    id: str
    """`role/n`, with `.attempt` when the role was asked again after a reply that could not be parsed."""
    role: str
    move: str
    round: int
    after: int
    """How many turns had been taken when this one was asked: turns of one superstep share it."""
    reads: tuple[str, ...]
    """Turns of others whose words this prompt shows."""
    follows: str | None
    """The role's own earlier turn whose conversation this one goes on from; its prompt and reply come first."""
    messages: tuple[Message, ...]
    """The new messages of this turn, after those it follows."""
    reply: str
    """With `opening`, where the beginning was given."""
    opening: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """What the reply asks to have run; its markup is not part of `reply`."""
    result: Any = None
    """What the move's parser made of the reply: a result of agents.results; None when it failed, or calls tools."""
    failure: Failure | None = None
    policy: str
    version: str
    finish: str
    temperature: float
    top_p: float
    seed: int
    prompt_tokens: int
    completion_tokens: int
    prompt_ids: tuple[int, ...] = ()
    """The whole prompt, what it follows included. Empty when the engine gives no token ids."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """Nats, for each of token_ids under the distribution that it was drawn from."""
    certainty: tuple[float, ...] = ()
    """Where it was asked for; see agents.types.Completion."""
    choice_logprobs: tuple[float, ...] = ()
    asked_s: float = 0.0
    """Seconds from the episode's beginning until it was asked, and until it was answered."""
    answered_s: float = 0.0
    queue_s: float = 0.0
    """Of that time: waiting in the engine."""
    compute_s: float = 0.0
    """Of that time: in the engine's batch."""

    @field_serializer("result")
    def _result_to_json(self, result: Any) -> Any:
        return {"type": type(result).__name__, **result.model_dump()} if isinstance(result, BaseModel) else result

    @field_validator("result", mode="before")
    @classmethod
    def _result_from_json(cls, value: Any) -> Any:
        known = getattr(results, str(value.get("type")), None) if isinstance(value, dict) else None
        if isinstance(known, type) and issubclass(known, BaseModel):
            return known.model_validate({key: item for key, item in value.items() if key != "type"})
        return value

    @property
    def is_retry(self) -> bool:
        """Whether the role was asked again because its reply before could not be parsed."""
        return "." in self.id.rpartition("/")[2]

    @property
    def answer(self) -> str | None:
        """The answer that the result holds, if it holds one."""
        return getattr(self.result, "answer", None) or None


def make_turn(request: Request, completion: Completion, **place: Any) -> Turn:
    """The record of one call: what was asked and answered, and by `place` where it stands in the episode."""
    return Turn.model_construct(
        messages=request.messages,
        reply=request.opening + completion.text,
        opening=request.opening,
        certainty=completion.certainty,
        choice_logprobs=completion.choice_logprobs,
        tool_calls=completion.tool_calls,
        policy=completion.policy,
        version=completion.version,
        finish=completion.finish,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=request.seed,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        prompt_ids=completion.prompt_ids,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        queue_s=completion.queue_s,
        compute_s=completion.compute_s,
        **place,
    )


class Episode(BaseModel):
    """One run of a topology on one task."""

    model_config = ConfigDict(frozen=True)

    task: Task
    sample: int
    turns: tuple[Turn, ...]
    """In the order they were asked; turns of one superstep by role and number."""
    answer: str | None
    """The final answer that the topology came to."""
    stop_reason: str
    """How it came to it, in the topology's words ("agreed", "break in round 2", "extractive judge")."""
    verdict: Verdict | None
    """None when the episode failed."""
    notes: tuple[dict[str, Any], ...] = ()
    """What the topology wrote down beside its turns, such as the edges of each round; JSON values."""
    failure: str | None = None
    """What kept the episode from ending, on one line. The turns until then are kept."""
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        return len(self.turns)

    def turn(self, id: str) -> Turn:
        return next(turn for turn in self.turns if turn.id == id)

    def digest(self) -> str:
        """SHA-256 over task, turns (token ids, or text where the engine gives none) and outcome; no times in it.

        Turns count in any order: where agents outside ask in parallel, nothing but arrival may tell which came first.
        """
        outcome = [self.answer, self.stop_reason, self.verdict and self.verdict.status, self.failure is not None]
        turns = sorted(
            json.dumps([t.role, t.prompt_ids, t.token_ids] if t.token_ids else [t.role, _texts(t.messages), t.reply])
            for t in self.turns
        )
        return hashlib.sha256(json.dumps([self.task.id, self.sample, turns, outcome]).encode()).hexdigest()


def conversation(turns: Sequence[Turn], last: Turn) -> list[Message]:
    """All messages of the conversation that `last` ends: those of the turns that it follows, and its own."""
    by_id = {turn.id: turn for turn in turns}
    messages = [*conversation(turns, by_id[last.follows])] if last.follows else []
    return [*messages, *last.messages, Message("assistant", last.reply, last.tool_calls)]


def _texts(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


def in_order(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Turns as they were asked; those asked together by role and number, so that arrival never matters."""
    return tuple(sorted(turns, key=_order))


def _order(turn: Turn) -> tuple[int, str, list[int]]:
    role, _, number = turn.id.rpartition("/")
    return turn.after, role, [int(part) for part in number.split(".")]
