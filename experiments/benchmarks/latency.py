"""How long debates wait for anything but the model: `python -m experiments.benchmarks.latency`.

200 debates at once, each of three calls in a row, against an engine whose every call takes 50 or 500 ms however many it
has: the seconds until the last debate is on disk, over the latency of three calls.

`--clock cpu` is for a machine that is shared: the event loop's clock then counts the CPU time of this process, and
jumps over what it would sleep, as though it had a core of its own and a disk that takes no time.
"""

import asyncio
import json
import selectors
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from agents.cluster import connected
from agents.company import Backend
from experiments.benchmarks.debates import DEPTH, Played, played
from experiments.runner import collecting_seldom, in_event_loop

LATENCIES_MS = (50.0, 500.0)


class CpuClock(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.slept = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return time.process_time() + self.slept


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: CpuClock):
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self._loop.slept += timeout
        return ready


def play(episodes: int, latency_ms: float, clock: str, folder: Path) -> Played:
    backend: Backend = "local" if clock == "cpu" else "ray"

    async def debates() -> Played:
        return await played(episodes, episodes, folder, backend, latency_ms / 1e3)

    if clock == "wall":
        return in_event_loop(debates)
    with collecting_seldom(), asyncio.Runner(loop_factory=CpuClock) as runner:
        return runner.run(debates())


def measure(debates: int, latencies_ms: tuple[float, ...], clock: str, repeats: int) -> dict[str, Any]:
    every: dict[float, list[Played]] = {latency: [] for latency in latencies_ms}
    for repeat in range(-1, repeats):
        for latency, runs in every.items():
            with tempfile.TemporaryDirectory() as folder:
                done = play(debates if repeat >= 0 else 8, latency, clock, Path(folder))
            if repeat >= 0:
                runs.append(done)
    found = {}
    for latency, runs in every.items():
        chain_s = DEPTH * latency / 1e3
        over = [done.seconds / chain_s for done in runs]
        found[f"{latency:g}"] = {
            "chain_s": round(chain_s, 3),
            "seconds": round(statistics.median(done.seconds for done in runs), 3),
            "driver_cpu_s": round(statistics.median(done.cpu.driver for done in runs), 3),
            "over_chain": round(statistics.median(over), 3),
            "all": [round(one, 3) for one in over],
        }
    return {"clock": clock, "debates": debates, "latency_ms": found}


@click.command()
@click.option("--debates", type=int, default=200, show_default=True)
@click.option("--latency-ms", type=float, multiple=True, default=LATENCIES_MS, show_default=True)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(debates: int, latency_ms: tuple[float, ...], clock: str, repeats: int, as_json: bool) -> None:
    """Measure how much longer debates take than the calls that wait for one another."""
    with connected("local") if clock == "wall" else nullcontext():
        result = measure(debates, latency_ms, clock, repeats)
    if as_json:
        click.echo(json.dumps(result))
        return
    for latency, row in result["latency_ms"].items():
        taken = f"{row['seconds']:.2f} s for a chain of {row['chain_s']:.2f} s (CPU {row['driver_cpu_s']:.2f} s)"
        click.echo(f"{latency:>5} ms, {debates} debates: {row['over_chain']:.2f}   {taken}   {row['all']}")


if __name__ == "__main__":
    main()
