"""What rollout workers take off the process that plays: `python -m experiments.benchmarks.rollouts`.

The CPU time of this process for each model call, in ms, with an engine that takes none, when it plays all episodes and
when workers do. CPU time, not the clock: what else the machine does changes it little. The arms take turns, and the
median of each is printed.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import click

from agents import Cast, ScriptedEngine
from agents.cluster import connected
from experiments import run


def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda asked: f"It is \\boxed{{{asked.seed % 5}}}.")


def cpu_ms_per_call(workers: int, episodes: int, root: Path) -> float:
    """Of this process, over a run whose start and end are in it."""
    before = time.process_time()
    settings = {"env.level": 5, "cluster.rollout_workers": workers}
    played = run(
        "society", "arithmetic", Cast.all(engine), tasks=episodes, settings=settings, root=root, progress=False
    )
    return (time.process_time() - before) * 1e3 / sum(episode.calls for episode in played.episodes())


@click.command()
@click.option("--episodes", type=int, default=500, show_default=True, help="Of six calls each.")
@click.option("--workers", type=int, default=2, show_default=True)
@click.option("--repeats", type=int, default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(episodes: int, workers: int, repeats: int, as_json: bool) -> None:
    """Measure the driver's CPU time with and without rollout workers."""
    found: dict[int, list[float]] = {0: [], workers: []}
    with tempfile.TemporaryDirectory() as root, connected("local"):
        for _ in range(repeats):
            for count, times in found.items():
                times.append(cpu_ms_per_call(count, episodes, Path(root)))
    median = {count: round(statistics.median(times), 3) for count, times in found.items()}
    if as_json:
        click.echo(json.dumps({"ms_per_call": median, "all": found}))
        return
    for count, ms in median.items():
        who = f"{count} rollout workers" if count else "this process alone"
        click.echo(f"{who:<20}{ms:>8.3f} ms a call   {' '.join(f'{time:.3f}' for time in found[count])}")


if __name__ == "__main__":
    main()
