"""What orchestration costs, and whether it stays so: `python -m experiments.benchmarks.orchestration`.

Runs the benchmarks of its parts, each in a process of its own, and holds their figures to bounds. Most are ratios of
what was measured in one run, so that they hold on another machine, and on one that is busy. Exit status 1 says that one
is exceeded. `--quick` is for looking whether a change cost something: smaller sizes, on CPU time alone.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import click

QUICK: dict[str, tuple[str, ...]] = {
    "calls": ("--in-flight=64", "--in-flight=1000", "--episodes=500"),
    "endpoint": ("--episodes=60", "--repeats=3", "--no-peers"),
    "latency": ("--clock=cpu",),
    "growth": ("--backend=local", "--episodes=1000", "--episodes=4000"),
    "stored": ("--episodes=300",),
    "saturation": ("--clock=cpu", "--debates=100"),
}
"""The parts, with what makes them small."""


@dataclass(frozen=True)
class Bound:
    """A figure and what it may come to at most; at least, where `floor`."""

    part: str
    key: str
    """Where it stands in the part's JSON."""
    value: float
    floor: bool = False

    def holds(self, found: float) -> bool:
        return found >= self.value if self.floor else found <= self.value


BOUNDS = (
    Bound("calls", "cpu_ms_per_call/ray/1000/total", 1.0),
    Bound("calls", "ratios/total_over_langgraph_alone/1000", 6.0),
    Bound("calls", "ratios/10000_over_1000_in_flight", 1.5),
    Bound("endpoint", "text alone/ours_over/bare, default", 1.0),
    Bound("endpoint", "text alone/ours_over/LangGraph, ChatOpenAI", 0.8),
    Bound("endpoint", "text alone/ours_over/AutoGen", 0.8),
    Bound("latency", "latency_ms/500/over_chain", 1.35),
    Bound("growth", "ratios/cpu_last_over_first", 1.15),
    Bound("growth", "ratios/memory_last_over_first", 1.25),
    Bound("saturation", "debates_over_bare_engine", 0.85, floor=True),
)


def run_part(name: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    asked = [sys.executable, "-m", f"experiments.benchmarks.{name}", "--json", *arguments]
    return json.loads(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout)


def figure(result: dict[str, Any], key: str) -> float | None:
    """A figure of a part; None where it was not measured."""
    value: Any = result
    for name in key.split("/"):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def compare(results: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that are bounded, as far as they were measured."""
    rows = []
    for bound in BOUNDS:
        found = figure(results.get(bound.part, {}), bound.key)
        if found is not None:
            row = {"part": bound.part, "figure": bound.key, "found": found, "bound": bound.value}
            rows.append({**row, "at_least": bound.floor, "holds": bound.holds(found)})
    return rows


@click.command()
@click.option("--part", "parts", type=click.Choice(list(QUICK)), multiple=True, default=tuple(QUICK))
@click.option("--quick", is_flag=True, help="Small sizes, and CPU time in place of the wall's clock.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(parts: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure what orchestration costs, and hold it to its bounds."""
    results = {}
    for part in parts:
        click.echo(f"{part} …", err=True)
        results[part] = run_part(part, QUICK[part] if quick else ())
    bounds = compare(results)
    if as_json:
        click.echo(json.dumps({"parts": results, "bounds": bounds}))
    else:
        for row in bounds:
            limit = f"{'at least' if row['at_least'] else 'at most'} {row['bound']:g}"
            said = "" if row["holds"] else "   EXCEEDED"
            click.echo(f"{row['part']:<12}{row['figure']:<48}{row['found']:>8.3f}   {limit}{said}")
    sys.exit(0 if all(row["holds"] for row in bounds) else 1)


if __name__ == "__main__":
    main()
