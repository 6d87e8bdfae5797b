"""The simulated engine beside real ones: `python -m experiments.benchmarks.capacity`.

Calibrates it on small runs of one engine (short tasks and long, 1 to 16 episodes in flight), then predicts how long
runs take that it was not calibrated on: vote at other concurrencies, and topologies that were not played before, whose
shapes are those of a short run on other tasks, as in `palaestra plan`. All are played in this process, in turn,
`--repeats` times, another first each time; compared are medians. `--clock cpu` takes the process's CPU time in place of
the wall's, for a machine that is shared: an engine that is never idle works for as long as it would take alone.
`--published` compares with throughput that others measured on GPUs instead, for which nothing was fitted.
"""

import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import click

from agents.cast import Cast
from agents.engines import make_engine, parse_model
from agents.simulation import Limits, load_hardware
from agents.types import Engine
from envs.types import Split
from experiments.capacity.calibration import Load, fit, predict, to_toml
from experiments.capacity.fleet import simulate
from experiments.capacity.shapes import Shapes, shapes_of, uniform
from experiments.plan import make_plan
from experiments.runner import claim_directory, execute


@dataclass(frozen=True)
class Arm:
    """A run on arithmetic."""

    topology: str
    level: int
    tasks: int
    concurrency: int

    @property
    def name(self) -> str:
        return f"{self.topology} of level {self.level}, {self.tasks} tasks, {self.concurrency} at a time"


CALIBRATED = (
    Arm("solo", 2, 24, 1),
    Arm("solo", 8, 12, 1),
    Arm("solo", 5, 96, 96),
    Arm("solo", 8, 64, 16),
    Arm("vote", 2, 8, 1),
    Arm("vote", 2, 36, 4),
    Arm("vote", 5, 32, 16),
    Arm("vote", 8, 12, 12),
    Arm("universal", 5, 8, 1),
    Arm("universal", 5, 16, 4),
    Arm("universal", 5, 40, 20),
    Arm("universal", 8, 12, 12),
)
PREDICTED = (
    Arm("vote", 5, 96, 32),
    Arm("vote", 8, 32, 2),
    Arm("society", 5, 24, 3),
    Arm("society", 5, 96, 24),
    Arm("mad", 5, 192, 12),
)
KNOWN = 192
"""Tasks of the short runs that shapes are taken from. Two runs of mad on 48 differ by up to a third."""


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


async def play(arm: Arm, engine: Engine, clock: str = "wall", split: Split = "test") -> tuple[float, Shapes]:
    """Seconds of the run, and its episodes' shapes."""
    plan = make_plan(
        arm.topology, "arithmetic", Cast.all(engine), arm.tasks, 1, 7, split, arm.concurrency,
        {"env.level": arm.level}, "local", None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        directory = claim_directory(plan, "run", Path(folder))
        started = CLOCKS[clock]()
        run = await execute(plan, directory, progress=False)
        return CLOCKS[clock]() - started, shapes_of(run)


@dataclass(frozen=True)
class Measured:
    """What was played."""

    seconds: dict[Arm, list[float]]
    """Of every repeat."""
    own: dict[Arm, Shapes]
    """The episodes' shapes."""
    known: dict[Arm, Shapes]
    """Of what is predicted: those of a short run on other tasks."""


async def measure(engine: Engine, repeats: int, clock: str) -> Measured:
    """Play all."""
    arms = [*CALIBRATED, *PREDICTED]
    found = Measured({arm: [] for arm in arms}, {}, {})
    short: dict[Arm, Shapes] = {}
    for arm in PREDICTED:
        like = Arm(arm.topology, arm.level, KNOWN, KNOWN)
        if like not in short:
            _, short[like] = await play(like, engine, split="validation")
        found.known[arm] = short[like]
    for turn in range(repeats):
        first = turn * len(arms) // repeats
        for arm in arms[first:] + arms[:first]:
            taken, found.own[arm] = await play(arm, engine, clock)
            found.seconds[arm].append(taken)
    return found


def compare(found: Measured, limits: Limits) -> dict[str, Any]:
    """The costs, and what they come to beside what was measured."""

    def load(arm: Arm, shapes: Shapes) -> Load:
        episodes = [(task, shapes.episode(task, 0)) for task in range(arm.tasks)]
        return Load(episodes, arm.concurrency, statistics.median(found.seconds[arm]))

    def row(arm: Arm, shapes: Shapes) -> dict[str, Any]:
        known = load(arm, shapes)
        predicted = predict(known, costs, limits)
        return {
            "arm": arm.name,
            "measured": known.seconds,
            "predicted": predicted,
            "error": predicted / known.seconds - 1,
            "all": found.seconds[arm],
        }

    costs = fit([load(arm, found.own[arm]) for arm in CALIBRATED], limits)
    return {
        "costs": costs,
        "calibrated": [row(arm, found.own[arm]) for arm in CALIBRATED],
        "predicted": [row(arm, found.known[arm]) for arm in PREDICTED],
        "predicted, had lengths been known": [row(arm, found.own[arm]) for arm in PREDICTED],
    }


def published() -> list[dict[str, Any]]:
    """What others measured on GPUs, beside what is simulated from data sheets."""
    hardware, rows = load_hardware(), []
    for found in hardware.published:
        served = hardware.served(found.model, found.gpu, found.tensor_parallel, 1)
        for concurrency, measured in found.tokens_per_s.items():
            episodes = zip(range(4 * concurrency), repeat(uniform(1, found.prompt, found.reply).episode(0, 0)))
            played = simulate(episodes, served.limited(rows=concurrency), 1, concurrency)
            predicted = played.reply_tokens / played.seconds
            rows.append(
                {
                    "arm": f"{found.model} on {found.tensor_parallel} {found.gpu}, {found.prompt} + {found.reply} "
                    f"tokens, {concurrency} at a time",
                    "measured": measured,
                    "predicted": predicted,
                    "error": predicted / measured - 1,
                }
            )
    return rows


async def _measured(model: str, repeats: int, clock: str) -> Measured:
    engine = make_engine(parse_model(model))
    try:
        return await measure(engine, repeats, clock)
    finally:
        await engine.close()


@click.command()
@click.option("--model", default="embedded", show_default=True, help="The engine: embedded, or vllm:DIR.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="wall", show_default=True)
@click.option("--published", "is_published", is_flag=True, help="Compare with published figures of GPUs instead.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the costs to this hardware file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(model: str, repeats: int, clock: str, is_published: bool, save: Path | None, as_json: bool) -> None:
    """Measure how well the simulated engine predicts."""
    if is_published:
        _print({"published": published()}, as_json)
        return
    is_vllm = model.startswith("vllm")
    limits = Limits(prefix_caching=is_vllm, padded=not is_vllm)
    result = compare(asyncio.run(_measured(model, repeats, clock)), limits)
    costs = result.pop("costs")
    if save is not None:
        name = f"{model.partition(':')[0]}@here"
        save.write_text(to_toml(name, costs, limits, "python -m experiments.benchmarks.capacity"), encoding="utf-8")
    _print({"costs": {name: getattr(costs, name) for name in costs.__slots__}, **result}, as_json)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, cost in result.pop("costs", {}).items():
        click.echo(f"{name:<12}{cost * 1e6:>12,.2f} µs")
    for part, rows in result.items():
        click.echo(f"\n{part:<66}{'measured':>9}{'predicted':>11}{'error':>8}")
        for row in rows:
            click.echo(f"{row['arm']:<66}{row['measured']:>9,.2f}{row['predicted']:>11,.2f}{row['error']:>8.0%}")
        errors = [abs(row["error"]) for row in rows]
        click.echo(f"{'median and largest error':<66}{statistics.median(errors):>20.0%}{max(errors):>8.0%}")


if __name__ == "__main__":
    main()
