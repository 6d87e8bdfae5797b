"""Whether debates keep their engine busy: `python -m experiments.benchmarks.saturation`.

Completion tokens a second of society (3 agents, 2 rounds) on arithmetic, graphs, pool and recording included, over
those of the same engine when it is handed the very same prompts, with the same seeds, as one flat batch. The replies
are the same; that is checked. The arms take turns, `--repeats` times, another first each time; medians are printed.

`--clock cpu` is for a machine that is shared: it counts the CPU time of this process, in which the engine works too.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from agents.company import Company, open_company
from agents.types import Completion, Request
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


def requests_of(episodes: Sequence[Episode], company: Company) -> list[tuple[str, Request]]:
    """What was asked in the debates, each with the role that was asked."""
    asked = []
    for episode in episodes:
        for turn in episode.turns:
            own = episode.turn(turn.follows) if turn.follows else None
            prefix = (*own.prompt_ids, *own.token_ids) if own else ()
            key = f"{episode.task.id}/{episode.sample}/{turn.id}"
            asked.append((turn.role, Request(key, turn.messages, company.sampling(turn.role), turn.seed, prefix)))
    return asked


async def measure(debates: int, in_flight: int, model: str, clock: str, repeats: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"debates": [], "flat batch": []}
    with tempfile.TemporaryDirectory() as folder:
        async with opened(debates, in_flight, model, clock) as (plan, company):
            episodes = await play(plan, company, Path(folder))  # not measured: what is slow the first time
            asked = requests_of(episodes, company)
            said = [turn.token_ids for episode in episodes for turn in episode.turns]
            tokens = sum(map(len, said))

            async def flat() -> None:
                replies: list[Completion] = await asyncio.gather(*(company.complete(*one) for one in asked))
                assert [reply.token_ids for reply in replies] == said, "the flat batch was answered otherwise"

            arms = {"debates": lambda: play(plan, company, Path(folder)), "flat batch": flat}
            for repeat in range(repeats):
                for name in list(arms)[:: 1 if repeat % 2 else -1]:
                    started = CLOCKS[clock]()
                    await arms[name]()
                    rates[name].append(tokens / (CLOCKS[clock]() - started))
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    return {
        "model": model,
        "clock": clock,
        "debates": debates,
        "in_flight": in_flight,
        "tokens_per_s": {name: round(statistics.median(values)) for name, values in rates.items()},
        "debates_over_flat_batch": round(statistics.median(ratios), 3),
        "all": [round(ratio, 3) for ratio in ratios],
    }


@click.command()
@click.option("--model", default="embedded", show_default=True, help="As for palaestra run, such as vllm:DIR.")
@click.option("--debates", type=int, default=256, show_default=True)
@click.option("--in-flight", type=int, default=256, show_default=True)
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(model: str, debates: int, in_flight: int, clock: str, repeats: int, as_json: bool) -> None:
    """Measure the tokens a second of debates over those of a flat batch."""
    result = in_event_loop(lambda: measure(debates, in_flight, model, clock, repeats))
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, rate in result["tokens_per_s"].items():
        click.echo(f"{name:<12}{rate:>8,} tokens/s by the {clock}'s clock")
    click.echo(f"debates / flat batch {result['debates_over_flat_batch']}   {result['all']}")


if __name__ == "__main__":
    main()
