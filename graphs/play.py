"""Play: one topology on one task gives one episode, whatever happens on the way."""

import asyncio
from typing import Any

from agents.company import Company
from envs.errors import clip
from envs.types import Env, Task, Verdict
from graphs.record import CURRENT, Recorder
from graphs.table import Stage, Table
from graphs.topology import Topology
from graphs.turns import Episode

STEP_LIMIT = 200
"""LangGraph supersteps an episode may take: a graph that never ends fails instead of calling models for ever."""


async def play(topology: Topology, env: Env, task: Task, company: Company, seed: int = 0, sample: int = 0) -> Episode:
    """Play one episode and judge its answer.

    A failed call, an error in a node or a graph that does not end gives a failed episode that keeps its turns; an env
    that fails to judge gives the verdict unscorable. Only cancellation passes through.

    Args:
        topology: what is played.
        env: judges the answer, and groups answers for votes.
        task: the problem.
        company: who plays.
        seed: the run's; with task, sample and role it fixes every random choice.
        sample: which of several episodes on the task this is.
    """
    stage = Stage(company, env, task, seed, sample)
    recorder = Recorder(stage)
    state: dict[str, Any] = {}
    failure = verdict = None
    outside = CURRENT.set(recorder)
    try:
        state = await _perform(topology, recorder)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a graph raises is this episode's failure, not the run's
        failure = " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        recorder.close()
        CURRENT.reset(outside)
    answer, stop_reason = state.get("answer"), state.get("stop_reason", "")
    if not isinstance(answer, str | None) or not isinstance(stop_reason, str):
        failure = f"TypeError: expected text as answer and stop_reason, found {clip(answer)} and {clip(stop_reason)}"
        answer, stop_reason = None, ""
    if failure is None:
        verdict = await _judge(env, task, answer)
    return Episode.model_construct(
        task=task,
        sample=sample,
        turns=recorder.turns(),
        answer=answer,
        stop_reason=stop_reason,
        notes=tuple(stage.notes),
        verdict=verdict,
        failure=failure,
        seconds=stage.seconds(),
    )


async def _perform(topology: Topology, recorder: Recorder) -> dict[str, Any]:
    if topology.foreign:
        return await topology.foreign.play(recorder, STEP_LIMIT)
    state = Table(recorder.stage.task.question)
    return await topology.graph.ainvoke(state, context=recorder.stage, config={"recursion_limit": STEP_LIMIT})


async def _judge(env: Env, task: Task, answer: str | None) -> Verdict:
    try:
        return await env.judge(task, answer)
    except Exception as error:  # noqa: BLE001 - an env's defect must not pass for a wrong answer
        return Verdict.unscorable(f"{type(error).__name__} in {env.name}: {error}")
