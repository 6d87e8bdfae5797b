"""Step search: a solution is searched for step by step, a critic deciding which step is kept.

Test-time search with the critic of SPC (arXiv:2504.19162): a step is written and judged; one found wrong is written
anew, at most `attempts` times in all, and the last one is kept. What is kept is never judged again, and stays to the
letter. Several searched solutions vote. As published: `attempts=5 judge=all agree=0`.

Departures: the solver writes on to the end, and of that as much is kept as stands before the first step that is
rejected. Steps so kept are distributed as steps written one at a time, and take far fewer calls. A last attempt is kept
whatever is said of it, so that nobody is asked. Lanes that write the same step after the same beginning share one
verdict. With `judge=disputed` a step that all lanes with its beginning write stands unasked. Lanes are begun as they
are needed, and the search is over once `agree` of them have the same answer: right answers coincide, wrong ones mostly
do not. With `attempts=1` nobody is asked and that alone is left, which is what the critic has to be compared with.

A verdict that cannot be read lets a step stand; the step that holds the answer alone is no step to be judged. As the
published critic is, ours is best asked at temperature 0: `critic.temperature=0` in the cast.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import SOLVE
from envs.types import final_answer, split_steps
from graphs.shapes import loop
from graphs.solo import SOLVER
from graphs.spc import detects
from graphs.stepwise import CRITIC, critique_of
from graphs.table import Ask, Stage, Table, count_votes, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn

ROUNDS = 150
"""After so many, lanes stand as they are: an episode's supersteps are limited."""

Place = tuple[str, ...]
"""What a step comes after and the step, each without the space around it."""


@dataclass(frozen=True)
class Lane:
    """One solution that is searched for."""

    turn: Turn
    """The solver's last on it: what is kept, and what it wrote from there on."""
    steps: tuple[str, ...]
    """Without the one that holds the answer."""
    kept: int = 0
    tries: int = 1
    """Attempts at the first step that is not kept."""

    @property
    def ended(self) -> bool:
        return self.kept == len(self.steps)

    @property
    def place(self) -> Place:
        return tuple(step.strip() for step in self.steps[: self.kept + 1])

    def keep(self) -> "Lane":
        return replace(self, kept=self.kept + 1, tries=1)

    def anew(self, turn: Turn) -> "Lane":
        """With another attempt at the step in place of it and all that came after."""
        return Lane(turn, (*self.steps[: self.kept], *_written(turn)), self.kept, self.tries + 1)


@dataclass
class Search(Table):
    """Lanes, and what has been said of their steps."""

    lanes: tuple[Lane, ...] = ()
    verdicts: Mapping[Place, Turn] = field(default_factory=dict)


@topology(roles=lambda **_: (SOLVER, CRITIC))
def step_search(
    lanes: Annotated[int, Field(ge=1)] = 16,
    attempts: Annotated[int, Field(ge=1)] = 2,
    judge: Literal["disputed", "all"] = "disputed",
    agree: Annotated[int, Field(ge=0)] = 3,
) -> Graph:
    """
    Args:
        lanes: most solutions searched for; another is begun when those so far are searched and too few agree.
        attempts: most at one step.
        judge: which steps the critic is asked about: all, or those where lanes that begin alike go on differently.
        agree: lanes whose answers end the search when they are the same; 0 searches all lanes to the end.
    """

    async def begin(state: Search, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await _begun(state, runtime, min(lanes, agree or lanes))

    async def search(state: Search, runtime: Runtime[Stage]) -> dict[str, Any]:
        alike = await _alike(state, runtime)
        if agree and alike >= agree:
            return {"stop_reason": f"{alike} agree"}
        moved = replace(state, lanes=_moved(state, attempts, judge == "disputed"))
        if any(not lane.ended for lane in moved.lanes):
            return await _tried(moved, runtime)
        more = min(lanes - len(moved.lanes), max(1, agree - alike))
        return await _begun(moved, runtime, more) if more else {"stop_reason": "all steps kept"}

    async def settle(state: Search, runtime: Runtime[Stage]) -> dict[str, Any]:
        answer = await count_votes(runtime, [lane.turn for lane in state.lanes])
        return {"answer": answer, "stop_reason": state.stop_reason or f"{ROUNDS} rounds"}

    return loop(begin, search, settle, lambda state: bool(state.stop_reason) or state.round >= ROUNDS, Search)


async def _begun(state: Search, runtime: Runtime[Stage], number: int) -> dict[str, Any]:
    """More lanes."""
    round = state.round + 1
    turns = await speak(state, runtime, [Ask(SOLVER, SOLVE, {"question": state.question})] * number, round)
    return {"turns": turns, "round": round, "lanes": (*state.lanes, *(Lane(turn, _written(turn)) for turn in turns))}


async def _alike(state: Search, runtime: Runtime[Stage]) -> int:
    """How many lanes have the answer that most have."""
    answers = [lane.turn.answer for lane in state.lanes if lane.turn.answer is not None]
    return max(Counter(await runtime.context.env.group(answers)).values()) if answers else 0


def _moved(state: Search, attempts: int, disputed: bool) -> tuple[Lane, ...]:
    """The lanes with all kept that is kept without asking."""
    written = [tuple(step.strip() for step in lane.steps) for lane in state.lanes]

    def is_kept(lane: Lane) -> bool:
        before, here = lane.place[:-1], len(lane.place)
        if lane.tries >= attempts:
            return True
        if lane.place in state.verdicts:
            return not detects(state.verdicts[lane.place])
        return disputed and {
            steps[:here] for steps in written if len(steps) >= here and steps[: here - 1] == before
        } == {lane.place}

    def moved(lane: Lane) -> Lane:
        while not lane.ended and is_kept(lane):
            lane = lane.keep()
        return lane

    return tuple(map(moved, state.lanes))


async def _tried(state: Search, runtime: Runtime[Stage]) -> dict[str, Any]:
    """The steps that lanes have come to are judged, and those found wrong written anew."""
    here = [lane for lane in state.lanes if not lane.ended]
    asked = list({lane.place: lane for lane in reversed(here) if lane.place not in state.verdicts}.values())[::-1]
    asks = [critique_of(state, CRITIC, lane.steps, lane.kept, [lane.turn]) for lane in asked]
    round = state.round + 1
    critiques = await speak(state, runtime, asks, round)
    for lane, critique in zip(asked, critiques, strict=True):
        found = {"place": lane.kept, "step": lane.place[-1], "critique": critique.id, "stands": not detects(critique)}
        runtime.context.notes.append(found)
    verdicts = {**state.verdicts, **{lane.place: said for lane, said in zip(asked, critiques, strict=True)}}
    wrong = [lane for lane in here if detects(verdicts[lane.place])]
    question = {"question": state.question}
    again = [
        Ask(SOLVER, SOLVE, question, [verdicts[lane.place]], opening="".join(lane.steps[: lane.kept])) for lane in wrong
    ]
    turns = await speak(state.with_turns(critiques), runtime, again, round)
    mended = {lane.turn.id: lane.anew(turn) for lane, turn in zip(wrong, turns, strict=True)}
    lanes = tuple(mended.get(lane.turn.id, lane) for lane in state.lanes)
    return {"turns": [*critiques, *turns], "round": round, "lanes": lanes, "verdicts": verdicts}


def _written(turn: Turn) -> tuple[str, ...]:
    """The steps of what a turn wrote itself, each with what ends it, without the one that holds the answer."""
    steps = split_steps(turn.reply.removeprefix(turn.opening))
    before = [step for step in steps if step.strip() and not (step is steps[-1] and final_answer(step))]
    return tuple(step if step != step.rstrip() else f"{step}\n" for step in before)
