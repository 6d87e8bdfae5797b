"""A debate over an endpoint beside the bare openai client: `python -m experiments.benchmarks.endpoint`.

CPU time (user and system) of this process for each model call. Ours is a whole run as `palaestra run` makes it, from
the plan to the last episode on disk: three debaters, two rounds, a judge, seven calls an episode. The bare client, on
its default transport and on aiohttp's, sends the same messages with the same settings, as many at a time, and stores
nothing. All ask a server in another process that answers at once. The arms take turns, `--repeats` times; medians are
printed.
"""

import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import openai
from langgraph.graph import END, START, StateGraph

from agents.cast import Cast, Seat
from experiments.benchmarks.loopback import MARK
from experiments.runner import run
from experiments.runs import Run
from graphs import Episode, Graph, Stage, Table, judge, revise, solve
from graphs.turns import Turn, conversation

DEBATERS = ("a", "b", "c")
CALLS = 7
Call = dict[str, Any]
"""Keyword arguments of the client's `create`."""


def debate(rounds: int = 2) -> Graph:
    """Du et al.'s society with a judge at its end, as the README builds it."""

    async def propose(state: Table, runtime: Any) -> dict[str, Any]:
        return await solve(state, runtime, DEBATERS)

    async def rebut(state: Table, runtime: Any) -> dict[str, Any]:
        return await revise(state, runtime, DEBATERS)

    async def decide(state: Table, runtime: Any) -> dict[str, Any]:
        return await judge(state, runtime)

    graph = StateGraph(Table, context_schema=Stage)
    for node in (propose, rebut, decide):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "propose")
    graph.add_edge("propose", "rebut")
    graph.add_conditional_edges("rebut", lambda t: "decide" if t.agreed or t.round >= rounds else "rebut")
    graph.add_edge("decide", END)
    return graph.compile()


class Benchmark:
    """The arms over one server."""

    def __init__(self, url: str, model: str, episodes: int, concurrency: int, folder: str):
        self.url, self.model, self.episodes, self.concurrency, self.folder = url, model, episodes, concurrency, folder
        self._numbers = itertools.count()
        self._supersteps = [_supersteps(episode, model) for episode in self.play().episodes()]
        calls = [sum(map(len, supersteps)) for supersteps in self._supersteps]
        assert set(calls) == {CALLS}, f"expected {CALLS} calls an episode, found {sorted(set(calls))}"

    def play(self) -> Run:
        """A run with everything in it."""
        name = f"openai:{self.model}@{self.url}"
        cast = Cast(Seat(model=name), a=Seat(model=name, instructions=MARK))
        options: dict[str, Any] = {"tasks": self.episodes, "concurrency": self.concurrency, "progress": False}
        return run(debate, "arithmetic", cast, root=self.folder, name=f"{self.model}-{next(self._numbers)}", **options)

    def call(self, aiohttp: bool) -> None:
        """The bare client, with the messages of that run."""
        asyncio.run(self._call(aiohttp))

    async def _call(self, aiohttp: bool) -> None:
        transport = openai.DefaultAioHttpClient() if aiohttp else None
        async with openai.AsyncOpenAI(base_url=self.url, api_key="none", http_client=transport) as client:
            waiting = iter(self._supersteps)

            async def worker() -> None:
                for supersteps in waiting:
                    for calls in supersteps:
                        await asyncio.gather(*(client.chat.completions.create(**call) for call in calls))

            await asyncio.gather(*(worker() for _ in range(self.concurrency)))

    def measure(self, repeats: int) -> dict[str, list[float]]:
        """Milliseconds of CPU a call, for each arm and repeat; a first round of all arms is not counted."""
        arms: dict[str, Callable[[], object]] = {
            "ours, recorded": self.play,
            "bare, default": lambda: self.call(aiohttp=False),
            "bare, aiohttp": lambda: self.call(aiohttp=True),
        }
        found: dict[str, list[float]] = {name: [] for name in arms}
        for repeat, (name, arm) in itertools.product(range(-1, repeats), arms.items()):
            started = time.process_time()
            arm()
            if repeat >= 0:
                found[name].append(1e3 * (time.process_time() - started) / (CALLS * self.episodes))
        return found


@contextmanager
def loopback() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, "-m", "experiments.benchmarks.loopback"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def _supersteps(episode: Episode, model: str) -> list[list[Call]]:
    """The calls of an episode, those together that were asked together."""
    groups = itertools.groupby(episode.turns, key=lambda turn: turn.after)
    return [[_call_of(episode, turn, model) for turn in turns] for _, turns in groups]


def _call_of(episode: Episode, turn: Turn, model: str) -> Call:
    said = conversation(episode.turns, turn)[:-1]
    call: Call = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in said],
        "temperature": turn.temperature,
        "top_p": turn.top_p,
        "max_tokens": 512,
        "seed": turn.seed,
    }
    return {**call, "logprobs": True, "extra_body": {"return_token_ids": True}} if turn.token_ids else call


@click.command()
@click.option("--episodes", type=int, default=150, show_default=True)
@click.option("--concurrency", type=int, default=16, show_default=True, help="Episodes at a time.")
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(episodes: int, concurrency: int, repeats: int, as_json: bool) -> None:
    """Measure the CPU time of a call over an endpoint beside the bare openai client."""
    result: dict[str, Any] = {}
    with loopback() as url, tempfile.TemporaryDirectory() as folder:
        for model, what in (("plain", "text alone"), ("ids", "with token ids")):
            found = Benchmark(url, model, episodes, concurrency, folder).measure(repeats)
            median = {name: round(statistics.median(values), 3) for name, values in found.items()}
            result[what] = {
                "cpu_ms_per_call": median,
                "ours_over_bare_default": round(median["ours, recorded"] / median["bare, default"], 2),
                "all": {name: [round(value, 3) for value in values] for name, values in found.items()},
            }
    if as_json:
        click.echo(json.dumps(result))
        return
    for what, measured in result.items():
        click.echo(
            f"{what}: ours is {measured['ours_over_bare_default']:.2f} of the bare client on its default transport"
        )
        for name, cpu_ms in measured["cpu_ms_per_call"].items():
            click.echo(f"  {name:<16}{cpu_ms:>7.3f} ms a call   {' '.join(map(str, measured['all'][name]))}")


if __name__ == "__main__":
    main()
