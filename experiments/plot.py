"""Cost against accuracy of a sweep, as a picture."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from experiments.sweep_table import Entry, SweepTable

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's: told apart by everybody."""


def save_plot(table: SweepTable, path: Path) -> None:
    """Write a PNG: tokens an episode to the right, accuracy upwards with 95 % intervals.

    The line is self-consistency at 1, 2, 3, … samples: what lies above it is worth its tokens.
    """
    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    axes = figure.subplots()
    for model, colour in zip(table.self_consistency, _COLOURS * len(table.self_consistency), strict=False):
        curve = [point for point in table.self_consistency[model] if point.accuracy is not None]
        tokens, accuracy = [p.tokens for p in curve], [100 * (p.accuracy or 0) for p in curve]
        label = f"self-consistency, {model}" if len(table.self_consistency) > 1 else "self-consistency"
        axes.plot(tokens, accuracy, color=colour, linewidth=1.2, alpha=0.6, label=label)
        bounds = [point.ci95 or (point.accuracy or 0,) * 2 for point in curve]
        low, high = [100 * bound[0] for bound in bounds], [100 * bound[1] for bound in bounds]
        axes.fill_between(tokens, low, high, color=colour, alpha=0.1, linewidth=0)
        _scatter(axes, [entry for entry in table.entries if entry.model == model], colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12)
    axes.set_xlabel("tokens an episode, prompt and completion")
    axes.set_ylabel("accuracy %")
    axes.set_title(f"{table.env}, {table.tasks} tasks, 95 % intervals", loc="left", fontsize=10)
    axes.grid(alpha=0.25, which="both", linewidth=0.4)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def _scatter(axes: Axes, entries: list[Entry], colour: str) -> None:
    names: list[tuple[float, float, list[str]]] = []
    for entry in entries:
        if entry.accuracy is None or not entry.tokens:
            continue
        x, y = entry.tokens, 100 * entry.accuracy
        low, high = entry.ci95 or (entry.accuracy, entry.accuracy)
        around = [[y - 100 * low], [100 * high - y]]
        axes.errorbar(x, y, yerr=around, fmt="o", color=colour, markersize=4, linewidth=0.8)
        # Points that lie on one another share one label.
        near = [shared for a, b, shared in names if abs(math.log(a / x)) < 0.05 and abs(b - y) < 1]
        if near:
            near[0].append(entry.topology)
        else:
            names.append((x, y, [entry.topology]))
    for x, y, shared in names:
        axes.annotate(
            ", ".join(shared),
            (x, y),
            xytext=(6, 0),
            textcoords="offset points",
            fontsize=7,
            verticalalignment="center",
            parse_math=False,
        )
