"""Cost against accuracy of a sweep, as a picture."""

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
        for point in curve:
            if point.ci95:
                axes.plot(
                    [point.tokens] * 2, [100 * bound for bound in point.ci95], color=colour, alpha=0.12, linewidth=5
                )
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
    for place, entry in enumerate(sorted(entries, key=lambda entry: entry.tokens)):
        if entry.accuracy is None or not entry.tokens:
            continue
        y = 100 * entry.accuracy
        low, high = entry.ci95 or (entry.accuracy, entry.accuracy)
        axes.errorbar(
            entry.tokens,
            y,
            yerr=[[y - 100 * low], [100 * high - y]],
            fmt="o",
            color=colour,
            markersize=4,
            linewidth=0.8,
        )
        # Neighbours in cost have their names above and below by turns, or they would hide one another.
        side = 1 if place % 2 else -1
        axes.annotate(
            entry.topology,
            (entry.tokens, y),
            xytext=(4, 6 * side),
            textcoords="offset points",
            fontsize=7,
            verticalalignment="bottom" if side > 0 else "top",
            parse_math=False,
        )
