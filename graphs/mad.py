"""MAD: an affirmative and a negative side debate; a moderator may end it each round; a judge decides what is left open.

Liang et al., arXiv:2305.19118. Each round the affirmative speaks, then the negative, then the moderator, who ends the
debate when it prefers an answer (adaptive break, the discriminative mode). Without a break in `rounds` rounds a judge
in a fresh conversation lists the candidates and then decides (the extractive mode). `level` is the tit-for-tat
sentence in both debaters' instructions, and nowhere else: 0 full consensus … 3 disagree on everything.

Departures from the published code: the debate breaks on a preference *and* an answer (theirs: any non-empty answer);
the judge reads the whole debate (theirs: each side's first statement; `first_statements` restores it); a moderator's
reply that cannot be read is no preference, and is recorded as a failure; replies are JSON, read without `eval`, with
the reason before the decision. With `base`, as for translation, the affirmative answers first without debating and
then restates (one call more). The paper samples at temperature 0; here the cast says.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import CONCLUDE, LIST_CANDIDATES, MODERATE, OPEN, OPPOSE, REBUT, RESTATE, Move
from agents.results import Moderation
from graphs.table import Ask, Stage, Table, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn

AFFIRMATIVE, NEGATIVE, MODERATOR, JUDGE = "affirmative", "negative", "moderator", "judge"
INSTRUCTIONS = {AFFIRMATIVE: "advocate", NEGATIVE: "advocate", MODERATOR: "moderator", JUDGE: "extractor"}
EXTRACTED = "extractive judge"


def _calls(level: int = 2, rounds: int = 3, base: bool = False, first_statements: bool = False) -> int:
    return 3 * rounds + 2 + base


@topology(roles=lambda **settings: (AFFIRMATIVE, NEGATIVE, MODERATOR, JUDGE), calls=_calls)
def mad(
    level: Annotated[int, Field(ge=0, le=3)] = 2,
    rounds: Annotated[int, Field(ge=1)] = 3,
    base: bool = False,
    first_statements: bool = False,
) -> Graph:
    """
    Args:
        level: how much the sides are to disagree, 0 to 3.
        rounds: most rounds before the judge decides.
        base: the affirmative answers once before the debate and opens it by restating.
        first_statements: the judge reads only each side's first statement, as the published code has it.
    """

    async def say(
        table: Table, runtime: Runtime[Stage], role: str, move: Move, reads: Sequence[Turn] = (), **fields: Any
    ) -> dict[str, Any]:
        """One call of a role, which goes on from its own last turn."""
        fields = {"question": table.question, "level": level, "round": table.round, **fields}
        ask = Ask(role, move, fields, reads, follows=table.last(role), instructions=INSTRUCTIONS[role])
        return {"turns": await speak(table, runtime, [ask])}

    async def answer_first(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await say(state, runtime, AFFIRMATIVE, OPEN)

    async def open_round(state: Table) -> dict[str, Any]:
        return {"round": state.round + 1}

    async def affirm(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        opponent = state.last(NEGATIVE)
        if opponent:
            return await say(state, runtime, AFFIRMATIVE, REBUT, [opponent], opponent=opponent.reply)
        return await say(state, runtime, AFFIRMATIVE, RESTATE if base else OPEN)

    async def negate(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        opponent = state.by(AFFIRMATIVE)[-1]
        move = OPPOSE if state.round == 1 else REBUT
        return await say(state, runtime, NEGATIVE, move, [opponent], opponent=opponent.reply)

    async def moderate(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        sides = {side: state.by(side)[-1] for side in (AFFIRMATIVE, NEGATIVE)}
        texts = {side: turn.reply for side, turn in sides.items()}
        update = await say(state, runtime, MODERATOR, MODERATE, list(sides.values()), **texts)
        verdict = update["turns"][-1].result
        if isinstance(verdict, Moderation) and verdict.ends_debate:
            update |= {"answer": verdict.answer, "stop_reason": f"break in round {state.round}"}
        return update

    async def list_candidates(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        statements = [turn for turn in state.turns if turn.role in (AFFIRMATIVE, NEGATIVE) and turn.round > 0]
        if first_statements:
            statements = statements[:2]
        history = [{"side": turn.role.capitalize(), "round": turn.round, "text": turn.reply} for turn in statements]
        return await say(state, runtime, JUDGE, LIST_CANDIDATES, statements, history=history)

    async def conclude(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        update = await say(state, runtime, JUDGE, CONCLUDE)
        return {**update, "answer": update["turns"][-1].answer, "stop_reason": EXTRACTED}

    async def after_moderator(table: Table) -> str:
        return END if table.stop_reason else "open_round" if table.round < rounds else "list_candidates"

    graph = StateGraph(Table, context_schema=Stage)
    for node in (answer_first, open_round, affirm, negate, moderate, list_candidates, conclude):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "answer_first" if base else "open_round")
    graph.add_edge("answer_first", "open_round")
    graph.add_edge("open_round", "affirm")
    graph.add_edge("affirm", "negate")
    graph.add_edge("negate", "moderate")
    graph.add_conditional_edges("moderate", after_moderator, ["open_round", "list_candidates", END])
    graph.add_edge("list_candidates", "conclude")
    graph.add_edge("conclude", END)
    return graph.compile()
