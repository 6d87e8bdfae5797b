"""What co-evolution gains, and why: `python -m experiments.studies.agent0 RUN...`.

RUNs are trainings by the recipes `agent0` and `r_zero`, ablations among them; those that differ in their seed alone
stand together. Three tables:

- the solver on labelled tasks that nobody learned from, before and after, paired by task; and right answers among those
  that could be read, so that a gain of form is told from one of skill;
- iteration by iteration: what was posed, how alike, how hard it was for the solver of the first iteration, which is the
  same for all pools, and how many programs it ran;
- how often labels are true, by how far the votes agreed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

import click
from rich.console import Group, RenderableType

from envs.errors import ConfigError
from experiments.runs import RUNS
from experiments.show import console, percent
from experiments.studies.tables import common_to, kinds_of, named, study_table
from experiments.training.report import Gain, report
from experiments.training.show import render_report
from experiments.training.training import Line, Training


@dataclass(frozen=True)
class Iteration:
    """Means over the runs of a kind."""

    number: int
    accuracy: float | None
    """Of the solver after it."""
    answered: float | None
    """Share of its attempts whose answer could be read."""
    problems: float | None
    """Share of the questions that are problems such as were asked for."""
    kept: float | None
    true_labels: float | None
    """Of the kept questions that have a truth."""
    cluster_share: float | None
    fixed: float | None
    """How often the solver of the first iteration says what a label of this pool is."""
    fixed_calls: float | None
    """Programs that it ran for that, a question."""


@dataclass(frozen=True)
class Row:
    """A kind of training, all its seeds together."""

    runs: tuple[str, ...]
    what: tuple[str, ...]
    iterations: tuple[Iteration, ...]
    truths: dict[str, tuple[int, int]]
    """Agreement -> true labels, and all, of the kept questions that have a truth."""


def study(names: Sequence[str], root: Path = RUNS) -> list[Row]:
    """A row for each kind of training. Raises ConfigError as `kinds_of`."""

    def has_pools(training: Training) -> bool:
        return any("pool" in line for line in training.lines("update"))

    kinds = kinds_of(names, root, "agent0 or r_zero", has_pools)
    return [_row(what, group) for what, group in kinds.items()]


def _row(what: tuple[str, ...], group: Sequence[Training]) -> Row:
    exams = [line for training in group for line in training.lines("test")]
    updates = [line for training in group for line in training.lines("update")]
    truths: dict[str, tuple[int, int]] = {}
    for line in updates:
        for agreement, (right, known) in line["pool"]["true_labels_at"].items():
            before = truths.get(agreement, (0, 0))
            truths[agreement] = before[0] + right, before[1] + known
    numbers = sorted({line["updates"] for line in (*exams, *updates)})
    return Row(
        runs=tuple(training.name for training in group),
        what=what,
        iterations=tuple(_iteration(number, exams, updates) for number in numbers),
        truths=dict(sorted(truths.items(), key=lambda item: Fraction(item[0]))),
    )


def _iteration(number: int, exams: Iterable[Line], updates: Iterable[Line]) -> Iteration:
    exams = [line for line in exams if line["updates"] == number]
    pools = [line["pool"] for line in updates if line["updates"] == number]
    fixed = [line["fixed"] for line in updates if line["updates"] == number]
    return Iteration(
        number=number,
        accuracy=_mean(exams, "accuracy"),
        answered=_mean(exams, "answered"),
        problems=_mean(pools, "problems"),
        kept=_mean(pools, "kept"),
        true_labels=_mean(pools, "true_labels"),
        cluster_share=_mean(pools, "cluster_share"),
        fixed=_mean(fixed, "accuracy"),
        fixed_calls=_mean(fixed, "calls"),
    )


def _mean(lines: Iterable[Line], key: str) -> float | None:
    known = [line[key] for line in lines if line[key] is not None]
    return fmean(known) if known else None


def render(rows: Sequence[Row], gains: Sequence[Gain]) -> RenderableType:
    common = common_to([row.what for row in rows])
    headings = ("accuracy %", "of what it answered", "problems %", "kept", "true labels %", "cluster share %")
    course = study_table("iteration by iteration", "", *headings, "fixed solver %", "its programs")
    for row in rows:
        for i, one in enumerate(row.iterations):
            skill = one.accuracy / one.answered if one.accuracy is not None and one.answered else None
            course.add_row(
                *(named(row.runs, row.what, common) if not i else ("", "")),
                str(one.number),
                percent(one.accuracy),
                percent(skill),
                percent(one.problems),
                "–" if one.kept is None else f"{one.kept:.0f}",
                percent(one.true_labels),
                percent(one.cluster_share),
                percent(one.fixed),
                "–" if one.fixed_calls is None else f"{one.fixed_calls:.2f}",
            )
    levels = sorted({agreement for row in rows for agreement in row.truths}, key=Fraction)
    truth = study_table("true labels by agreement, % (how many)", *levels)
    for row in rows:
        cells = [row.truths.get(agreement) for agreement in levels]
        shown = [f"{percent(cell[0] / cell[1], 0)} ({cell[1]})" if cell else "–" for cell in cells]
        truth.add_row(*named(row.runs, row.what, common), *shown)
    return Group(render_report(gains), course, truth)


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=RUNS, show_default=True, help="Folder of runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(runs: tuple[str, ...], root: Path, as_json: bool) -> None:
    """Compare what RUNS gained, and what they learned from."""
    try:
        rows, gains = study(runs, root), report(runs, root)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    found: dict[str, Any] = {"rows": [asdict(row) for row in rows], "gains": [asdict(gain) for gain in gains]}
    click.echo(json.dumps(found)) if as_json else console().print(render(rows, gains))


if __name__ == "__main__":
    main()
