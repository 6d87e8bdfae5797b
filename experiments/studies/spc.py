"""What SPC's critics learned: `python -m experiments.studies.spc RUN...`.

RUNs are trainings by the recipe `spc`, its controls among them; those that differ in their seed alone stand together.
Three kinds of errors, by who made them:

- the solver's own: single steps of the frozen set, half of them wrong, as every run is measured on (test/first and
  test/last). Accuracy on right and on wrong steps, and their mean, before and after, paired by problem;
- of generators that a critic has never met: the newest of the first kind of RUN, of other seeds. First and last critics
  judge their valid sabotages, in RUN/study, paired by problem;
- of its own opponent: how often the newest and the first generator pass the *first* critic, paired by task.

A skill shows in verdicts that compute something themselves as in those that only assert: both are told apart.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from agents.cast import Cast, Seat
from envs.errors import ConfigError
from experiments import Run, run, stats
from experiments.judging import Judging, JudgingDifference, compare_judging, judging
from experiments.runs import RESULT, RUNS
from experiments.show import console, difference, percent
from experiments.studies.tables import common_to, kinds_of, named, study_table
from experiments.training.training import Training
from graphs.turns import Episode

FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class Row:
    """A kind of training, all its seeds together."""

    runs: tuple[str, ...]
    what: tuple[str, ...]
    before: Judging
    """On the solver's own errors, of the first critic."""
    after: Judging
    """Of the last one."""
    gained: JudgingDifference
    greedy: JudgingDifference | None
    """At temperature 0."""
    unseen_before: float | None
    """Share of the errors of unseen generators that the first critic finds; None without any."""
    unseen_after: float | None
    unseen: stats.Comparison | None
    attack_before: float | None
    """Attempts of the first generator that are valid and pass the first critic."""
    attack_after: float | None
    """Of the newest generator, against the same critic."""
    attack: stats.Comparison | None


def study(names: Sequence[str], root: Path = RUNS) -> list[Row]:
    """A row for each kind of training. Raises ConfigError as `kinds_of`."""
    groups = kinds_of(names, root, "spc", lambda training: training.config["recipe"] == "spc", but=("start",))
    rivals = next(iter(groups.values()))
    return [_row(what, group, rivals) for what, group in groups.items()]


def _row(what: tuple[str, ...], group: Sequence[Training], rivals: Sequence[Training]) -> Row:
    first, last = ([e for t in group for e in _episodes(t, side)] for side in (FIRST, LAST))
    cold, warm = ([e for t in group for e in _episodes(t, f"{side}-greedy")] for side in (FIRST, LAST))
    gained = compare_judging(last, first)
    assert gained is not None, "measured on the same tasks"
    unseen: list[dict[str, list[float]]] = [{}, {}]
    for training in group:
        for rival in rivals:
            if rival.config["seed"] != training.config["seed"]:
                for side, updates in enumerate((0, training.updates)):
                    _add(unseen[side], _found(training, rival, updates), training.config["seed"])
    attacks: list[dict[str, list[float]]] = [{}, {}]
    for training in group:
        for side, updates in enumerate((0, training.updates)):
            _add(attacks[side], _attack(training, updates), training.config["seed"])
    return Row(
        runs=tuple(training.name for training in group),
        what=what,
        before=judging(first),
        after=judging(last),
        gained=gained,
        greedy=compare_judging(warm, cold) if warm and cold else None,
        unseen_before=stats.mean_score(unseen[0]),
        unseen_after=stats.mean_score(unseen[1]),
        unseen=stats.compare(unseen[1], unseen[0]),
        attack_before=stats.mean_score(attacks[0]),
        attack_after=stats.mean_score(attacks[1]),
        attack=stats.compare(attacks[1], attacks[0]),
    )


def _episodes(training: Training, name: str) -> Iterable[Episode]:
    folder = training.path / "test" / name
    return Run(folder).episodes() if (folder / RESULT).is_file() else ()


def _found(training: Training, rival: Training, updates: int) -> dict[str, list[float]]:
    """Problem -> whether a critic finds the errors in it, of the newest sabotages of another training's generator."""
    file = rival.path / "league" / f"sneaky-{rival.updates:04d}.jsonl"
    name = f"{rival.name}-critic-{updates:04d}"
    if not file.is_file() or not file.read_text(encoding="utf-8"):
        return {}
    played = Run(training.path / "study" / name)
    if not (played.path / RESULT).is_file():
        adapter = _critic(training, updates)
        cast = Cast(critic=Seat(model=training.config["policies"]["critic"]["model"], adapter=str(adapter)))
        settings = {"env.path": str(file), "env.ask": "error", "env.form": "processbench"}
        root = training.path / "study"
        played = run("judge_steps", "steps", cast, seed=1, settings=settings, backend="local", name=name, root=root)
    found: dict[str, list[float]] = {}
    for episode in played.episodes():
        if episode.verdict is not None and episode.verdict.score is not None:
            found.setdefault(episode.task.question, []).append(episode.verdict.score)
    return found


def _critic(training: Training, updates: int) -> Path:
    """The folder of a critic's weights."""
    from experiments.training.registry import Registry

    registry = Registry.open(training.path / "policies")
    return registry.path(registry.at("critic", updates))


def _attack(training: Training, updates: int) -> dict[str, list[float]]:
    """Task -> share of a generator's attempts that are valid and pass the first critic, of tasks with a right step."""
    generator = f"sneaky-{updates:04d}"
    folder, judged = (training.path / "league" / name for name in (generator, f"{generator}-critic-0000"))
    if not (folder / RESULT).is_file():
        return {}
    passed: dict[str, int] = {}
    if (judged / RESULT).is_file():
        for episode in Run(judged).episodes():
            missed = episode.verdict is not None and episode.verdict.status != "correct"
            passed[episode.task.question] = passed.get(episode.task.question, 0) + missed
    return {
        episode.task.id: [passed.get(episode.task.question, 0) / len(note["sabotages"])]
        for episode in Run(folder).episodes()
        for note in episode.notes
    }


def _add(scores: dict[str, list[float]], more: dict[str, list[float]], seed: int) -> None:
    """Tasks of several seeds side by side: their steps differ, and so do those who made them."""
    for task, values in more.items():
        scores.setdefault(f"{seed}/{task}", []).extend(values)


def render(rows: Sequence[Row]) -> RenderableType:
    common = common_to([row.what for row in rows])
    tables: list[RenderableType] = [Text(f"{', '.join(common)}; intervals are 95 %, paired", style="table.title")]
    natural = study_table(
        "the solver's own errors, %", "right steps", "wrong steps", "mean", "gained", "at temperature 0"
    )
    for row in rows:
        sides = [(row.before, row.after)]
        natural.add_row(
            *named(row.runs, row.what, common),
            *(_change(getattr(a, key), getattr(b, key)) for key in ("a_c", "a_e", "balanced") for a, b in sides),
            _interval(row.gained.balanced, row.gained.balanced_ci95),
            _interval(row.greedy.balanced, row.greedy.balanced_ci95) if row.greedy else "",
        )
    others = study_table(
        "found of unseen generators' errors, and attacks on the first critic, %", "found", "gained", "attack", "gained"
    )
    for row in rows:
        others.add_row(
            *named(row.runs, row.what, common),
            _change(row.unseen_before, row.unseen_after),
            difference(row.unseen) if row.unseen else "",
            _change(row.attack_before, row.attack_after),
            difference(row.attack) if row.attack else "",
        )
    habits = study_table(
        "verdicts that compute something, and those that assert, %", "share", "right", "share", "right"
    )
    for row in rows:
        parts = [(getattr(row.before, kind), getattr(row.after, kind)) for kind in ("recomputed", "asserted")]
        cells = [_change(getattr(a, key), getattr(b, key)) for a, b in parts for key in ("share", "accuracy")]
        habits.add_row(*named(row.runs, row.what, common), *cells)
    return Group(*tables, natural, others, habits)


def _change(before: float | None, after: float | None) -> str:
    return f"{percent(before)} → {percent(after)}" if before is not None or after is not None else ""


def _interval(value: float | None, bounds: stats.Interval | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:+.1f}" + (f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else "")


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=RUNS, show_default=True, help="Folder of runs."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(runs: tuple[str, ...], root: Path, as_json: bool) -> None:
    """Compare the critics of RUNS; the first kind's generators are the unseen ones."""
    try:
        rows = study(runs, root)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    found: dict[str, Any] = {"rows": [asdict(row) for row in rows]}
    click.echo(json.dumps(found)) if as_json else console().print(render(rows))


if __name__ == "__main__":
    main()
