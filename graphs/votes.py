"""Votes: several solutions by several ways of settling on one of them.

- `certainty`: votes by rank of self-certainty (Borda). Kang et al., arXiv:2502.18581.
- `rpc`: perplexity consistency with pruning. Zhou et al., arXiv:2502.00511; path probabilities are sums over tokens.
- `p_true`: votes weighted by the probability that a reviewer finds the solution correct. After Kadavath et al.,
  arXiv:2207.05221; there the model judges at once, here it reviews the solution first.
- `collective`: several models vote, each weighted by its own consistency. RLCCF, arXiv:2508.12338.
- `fobar`: a number of the question is hidden and asked back, given each candidate. Jiang et al., arXiv:2308.07758;
  candidates are the most frequent answers, and an answer counts as right when the env holds it equal to the number.
- `best_of_n`: a judge compares solutions two at a time in both orders; a solution that does not win both is no better.

Solutions without a readable answer abstain in all of them; ties go to the answer seen first.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import ASK_BACK, JUDGE, REVIEW
from agents.results import Judgement
from agents.types import EngineError, seed_of
from graphs import aggregate
from graphs.shapes import chain
from graphs.solo import SOLVER
from graphs.table import Ask, Stage, Table, solve, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn

Samples = Annotated[int, Field(ge=1)]
REVIEWER, JUDGE_ROLE = "reviewer", "judge"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_VERDICT = re.compile(r"^[ \t*_]*verdict[ \t]*:", re.MULTILINE | re.IGNORECASE)


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


@topology(roles=lambda **_: (SOLVER, REVIEWER), calls=lambda samples=3: 3 * samples)
def p_true(samples: Samples = 3) -> Graph:
    """Votes weighted by the probability that a reviewer finds the solution correct.

    Args:
        samples: solutions drawn; each costs a review, and a choice between its two verdicts.
    """

    async def review(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, _ = await candidates(state, runtime)
        return {"turns": await speak(state, runtime, [review_of(state, turn) for turn in turns])}

    async def weigh(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        """The reviews again up to their verdicts, and both verdicts weighed."""
        asks = [verdict_of(state, turn) for turn in state.by(REVIEWER)]
        return {"turns": await speak(state, runtime, asks)}

    async def settle(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, groups = await candidates(state, runtime, [SOLVER])
        weights = [aggregate.p_true(*turn.choice_logprobs) for turn in state.by(REVIEWER)[len(turns) :]]
        return settled(turns, aggregate.tally(groups, weights), f"P(True) of {len(turns)}")

    return chain(_sampler(samples), review, weigh, settle)


def review_of(table: Table, solution: Turn, role: str = REVIEWER) -> Ask:
    fields = {"question": table.question, "solution": solution.reply}
    return Ask(role, REVIEW, fields, reads=[solution], instructions=REVIEWER)


def verdict_of(table: Table, review: Turn) -> Ask:
    """The same question, the reply given up to its verdict: what is drawn is one of the two."""
    verdicts = list(_VERDICT.finditer(review.reply))
    opening = review.reply[: verdicts[-1].start()] if verdicts else f"{review.reply}\n"
    ask = review_of(table, table.turn(review.reads[0]), review.role)
    return replace(ask, opening=f"{opening}Verdict:", choices=(" correct", " incorrect"))


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


@topology(roles=lambda **_: (SOLVER,), calls=lambda samples=6, most=2, asks=3, alpha=0.5: samples + most * asks)
def fobar(
    samples: Samples = 6,
    most: Samples = 2,
    asks: Samples = 3,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Graph:
    """A hidden number of the question is asked back, given each candidate answer.

    Args:
        samples: solutions drawn.
        most: candidates, the most frequent answers; a single one is not asked back.
        asks: questions asked back for each candidate.
        alpha: weight of the vote beside what the questions asked back come to.
    """

    async def ask_back(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns, groups = await candidates(state, runtime)
        votes = aggregate.tally(groups)
        chosen = sorted(votes, key=lambda group: -votes[group])[:most]
        masked = hidden_numbers(state.question, asks, runtime.context)
        if len(chosen) < 2 or not masked:
            return settled(turns, votes, f"vote of {samples}")
        fields = [{"question": q, "answer": turns[group].answer} for group in chosen for q, _ in masked]
        reads = [turns[group] for group in chosen for _ in masked]
        asked = [Ask(SOLVER, ASK_BACK, f, reads=[read]) for f, read in zip(fields, reads, strict=True)]
        back = await speak(state, runtime, asked)
        numbers = [number for _ in chosen for _, number in masked]
        right = [await _same(runtime, turn.answer, number) for turn, number in zip(back, numbers, strict=True)]
        found = {group: sum(right[i * len(masked) : (i + 1) * len(masked)]) for i, group in enumerate(chosen)}
        share = {group: count / len(masked) for group, count in found.items()}
        scores = aggregate.forward_backward({g: votes[g] / len(turns) for g in chosen}, share, alpha)
        return {"turns": back, **settled(turns, scores, f"asked back {len(masked)} times")}

    return chain(_sampler(samples), ask_back)


def hidden_numbers(question: str, count: int, stage: Stage) -> list[tuple[str, str]]:
    """The question with one of its numbers hidden as X, and the number; `count` of them, drawn with the run's seed."""
    places = list(_NUMBER.finditer(question))
    rng = random.Random(seed_of(stage.seed, stage.task.id, stage.sample, "hidden numbers"))
    drawn = [rng.choice(places) for _ in range(count)] if places else []
    return [(f"{question[: place.start()]}X{question[place.end() :]}", place[0]) for place in drawn]


async def _same(runtime: Runtime[Stage], answer: str | None, number: str) -> bool:
    return answer is not None and (await runtime.context.env.group([number, answer]))[1] == 0


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
