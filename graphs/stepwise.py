"""Stepwise critique: a critic judges each step; from the first wrong one on the solver writes the solution anew.

The step-level critic of SPC (arXiv:2504.19162) and MathCritique (arXiv:2411.16579) in use: what stands before the
first step found wrong is kept to the letter, and the model goes on from there. `lanes` solutions are mended side by
side and their last answers vote. A verdict that cannot be read lets a step stand; the step that holds the answer alone
is no step to be judged.
"""

from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import CRITIQUE, SOLVE
from agents.results import Critique
from envs.types import final_answer, split_steps
from graphs.shapes import lane_roles, loop
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
        asks = [_critique(state, turn, steps[turn.id], i) for turn in solutions for i in range(len(steps[turn.id]))]
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


def judged_steps(solution: Turn) -> list[str]:
    """The steps of a solution before the one that gives the answer."""
    steps = split_steps(solution.reply)
    return [step for step in steps if not (final_answer(step) and step is steps[-1])]


def _critique(state: Table, solution: Turn, steps: list[str], at: int) -> Ask:
    fields = {"question": state.question, "steps": "".join(steps[:at]).rstrip(), "step": steps[at].strip()}
    return Ask(solution.role.replace(SOLVER, CRITIC), CRITIQUE, fields, reads=[solution], instructions=CRITIC)


def _first_wrong(solution: Turn, verdicts: list[Turn]) -> tuple[int, int] | None:
    """Index of the verdict and of the step that is the first found wrong."""
    own = [i for i, verdict in enumerate(verdicts) if verdict.reads == (solution.id,)]
    wrong = [(i, step) for step, i in enumerate(own) if _is_wrong(verdicts[i])]
    return wrong[0] if wrong else None


def _is_wrong(verdict: Turn) -> bool:
    return isinstance(verdict.result, Critique) and not verdict.result.correct
