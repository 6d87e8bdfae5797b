"""Whether debates keep their engine busy: `python -m experiments.benchmarks.saturation`.

Completion tokens a second of society (3 agents, 2 rounds) on arithmetic, graphs, pool and recording included, over
those of the bare engine: without a pool, in a process of its own, all of the very same prompts handed to it at once,
with the same seeds. The arms take turns, `--repeats` times, another first each time; medians are printed. Where it is
deterministic, the replies are the same.

`--clock cpu` is for a machine that is shared: it counts the CPU time of this process, in which the engine works too.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from agents.cluster import replicas_ask
from agents.company import Company, open_company
from agents.engines import ModelSpec, make_engine
from agents.types import Request
from experiments.plan import Plan, make_plan
from experiments.progress import Progress
from experiments.runner import claim_directory, in_event_loop, play_all, recording
from experiments.runs import Run
from graphs import Episode

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
LEVEL = 5


@asynccontextmanager
async def opened(debates: int, in_flight: int, model: str, clock: str) -> AsyncIterator[tuple[Plan, Company]]:
    backend = "local" if clock == "cpu" else "ray"
    settings: dict[str, Any] = {"env.level": LEVEL, "pool.max_in_flight": max(1024, 6 * debates)}
    plan = make_plan("society", "arithmetic", model, debates, 1, 7, "test", in_flight, settings, backend, None)
    async with open_company(plan.cast, plan.roles, plan.backend, plan.serving) as company:
        yield plan, company


async def play(plan: Plan, company: Company, root: Path) -> list[Episode]:
    """The debates, as they are stored."""
    directory = claim_directory(plan, None, root)
    async with recording(plan, directory) as writer:
        with Progress("debates", plan.episodes) as shown:
            await play_all(plan, company, writer, shown)
    return list(Run(directory).episodes())


class Bare:
    """The engine without a pool: here, or made with `ray.remote`."""

    def __init__(self, spec: ModelSpec, requests: Sequence[Request]):
        self._engine, self._requests = make_engine(spec), requests

    async def complete(self) -> list[tuple[int, ...]]:
        """The token ids of all replies."""
        replies = await asyncio.gather(*map(self._engine.complete, self._requests))
        return [reply.token_ids for reply in replies]


def requests_of(episodes: Sequence[Episode], company: Company) -> list[Request]:
    """What was asked in the debates."""
    asked = []
    for episode in episodes:
        for turn in episode.turns:
            own = episode.turn(turn.follows) if turn.follows else None
            prefix = (*own.prompt_ids, *own.token_ids) if own else ()
            key = f"{episode.task.id}/{episode.sample}/{turn.id}"
            asked.append(Request(key, turn.messages, company.sampling(turn.role), turn.seed, prefix))
    return asked


async def measure(debates: int, in_flight: int, model: str, clock: str, repeats: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"debates": [], "bare engine": []}
    with tempfile.TemporaryDirectory() as folder:
        async with opened(debates, in_flight, model, clock) as (plan, company):
            episodes = await play(plan, company, Path(folder))  # not measured: what is slow the first time
            (spec,), requests = company.pools, requests_of(episodes, company)
            bare = _bare(spec, requests, clock)
            said = [turn.token_ids for episode in episodes for turn in episode.turns]
            same = statistics.fmean(one == other for one, other in zip(await bare(), said, strict=True))

            async def debated() -> int:
                played = await play(plan, company, Path(folder))
                return sum(len(turn.token_ids) for episode in played for turn in episode.turns)

            async def answered() -> int:
                return sum(map(len, await bare()))

            arms = {"debates": debated, "bare engine": answered}
            for repeat in range(repeats):
                for name in list(arms)[:: 1 if repeat % 2 else -1]:
                    started = CLOCKS[clock]()
                    tokens = await arms[name]()
                    rates[name].append(tokens / (CLOCKS[clock]() - started))
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    return {
        "model": model,
        "clock": clock,
        "debates": debates,
        "in_flight": in_flight,
        "same_replies": round(same, 3),
        "tokens_per_s": {name: round(statistics.median(values)) for name, values in rates.items()},
        "debates_over_bare_engine": round(statistics.median(ratios), 3),
        "all": [round(ratio, 3) for ratio in ratios],
    }


def _bare(spec: ModelSpec, requests: list[Request], clock: str) -> Callable[[], Awaitable[list[tuple[int, ...]]]]:
    if clock == "cpu":
        return Bare(spec, requests).complete
    import ray

    actor: Any = ray.remote(Bare).options(**replicas_ask(spec).options())
    return actor.remote(spec, requests).complete.remote


@click.command()
@click.option("--model", default="embedded", show_default=True, help="As for palaestra run, such as vllm:DIR.")
@click.option("--debates", type=int, default=256, show_default=True)
@click.option("--in-flight", type=int, default=256, show_default=True)
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(model: str, debates: int, in_flight: int, clock: str, repeats: int, as_json: bool) -> None:
    """Measure the tokens a second of debates over those of the bare engine."""
    result = in_event_loop(lambda: measure(debates, in_flight, model, clock, repeats))
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, rate in result["tokens_per_s"].items():
        click.echo(f"{name:<12}{rate:>8,} tokens/s by the {clock}'s clock")
    click.echo(f"debates / bare engine {result['debates_over_bare_engine']}   {result['all']}")
    click.echo(f"{result['same_replies']:.1%} of the replies are the same")


if __name__ == "__main__":
    main()
