"""What a model call costs beside the model: `python -m experiments.benchmarks.calls`.

CPU time, user and system, of each call of a debate, with 1, 64, 1,000 and 10,000 episodes in flight, against an engine
that answers at once: graph, role, pool, Ray and recording, until the episode is on disk. The driver (this process), the
replica (a Ray actor) and Ray's own processes apart; and the same without Ray. Beside them, as the unit that does not
depend on the machine: LangGraph alone, which runs a graph of this shape whose nodes do nothing. The arms take turns,
`--repeats` times; medians are printed.
"""

import asyncio
import json
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from langgraph.graph import END, START, StateGraph

from agents.cluster import connected
from agents.company import Backend
from experiments.benchmarks.debates import CALLS, played
from experiments.runner import collecting_seldom, in_event_loop
from graphs import Table

IN_FLIGHT = (1, 64, 1_000, 10_000)
BACKENDS: tuple[Backend, ...] = ("ray", "local")
Figures = dict[str, float]


def langgraph_ms(episodes: int) -> float:
    """CPU milliseconds of LangGraph for each of the calls that a debate would make in its three nodes."""

    async def node(state: Table) -> dict[str, Any]:
        return {"round": state.round + 1}

    async def after(state: Table) -> str:
        return "decide"

    graph = StateGraph(Table)
    for name in ("propose", "rebut", "decide"):
        graph.add_node(name, node)
    graph.add_edge(START, "propose")
    graph.add_edge("propose", "rebut")
    graph.add_conditional_edges("rebut", after, ["decide"])
    graph.add_edge("decide", END)
    compiled = graph.compile()

    async def play() -> None:
        for _ in range(episodes):
            await compiled.ainvoke(Table("What is 3 + 4?"))

    before = time.process_time()
    with collecting_seldom():
        asyncio.run(play())
    return 1e3 * (time.process_time() - before) / (episodes * CALLS)


def play(in_flight: int, backend: Backend, episodes: int, folder: Path) -> Figures:
    """CPU milliseconds a call, by where they are spent, and calls a second."""
    done = in_event_loop(lambda: played(episodes, in_flight, folder, backend))
    figures = {name: done.ms_per_call(seconds) for name, seconds in asdict(done.cpu).items()}
    if backend == "local":
        del figures["replicas"], figures["ray"]
    return {**figures, "total": sum(figures.values()), "calls_per_s": done.calls / done.seconds}


def measure(in_flight: tuple[int, ...], backends: tuple[Backend, ...], episodes: int, repeats: int) -> dict[str, Any]:
    every: dict[str, dict[int, list[Figures]]] = {backend: {n: [] for n in in_flight} for backend in backends}
    alone: list[float] = []
    for repeat in range(-1, repeats):
        alone.append(langgraph_ms(200))
        for backend in backends:
            for n in in_flight if repeat >= 0 else in_flight[:1]:
                with tempfile.TemporaryDirectory() as folder:
                    figures = play(n, backend, max(n, episodes) if repeat >= 0 else 10, Path(folder))
                if repeat >= 0:
                    every[backend][n].append(figures)
    unit = statistics.median(alone[1:])
    found = {backend: {n: _medians(runs) for n, runs in rows.items()} for backend, rows in every.items()}
    first = found[backends[0]]
    return {
        "cpu_ms_per_call": found,
        "langgraph_alone_ms": round(unit, 3),
        "ratios": {
            "total_over_langgraph_alone": {n: round(row["total"] / unit, 2) for n, row in first.items()},
            f"{in_flight[-1]}_over_{in_flight[-2:][0]}_in_flight": round(
                first[in_flight[-1]]["total"] / first[in_flight[-2:][0]]["total"], 2
            ),
        },
        "all": {
            b: {n: [round(one["total"], 3) for one in runs] for n, runs in rows.items()} for b, rows in every.items()
        },
    }


def _medians(runs: list[Figures]) -> Figures:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


@click.command()
@click.option("--in-flight", type=int, multiple=True, default=IN_FLIGHT, show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), multiple=True, default=BACKENDS, show_default=True)
@click.option("--episodes", type=int, default=1_000, show_default=True, help="Of each run; more where more in flight.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(in_flight: tuple[int, ...], backend: tuple[Backend, ...], episodes: int, repeats: int, as_json: bool) -> None:
    """Measure the CPU time of a model call beside the model."""
    with connected("local") if "ray" in backend else nullcontext():
        result = measure(in_flight, backend, episodes, repeats)
    if as_json:
        click.echo(json.dumps(result))
        return
    columns = ("driver", "replicas", "ray", "total")
    click.echo(f"{'ms of CPU a call':<24}" + "".join(f"{name:>10}" for name in (*columns, "calls/s")))
    for where, rows in result["cpu_ms_per_call"].items():
        for n, row in rows.items():
            shown = "".join(f"{row[name]:>10.3f}" if name in row else f"{'':>10}" for name in columns)
            click.echo(f"{where:<8}{n:>6,} in flight {shown}{row['calls_per_s']:>10,.0f}")
    click.echo(f"LangGraph alone {result['langgraph_alone_ms']} ms; ratios {result['ratios']}")


if __name__ == "__main__":
    main()
