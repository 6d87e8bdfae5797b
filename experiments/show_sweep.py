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
    shown = Table(title=Text(f"sweep {name}", style="table.title"), title_justify="left")
    shown.add_column("topology", no_wrap=True)
    if several:
        shown.add_column("model", overflow="fold")
    first = table.entries[0].topology
    for heading in ("accuracy %", "calls", "tokens", f"against {first}", "at equal calls", "at equal tokens"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for entry in table.entries:
        cells = [plain("\n".join(_lines(entry.topology))), *([plain(entry.model)] if several else [])]
        cost = f"{entry.calls:.1f}", f"{entry.tokens:,.0f}"
        versus = (_versus(v) for v in (entry.first, entry.equal_calls, entry.equal_tokens))
        shown.add_row(*cells, f"{percent(entry.accuracy)}{_bounds(entry.ci95)}", *cost, *versus)
    note = (
        f"{table.tasks} tasks of {table.env}. Differences are paired by task, with 95 % intervals; p after Holm's "
        "correction over the column. Equal calls and tokens: against self-consistency with as many (k samples)."
    )
    failed = sum(entry.failed for entry in table.entries)
    words = [note, *verdicts(table), *([f"{failed} episodes failed and are left out."] if failed else [])]
    return Group(shown, *(Text(line, style="dim") for line in words))


def verdicts(table: SweepTable) -> list[str]:
    """What beats the first topology, and what beats self-consistency at equal calls, in plain words."""
    first = table.entries[0].topology
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
