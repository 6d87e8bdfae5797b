"""A sweep in the terminal: one table, and in words what it does not show."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.show import percent, plain
from experiments.stats import Interval
from experiments.sweep_table import SweepTable, Versus

LEVEL = 0.05


def render_sweep(table: SweepTable, name: str) -> RenderableType:
    several = len(table.self_consistency) > 1
    priced = any(entry.usd is not None for entry in table.entries)
    shown = Table(title=Text(f"sweep {name}", style="table.title"), title_justify="left")
    shown.add_column("topology", no_wrap=True)
    if several:
        shown.add_column("model", overflow="fold")
    first = table.entries[0].topology if table.entries else ""
    costs = ("calls", "tokens", *(["$"] if priced else []))
    for heading in ("accuracy %", *costs, f"against {first}", "at equal calls", "at equal tokens"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for entry in table.entries:
        lines = _lines(entry.topology) + ([f"  stopped: {entry.stopped.tasks} tasks"] if entry.stopped else [])
        cells = [plain("\n".join(lines)), *([plain(entry.model)] if several else [])]
        cost = f"{entry.calls:.1f}", f"{entry.tokens:,.0f}", *([_usd(entry.usd)] if priced else [])
        versus = (_versus(v) for v in (entry.first, entry.equal_calls, entry.equal_tokens))
        shown.add_row(*cells, f"{percent(entry.accuracy)}{_bounds(entry.ci95)}", *cost, *versus)
    note = (
        f"{table.tasks} tasks of {table.env}. Differences are paired by task, with 95 % intervals; p after Holm's "
        "correction over the column. Equal calls and tokens: against self-consistency with as many (k samples)."
    )
    failed = sum(entry.failed for entry in table.entries)
    words = [note, *verdicts(table), *_stops(table), *_spending(table)]
    words += [f"{failed} episodes failed and are left out."] if failed else []
    return Group(shown, *(Text(line, style="dim") for line in words))


def _stops(table: SweepTable) -> list[str]:
    """Who was stopped, and why."""
    if table.stop_losers is None:
        return []
    several = len(table.self_consistency) > 1
    found = [
        f"{entry.topology}{f' ({entry.model})' if several else ''} after {loss.tasks} tasks, "
        f"{-100 * loss.difference:.1f} points{_bounds((-loss.interval[1], -loss.interval[0]))} behind {loss.winner}"
        for entry in table.entries
        if (loss := entry.stopped)
    ]
    level = f"{100 * (1 - table.stop_losers):g} %"
    return [f"Stopped early: {'; '.join(found) or 'none'}. These intervals hold together, at every look, with {level}."]


def _spending(table: SweepTable) -> list[str]:
    """What was spent of a budget, and what it left."""
    if table.spent is None or not table.budget:
        return []
    limits = " and ".join(f"{limit:,g} {kind}" for kind, limit in table.budget.items())
    usd = "" if table.spent.usd is None or not any(e.usd for e in table.entries) else f", {_usd(table.spent.usd)} usd"
    left = ", ".join(f"{one.topology} {one.episodes:,} of {one.of:,}" for one in table.unplayed)
    return [
        f"Spent {table.spent.calls:,} calls, {table.spent.tokens:,} tokens{usd}, of a budget of {limits}. "
        f"Episodes left unplayed: {left or 'none'}."
    ]


def _usd(amount: float | None) -> str:
    return "–" if amount is None else f"{amount:.3g}"


def verdicts(table: SweepTable) -> list[str]:
    """What beats the first topology, and what beats self-consistency at equal calls, in plain words."""
    first = table.entries[0].topology if table.entries else ""
    better, worse = ([e.topology for e in table.entries if _told_apart(e.first, sign)] for sign in (1, -1))
    measured = [entry for entry in table.entries if entry.equal_calls]
    ahead, behind = ([e.topology for e in measured if _told_apart(e.equal_calls, sign)] for sign in (1, -1))
    neither = [entry.topology for entry in measured if entry.topology not in (*ahead, *behind)]
    return [
        f"Better than {first} (interval above 0, corrected p below {LEVEL}): {_listed(better)}; "
        f"worse: {_listed(worse)}.",
        f"Better than self-consistency at equal calls: {_listed(ahead)}; worse: {_listed(behind)}; "
        f"not told apart from it: {_listed(neither)}.",
    ]


def _versus(versus: Versus | None) -> str:
    if versus is None:
        return "–"
    found = versus.comparison
    p = f"p {versus.corrected_p:.3f}" if versus.corrected_p >= 0.001 else "p <0.001"
    samples = f"k={versus.samples}, " if versus.samples else ""
    return f"{found.difference * 100:+.1f}{_bounds(found.interval)}\n{samples}{p}".replace("-", "−")


def _lines(topology: str) -> list[str]:
    """Its name, and below it its settings."""
    name, comma, settings = topology.partition(",")
    return [name, f"  {settings.replace(',', ', ')}"] if comma else [name]


def _bounds(bounds: Interval | None) -> str:
    return "" if bounds is None else f" ({percent(bounds[0], 0)} to {percent(bounds[1], 0)})"


def _told_apart(versus: Versus | None, sign: int) -> bool:
    """Whether it is better (sign 1) or worse (-1): an interval beyond 0, and a corrected p below LEVEL."""
    if versus is None or versus.comparison.interval is None or versus.corrected_p >= LEVEL:
        return False
    low, high = versus.comparison.interval
    return low > 0 if sign > 0 else high < 0


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "none"
