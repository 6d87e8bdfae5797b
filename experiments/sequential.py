"""Which arms of a sweep can be stopped early: confidence sequences for paired differences, looked at again and again.

A confidence sequence is an interval at every number of tasks, and all of them cover the truth together, so that looking
often costs nothing. This one is of the hedged capital process with predictable plug-in bets: Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", arXiv:2010.09686, section 4. Departures: scores of [-1, 1]
are mapped to [0, 1]; the ends of the interval are found as roots, not on a grid. (Its authors' package, confseq,
does not run with numpy 2.)

It holds for tasks in an order that tells nothing of how arms do on them: `experiments.sweep_play` draws that order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import brentq

from experiments.stats import Interval, Scores

TRUNCATION = 0.5
"""Most of the capital that is staked on a task (c of the paper)."""


def mean_sequence(values: Sequence[float] | np.ndarray, alpha: float) -> Interval:
    """The confidence sequence of a mean, at the number of values given.

    Args:
        values: (tasks,), each 0 to 1, in the order they were played; at least one.
        alpha: the probability that the interval misses the mean at any number of values.

    Raises:
        ValueError: a value beyond 0 and 1.
    """
    drawn = np.asarray(values, dtype=float)
    if drawn.min() < 0 or drawn.max() > 1:
        raise ValueError(f"expected values of 0 to 1, found {drawn.min()} to {drawn.max()}")
    bets = _bets(drawn, alpha)
    # What is above a mean is below it when all is turned round.
    return _lower(drawn, bets, alpha), 1 - _lower(1 - drawn, bets, alpha)


def difference_sequence(scores: Scores, baseline: Scores, alpha: float) -> tuple[int, float, Interval] | None:
    """Tasks, mean and confidence sequence of a paired difference, positive where `scores` is better.

    Args:
        scores: each 0 to 1; in the order of play.
        baseline: the same of another arm; tasks that only one has are left out.
        alpha: as in `mean_sequence`.

    Returns:
        None when no task has a score in both.
    """
    common = [task for task in scores if task in baseline]
    if not common:
        return None
    differences = np.array([np.mean(scores[task]) - np.mean(baseline[task]) for task in common])
    low, high = mean_sequence((differences + 1) / 2, alpha)
    return len(common), float(differences.mean()), (2 * low - 1, 2 * high - 1)


@dataclass(frozen=True)
class Loss:
    """Why an arm was stopped: another is better, beyond doubt."""

    winner: str
    tasks: int
    """That both had played."""
    difference: float
    """Mean score less the winner's: below 0."""
    interval: Interval
    """Of that difference: holds together with those of all pairs, at every look."""


def losers(arms: Mapping[str, Scores], pairs: int, alpha: float) -> dict[str, Loss]:
    """The arms that another of them beats.

    Args:
        arms: label -> scores until now, in the order of play; of those that are still played.
        pairs: of arms in the whole sweep: Bonferroni's correction. With it all intervals of all pairs hold together, so
            that with probability 1 - alpha no arm of the sweep is ever stopped for one that is not better.
        alpha: of the whole sweep.

    Returns:
        Label -> the loss; where several beat it, to the one whose lead is surest.
    """
    found: dict[str, Loss] = {}
    for pair in combinations(arms, 2):
        measured = difference_sequence(arms[pair[0]], arms[pair[1]], alpha / pairs)
        if measured is None:
            continue
        tasks, difference, (low, high) = measured
        if low > 0 or high < 0:
            winner, loser = pair if low > 0 else pair[::-1]
            interval = (-high, -low) if low > 0 else (low, high)
            loss = Loss(winner, tasks, -abs(difference), interval)
            if loser not in found or loss.interval[1] < found[loser].interval[1]:
                found[loser] = loss
    return found


def _bets(values: np.ndarray, alpha: float) -> np.ndarray:
    """(tasks,): the bet on each, made of those before it."""
    n = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (n + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (n + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    return np.sqrt(2 * np.log(2 / alpha) / (before * n * np.log(n + 1)))


def _lower(values: np.ndarray, bets: np.ndarray, alpha: float) -> float:
    """The least mean that nobody has become rich by betting against; capital falls as the mean rises."""

    def wealth(mean: float) -> float:
        """Log of half the capital, less what is called rich."""
        staked = np.minimum(bets, TRUNCATION / mean)
        return float(np.log1p(staked * (values - mean)).sum() + np.log(alpha / 2))

    least = 1e-9
    return float(brentq(wealth, least, 1.0)) if wealth(least) > 0 else 0.0  # pyright: ignore[reportArgumentType]
