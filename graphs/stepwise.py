"""Stepwise critique: a critic judges each step; from the first wrong one on the solver writes the solution anew.

The step-level critic of SPC (arXiv:2504.19162) and MathCritique (arXiv:2411.16579) in use: what stands before the
first step found wrong is kept to the letter, and the model goes on from there. `lanes` solutions are mended side by
side and their last answers vote. A verdict that cannot be read lets a step stand; the step that holds the answer alone
is no step to be judged.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import CRITIQUE, SOLVE
from agents.results import Critique
from envs.steps import NONE, given
from envs.types import final_answer, split_steps
from graphs.shapes import chain, lane_roles, loop
from graphs.solo import SOLVER
from graphs.table import Ask, Stage, Table, count_votes, solve, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn

CRITIC = "critic"


@topology(roles=lambda lanes=1, rounds=2: (*lane_roles(SOLVER, lanes), *lane_roles(CRITIC, lanes)))
def stepwise(lanes: Annotated[int, Field(ge=1)] = 1, rounds: Annotated[int, Field(ge=0)] = 2) -> Graph:
    """
    Args:
        lanes: solutions that are mended side by side.
        rounds: most times that each is written anew; a round asks the critic once for every step.
    """
    solvers = lane_roles(SOLVER, lanes)

    async def answer(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, solvers)

    async def mend(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        solutions = [turn for turn in state.latest(solvers) if turn.round == state.round]
        steps = {turn.id: judged_steps(turn) for turn in solutions}
        asks = [
            critique_of(state, turn.role.replace(SOLVER, CRITIC), steps[turn.id], i, [turn])
            for turn in solutions
            for i in range(len(steps[turn.id]))
        ]
        verdicts = await speak(state, runtime, asks)
        wrong = [_first_wrong(turn, verdicts) for turn in solutions]
        again = [
            Ask(turn.role, SOLVE, {"question": state.question}, reads=[verdicts[at]], opening="".join(kept))
            for turn, found in zip(solutions, wrong, strict=True)
            if found is not None
            for at, kept in [(found[0], steps[turn.id][: found[1]])]
        ]
        mended = await speak(state.with_turns(verdicts), runtime, again, state.round + 1)
        reason = "" if mended else "no step found wrong"
        return {"turns": [*verdicts, *mended], "round": state.round + bool(mended), "stop_reason": reason}

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        reason = state.stop_reason or f"{rounds} rounds"
        return {"answer": await count_votes(runtime, state.latest(solvers)), "stop_reason": reason}

    return loop(answer, mend, settle, lambda state: bool(state.stop_reason) or state.round > rounds)


@topology(roles=lambda **settings: (CRITIC,))
def judge_steps(retries: Annotated[int, Field(ge=0)] = 0) -> Graph:
    """A critic judges the steps that env `steps` gives, each on its own; the answer is the first that it finds wrong,
    from 0, or none. As SPC is evaluated on ProcessBench.

    Args:
        retries: how often a critic is asked again whose verdict cannot be read; then there is no answer.
    """

    async def verdicts(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        steps, judged = given(runtime.context.task)
        lines = [step if step.endswith("\n") else f"{step}\n" for step in steps]
        turns = await speak(state, runtime, [critique_of(state, CRITIC, lines, at) for at in judged], 1, retries)
        last = [turn for turn, after in pairwise([*turns, None]) if turn and not (after and after.is_retry)]
        runtime.context.notes.extend({"judged": turn.id, "step": at} for turn, at in zip(last, judged, strict=True))
        update = {"turns": turns, "round": 1}
        if any(turn.failure for turn in last):
            return {**update, "answer": None, "stop_reason": "a verdict that cannot be read"}
        wrong = next((at for turn, at in zip(last, judged, strict=True) if _is_wrong(turn)), None)
        return {**update, "answer": NONE if wrong is None else str(wrong), "stop_reason": "judged"}

    return chain(verdicts)


def judged_steps(solution: Turn) -> list[str]:
    """The steps of a solution before the one that gives the answer."""
    steps = split_steps(solution.reply)
    return [step for step in steps if not (final_answer(step) and step is steps[-1])]


def critique_of(state: Table, role: str, steps: Sequence[str], at: int, reads: Sequence[Turn] = ()) -> Ask:
    """A critic asked whether one step is right after those before it."""
    fields = {"question": state.question, "steps": "".join(steps[:at]).rstrip(), "step": steps[at].strip()}
    return Ask(role, CRITIQUE, fields, reads=reads, instructions=CRITIC)


def _first_wrong(solution: Turn, verdicts: list[Turn]) -> tuple[int, int] | None:
    """Index of the verdict and of the step that is the first found wrong."""
    own = [i for i, verdict in enumerate(verdicts) if verdict.reads == (solution.id,)]
    wrong = [(i, step) for step, i in enumerate(own) if _is_wrong(verdicts[i])]
    return wrong[0] if wrong else None


def _is_wrong(verdict: Turn) -> bool:
    return isinstance(verdict.result, Critique) and not verdict.result.correct
