"""Pools: `python -m experiments.benchmarks.pool`.

Completion tokens a second of the embedded model with 1 and 2 replicas, 256 requests at once; and what a request costs
the caller's process in CPU time, over a scripted engine that answers at once: routing and its bookkeeping alone, and
the whole way through the pool and back, with 1, 2 and 8 replicas. The arms take turns, `--repeats` times, and the
median of each is printed.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import click

from agents.cluster import connected
from agents.engines import parse_model
from agents.engines.scripted import ScriptedEngine
from agents.pool import RayPool
from agents.routing import Router
from agents.serving import PoolSettings, Serving
from agents.types import Completion, Message, Request, Sampling
from experiments.benchmarks.engine import make_requests

AT_ONCE = 256
REPLICAS = (1, 2, 8)


def scripted() -> ScriptedEngine:
    return ScriptedEngine(lambda request: "7 * 2 = 14\n\\boxed{14}")


def routing_us(replicas: int, requests: Sequence[Request], completions: Sequence[Completion]) -> float:
    """CPU microseconds a request for choosing a replica and for the books when it ends, all outstanding at once."""
    router, candidates = Router(), list(range(replicas))
    started = time.process_time()
    routes = [router.choose(request, candidates) for request in requests]
    for route, request, completion in zip(routes, requests, completions, strict=True):
        router.finish(route, request, completion)
    return (time.process_time() - started) / len(requests) * 1e6


async def asked(pool: RayPool, requests: Sequence[Request]) -> tuple[float, float]:
    """Ask all at once. Returns completion tokens a second, and CPU microseconds of this process a request."""
    started, cpu = time.perf_counter(), time.process_time()
    replies = await asyncio.gather(*map(pool.complete, requests))
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    return sum(reply.completion_tokens for reply in replies) / seconds, cpu / len(requests) * 1e6


async def opened(model: Any, replicas: int) -> RayPool:
    pool = RayPool(parse_model(model, Serving(pool=PoolSettings(replicas=replicas, max_in_flight=4096))))
    await pool.ready()
    await asyncio.gather(*map(pool.complete, make_requests(32)))
    return pool


async def run(repeats: int) -> dict[str, Any]:
    requests = make_requests(AT_ONCE)
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    pools = {n: await opened("embedded", n) for n in (1, 2)}
    for _ in range(repeats):
        for n, pool in pools.items():
            rate, _ = await asked(pool, requests)
            rates.setdefault(f"embedded, {n} replica(s)", []).append(rate)
    for pool in pools.values():
        await pool.close()
    follow = _conversations()
    pools = {n: await opened(scripted, n) for n in REPLICAS}
    completions = await asyncio.gather(*map(pools[1].complete, follow))
    for _ in range(repeats):
        for n, pool in pools.items():
            costs.setdefault(f"routing, {n} replica(s)", []).append(routing_us(n, follow, completions))
            _, cpu = await asked(pool, follow)
            costs.setdefault(f"the whole pool, {n} replica(s)", []).append(cpu)
    for pool in pools.values():
        await pool.close()
    return {
        "tokens_per_s": {name: round(statistics.median(values)) for name, values in rates.items()},
        "cpu_us_a_request": {name: round(statistics.median(values), 1) for name, values in costs.items()},
        "all": {name: [round(value, 1) for value in values] for name, values in {**rates, **costs}.items()},
    }


def _conversations(n: int = 4096, prefix: int = 200) -> list[Request]:
    """Second turns, each of a conversation of its own: the ids of the first and a message."""
    message = Message("user", "Another solver found 12. Check your steps and give your answer again.")
    return [
        Request(f"{i}/0/solver/1", (message,), Sampling(max_tokens=128), i, tuple(range(i, i + prefix)), (message,))
        for i in range(n)
    ]


@click.command()
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, as_json: bool) -> None:
    """Measure pools: throughput by replicas, and the cost of routing."""
    with connected():
        result = asyncio.run(run(repeats))
    if as_json:
        click.echo(json.dumps(result))
        return
    for unit, figures in (("tokens/s", result["tokens_per_s"]), ("µs CPU a request", result["cpu_us_a_request"])):
        for name, value in figures.items():
            every = " ".join(f"{one:,}" for one in result["all"][name])
            click.echo(f"{name:<32}{value:>10,} {unit:<18}{every}")


if __name__ == "__main__":
    main()
