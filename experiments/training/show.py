"""Training runs in the terminal: a line as it goes, the curve of a run, what runs gained."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.show import difference, interval, percent, plain, printable
from experiments.training.report import Gain, gain
from experiments.training.training import Line, Training

_SHOWN = {
    "loss": ("loss", "{:.4f}"),
    "kl": ("kl", "{:.4f}"),
    "clipped_high": ("clip", "{:.3f}"),
    "entropy": ("entropy", "{:.3f}"),
    "grad_norm": ("grad", "{:.2f}"),
    "gap_max": ("gap", "{:.1e}"),
    "staleness": ("lag", "{:.1f}"),
}
"""Metric of a policy -> its heading and form."""


def spoken(line: Line) -> str:
    """One line of metrics in a few words, as it is shown while the run goes on."""
    if "stage" in line:
        return f"{line['stage']}: {spoken({key: value for key, value in line.items() if key != 'stage'})}"
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in line["seconds"].items() if name != "playing_share")
    after = f"after {line['updates']} updates"
    if line["kind"] == "update":
        rewards = "  ".join(f"{role} {sum(terms.values()):.3f}" for role, terms in line["rewards"].items() if terms)
        if pool := line.get("pool"):
            return f"iteration {line['updates']}: kept {pool['kept']} of {pool['questions']} questions  ({seconds})"
        return f"update {line['updates']}: reward {rewards}  ({line['items']} learned from; {seconds})"
    if line["kind"] == "league":
        newest = [(one, other, rate) for one, rates in line["attack"].items() for other, rate in rates.items()][-1:]
        found = ", ".join(f"{one} passes {other} with {percent(rate)} % of its attempts" for one, other, rate in newest)
        return f"league {after}: {found or 'no valid attempt'}"
    if line["kind"] == "end":
        return f"ended {after} ({line['reason']}); best after {line['best']}; {seconds}"
    greedy = f", greedy {percent(line['greedy'])}" if "greedy" in line else ""
    return f"{line['kind']} {after}: {percent(line['accuracy'])} % {interval(line['ci95'])}{greedy}  ({seconds})"


def render_training(training: Training) -> RenderableType:
    """The curve, and what was gained."""
    rows: list[RenderableType] = [_curve(training)]
    for line in training.lines("league")[-1:]:
        rows.append(_league(line))
    if any("pool" in line for line in training.lines("update")):
        rows.append(_pools(training))
    if found := gain(training):
        rows.append(render_report([found]))
    for line in training.lines("end"):
        rows.append(Text(spoken(line)))
        rows += [plain(f"{name}: {where}") for name, where in line["weights"].items()]
    return Group(*rows)


def _curve(training: Training) -> RenderableType:
    """A row a measurement; beside it the means over the updates since the one before, of each policy."""
    updates, measured = training.lines("update"), training.lines("validation")
    names = sorted({name for line in updates for name in line["policies"]}) or [""]
    table = Table(title=Text(f"training {training.name}", style="table.title"), title_justify="left", box=SIMPLE_HEAD)
    several = ["policy"] if len(names) > 1 else []
    for heading in (
        "updates",
        "validation %",
        "greedy",
        "reward",
        *several,
        *(shown[0] for shown in _SHOWN.values()),
        "s",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    points = [line["updates"] for line in measured] or [len(updates)]
    for place, point in enumerate(points):
        since = [line for line in updates if (points[place - 1] if place else 0) < line["updates"] <= point]
        found = measured[place] if measured else {}
        seconds = f"{sum(sum(line['seconds'].values()) for line in since):.0f}" if since else ""
        accuracy = f"{percent(found.get('accuracy'))} {interval(found.get('ci95'))}".strip()
        first = [str(point), accuracy, percent(found.get("greedy")), _rewards(since)]
        for number, name in enumerate(names):
            cells = [*([name] if several else []), *(_metric(since, name, key) for key in _SHOWN)]
            table.add_row(*(first if not number else [""] * len(first)), *cells, "" if number else seconds)
    return table


def _league(line: Line) -> RenderableType:
    """Who passes whom: a row a generator, a column a critic."""
    critics = list(dict.fromkeys(name for rates in line["attack"].values() for name in rates))
    table = Table(title=Text("attempts that pass, %", style="table.title"), title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for heading in (*critics, "valid"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, valid in line["valid"].items():
        rates = line["attack"].get(name, {})
        table.add_row(name, *(percent(rates.get(critic)) for critic in critics), percent(valid))
    return table


def _pools(training: Training) -> RenderableType:
    """A row an iteration: what the solver gained, what was posed, what the votes on it were worth."""
    table = Table(title=Text("iterations, %", style="table.title"), title_justify="left", box=SIMPLE_HEAD)
    headings = ("accuracy", "gained (95 %)", "problems", "kept", "true labels", "cluster", "fixed solver", "its calls")
    for heading in ("", *headings):
        table.add_column(heading, justify="right", no_wrap=True)
    iterations = {line["updates"]: line for line in training.lines("update")}
    exams = {line["updates"]: line for line in training.lines("test")}
    for number in sorted({*iterations, *exams}):
        exam, pool = exams.get(number, {}), iterations.get(number, {}).get("pool", {})
        fixed = iterations.get(number, {}).get("fixed", {})
        low_high = exam.get("gained_ci95")
        gained = f"{100 * exam['gained']:+.1f} {interval(low_high)}" if exam.get("gained") is not None else ""
        table.add_row(
            str(number),
            percent(exam.get("accuracy")),
            gained,
            percent(pool.get("problems")),
            f"{pool['kept']} of {pool['questions']}" if pool else "",
            percent(pool.get("true_labels")),
            percent(pool.get("cluster_share")),
            percent(fixed.get("accuracy")),
            "" if fixed.get("calls") is None else f"{fixed['calls']:.2f}",
        )
    return table


def render_report(rows: Sequence[Gain]) -> RenderableType:
    """What runs gained on held-out tasks, in percentage points."""
    common = [part for part in rows[0].what if all(part in row.what for row in rows)]
    title = Text(f"on held-out tasks: {printable(', '.join(common))}", style="table.title")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run, seed", overflow="fold")
    own = [[part for part in row.what if part not in common] for row in rows]
    longest = max((len(part) for parts in own for part in parts), default=0)
    table.add_column("", overflow="fold", min_width=min(24, longest))
    for heading in ("before → after %", "gained (95 %)", "last weights", "greedy %", "best"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, parts in zip(rows, own, strict=True):
        table.add_row(
            plain(f"{row.run}, {', '.join(map(str, row.seeds))}"),
            plain("\n".join(parts)),
            f"{percent(row.before)} → {percent(row.after)}",
            difference(row.gained),
            difference(row.last),
            f"{percent(row.greedy_before, 0)} → {percent(row.greedy_after, 0)}" if row.greedy else "",
            f"{row.updates:.0f}",
        )
    return Group(title, table)


def _rewards(lines: Sequence[Line]) -> str:
    roles = dict.fromkeys(role for line in lines for role in line["rewards"])
    means = {
        role: fmean(sum(line["rewards"][role].values()) for line in lines if role in line["rewards"]) for role in roles
    }
    return "  ".join(f"{role} {value:.2f}" for role, value in means.items())


def _metric(lines: Iterable[Line], policy: str, key: str) -> str:
    values: list[Any] = [line["policies"].get(policy, {}).get(key) for line in lines]
    known = [value for value in values if value is not None]
    form = _SHOWN[key][1]
    return form.format(max(known) if key.endswith("_max") else fmean(known)) if known else ""
