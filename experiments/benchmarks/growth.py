"""How a run grows with its episodes: `python -m experiments.benchmarks.growth`.

Runs of 1,000, 10,000 and 100,000 debates, of 1,000 tasks each, 256 in flight: CPU time an episode, seconds, and the
most memory that the process had, before it is asked for the summary and after. Each run has a process of its own,
against an engine that answers at once, and its folder is removed afterwards (100,000 debates are 2 GB).
"""

import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from agents.cluster import connected
from agents.company import Backend
from experiments.benchmarks.debates import peak_mb, played
from experiments.plan import CONCURRENCY
from experiments.runner import in_event_loop

EPISODES = (1_000, 10_000, 100_000)
TASKS = 1_000


def play(episodes: int, in_flight: int, backend: Backend) -> dict[str, Any]:
    """One run, in this process."""
    with (
        tempfile.TemporaryDirectory() as folder,
        connected("local") if backend == "ray" else nullcontext(),
    ):
        loaded = peak_mb()
        done = in_event_loop(
            lambda: played(episodes, in_flight, Path(folder), backend, samples=max(1, episodes // TASKS))
        )
        peak = peak_mb()
        summary = done.run.summary()
        assert summary.calls == done.calls and not summary.failed
        return {
            "cpu_ms_per_episode": round(1e3 * done.cpu.total / episodes, 2),
            "wall_s": round(done.seconds, 1),
            "loaded_mb": loaded,
            "peak_mb": peak,
            "with_summary_mb": peak_mb(),
            "store_kb_per_episode": round((done.run.path / "episodes.db").stat().st_size / episodes / 1024, 1),
        }


def _in_its_own_process(episodes: int, in_flight: int, backend: Backend) -> dict[str, Any]:
    asked = [sys.executable, "-m", "experiments.benchmarks.growth", "--one", f"--episodes={episodes}"]
    asked += [f"--in-flight={in_flight}", f"--backend={backend}"]
    return json.loads(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout)


@click.command()
@click.option("--episodes", type=int, multiple=True, default=EPISODES, show_default=True)
@click.option("--in-flight", type=int, default=CONCURRENCY, show_default=True)
@click.option("--backend", type=click.Choice(["ray", "local"]), default="ray", show_default=True)
@click.option("--one", is_flag=True, hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(episodes: tuple[int, ...], in_flight: int, backend: Backend, one: bool, as_json: bool) -> None:
    """Measure time and memory by the number of episodes."""
    if one:
        click.echo(json.dumps(play(episodes[0], in_flight, backend)))
        return
    found = {n: _in_its_own_process(n, in_flight, backend) for n in episodes}
    first, last = found[episodes[0]], found[episodes[-1]]
    ratios = {
        "cpu_last_over_first": round(last["cpu_ms_per_episode"] / first["cpu_ms_per_episode"], 2),
        "memory_last_over_first": round(last["peak_mb"] / first["peak_mb"], 2),
    }
    if as_json:
        click.echo(json.dumps({"backend": backend, "in_flight": in_flight, "runs": found, "ratios": ratios}))
        return
    click.echo(f"{'episodes':>10}{'CPU an episode':>16}{'seconds':>10}{'loaded':>9}{'peak':>9}{'summary':>9}")
    for n, row in found.items():
        memory = "".join(f"{row[key]:>6,} MB" for key in ("loaded_mb", "peak_mb", "with_summary_mb"))
        click.echo(f"{n:>10,}{row['cpu_ms_per_episode']:>13.2f} ms{row['wall_s']:>10,.1f}{memory}")
    click.echo(" ".join(f"{name} {value}" for name, value in ratios.items()))


if __name__ == "__main__":
    main()
