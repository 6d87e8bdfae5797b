"""The episode page: its turns as a graph and as a transcript, what each came to, and what was asked exactly."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.types import Message, ToolCall
from envs.types import Task
from experiments.viewer.episode_records import (
    Edge,
    EpisodePage,
    MessageView,
    MindChange,
    PromptView,
    RoundView,
    Sibling,
    TaskView,
    TextView,
    TokensView,
    ToolCallView,
    TurnView,
)
from experiments.viewer.keys import at, text_at
from experiments.viewer.library import Library
from experiments.viewer.looking import groups, right
from experiments.viewer.notes import read_notes
from experiments.viewer.pieces import pieces_of, text_of
from experiments.viewer.records import Filter, Right, Sort, Turned
from experiments.viewer.rewards import Credited, credited
from experiments.viewer.run_page import LETTERS, open_run, select
from experiments.viewer.runs_page import fork_of, forks_of
from experiments.viewer.steps import marked_steps, units
from experiments.viewer.stored import PAGE, TEXT, StoredEpisode, StoredTurn, clipped, read_stored, read_turn
from graphs.turns import Turn

SHORT = 2000
"""Characters of what a parser made of a reply, by field."""


def read_episode(
    library: Library, key: str, position: int, filter: Filter = "all", sort: Sort = "position", task: str = ""
) -> EpisodePage:
    """One episode, and its neighbours under a filter.

    Raises:
        NotThereError: there is no such run or episode.
    """
    path, outcomes, looks = open_run(library, key)
    stored = read_stored(path, position)
    config = _config(library, path)
    chosen = [outcomes.rows[i].position for i in select(outcomes, looks, filter, sort, task)]
    place = chosen.index(position) if position in chosen else None
    earned = credited(library, path)
    notes = read_notes(stored)
    turns = _turns(stored, earned, notes.contributions, frozenset(at(config, "fork", "replayed") or ()))
    same_task = [outcomes.rows[i] for i in outcomes.by_task.get(stored.task.id, [])]
    return EpisodePage(
        run=key,
        name=path.name,
        topology=text_at(config, "topology", "name"),
        env=text_at(config, "env", "name"),
        position=position,
        previous=chosen[place - 1] if place else None,
        next=chosen[place + 1] if place is not None and place + 1 < len(chosen) else None,
        place=place,
        total=len(chosen),
        task=_task(stored.task),
        sample=stored.sample,
        status=stored.status,
        score=stored.verdict.score if stored.verdict else None,
        reason=stored.verdict.reason[:SHORT] if stored.verdict else "",
        answer=None if stored.answer is None else clipped(stored.answer),
        stop_reason=stored.stop_reason,
        failure=stored.failure,
        seconds=stored.seconds,
        roles=list(dict.fromkeys(turn.role for turn in turns)),
        turns=turns,
        edges=[edge for turn in turns for edge in _edges(turn, notes.weights)],
        rounds=_rounds(turns, notes.rounds),
        disagreements=_disagreements(turns),
        notes=notes.rest,
        credit=earned.note,
        siblings=[
            Sibling(position=row.position, sample=row.sample, status=row.status)  # pyright: ignore[reportArgumentType]
            for row in same_task
            if row.position != position and row.status in LETTERS
        ],
        parent=fork_of(config),
        forks=[f.model_copy(update={"run": branch}) for branch, f in forks_of(library, key) if f.position == position],
        problems=stored.problems,
    )


def read_question(library: Library, key: str, position: int) -> TextView:
    path, _, _ = open_run(library, key)
    return TextView(turn="", text=read_stored(path, position).task.question)


def read_reply(library: Library, key: str, position: int, turn: str) -> TextView:
    """The whole reply of a turn. Raises NotThereError."""
    path, _, _ = open_run(library, key)
    return TextView(turn=turn, text=read_turn(path, position, turn).reply)


def read_tokens(library: Library, key: str, position: int, id: str) -> TokensView:
    """What was sampled, token by token. Raises NotThereError."""
    path, _, _ = open_run(library, key)
    turn = read_turn(path, position, id)
    why_not = None if turn.token_ids else "the engine gave no token ids"
    pieces = None
    if turn.token_ids:
        pieces, why_not = pieces_of(_config(library, path), turn)
    return TokensView(
        turn=id,
        ids=list(turn.token_ids),
        pieces=pieces,
        logprobs=list(turn.logprobs),
        certainty=list(turn.certainty),
        choices=list(turn.choice_logprobs),
        why_not=why_not,
    )


def read_prompt(library: Library, key: str, position: int, id: str, whole: bool = False) -> PromptView:
    """The whole conversation that a turn was asked with, and where its tokenizer is at hand the text of its token ids.

    Raises:
        NotThereError: there is no such turn.
    """
    path, _, _ = open_run(library, key)
    stored = {entry.turn.id: entry.turn for entry in read_stored(path, position).turns}
    turn = read_turn(path, position, id)
    most = 2**62 if whole else TEXT
    chain: list[Turn] = []
    earlier = turn.follows
    while earlier in stored and all(earlier != known.id for known in chain):
        chain.append(stored[earlier])
        earlier = chain[-1].follows
    messages: list[MessageView] = []
    for before in reversed(chain):
        messages += [_message(message, before.id, most) for message in before.messages]
        messages.append(_message(Message("assistant", before.reply, before.tool_calls), before.id, most))
    messages += [_message(message, id, most) for message in turn.messages]
    text = text_of(_config(library, path), turn)
    return PromptView(
        turn=id,
        messages=messages,
        text=None if text is None else clipped(text, most),
        tokens=len(turn.prompt_ids) or turn.prompt_tokens,
    )


def _config(library: Library, path: Path) -> dict[str, Any]:
    try:
        return library.config(path)
    except ValueError:
        return {}


def _task(task: Task) -> TaskView:
    details = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in task.details.items()]
    return TaskView(
        id=task.id,
        question=clipped(task.question),
        answers=[answer[:SHORT] for answer in task.answers],
        details=[(name, value[:SHORT]) for name, value in details],
    )


def _turns(
    stored: StoredEpisode, earned: Credited, contributions: Mapping[str, float], replayed: frozenset[str]
) -> list[TurnView]:
    turns = [entry.turn for entry in stored.turns]
    most = min(TEXT, max(1000, PAGE // max(1, len(turns))))
    answered = [turn for turn in turns if turn.answer]
    numbers = dict(zip((t.id for t in answered), _numbered([t.answer or "" for t in answered]), strict=True))
    accepted, status = stored.task.answers, stored.status
    rights: dict[str, Right] = {turn.id: right(turn.answer or "", accepted, status, stored.answer) for turn in answered}
    steps = marked_steps(turns, most)
    outputs = {message.tool_call_id: message.content for turn in turns for message in turn.messages}
    views: list[TurnView] = []
    for entry in stored.turns:
        turn = entry.turn
        key = f"{stored.task.id}/{stored.sample}/{turn.id}"
        before = _previous(turn, turns[: len(views)])
        views.append(
            TurnView(
                **_said(entry, most),
                previous=before.id if before else None,
                tool_calls=[_tool_call(call, outputs) for call in turn.tool_calls],
                answer=turn.answer and turn.answer[:SHORT],
                right=rights.get(turn.id),
                group=numbers.get(turn.id),
                mind=_mind(turn, before, numbers, rights),
                steps=steps.get(turn.id, []),
                rewards=sorted(earned.terms.get(key, {}).items()),
                reward=earned.rewards.get(key),
                advantage=earned.advantages.get(key),
                contribution=contributions.get(turn.id),
                replayed=turn.id in replayed,
            )
        )
    return views


def _said(entry: StoredTurn, most: int) -> dict[str, Any]:
    """The fields of a turn that are shown as they are stored."""
    turn = entry.turn
    same = ("id", "role", "move", "round", "after", "follows", "policy", "version", "finish", "temperature", "top_p")
    times = ("asked_s", "answered_s", "queue_s", "compute_s", "prompt_tokens", "completion_tokens")
    result = turn.result.model_dump() if hasattr(turn.result, "model_dump") else turn.result
    fields = result.items() if isinstance(result, dict) else [] if result is None else [("value", result)]
    named = [("type", type(turn.result).__name__)] if hasattr(turn.result, "model_dump") else []
    return {
        **{name: getattr(turn, name) for name in (*same, *times)},
        "reads": list(turn.reads),
        "retry": turn.is_retry,
        "reply": clipped(turn.reply, most),
        "opening": units(turn.opening),
        "result": [*named, *((str(name), str(value)[:SHORT]) for name, value in fields)],
        "failure": turn.failure and turn.failure.expected,
        "seed": str(turn.seed),
        "tokens": entry.tokens,
        "mean_logprob": entry.mean_logprob,
    }


def _previous(turn: Turn, earlier: Sequence[Turn]) -> Turn | None:
    """The role's own turn that this one is a new version of: the one it follows, else its last of a round before."""
    own = [other for other in earlier if other.role == turn.role]
    followed = next((other for other in own if other.id == turn.follows), None)
    if turn.is_retry:
        return own[-1] if own else None
    return followed or next((other for other in reversed(own) if other.round < turn.round), None)


def _mind(
    turn: Turn, before: Turn | None, numbers: Mapping[str, int], rights: Mapping[str, Right]
) -> MindChange | None:
    if before is None or turn.id not in numbers or before.id not in numbers:
        return None
    if numbers[turn.id] == numbers[before.id]:
        return None
    ways: dict[tuple[Right, Right], Turned] = {
        ("incorrect", "correct"): "to right",
        ("correct", "incorrect"): "to wrong",
    }
    turned = ways.get((rights[before.id], rights[turn.id]))
    return MindChange(since=before.id, before=(before.answer or "")[:SHORT], turned=turned)


def _numbered(answers: Sequence[str]) -> list[int]:
    """Of equal answers the same number, from 0 in the order of their coming."""
    firsts = groups(answers) if answers else []
    order = {first: number for number, first in enumerate(dict.fromkeys(firsts))}
    return [order[first] for first in firsts]


def _edges(turn: TurnView, weights: Mapping[tuple[int, str, str], float]) -> list[Edge]:
    reader = turn.role
    found = [
        Edge(source=id, target=turn.id, kind="reads", weight=weights.get((turn.round, id.rpartition("/")[0], reader)))
        for id in turn.reads
    ]
    return found + ([Edge(source=turn.follows, target=turn.id, kind="follows", weight=None)] if turn.follows else [])


def _rounds(turns: Sequence[TurnView], noted: Mapping[int, RoundView]) -> list[RoundView]:
    numbers = sorted({turn.round for turn in turns} | set(noted))
    empty = {number: RoundView(round=number, turns=[], contributions=[], links=[]) for number in numbers}
    return [
        (noted.get(number) or empty[number]).model_copy(
            update={"turns": [turn.id for turn in turns if turn.round == number]}
        )
        for number in numbers
    ]


def _disagreements(turns: Sequence[TurnView]) -> list[str]:
    by_round: dict[int, list[TurnView]] = {}
    for turn in turns:
        if turn.group is not None:
            by_round.setdefault(turn.round, []).append(turn)
    return [said[0].id for said in by_round.values() if len({turn.group for turn in said}) > 1]


def _tool_call(call: ToolCall, outputs: Mapping[str, str]) -> ToolCallView:
    output = outputs.get(call.id) if call.id else None
    return ToolCallView(
        id=call.id,
        name=call.name,
        arguments=clipped(call.arguments),
        output=None if output is None else clipped(output),
    )


def _message(message: Message, turn: str, most: int) -> MessageView:
    calls = [_tool_call(call, {}) for call in message.tool_calls]
    return MessageView(role=message.role, content=clipped(message.content, most), tool_calls=calls, turn=turn)
