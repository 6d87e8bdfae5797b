"""What a model can do here: `palaestra doctor --model M` opens its pool, asks it a little, and reports."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from agents.cast import Cast
from agents.company import Company, open_company
from agents.engines import ModelSpec, parse_model
from agents.pool import Pool
from agents.serving import Serving
from agents.types import Completion, EngineError, Message, Request, Sampling, why_untrainable
from envs.errors import ConfigError, clip
from experiments.doctor import Finding

BATCH = 32
REPLY_TOKENS = 32


async def examine_model(model: str, settings: Mapping[str, Any]) -> list[Finding]:
    """Open the model's pool and look at it: what goes wrong is a finding, never an exception.

    Args:
        model: its name; see agents.engines.FORMS.
        settings: `engine.KEY`, `vllm.KEY`, `endpoint.KEY`, `pool.KEY`.

    Raises:
        ConfigError: a setting that there is not.
    """
    # An endpoint that is not there is to be said at once.
    serving = Serving().set({"endpoint.retries": 0, **settings})
    findings: list[Finding] = []
    try:
        spec = parse_model(model, serving)
        started = time.monotonic()
        async with open_company(Cast.all(model), ["solver"], "ray", serving) as company:
            where = "in this process" if spec.is_remote else "in Ray actors"
            count = 1 if spec.is_remote else spec.pool.replicas
            ready = f"{spec.name}: {count} ready {where} after {time.monotonic() - started:.1f} s"
            findings.append(Finding("model", "ok", ready))
            await _examine(spec, company, findings)
    except (ConfigError, EngineError) as error:
        findings.append(_trouble("model" if not findings else "reply", error))
    return findings


async def _examine(spec: ModelSpec, company: Company, findings: list[Finding]) -> None:
    (pool,) = company.pools.values()
    if spec.kind == "replay":
        findings.append(Finding("reply", "note", "it answers recorded tasks alone; nothing was asked"))
    else:
        started = time.monotonic()
        reply = await company.complete("solver", _request(0))
        detail = f"{clip(reply.text)} after {time.monotonic() - started:.2f} s"
        findings.append(Finding("reply", "ok", detail))
        lacks = why_untrainable(reply)
        findings.append(Finding("training", "note" if lacks else "ok", lacks or "token ids and log-probabilities come"))
        findings.append(await _speed(company))
        findings.append(await _scoring(pool, reply))
    for health in await pool.health():
        versions = ", ".join(f"{name or 'weights'} {version}" for name, version in health.versions.items())
        detail = f"process {health.pid} on {health.host}, {versions}, {health.restarts} restarts"
        state = "ok" if health.alive else "broken"
        findings.append(Finding(f"replica {health.number}", state, detail if health.alive else health.last_error))


async def _speed(company: Company) -> Finding:
    started = time.monotonic()
    replies = await asyncio.gather(*(company.complete("solver", _request(n)) for n in range(1, BATCH + 1)))
    seconds = time.monotonic() - started
    tokens = sum(reply.completion_tokens for reply in replies)
    if not tokens:
        return Finding("speed", "note", f"{BATCH} requests in {seconds:.2f} s; the model does not say how many tokens")
    return Finding("speed", "ok", f"{tokens / seconds:,.0f} tokens/s with {BATCH} requests at once ({tokens} tokens)")


async def _scoring(pool: Pool, reply: Completion) -> Finding:
    """Whether publishes can be verified; the replicas score what was just said, which has its log-probabilities."""
    try:
        scored = await pool.score((*reply.prompt_ids, *reply.token_ids))
    except EngineError as error:
        return Finding("scores", "note", f"no weights can be published to it: {error}")
    said = [one[len(reply.prompt_ids) - 1 :] for one in scored]
    gap = max(abs(a - b) for one in said for a, b in zip(one, reply.logprobs, strict=True))
    return Finding("scores", "ok", f"weights can be published; scores and sampling agree within {gap:.1e} nats")


def _request(n: int) -> Request:
    asked = Message("user", f"What is {n} + {2 * n + 3}? Think step by step.")
    return Request(f"doctor/{n}/solver/0", (asked,), Sampling(max_tokens=REPLY_TOKENS), n)


def _trouble(what: str, error: Exception) -> Finding:
    """Messages end with what to do, after a semicolon."""
    said = " ".join(str(error).split())
    detail, _, mend = said.rpartition("; ")
    return Finding(what, "broken", detail or said, mend if detail else "")
