"""Intervals and paired comparisons over tasks. The unit is always the task: its samples are averaged first.

Scores are 0 to 1; unscorable and failed episodes are left out by the caller, never counted as 0.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000
Interval = tuple[float, float]
Scores = Mapping[str, Sequence[float]]
"""Task id -> the scores of its samples."""


def mean_score(scores: Scores) -> float | None:
    """The mean over tasks of each task's mean; None without any."""
    return float(np.mean(_task_means(scores))) if scores else None


def mean_interval(scores: Scores) -> Interval | None:
    """95 % interval of `mean_score`: Wilson's for one 0/1 score a task, else a bootstrap over tasks.

    None where neither can tell: no tasks, or tasks that all scored the same partly right.
    """
    if not scores:
        return None
    means = _task_means(scores)
    if _binary(scores) or set(means) in ({0.0}, {1.0}):
        low, high = stats.binomtest(int(means.sum()), len(means)).proportion_ci(LEVEL, "wilson")
        return float(low), float(high)
    return _bootstrap(means)


@dataclass(frozen=True)
class Comparison:
    """A run against a baseline on the tasks that both have scores for."""

    tasks: int
    difference: float
    """Mean score minus the baseline's: positive means better than the baseline."""
    interval: Interval | None
    """95 %: Bonett and Price (2012) for one 0/1 score a task, else a bootstrap over tasks; None where all tasks differ
    by the same."""
    wins: int
    """Tasks on which the run scores higher."""
    losses: int
    p: float
    """Two-sided: McNemar's exact test for one 0/1 score a task, else a sign-flip permutation test over tasks."""
    test: str


def compare(scores: Scores, baseline: Scores) -> Comparison | None:
    """Compare by task; None when no task has a score in both."""
    common = [task for task in scores if task in baseline]
    if not common:
        return None
    pair = [{task: side[task] for task in common} for side in (scores, baseline)]
    differences = _task_means(pair[0]) - _task_means(pair[1])
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if _binary(pair[0]) and _binary(pair[1]):
        interval, test = bonett_price(wins, losses, len(common)), "McNemar, exact"
        p = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    else:
        interval = _bootstrap(differences) if differences.any() else bonett_price(0, 0, len(common))
        test, p = "sign-flip permutation", _sign_flip(differences)
    return Comparison(len(common), float(differences.mean()), interval, wins, losses, p, test)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given (Holm, 1979): all errors together stay below a level."""
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def bonett_price(wins: int, losses: int, n: int) -> Interval:
    """95 % interval of a difference of paired proportions: Wald's with one case added to each discordant cell.

    Source: Bonett and Price, Statistics in Medicine 31 (2012), "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data". Unlike a bootstrap it does not shrink to a point when no task differs.
    """
    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    z = stats.norm.ppf((1 + LEVEL) / 2)
    half = z * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return float(max(-1.0, up - down - half)), float(min(1.0, up - down + half))


def bootstrap(statistic: Callable[..., np.ndarray], *columns: np.ndarray) -> Interval | None:
    """95 % percentile interval of a statistic over units, whose values in all columns are resampled together.

    Args:
        statistic: of the columns along `axis`; resamples for which it is not a number are left out.
        columns: each (units,).

    Returns:
        None where the statistic is the same in every resample, so that nothing can be told.
    """
    if len(columns[0]) < 2:
        return None
    with warnings.catch_warnings():
        # Resamples without a number, or all with the same: both are looked for below.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=_batch(len(columns) * len(columns[0])),
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    found = result.bootstrap_distribution[np.isfinite(result.bootstrap_distribution)]
    if not len(found) or np.ptp(found) == 0:
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _task_means(scores: Scores) -> np.ndarray:
    return np.array([np.mean(values) for values in scores.values()])


def _binary(scores: Scores) -> bool:
    return all(len(values) == 1 and values[0] in (0.0, 1.0) for values in scores.values())


def _bootstrap(means: np.ndarray) -> Interval | None:
    return bootstrap(np.mean, means) if np.ptp(means) else None


def _sign_flip(differences: np.ndarray) -> float:
    if len(differences) < 2 or not differences.any():
        return 1.0
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES - 1,
        batch=_batch(len(differences)),
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _batch(n: int) -> int:
    """Resamples that are computed at a time: all at once they would take gigabytes for thousands of tasks."""
    return max(1, 4_000_000 // n)
