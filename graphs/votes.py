"""Votes: several solutions by several ways of settling on one of them.

- `certainty`: votes by rank of self-certainty (Borda). Kang et al., arXiv:2502.18581.
- `rpc`: perplexity consistency with pruning. Zhou et al., arXiv:2502.00511; path probabilities are sums over tokens.
- `collective`: several models vote, each weighted by its own consistency. RLCCF, arXiv:2508.12338.
- `best_of_n`: a judge compares solutions two at a time in both orders; a solution that does not win both is no better.

Solutions without a readable answer abstain in all of them; ties go to the answer seen first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import JUDGE
from agents.results import Judgement
from agents.types import EngineError
from graphs import aggregate
from graphs.shapes import chain
from graphs.solo import SOLVER
from graphs.table import Ask, Stage, Table, solve, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn

Samples = Annotated[int, Field(ge=1)]
JUDGE_ROLE = "judge"


async def candidates(table: Table, runtime: Runtime[Stage], roles: Sequence[str] = ()) -> tuple[list[Turn], list[int]]:
    """The solutions that have an answer, of some roles or of all, and the group of each."""
    turns = [turn for turn in table.turns if turn.answer is not None and (not roles or turn.role in roles)]
    return turns, await runtime.context.env.group([turn.answer or "" for turn in turns]) if turns else []


def settled(turns: Sequence[Turn], scores: Mapping[int, float], reason: str) -> dict[str, Any]:
    """The outcome: the answer of the group with the highest score; no answer without candidates."""
    winner = aggregate.best(scores)
    return {"answer": None if winner is None else turns[winner].answer, "stop_reason": reason}


def _sampler(samples: int, certainty: bool = False) -> Any:
    async def sample(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, [SOLVER] * samples, certainty=certainty)

    return sample


@topology(roles=lambda **_: (SOLVER,), calls=lambda samples=6, power=0.5: samples)
def certainty(samples: Samples = 6, power: Annotated[float, Field(ge=0)] = 0.5) -> Graph:
    """Votes by rank of self-certainty.

    Args:
        samples: solutions drawn.
        power: of the ranks; 0 is the plain vote.
    """

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, groups = await candidates(state, runtime)
        if any(not turn.certainty for turn in turns):
            raise EngineError("self-certainty needs probabilities over the whole vocabulary, which this engine has not")
        votes = aggregate.borda([sum(turn.certainty) / len(turn.certainty) for turn in turns], power)
        return settled(turns, aggregate.tally(groups, votes), f"certainty of {samples}")

    return chain(_sampler(samples, certainty=True), settle)


@topology(roles=lambda **_: (SOLVER,), calls=lambda samples=6, prune=True: samples)
def rpc(samples: Samples = 6, prune: bool = True) -> Graph:
    """Votes by the probability of distinct solutions, unlikely ones pruned.

    Args:
        samples: solutions drawn.
        prune: whether unlikely ones are dropped first.
    """

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, groups = await candidates(state, runtime)
        if any(not turn.logprobs for turn in turns):
            raise EngineError("perplexity consistency needs log-probabilities, which this engine does not give")
        logprobs = [sum(turn.logprobs) for turn in turns]
        # In proportion to the likeliest: whole solutions' probabilities are too small for a float.
        likely = [math.exp(logprob - max(logprobs)) for logprob in logprobs]
        dropped = aggregate.unlikely(likely) if prune else [False] * len(turns)
        kept = [i for i, out in enumerate(dropped) if not out]
        scores = aggregate.perplexity_consistency(
            [groups[i] for i in kept], [turns[i].reply for i in kept], [logprobs[i] - max(logprobs) for i in kept]
        )
        return settled(turns, scores, f"perplexity consistency of {len(kept)} of {samples}")

    return chain(_sampler(samples), settle)


@topology(
    roles=lambda models=2, samples=3: tuple(f"{SOLVER}_{i}" for i in range(1, models + 1)),
    calls=lambda models=2, samples=3: models * samples,
)
def collective(models: Samples = 2, samples: Samples = 3) -> Graph:
    """Several models vote, each weighted by its own consistency.

    Args:
        models: how many: `solver_1`, `solver_2`, … are cast with them.
        samples: solutions of each.
    """
    roles = [f"{SOLVER}_{i}" for i in range(1, models + 1)]

    async def sample(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, roles * samples)

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, groups = await candidates(state, runtime)
        by_model = {role: [g for t, g in zip(turns, groups, strict=True) if t.role == role] for role in roles}
        scores, share = aggregate.collective(by_model)
        return settled(turns, scores, f"collective vote of {models} × {samples}, consistency {share:.2f}")

    return chain(sample, settle)


@topology(roles=lambda **_: (SOLVER, JUDGE_ROLE), calls=lambda samples=3: samples + 2 * (samples - 1))
def best_of_n(samples: Samples = 3) -> Graph:
    """A judge compares solutions two at a time, in both orders.

    Args:
        samples: solutions drawn; those of one answer meet the judge once.
    """

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, groups = await candidates(state, runtime)
        best, *others = [turns[i] for i in dict.fromkeys(groups)] or [None]
        judged: list[Turn] = []
        for other in others:
            assert best is not None and other is not None
            pairs = [(best, other), (other, best)]
            asks = [
                Ask(JUDGE_ROLE, JUDGE, {"question": state.question, "a": a.reply, "b": b.reply}, reads=[a, b])
                for a, b in pairs
            ]
            verdicts = await speak(state.with_turns(judged), runtime, asks)
            judged += verdicts
            choices = [v.result.choice if isinstance(v.result, Judgement) else None for v in verdicts]
            best = other if choices == ["B", "A"] else best
        return {
            "turns": judged,
            "answer": best.answer if best else None,
            "stop_reason": f"best of {samples}" if judged else "agreed",
        }

    return chain(_sampler(samples), settle)
