"""What training runs gained on held-out tasks: each for itself, and those that differ in their seed alone together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from envs.errors import ConfigError
from experiments import stats
from experiments.runs import RESULT, RUNS, Run
from experiments.training.training import Training

Scores = dict[str, list[float]]
_WHERE = ("engine.", "pool.", "placement.")
"""Settings that say where a run is made, not what it is."""


@dataclass(frozen=True)
class Gain:
    """One run, or several together: before and after, paired by task."""

    run: str
    what: tuple[str, ...]
    """Recipe, topology and env, and the settings that were given."""
    seeds: tuple[int, ...]
    updates: float
    """After which the weights were best on validation tasks, and hence are those measured; a mean of several runs."""
    before: float
    after: float
    gained: stats.Comparison
    last: stats.Comparison
    """Of the last weights in place of the best."""
    greedy_before: float | None
    greedy_after: float | None
    greedy: stats.Comparison | None
    """At temperature 0."""
    seconds: float | None
    """Of the training as a whole; None when it was cut short once."""


@dataclass(frozen=True)
class _Measured:
    """A run's scores on the test tasks: of its first, best and last weights, and the same at temperature 0."""

    training: Training
    first: Scores
    best: Scores
    last: Scores
    greedy: tuple[Scores, Scores] | None


def report(runs: Sequence[str], root: Path = RUNS) -> list[Gain]:
    """A row a training run, and after those that differ in their seed alone, a row for them together.

    Raises:
        ConfigError: no such run, or one without a measurement on test tasks at its end.
    """
    rows: list[Gain] = []
    groups: dict[tuple[str, ...], list[_Measured]] = {}
    for name in runs:
        training = Training.open(name, root)
        measured = _measured(training)
        if measured is None:
            raise ConfigError(
                f"training run {training.name} was not measured at its end; finish it with palaestra resume "
                f"{training.name}, and leave test_tasks above 0"
            )
        groups.setdefault(what_of(training), []).append(measured)
    for what, group in groups.items():
        rows += [_gain([measured], measured.training.name, what) for measured in group]
        if len(group) > 1:
            rows.append(_gain(group, f"all {len(group)}", what))
    return rows


def gain(training: Training) -> Gain | None:
    """What one run gained; None where that was not measured."""
    measured = _measured(training)
    return measured and _gain([measured], training.name, what_of(training))


def _measured(training: Training) -> _Measured | None:
    end = training.lines("end")
    if not end or not training.lines("test"):
        return None
    best = "first" if end[0]["best"] == 0 else "last" if end[0]["best"] == end[0]["updates"] else "best"

    def scores(name: str) -> Scores:
        return Run(training.path / "test" / name).scores()

    greedy = None
    if (training.path / "test" / "first-greedy" / RESULT).is_file():
        greedy = scores("first-greedy"), scores(f"{best}-greedy")
    return _Measured(training, scores("first"), scores(best), scores("last"), greedy)


def _gain(group: Sequence[_Measured], name: str, what: tuple[str, ...]) -> Gain:
    first, best = (_together([getattr(one, side) for one in group]) for side in ("first", "best"))
    last = _together([one.last for one in group])
    greedy = [one.greedy for one in group if one.greedy is not None]
    cold, warm = (_together([pair[side] for pair in greedy]) for side in (0, 1))
    ends = [one.training.lines("end")[0] for one in group]
    took = [end["seconds"].get("all", 0.0) for end in ends]
    gained, of_last = stats.compare(best, first), stats.compare(last, first)
    before, after = stats.mean_score(first), stats.mean_score(best)
    assert gained and of_last and before is not None and after is not None, "measured on the same tasks"
    return Gain(
        run=name,
        what=what,
        seeds=tuple(one.training.config["seed"] for one in group),
        updates=fmean(end["best"] for end in ends),
        before=before,
        after=after,
        gained=gained,
        last=of_last,
        greedy_before=stats.mean_score(cold),
        greedy_after=stats.mean_score(warm),
        greedy=stats.compare(warm, cold) if greedy else None,
        seconds=fmean(took) if all(took) else None,
    )


def _together(scores: Sequence[Scores]) -> Scores:
    """By task, all samples of all runs: the unit of a comparison stays the task."""
    tasks = [task for task in (scores[0] if scores else {}) if all(task in one for one in scores)]
    return {task: [score for one in scores for score in one[task]] for task in tasks}


def what_of(training: Training, but: Sequence[str] = ()) -> tuple[str, ...]:
    """What tells a run from others, its seed and the settings named in `but` left out."""
    config = training.config
    known = ((key, value) for key, value in sorted(config["settings"].items()) if key not in but)
    given = (f"{key}={value}" for key, value in known if not key.startswith(_WHERE))
    return f"{config['recipe']} of {config['topology']['name']} on {config['env']['name']}", *given
