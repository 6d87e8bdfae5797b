"""Actor and critic: a solution, feedback on it, a solution mended by it; again until there is nothing to mend.

One loop, several sources of feedback:

- `self_refine`: the solver reviews its own solution, in a conversation of its own. Madaan et al., arXiv:2303.17651.
- `actor_critic`: a reviewer marks each step and gives a verdict; `lanes` solutions are refined side by side and their
  last answers vote. MathCritique, arXiv:2411.16579. How it is trained: experiments.training.critique_loop.
- `self_debug`: the env runs the solution and says what it finds. Chen et al., arXiv:2304.05128. An env that cannot run
  solutions is refused.
- `friction`: feedback from the known answer, which never shows it; up to ten rounds. Feedback Friction,
  arXiv:2506.11930, its binary form: what stays wrong resisted the feedback. An answer that cannot be judged is left.

A review that cannot be read asks for nothing to be mended.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import REFINE, REVIEW
from agents.results import Review
from agents.types import EngineError
from envs.types import Checks
from graphs.shapes import lane_roles, loop
from graphs.solo import SOLVER
from graphs.table import Ask, Stage, Table, count_votes, solve, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn
from graphs.votes import REVIEWER, review_of

Rounds = Annotated[int, Field(ge=0)]
Feedback = Callable[[Table, Runtime[Stage], Sequence[Turn]], Awaitable[tuple[list[str | None], list[Turn]]]]
"""For each solution what is to be mended, None when nothing is; and the turns that it took, one a solution or none."""


def refining(feedback: Feedback, rounds: int, lanes: int = 1, judged: bool = False) -> Graph:
    """The loop.

    Args:
        feedback: asked of all lanes that are not done, at once.
        rounds: most refinements of a lane.
        lanes: solutions that are refined side by side.
        judged: whether a note holds the env's verdict on every solution, by turn.
    """
    roles = lane_roles(SOLVER, lanes)

    async def answer(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, roles)

    def solutions(state: Table) -> list[Turn]:
        # Its own reviews are turns of the solver too.
        last = {turn.role: turn for turn in state.turns if turn.role in roles and turn.move != REVIEW.name}
        return [last[role] for role in roles]

    async def refine(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        # A lane is open as long as its solution is of the latest round.
        latest = [turn for turn in solutions(state) if turn.round == state.round]
        texts, said = await feedback(state, runtime, latest)
        reviews = said or [None] * len(texts)
        asks = [
            Ask(solution.role, REFINE, {"feedback": text}, reads=[review] if review else [], follows=solution)
            for solution, text, review in zip(latest, texts, reviews, strict=True)
            if text is not None
        ]
        mended = await speak(state.with_turns(said), runtime, asks, state.round + 1)
        reason = "" if mended else "nothing to mend"
        return {"turns": [*said, *mended], "round": state.round + bool(mended), "stop_reason": reason}

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        reason = state.stop_reason or f"{rounds} rounds"
        if judged:
            said = [turn for turn in state.turns if turn.role in roles and turn.move != REVIEW.name]
            runtime.context.notes.append({"verdicts": await _verdicts(runtime.context, said)})
        return {"answer": await count_votes(runtime, solutions(state)), "stop_reason": reason}

    return loop(answer, refine, settle, lambda state: bool(state.stop_reason) or state.round > rounds)


@topology(roles=lambda rounds=2: (SOLVER,), calls=lambda rounds=2: 1 + 2 * rounds)
def self_refine(rounds: Rounds = 2) -> Graph:
    """The solver reviews its own solution and mends it.

    Args:
        rounds: most refinements; each costs a review and a solution.
    """

    async def feedback(
        state: Table, runtime: Runtime[Stage], solutions: Sequence[Turn]
    ) -> tuple[list[str | None], list[Turn]]:
        return await _reviewed(state, runtime, [_own_review(state, turn) for turn in solutions])

    return refining(feedback, rounds)


@topology(
    roles=lambda lanes=2, **_: (*lane_roles(SOLVER, lanes), *lane_roles(REVIEWER, lanes)),
    calls=lambda lanes=2, rounds=1, **_: lanes * (1 + 2 * rounds),
)
def actor_critic(lanes: Annotated[int, Field(ge=1)] = 2, rounds: Rounds = 1, judged: bool = False) -> Graph:
    """Reviewers mark the steps of solutions, which are mended and then vote.

    Args:
        lanes: solutions that are refined side by side.
        rounds: most refinements of each; each costs a review and a solution.
        judged: write down of every solution whether it is right, to be learned from.
    """

    async def feedback(
        state: Table, runtime: Runtime[Stage], solutions: Sequence[Turn]
    ) -> tuple[list[str | None], list[Turn]]:
        asks = [review_of(state, turn, turn.role.replace(SOLVER, REVIEWER)) for turn in solutions]
        return await _reviewed(state, runtime, asks)

    return refining(feedback, rounds, lanes, judged)


@topology(roles=lambda rounds=3: (SOLVER,), calls=lambda rounds=3: 1 + rounds)
def self_debug(rounds: Rounds = 3) -> Graph:
    """The env runs the solution, which is mended by what that shows.

    Args:
        rounds: most refinements.
    """

    async def feedback(
        state: Table, runtime: Runtime[Stage], solutions: Sequence[Turn]
    ) -> tuple[list[str | None], list[Turn]]:
        env = runtime.context.env
        if not isinstance(env, Checks):
            raise EngineError(f"env {env.name} cannot run solutions; self_debug needs one that has `check`")
        return [await env.check(runtime.context.task, turn.reply) for turn in solutions], []

    return refining(feedback, rounds)


@topology(roles=lambda rounds=10: (SOLVER,), calls=lambda rounds=10: 1 + rounds)
def friction(rounds: Rounds = 10) -> Graph:
    """The solver is told whether it is right, until it is.

    Args:
        rounds: most refinements.
    """

    async def feedback(
        state: Table, runtime: Runtime[Stage], solutions: Sequence[Turn]
    ) -> tuple[list[str | None], list[Turn]]:
        stage = runtime.context
        verdicts = [await stage.env.judge(stage.task, turn.answer) for turn in solutions]
        wrong = [verdict.status in ("incorrect", "unparsed") for verdict in verdicts]
        return ["Your answer is wrong." if found else None for found in wrong], []

    return refining(feedback, rounds)


async def _verdicts(stage: Stage, solutions: Sequence[Turn]) -> dict[str, str]:
    """Turn id -> the verdict's status."""
    return {turn.id: (await stage.env.judge(stage.task, turn.answer)).status for turn in solutions}


async def _reviewed(state: Table, runtime: Runtime[Stage], asks: Sequence[Ask]) -> tuple[list[str | None], list[Turn]]:
    turns = await speak(state, runtime, asks)
    wrong = [isinstance(turn.result, Review) and not turn.result.correct for turn in turns]
    return [turn.reply if found else None for turn, found in zip(turns, wrong, strict=True)], turns


def _own_review(state: Table, solution: Turn) -> Ask:
    return Ask(solution.role, REVIEW, {"question": state.question, "solution": solution.reply}, reads=[solution])
