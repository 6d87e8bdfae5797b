"""The fault matrix: what is killed, hangs or is full while something is played, and how it ends.

`python -m experiments.faults` plays every scenario and prints the table of docs/reliability.md, with --json one object;
`--soak MINUTES` plays under random faults for so long and says what was lost, and how memory went.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from experiments.faults.endpoint_scenarios import endpoint_hangs, endpoint_late, endpoint_refuses
from experiments.faults.ground import Outcome
from experiments.faults.ray_scenarios import MOMENTS, node_removed, replica_killed, worker_killed
from experiments.faults.scenarios import begun_twice, disk_full, driver_killed, driver_killed_at, stopped, sweep_killed
from experiments.faults.soak import soak
from experiments.faults.training_scenarios import POINTS, trainer_killed, training_killed

SCENARIOS: dict[str, Callable[[Path], Outcome]] = {
    "driver": partial(driver_killed, kills=8),
    "points": driver_killed_at,
    "sweep": partial(sweep_killed, kills=6),
    "training": partial(training_killed, points=POINTS),
    "trainer": trainer_killed,
    "replica": partial(replica_killed, moments=MOMENTS),
    "worker": partial(worker_killed, moments=MOMENTS),
    "node": node_removed,
    "disk": disk_full,
    "twice": begun_twice,
    "sigterm": partial(stopped, by=signal.SIGTERM),
    "interrupt": partial(stopped, by=signal.SIGINT),
    "refuses": endpoint_refuses,
    "late": endpoint_late,
    "hangs": endpoint_hangs,
}
HEAD = "| fault | exit status | in the end | as the unbroken run |\n|---|---|---|---|"


def row(outcome: Outcome) -> str:
    """A line of the table."""
    count = f"{outcome.episodes} of {outcome.expected} {outcome.what}"
    return f"| {outcome.fault} | {outcome.ended} | {count} | {'yes' if outcome.same else '**no**'} |"


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(SCENARIOS)), help="May be repeated.")
@click.option(
    "--soak", "minutes", type=click.FloatRange(min=0, min_open=True), help="Play so long under random faults."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the faults of the soak.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(only: tuple[str, ...], minutes: float | None, seed: int, as_json: bool) -> None:
    """Play under faults, and say what was lost."""
    if minutes is not None:
        with tempfile.TemporaryDirectory() as folder:
            report = soak(Path(folder), minutes, seed, lambda said: click.echo(said, err=True))
        found = {**asdict(report), "held": report.held, "grown": report.grown}
        click.echo(json.dumps(found) if as_json else report.words())
        sys.exit(0 if report.held else 1)
    outcomes: dict[str, Outcome] = {}
    for name in only or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[name] = SCENARIOS[name](Path(folder))
        click.echo(row(outcomes[name]), err=True)
    if as_json:
        click.echo(json.dumps({name: {**asdict(found), "held": found.held} for name, found in outcomes.items()}))
    else:
        click.echo("\n".join([HEAD, *map(row, outcomes.values())]))
    sys.exit(0 if all(outcome.held for outcome in outcomes.values()) else 1)


if __name__ == "__main__":
    main()
