"""A debate over an endpoint beside the bare client and other frameworks: `python -m experiments.benchmarks.endpoint`.

CPU time (user and system) of this process for each model call. Ours is a whole run as `palaestra run` makes it, from
the plan to the last episode on disk: three debaters, two rounds, a judge, seven calls an episode. The bare client, on
its default transport and on aiohttp's, sends the same messages with the same settings, as many at a time, and stores
nothing. LangGraph with ChatOpenAI, and AutoGen's agents, play the same debates (experiments/benchmarks/peers; their
environment is made by `make peers`); they store nothing either, and start and imports are not counted. All ask a server
in another process that answers at once. The arms take turns, `--repeats` times; medians are printed.
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
from functools import partial
from pathlib import Path
from typing import Any

import click
import openai

from agents.cast import Cast, Seat
from experiments.benchmarks.debates import CALLS, debate
from experiments.benchmarks.loopback import MARK
from experiments.runner import run
from experiments.runs import Run
from graphs import Episode
from graphs.turns import Turn, conversation

ROOT = Path(__file__).parents[2]
PEERS = {"LangGraph, ChatOpenAI": "langgraph_debate.py", "AutoGen": "autogen_debate.py"}
Call = dict[str, Any]
"""Keyword arguments of the client's `create`."""


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

    def peer(self, program: str) -> float:
        """Another framework in its own environment and process; its CPU seconds."""
        command = [ROOT / ".venv-peers/bin/python", Path(__file__).parent / "peers" / program]
        asked = json.dumps(self._supersteps)
        played = subprocess.run(
            [*command, self.url, str(self.concurrency)], input=asked, stdout=subprocess.PIPE, text=True, check=True
        )
        return float(played.stdout)

    def measure(self, repeats: int, peers: bool) -> dict[str, list[float]]:
        """Milliseconds of CPU a call, for each arm and repeat; a first round of all arms is not counted."""
        arms: dict[str, Callable[[], float]] = {
            "ours, recorded": lambda: _cpu_s(self.play),
            "bare, default": lambda: _cpu_s(lambda: self.call(aiohttp=False)),
            "bare, aiohttp": lambda: _cpu_s(lambda: self.call(aiohttp=True)),
        }
        arms |= {name: partial(self.peer, program) for name, program in PEERS.items() if peers}
        found: dict[str, list[float]] = {name: [] for name in arms}
        for repeat, (name, arm) in itertools.product(range(-1, repeats), arms.items()):
            cpu_ms = 1e3 * arm() / (CALLS * self.episodes)
            if repeat >= 0:
                found[name].append(cpu_ms)
        return found


def _cpu_s(do: Callable[[], object]) -> float:
    before = time.process_time()
    do()
    return time.process_time() - before


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
@click.option("--peers/--no-peers", default=True, show_default=True, help="Also other frameworks, where installed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(episodes: int, concurrency: int, repeats: int, peers: bool, as_json: bool) -> None:
    """Measure the CPU time of a call over an endpoint beside the bare openai client and other frameworks."""
    result: dict[str, Any] = {}
    installed = (ROOT / ".venv-peers/ready").exists()
    if peers and not installed:
        click.echo("without LangGraph's ChatOpenAI and AutoGen: make peers installs them", err=True)
    with loopback() as url, tempfile.TemporaryDirectory() as folder:
        for model, what in (("plain", "text alone"), ("ids", "with token ids")):
            found = Benchmark(url, model, episodes, concurrency, folder).measure(
                repeats, peers and installed and model == "plain"
            )
            median = {name: round(statistics.median(values), 3) for name, values in found.items()}
            result[what] = {
                "cpu_ms_per_call": median,
                "ours_over": {
                    name: round(median["ours, recorded"] / value, 2)
                    for name, value in median.items()
                    if name != "ours, recorded"
                },
                "all": {name: [round(value, 3) for value in values] for name, values in found.items()},
            }
    if as_json:
        click.echo(json.dumps(result))
        return
    for what, measured in result.items():
        click.echo(f"{what}:")
        for name, cpu_ms in measured["cpu_ms_per_call"].items():
            ratio = measured["ours_over"].get(name)
            beside = "" if ratio is None else f"ours is {ratio:.2f} of it"
            click.echo(f"  {name:<24}{cpu_ms:>7.3f} ms a call   {beside:<22}{measured['all'][name]}")


if __name__ == "__main__":
    main()
