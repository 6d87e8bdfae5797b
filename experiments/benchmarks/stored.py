"""How fast episodes are stored and read: `python -m experiments.benchmarks.stored`.

Debates of seven calls, whose prompts and replies have token ids: episodes a second of CPU time for appending them all
at once and one after another (each then waits for its own transaction to be on disk), for reading them whole, for their
outcomes and for the run's digest; and seconds of the clock, which the disk and other work on the machine enter. The
arms take turns, `--repeats` times; medians are printed.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from experiments.benchmarks.debates import played
from experiments.runner import in_event_loop
from experiments.store import FILE, StoreReader, StoreWriter
from graphs.turns import Episode


async def append(episodes: Sequence[Episode], folder: Path, together: bool) -> None:
    folder.mkdir()
    writer = StoreWriter(folder)
    try:
        if together:
            await asyncio.gather(*(writer.append(i, episode) for i, episode in enumerate(episodes)))
        else:
            for i, episode in enumerate(episodes):
                await writer.append(i, episode)
    finally:
        writer.close()


def measure(count: int, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = in_event_loop(lambda: played(count, 64, root, "local")).run
        episodes, reader = list(run.episodes()), StoreReader(run.path)
        numbers = iter(range(2 * (repeats + 1)))

        def write(together: bool) -> None:
            in_event_loop(lambda: append(episodes, root / f"written-{next(numbers)}", together))

        arms: dict[str, Callable[[], object]] = {
            "append, all at once": lambda: write(True),
            "append, one by one": lambda: write(False),
            "read episodes": lambda: sum(episode.calls for episode in reader.episodes()),
            "read outcomes": reader.outcomes,
            "digest of the run": reader.digest,
        }
        cpu: dict[str, list[float]] = {name: [] for name in arms}
        wall: dict[str, list[float]] = {name: [] for name in arms}
        for repeat in range(-1, repeats):
            for name, arm in arms.items():
                before, started = time.process_time(), time.perf_counter()
                arm()
                if repeat >= 0:
                    cpu[name].append(time.process_time() - before)
                    wall[name].append(time.perf_counter() - started)
        size = (run.path / FILE).stat().st_size
    return {
        "episodes": count,
        "kb_per_episode": round(size / count / 1024, 1),
        "per_cpu_s": {name: round(count / max(1e-9, statistics.median(values))) for name, values in cpu.items()},
        "per_s": {name: round(count / statistics.median(values)) for name, values in wall.items()},
    }


@click.command()
@click.option("--episodes", type=int, default=1_000, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(episodes: int, repeats: int, as_json: bool) -> None:
    """Measure the store: episodes written and read a second."""
    result = measure(episodes, repeats)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{episodes:,} debates of {result['kb_per_episode']} KB")
    for name, rate in result["per_cpu_s"].items():
        click.echo(f"{name:<22}{rate:>10,} a second of CPU{result['per_s'][name]:>10,} a second")


if __name__ == "__main__":
    main()
