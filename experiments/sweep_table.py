"""The table of a sweep: every topology with every model, its accuracy and cost, and what it is compared with."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from envs.types import Env
from experiments import stats
from experiments.budget import Budget, Ruler
from experiments.runs import Run, Summary
from experiments.sequential import Loss
from experiments.spending import Kind, Prices, Spent, spent_by
from experiments.stats import Scores
from experiments.store import FILE


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
    usd: float | None = None
    """An episode; None where a model has no price."""
    stopped: Loss | None = None
    """Why it was not played to its end. Then it has no interval, and is compared with nothing else: intervals and
    p-values for a number of tasks that was fixed beforehand do not hold for one that the scores decided."""
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


class Unplayed(BaseModel):
    """What a budget did not reach."""

    topology: str
    model: str
    episodes: int
    """That were not played."""
    of: int


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
    budget: dict[Kind, float] = {}
    spent: Spent | None = None
    """By all runs, those of self-consistency among them."""
    unplayed: list[Unplayed] = []
    stop_losers: float | None = None
    """The probability that any arm was stopped for one that is not better; None where none is."""


Column = Literal["first", "equal_calls", "equal_tokens"]
COLUMNS: tuple[Column, ...] = ("first", "equal_calls", "equal_tokens")


async def tabulate(
    arms: Mapping[Arm, int],
    rulers: Mapping[Arm, int],
    directory: Path,
    env: Env,
    lost: Mapping[tuple[str, str], Loss] | None = None,
    prices: Prices | None = None,
) -> SweepTable:
    """Read the runs of a sweep.

    Args:
        arms: with the episodes that were asked for, in the order of the table; a model's first is what its others are
            compared with.
        rulers: runs of vote, for each model and seed, and their episodes.
        directory: of the sweep.
        env: of the runs.
        lost: model and topology -> why it was stopped.
        prices: of the models.
    """
    lost, prices = lost or {}, prices or {}
    runs = {arm: Run(directory / arm.run) for arm in (*arms, *rulers) if (directory / arm.run / FILE).is_file()}
    entries: list[Entry] = []
    curves: dict[str, list[Point]] = {}
    for model in dict.fromkeys(arm.model for arm in arms):
        measure = Measure([Ruler(runs[arm], env) for arm in rulers if arm.model == model and _has_ended(runs.get(arm))])
        baseline: Scores | None = None
        for topology in dict.fromkeys(arm.topology for arm in arms if arm.model == model):
            own = [runs[arm] for arm in arms if (arm.model, arm.topology) == (model, topology) and arm in runs]
            if not own:
                continue
            scores = together(run.scores() for run in own)
            entry = _entry(topology, model, own, scores, prices)
            entries.append(entry)
            if (model, topology) in lost:
                entry.stopped, entry.ci95 = lost[model, topology], None
                continue
            if baseline is None:
                baseline = scores
            elif comparison := stats.compare(scores, baseline):
                entry.first = Versus(comparison=comparison)
            if not _is_self_consistency(topology):
                entry.equal_calls = await measure.versus(scores, "calls", entry.calls)
                entry.equal_tokens = await measure.versus(scores, "tokens", entry.tokens)
        curves[model] = await measure.curve()
    for column in COLUMNS:
        _correct([versus for entry in entries if (versus := getattr(entry, column))], len(lost))
    return SweepTable(
        env=env.name,
        tasks=len({task for arm in arms if arm in runs for task in runs[arm].scores()}),
        arms=[arm for arm in arms if arm in runs],
        rulers=[arm for arm in rulers if arm in runs],
        entries=entries,
        self_consistency=curves,
        spent=sum((spent_by(run, prices) for run in runs.values()), Spent()),
        unplayed=_unplayed(arms, rulers, runs, lost),
    )


def _has_ended(run: Run | None) -> bool:
    """Whether an episode of it has."""
    return run is not None and any(row["status"] != "failed" for row in run.store.outcomes())


def _unplayed(
    arms: Mapping[Arm, int],
    rulers: Mapping[Arm, int],
    runs: Mapping[Arm, Run],
    lost: Mapping[tuple[str, str], Loss],
) -> list[Unplayed]:
    left: dict[tuple[str, str], Unplayed] = {}
    for arm, episodes in (*arms.items(), *rulers.items()):
        if (arm.model, arm.topology) in lost and arm in arms:
            continue
        topology = arm.topology if arm in arms else "self-consistency"
        one = left.setdefault((topology, arm.model), Unplayed(topology=topology, model=arm.model, episodes=0, of=0))
        one.of += episodes
        one.episodes += episodes - (len(runs[arm].store.outcomes()) if arm in runs else 0)
    return [one for one in left.values() if one.episodes]


class Measure:
    """Self-consistency of one model over all seeds."""

    def __init__(self, rulers: Sequence[Ruler]):
        self._rulers = rulers

    async def versus(self, scores: Scores, budget: Budget, amount: float) -> Versus | None:
        """Scores against as many calls or tokens; None where there are too few samples, or nothing to compare."""
        found = [ruler.samples_for(budget, amount) for ruler in self._rulers]
        if None in found or not found:
            return None
        samples = max(k for k in found if k is not None)
        comparison = stats.compare(scores, await self._scores(samples))
        return Versus(comparison=comparison, samples=samples) if comparison else None

    async def curve(self) -> list[Point]:
        """At 1, 2, 3, 4, 6, 8, 12, 16, … samples, as far as they reach."""
        most = min((ruler.most for ruler in self._rulers), default=0)
        points = []
        for k in sorted({k for power in range(8) for k in (2**power, 3 * 2**power)} | {most}):
            if 0 < k <= most:
                scores = await self._scores(k)
                tokens = sum(ruler.tokens(k) for ruler in self._rulers) / len(self._rulers)
                accuracy, interval = stats.mean_score(scores), stats.mean_interval(scores)
                points.append(Point(samples=k, tokens=tokens, accuracy=accuracy, ci95=interval))
        return points

    async def _scores(self, samples: int) -> Scores:
        return together([await ruler.scores(samples) for ruler in self._rulers])


def _entry(topology: str, model: str, runs: Sequence[Run], scores: Scores, prices: Prices) -> Entry:
    summaries: list[Summary] = [run.summary() for run in runs]
    episodes = sum(s.episodes for s in summaries)
    usd = sum((spent_by(run, prices) for run in runs), Spent()).usd if prices else None
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
        usd=None if usd is None else usd / max(1, episodes),
    )


def _is_self_consistency(topology: str) -> bool:
    name, *settings = topology.split(",")
    return name in ("solo", "vote") and not any("." in setting.partition("=")[0] for setting in settings)


def together(several: Iterable[Scores]) -> Scores:
    """Scores of several seeds: a task has those of all."""
    merged: dict[str, list[float]] = defaultdict(list)
    for scores in several:
        for task, values in scores.items():
            merged[task] += values
    return merged


def _correct(family: Sequence[Versus], stopped: int) -> None:
    """Those that were stopped count among the comparisons: who is left was not chosen without looking."""
    p_values = [*(versus.comparison.p for versus in family), *[1.0] * stopped]
    for versus, p in zip(family, stats.holm(p_values), strict=False):
        versus.corrected_p = p
