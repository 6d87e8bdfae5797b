"""Sandboxes: `python -m experiments.benchmarks.sandbox`.

For each sandbox that this machine has: milliseconds until the first program of a sandbox that was just opened has
ended, and programs a second one after another and `--parallel` at once. The arms take turns, `--repeats` times, and the
median of each is printed.
"""

import asyncio
import json
import statistics
import time
from typing import Any

import click

from envs.sandbox import BACKENDS, Limits, Ran, Sandbox, open_sandbox, why_unavailable

PROGRAM = "total = 0\nfor i in range(1, 101):\n    total += i * i\nprint(total)"
_OUTPUT = "338350\n"
_LIMITS = Limits(seconds=30)


async def started_ms(backend: str) -> float:
    """Milliseconds from opening a sandbox to the end of its first program."""
    began = time.perf_counter()
    sandbox = open_sandbox(backend, _LIMITS)
    await _run(sandbox)
    spent = time.perf_counter() - began
    await sandbox.close()
    return spent * 1000


async def rate(backend: str, parallel: int, seconds: float) -> float:
    """Programs a second, `parallel` at once, over about `seconds`."""
    sandbox = open_sandbox(backend, _LIMITS, workers=parallel)
    await asyncio.gather(*(_run(sandbox) for _ in range(parallel)))
    began, done = time.perf_counter(), 0

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await _run(sandbox)
            done += 1

    await asyncio.gather(*(one_after_another() for _ in range(parallel)))
    spent = time.perf_counter() - began
    await sandbox.close()
    return done / spent


async def measure(parallel: int, repeats: int, seconds: float) -> dict[str, Any]:
    missing = {backend: why_unavailable(backend) for backend in BACKENDS}
    here = [backend for backend in BACKENDS if not missing[backend]]
    every: dict[str, dict[str, list[float]]] = {backend: {} for backend in here}
    for _ in range(repeats):
        for backend in here:
            figures = every[backend]
            figures.setdefault("start_ms", []).append(await started_ms(backend))
            figures.setdefault("per_s", []).append(await rate(backend, 1, seconds))
            figures.setdefault(f"per_s_of_{parallel}", []).append(await rate(backend, parallel, seconds))
    return {
        "median": {
            backend: {name: round(statistics.median(values), 1) for name, values in figures.items()}
            for backend, figures in every.items()
        },
        "all": {
            backend: {name: [round(value, 1) for value in values] for name, values in figures.items()}
            for backend, figures in every.items()
        },
        "missing": {backend: problem for backend, problem in missing.items() if problem},
    }


async def _run(sandbox: Sandbox) -> None:
    came = await sandbox.run(PROGRAM)
    if not isinstance(came, Ran) or came.output != _OUTPUT:
        raise click.ClickException(f"expected the program to print {_OUTPUT!r}, found {came}")


@click.command()
@click.option("--parallel", type=click.IntRange(min=2), default=8, show_default=True, help="Programs at once.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Of each measurement of a rate.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(parallel: int, repeats: int, seconds: float, as_json: bool) -> None:
    """Measure sandboxes: start-up, and programs a second."""
    result = asyncio.run(measure(parallel, repeats, seconds))
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{'sandbox':<12}{'first program':>16}{'one at a time':>16}{f'{parallel} at once':>16}")
    for backend, (start, one, many) in ((name, figures.values()) for name, figures in result["median"].items()):
        click.echo(f"{backend:<12}{f'{start:.1f} ms':>16}{f'{one:,.0f} /s':>16}{f'{many:,.0f} /s':>16}")
    for backend, problem in result["missing"].items():
        click.echo(f"{backend:<12}{problem}")


if __name__ == "__main__":
    main()
