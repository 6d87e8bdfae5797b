"""The table: the state that the nodes of a topology share, and how a node asks roles for moves.

Nodes are async functions `(table, runtime) -> partial state`. `speak` is the one primitive: it asks any number of
roles at once, records each call as a Turn, and returns the turns; `solve`, `revise` and `judge` are the asks that most
topologies are made of. Handles (company, env, ledger) travel in the runtime context, the Stage, never in the state.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from langgraph.runtime import Runtime

from agents.cast import base_role
from agents.company import Company
from agents.moves import JUDGE, REVISE, SOLVE, Move, render_instructions
from agents.results import Judgement, ParseFailure
from agents.types import Completion, Message, Request, seed_of
from envs.types import Env, Task
from graphs.turns import Failure, Turn, conversation, in_order, make_turn


def merge_turns(left: Sequence[Turn], right: Sequence[Turn]) -> list[Turn]:
    """LangGraph's reducer for `turns`: order depends on what was asked when, not on what arrived first.

    Raises:
        ValueError: two turns of one id, which means that two nodes of one superstep asked the same role.
    """
    merged = in_order([*left, *right])
    if len({turn.id for turn in merged}) < len(merged):
        twice = [id for id, count in Counter(turn.id for turn in merged).items() if count > 1]
        raise ValueError(f"two nodes asked {twice[0]} at the same time; ask a role from one node, or name two roles")
    return list(merged)


@dataclass
class Table:
    """State of an episode. Subclass it to add fields of your own."""

    question: str
    turns: Annotated[list[Turn], merge_turns] = field(default_factory=list)
    round: int = 0
    """Rounds begun so far."""
    answer: str | None = None
    stop_reason: str = ""

    def last(self, role: str) -> Turn | None:
        """The role's latest turn."""
        return next((turn for turn in reversed(self.turns) if turn.role == role), None)

    def turn(self, id: str) -> Turn:
        return next(turn for turn in self.turns if turn.id == id)

    def with_turns(self, turns: Sequence[Turn]) -> "Table":
        """The table as it will be with these turns, for asking on within the same node."""
        return replace(self, turns=merge_turns(self.turns, turns))

    def by(self, role: str) -> list[Turn]:
        return [turn for turn in self.turns if turn.role == role]

    def latest(self, roles: Sequence[str]) -> list[Turn]:
        """The latest turn of each role that has spoken."""
        return [turn for role in roles if (turn := self.last(role))]

    @property
    def agreed(self) -> bool:
        """Whether all roles that gave an answer gave the same one last, to the letter; False before any answer."""
        latest = {turn.role: turn.answer for turn in self.turns if turn.answer}
        return len(set(latest.values())) == 1


@dataclass
class Stage:
    """Runtime context of one episode: who plays, what is judged, and the ledger of all calls."""

    company: Company
    env: Env
    task: Task
    seed: int
    """The run's."""
    sample: int = 0
    ledger: list[Turn] = field(default_factory=list)
    """Every turn as it ends, also of episodes that fail later."""
    notes: list[dict[str, Any]] = field(default_factory=list)
    """What a node writes down for the episode's record beside its turns; JSON values."""
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Since the episode began."""
        return time.monotonic() - self.started


@dataclass(frozen=True)
class Ask:
    """One role asked for one move."""

    role: str
    move: Move
    fields: Mapping[str, Any] = field(default_factory=dict)
    reads: Sequence[Turn] = ()
    """Turns of others that the fields quote."""
    follows: Turn | None = None
    """The role's own turn to go on from; None begins a conversation with the role's instructions."""
    opening: str = ""
    """The beginning of the reply, given."""
    stop: tuple[str, ...] = ()
    """What ends the reply, beside what the seat sets: it ends before the first of these."""
    choices: tuple[str, ...] = ()
    """What the reply is chosen from, by likelihood, in place of sampling it."""
    certainty: bool = False
    """Whether the engine is to measure self-certainty."""
    instructions: str | None = None
    """Name of the instructions in templates/roles; None takes the role's own name. The cast may replace them."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """That the role may call, in OpenAI's form. A reply that calls some has no result: its calls are on the turn."""
    outputs: Sequence[Message] = ()
    """The tools' messages to the calls of `follows`; they stand in place of the move's prompt."""


async def speak(
    table: Table, runtime: Runtime[Stage], asks: Sequence[Ask], round: int | None = None, retries: int = 0
) -> list[Turn]:
    """Ask roles, all at once, and return their turns in the order of `asks`, failed attempts before the last one.

    Args:
        table: the node's state; not changed.
        runtime: the node's runtime.
        asks: who is asked for what. A role may occur several times and is then asked several times.
        round: the round that the turns belong to; the table's when None.
        retries: how often a role is asked again, with another seed, after a reply that could not be parsed.

    Raises:
        EngineError: a call could not be answered.
        ConfigError: a field that the move needs is missing.
    """
    spoken = Counter(turn.role for turn in table.turns if not turn.is_retry)
    numbered = []
    for ask in asks:
        numbered.append((ask, spoken[ask.role]))
        spoken[ask.role] += 1
    round = table.round if round is None else round
    asked = (_ask(table, runtime.context, ask, n, round, retries) for ask, n in numbered)
    attempts = await asyncio.gather(*asked, return_exceptions=True)
    # Only when all have ended: which turns a failed episode holds must not depend on which call failed first.
    turns: list[Turn] = []
    for attempt in attempts:
        if isinstance(attempt, BaseException):
            raise attempt
        turns += attempt
    return turns


async def solve(
    table: Table, runtime: Runtime[Stage], roles: Sequence[str], retries: int = 0, certainty: bool = False
) -> dict[str, Any]:
    """Every role solves the problem on its own, seeing nobody; begins a round. A role named k times solves k times."""
    asks = [Ask(role, SOLVE, {"question": table.question}, certainty=certainty) for role in roles]
    return {"turns": await speak(table, runtime, asks, table.round + 1, retries), "round": table.round + 1}


async def revise(
    table: Table,
    runtime: Runtime[Stage],
    roles: Sequence[str],
    reads: Literal["others", "none"] = "others",
    retries: int = 0,
) -> dict[str, Any]:
    """Every role that has spoken revises its solution after reading the others' last turns; begins a round."""
    asks = []
    for own in table.latest(roles):
        others = [turn for turn in table.latest(roles) if turn.role != own.role] if reads == "others" else []
        fields = {"question": table.question, "peers": [turn.reply for turn in others]}
        asks.append(Ask(own.role, REVISE, fields, reads=others, follows=own))
    return {"turns": await speak(table, runtime, asks, table.round + 1, retries), "round": table.round + 1}


async def judge(table: Table, runtime: Runtime[Stage], role: str = "judge") -> dict[str, Any]:
    """A role decides between the roles' last answers, two at a time, the winner against the next; ends the episode.

    Answers that the env holds equivalent meet once, each shown by the first reply that gave it. A verdict that cannot
    be read leaves the earlier answer standing.
    """
    spoken = [turn for turn in table.latest(list(dict.fromkeys(turn.role for turn in table.turns))) if turn.answer]
    if not spoken:
        return {"answer": None, "stop_reason": "no answer"}
    groups = await runtime.context.env.group([turn.answer or "" for turn in spoken])
    winner, *others = [spoken[i] for i in dict.fromkeys(groups)]
    turns: list[Turn] = []
    for other in others:
        fields = {"question": table.question, "a": winner.reply, "b": other.reply}
        so_far = table.with_turns(turns)
        asked = await speak(so_far, runtime, [Ask(role, JUDGE, fields, reads=[winner, other])])
        turns += asked
        winner = other if isinstance(asked[-1].result, Judgement) and asked[-1].result.choice == "B" else winner
    return {"turns": turns, "answer": winner.answer, "stop_reason": "judged" if turns else "agreed"}


def plurality(groups: Sequence[int]) -> int | None:
    """The index that most answers are grouped under, the first seen on ties; None when there are no answers."""
    return Counter(groups).most_common(1)[0][0] if groups else None


async def count_votes(runtime: Runtime[Stage], turns: Sequence[Turn]) -> str | None:
    """The most frequent answer of the turns; the env says which are equivalent; turns without an answer abstain."""
    answers = [turn.answer for turn in turns if turn.answer is not None]
    winner = plurality(await runtime.context.env.group(answers)) if answers else None
    return None if winner is None else answers[winner]


async def _ask(table: Table, stage: Stage, ask: Ask, n: int, round: int, retries: int) -> list[Turn]:
    turns: list[Turn] = []
    for attempt in range(retries + 1):
        id = f"{ask.role}/{n}" + (f".{attempt}" if attempt else "")
        request = _request(table, stage, ask, id)
        asked_s = stage.seconds()
        completion = await stage.company.complete(ask.role, request)
        times = {"asked_s": asked_s, "answered_s": stage.seconds()}
        turns.append(_turn(table, ask, id, round, request, completion, times))
        stage.ledger.append(turns[-1])
        if turns[-1].failure is None:
            break
    return turns


def _request(table: Table, stage: Stage, ask: Ask, id: str) -> Request:
    messages = [*ask.outputs] or [Message("user", ask.move.render(**ask.fields))]
    history, prefix = [], ()
    if ask.follows is None:
        own = stage.company.instructions(ask.role)
        instructions = render_instructions(ask.instructions or base_role(ask.role), own, ask.fields)
        if instructions:
            messages.insert(0, Message("system", instructions))
    else:
        history = conversation(table.turns, ask.follows)
        prefix = (*ask.follows.prompt_ids, *ask.follows.token_ids) if ask.follows.token_ids else ()
    sampling = stage.company.sampling(ask.role)
    return Request(
        key=f"{stage.task.id}/{stage.sample}/{id}",
        messages=tuple(messages),
        sampling=replace(sampling, stop=(*ask.stop, *sampling.stop)) if ask.stop else sampling,
        seed=seed_of(stage.seed, stage.task.id, stage.sample, id),
        prefix=prefix,
        history=tuple(history),
        opening=ask.opening,
        choices=ask.choices,
        certainty=ask.certainty,
        tools=ask.tools,
        schema=ask.move.schema if stage.company.structured(ask.role) else None,
    )


def _parse(move: Move, reply: str) -> Any:
    try:
        return move.parse(reply)
    except Exception as error:  # noqa: BLE001 - a defect in a move's parser must not cost the turn
        return ParseFailure(expected=f"what the parser of {move.name} can read; it raised {type(error).__name__}")


def _turn(
    table: Table, ask: Ask, id: str, round: int, request: Request, completion: Completion, times: Mapping[str, Any]
) -> Turn:
    result = None if completion.tool_calls else _parse(ask.move, request.opening + completion.text)
    failed = isinstance(result, ParseFailure)
    return make_turn(
        request,
        completion,
        id=id,
        role=ask.role,
        move=ask.move.name,
        round=round,
        after=len(table.turns),
        reads=tuple(turn.id for turn in ask.reads),
        follows=ask.follows.id if ask.follows else None,
        result=None if failed else result,
        failure=Failure(expected=result.expected) if failed else None,
        **times,
    )
