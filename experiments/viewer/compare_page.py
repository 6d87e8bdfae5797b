"""Several runs compared: paired differences from the first, cost against accuracy, and tasks that tell them apart."""

from collections.abc import Sequence

from experiments import stats
from experiments.viewer.keys import NotThereError
from experiments.viewer.library import Library, Outcomes
from experiments.viewer.records import ComparePage, CostPoint, Difference, Problem, RunRow, TaskScores
from experiments.viewer.runs_page import read_row

MOST_TASKS = 200


def compare(library: Library, keys: Sequence[str]) -> ComparePage:
    """Compare runs with the first of them.

    Raises:
        NotThereError: no such run; a training or a sweep.
    """
    rows: list[RunRow] = []
    outcomes: list[Outcomes] = []
    for key in dict.fromkeys(keys):
        path, kind = library.find(key)
        if kind != "run":
            raise NotThereError(f"{path.name} is a {kind}: compare the runs in it")
        rows.append(read_row(library, path))
        outcomes.append(library.outcomes(path))
    differences, problems = _differences(library, rows, outcomes)
    differing = _differing(outcomes) if len(rows) > 1 else []
    return ComparePage(
        runs=rows,
        differences=differences,
        costs=[_cost(row) for row in rows if row.episodes],
        differing=differing[:MOST_TASKS],
        total_differing=len(differing),
        problems=problems,
    )


def _differences(
    library: Library, rows: Sequence[RunRow], outcomes: Sequence[Outcomes]
) -> tuple[list[Difference], list[Problem]]:
    baseline, found, problems = outcomes[0].scores, [], []
    for row, own in zip(rows[1:], outcomes[1:], strict=True):
        stamps = tuple(library.stamp(library.find(key)[0]) for key in (row.key, rows[0].key))
        versus = library.keep(
            ("compared", row.key, rows[0].key),
            stamps[0] + stamps[1],
            lambda own=own: stats.compare(own.scores, baseline),
        )
        if versus is None:
            what = f"shares no judged task with {rows[0].name}: runs of one env, level and split can be compared"
            problems.append(Problem(where=row.name, what=what))
        else:
            found.append((row, versus))
    corrected = stats.holm([versus.p for _, versus in found])
    shown = [
        Difference(
            key=row.key,
            name=row.name,
            tasks=versus.tasks,
            difference=versus.difference,
            interval=versus.interval,
            wins=versus.wins,
            losses=versus.losses,
            p=versus.p,
            holm=holm,
            test=versus.test,
        )
        for (row, versus), holm in zip(found, corrected, strict=True)
    ]
    return shown, problems


def _cost(row: RunRow) -> CostPoint:
    return CostPoint(
        key=row.key,
        name=row.name,
        topology=row.topology,
        accuracy=row.accuracy,
        interval=row.interval,
        calls=row.calls or 0.0,
        tokens=row.tokens or 0.0,
        cost=row.cost,
        seconds=row.seconds,
    )


def _differing(outcomes: Sequence[Outcomes]) -> list[TaskScores]:
    """The tasks that more than one run was judged on, and not alike; the largest differences first."""
    found = []
    tasks = dict.fromkeys(task for own in outcomes for task in own.scores)
    for task in tasks:
        scores = [own.scores.get(task) for own in outcomes]
        means = [None if given is None else sum(given) / len(given) for given in scores]
        known = [mean for mean in means if mean is not None]
        if len(known) > 1 and max(known) > min(known):
            places = [own.by_task.get(task, []) for own in outcomes]
            firsts = [own.rows[at[0]].position if at else None for own, at in zip(outcomes, places, strict=True)]
            found.append((max(known) - min(known), TaskScores(task=task, scores=means, positions=firsts)))
    return [shown for _, shown in sorted(found, key=lambda pair: -pair[0])]
