"""Generate, verify, check the verification, refine: the inference of DeepSeekMath-V2, arXiv:2511.22570.

A pool of solutions; each is reviewed several times; a review that reports an error is checked by a meta-reviewer, and
counts only when that finds it right. A solution's score is the share of its counted reviews that find it correct. The
search stops at a solution that all find correct, else the best are refined by one of their confirmed reviews.

Departures: the published pool is 128 solutions with 4 ratings of 0, ½ and 1 each and up to 20 rounds; reviews here say
correct or incorrect, a refinement reads one review, and there is no self-score to break ties: the earlier solution
stands. When no review counts, a solution scores 0.5.
"""

from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import CHECK_REVIEW, REFINE
from agents.results import Critique, Review
from graphs.shapes import lane_roles
from graphs.solo import SOLVER
from graphs.table import Ask, Stage, Table, solve, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn
from graphs.votes import REVIEWER, review_of

META = "meta_reviewer"
Count = Annotated[int, Field(ge=1)]


@topology(
    roles=lambda pool=2, **_: (*lane_roles(SOLVER, pool), REVIEWER, META),
    calls=lambda pool=2, reviews=2, best=1, rounds=1: pool + (pool + rounds * best) * 2 * reviews + rounds * best,
)
def verify_refine(
    pool: Count = 2, reviews: Count = 2, best: Count = 1, rounds: Annotated[int, Field(ge=0)] = 1
) -> Graph:
    """
    Args:
        pool: solutions to begin with.
        reviews: of each solution; every one that reports an error is checked once.
        best: solutions that are refined in a round.
        rounds: most rounds of refinement.
    """
    roles = lane_roles(SOLVER, pool)

    async def generate(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, roles)

    async def verify(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        fresh = [turn for turn in state.turns if turn.role in roles and turn.round == state.round]
        said = await speak(state, runtime, [review_of(state, turn) for turn in fresh for _ in range(reviews)])
        doubts = [turn for turn in said if isinstance(turn.result, Review) and not turn.result.correct]
        state = state.with_turns(said)
        checks = await speak(state, runtime, [_check(state, review) for review in doubts])
        return {"turns": [*said, *checks]}

    async def refine(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        ranked = sorted(_solutions(state), key=lambda turn: -score(state, turn))
        asks = []
        for solution in ranked[:best]:
            confirmed = [review for review in counted(state, solution) if not review.result.correct]
            if confirmed:
                fields = {"feedback": confirmed[0].reply}
                asks.append(Ask(solution.role, REFINE, fields, reads=confirmed[:1], follows=solution))
        turns = await speak(state, runtime, asks, state.round + 1)
        return {"turns": turns, "round": state.round + 1, "stop_reason": "" if turns else "nothing to refine"}

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        chosen = max(_solutions(state), key=lambda turn: score(state, turn))
        return {"answer": chosen.answer, "stop_reason": state.stop_reason or f"score {score(state, chosen):.2f}"}

    async def goes_on(state: Table) -> str:
        found = max(score(state, turn) for turn in _solutions(state)) == 1
        return "settle" if found or state.round > rounds else "refine"

    async def after_refine(state: Table) -> str:
        return "settle" if state.stop_reason else "verify"

    graph = StateGraph(Table, context_schema=Stage)
    for node in (generate, verify, refine, settle):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "generate")
    graph.add_edge("generate", "verify")
    graph.add_conditional_edges("verify", goes_on, ["refine", "settle"])
    graph.add_conditional_edges("refine", after_refine, ["verify", "settle"])
    graph.add_edge("settle", END)
    return graph.compile()


def counted(state: Table, solution: Turn) -> list[Turn]:
    """The reviews of a solution that count: those that find it correct, and those whose errors were confirmed."""
    reviews = [t for t in state.by(REVIEWER) if t.reads == (solution.id,) and isinstance(t.result, Review)]
    confirmed = {
        check.reads[1] for check in state.by(META) if isinstance(check.result, Critique) and check.result.correct
    }
    return [review for review in reviews if review.result.correct or review.id in confirmed]


def score(state: Table, solution: Turn) -> float:
    """Share of the counted reviews that find a solution correct; a solution without an answer scores 0."""
    if solution.answer is None:
        return 0.0
    reviews = counted(state, solution)
    return sum(review.result.correct for review in reviews) / len(reviews) if reviews else 0.5


def _solutions(state: Table) -> list[Turn]:
    return [turn for turn in state.turns if turn.role.startswith(SOLVER)]


def _check(state: Table, review: Turn) -> Ask:
    solution = state.turn(review.reads[0])
    fields = {"question": state.question, "solution": solution.reply, "review": review.reply}
    return Ask(META, CHECK_REVIEW, fields, reads=[solution, review])
