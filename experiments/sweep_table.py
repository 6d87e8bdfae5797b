"""The table of a sweep: every topology with every model, its accuracy and cost, and what it is compared with."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from envs.types import Env
from experiments import stats
from experiments.budget import Budget, Ruler
from experiments.runs import Run, Summary
from experiments.stats import Scores


class Arm(BaseModel):
    """One run of a sweep."""

    model_config = ConfigDict(frozen=True)

    topology: str
    """As it was asked for, with its settings: `society,agents=3`."""
    model: str
    seed: int
    run: str
    """The run's folder, within the sweep's."""


class Versus(BaseModel):
    """An entry against a baseline."""

    comparison: stats.Comparison
    corrected_p: float = 1.0
    """By Holm, over all comparisons with this kind of baseline."""
    samples: int | None = None
    """Of the self-consistency that is the baseline, if it is."""


class Entry(BaseModel):
    """A topology with a model, over all seeds."""

    topology: str
    model: str
    runs: list[str]
    episodes: int
    failed: int
    accuracy: float | None
    ci95: stats.Interval | None
    calls: float
    """An episode."""
    tokens: float
    """An episode, prompt and completion."""
    first: Versus | None = None
    """Against the first topology, with the same model; None for itself."""
    equal_calls: Versus | None = None
    """Against self-consistency with as many calls; None for solo and vote, which are that, and beyond its samples."""
    equal_tokens: Versus | None = None


class Point(BaseModel):
    """Self-consistency with a number of samples."""

    samples: int
    tokens: float
    accuracy: float | None
    ci95: stats.Interval | None


class SweepTable(BaseModel):
    """What a sweep came to; also what a viewer draws it from."""

    env: str
    tasks: int
    arms: list[Arm]
    rulers: list[Arm]
    """Runs of self-consistency, one a model and seed."""
    entries: list[Entry]
    self_consistency: dict[str, list[Point]]
    """By model."""


Column = Literal["first", "equal_calls", "equal_tokens"]
COLUMNS: tuple[Column, ...] = ("first", "equal_calls", "equal_tokens")


async def tabulate(arms: Sequence[Arm], rulers: Sequence[Arm], directory: Path, env: Env) -> SweepTable:
    """Read the runs of a sweep.

    Args:
        arms: in the order of the table; a model's first is what its others are compared with.
        rulers: runs of vote, for each model and seed.
        directory: of the sweep.
        env: of the runs.
    """
    entries: list[Entry] = []
    curves: dict[str, list[Point]] = {}
    for model in dict.fromkeys(arm.model for arm in arms):
        measure = Measure([Ruler(Run(directory / arm.run), env) for arm in rulers if arm.model == model])
        baseline: Scores | None = None
        for topology in dict.fromkeys(arm.topology for arm in arms if arm.model == model):
            runs = [Run(directory / a.run) for a in arms if (a.model, a.topology) == (model, topology)]
            scores = _together(run.scores() for run in runs)
            entry = _entry(topology, model, runs, scores)
            if baseline is None:
                baseline = scores
            elif comparison := stats.compare(scores, baseline):
                entry.first = Versus(comparison=comparison)
            if not _is_self_consistency(topology):
                entry.equal_calls = await measure.versus(scores, "calls", entry.calls)
                entry.equal_tokens = await measure.versus(scores, "tokens", entry.tokens)
            entries.append(entry)
        curves[model] = await measure.curve()
    for column in COLUMNS:
        _correct([versus for entry in entries if (versus := getattr(entry, column))])
    tasks = len({task for arm in arms for task in Run(directory / arm.run).scores()})
    return SweepTable(
        env=env.name, tasks=tasks, arms=list(arms), rulers=list(rulers), entries=entries, self_consistency=curves
    )


class Measure:
    """Self-consistency of one model over all seeds."""

    def __init__(self, rulers: Sequence[Ruler]):
        self._rulers = rulers

    async def versus(self, scores: Scores, budget: Budget, amount: float) -> Versus | None:
        """Scores against as many calls or tokens; None where there are too few samples, or nothing to compare."""
        found = [ruler.samples_for(budget, amount) for ruler in self._rulers]
        if None in found:
            return None
        samples = max(k for k in found if k is not None)
        comparison = stats.compare(scores, await self._scores(samples))
        return Versus(comparison=comparison, samples=samples) if comparison else None

    async def curve(self) -> list[Point]:
        """At 1, 2, 3, 4, 6, 8, 12, 16, … samples, as far as they reach."""
        most = min(ruler.most for ruler in self._rulers)
        points = []
        for k in sorted({k for power in range(8) for k in (2**power, 3 * 2**power)} | {most}):
            if k <= most:
                scores = await self._scores(k)
                tokens = sum(ruler.tokens(k) for ruler in self._rulers) / len(self._rulers)
                accuracy, interval = stats.mean_score(scores), stats.mean_interval(scores)
                points.append(Point(samples=k, tokens=tokens, accuracy=accuracy, ci95=interval))
        return points

    async def _scores(self, samples: int) -> Scores:
        return _together([await ruler.scores(samples) for ruler in self._rulers])


def _entry(topology: str, model: str, runs: Sequence[Run], scores: Scores) -> Entry:
    summaries: list[Summary] = [run.summary() for run in runs]
    episodes = sum(s.episodes for s in summaries)
    return Entry(
        topology=topology,
        model=model,
        runs=[run.name for run in runs],
        episodes=episodes,
        failed=sum(s.failed for s in summaries),
        accuracy=stats.mean_score(scores),
        ci95=stats.mean_interval(scores),
        calls=sum(s.calls for s in summaries) / max(1, episodes),
        tokens=sum(s.tokens.prompt + s.tokens.completion for s in summaries) / max(1, episodes),
    )


def _is_self_consistency(topology: str) -> bool:
    name, *settings = topology.split(",")
    return name in ("solo", "vote") and not any("." in setting.partition("=")[0] for setting in settings)


def _together(several: Iterable[Scores]) -> Scores:
    """Scores of several seeds: a task has those of all."""
    merged: dict[str, list[float]] = defaultdict(list)
    for scores in several:
        for task, values in scores.items():
            merged[task] += values
    return merged


def _correct(family: Sequence[Versus]) -> None:
    for versus, p in zip(family, stats.holm([versus.comparison.p for versus in family]), strict=True):
        versus.corrected_p = p
