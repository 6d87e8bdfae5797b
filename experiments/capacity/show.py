"""A capacity plan in the terminal, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agents.simulation.hardware import Hardware
from experiments.capacity.planner import CALL_S, MOST_CALLS, Estimate
from experiments.capacity.workload import Workload


def render_plan(
    workload: Workload, model: str, estimates: Sequence[Estimate], refused: Sequence[str], hardware: Hardware
) -> RenderableType:
    table = Table(title=Text(f"{workload.what}, {model}", style="table.title"), title_justify="left")
    table.add_column("GPUs", no_wrap=True)
    for heading in ("time", "cost", "playing", "learning", "calls/s", "tokens/s", "busy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in estimates:
        table.add_row(
            _gpus(found),
            duration(found.hours),
            "–" if found.usd is None else f"${found.usd:,.2f}",
            duration(found.play_h),
            duration(found.learn_h) if found.trainer_gpus else "–",
            f"{found.calls_per_s:,.1f}",
            f"{found.tokens_per_s:,.0f}",
            f"{found.busy:.0%}",
        )
    lines = [*_sizes(workload), *supposed(workload, estimates, hardware), *refused]
    return Group(table, *(Text(line, style="dim") for line in lines))


def plan_json(
    workload: Workload, model: str, estimates: Sequence[Estimate], refused: Sequence[str], hardware: Hardware
) -> dict[str, Any]:
    shapes = workload.shapes
    return {
        "what": workload.what,
        "model": model,
        "episodes": workload.episodes,
        "calls": shapes.calls,
        "most_calls": workload.most_calls,
        "tokens": {"prompt": shapes.prompt_tokens, "completion": shapes.reply_tokens},
        "estimates": [{**asdict(found), "gpus": found.gpus} for found in estimates],
        "refused": list(refused),
        "supposed": supposed(workload, estimates, hardware),
    }


def supposed(workload: Workload, estimates: Sequence[Estimate], hardware: Hardware) -> list[str]:
    """What was taken for granted, in sentences."""
    reached, lines = hardware.efficiency, list(workload.supposed)
    if any(not found.measured for found in estimates):
        lines.append(
            f"Engines are simulated from data sheets (bfloat16): {reached.bandwidth:.0%} of the bandwidth and, where a "
            f"GPU says nothing else, {reached.compute:.0%} of the FLOPs are reached (sources, of prices too: "
            "agents/simulation/hardware.toml)."
        )
    rows = ", ".join(f"{found.gpu} {found.rows}" for found in estimates)
    lines.append(f"Calls that a replica runs at once: {rows}. A call costs the playing process {CALL_S * 1e3:g} ms.")
    if workload.learning:
        lines.append(
            f"Learning reaches {reached.mfu:.0%} of the FLOPs and has GPUs of its own; all GPUs are paid for all the "
            "time."
        )
    if any(each.episodes * each.shapes.calls > MOST_CALLS for each in workload.segments):
        lines.append(f"About {MOST_CALLS:,} calls of each part are simulated; the rest takes proportionally longer.")
    return [*lines, f"Prices: {'; '.join(f'{found.gpu} {found.price}' for found in estimates)}."]


def duration(hours: float) -> str:
    """In the unit that suits it."""
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{hours:.1f} h"


def _gpus(found: Estimate) -> str:
    replicas = f"{found.replicas} × {found.tensor_parallel}" if found.tensor_parallel > 1 else f"{found.replicas}"
    return f"{found.gpu}: {replicas}{f' + {found.trainer_gpus} to learn' if found.trainer_gpus else ''}"


def _sizes(workload: Workload) -> list[str]:
    shapes = workload.shapes
    most = f" (at most {workload.most_calls})" if workload.most_calls else ""
    return [
        f"{workload.episodes:,} episodes; each {shapes.calls:.1f} calls{most}, {shapes.prompt_tokens:,.0f} prompt and "
        f"{shapes.reply_tokens:,.0f} reply tokens."
    ]
