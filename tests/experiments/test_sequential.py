"""Confidence sequences: the written-out formulas, their authors' values, and how often they err."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import stats
from experiments.sequential import difference_sequence, losers, mean_sequence

ALPHA = 0.2
LOOKS = range(20, 101, 20)


def capital(values: list[float], mean: float, alpha: float) -> float:
    """The hedged capital process of arXiv:2010.09686, written out."""
    above = below = 1.0
    total, squares, variance = 0.0, 0.0, 0.25
    for t, x in enumerate(values, start=1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(t + 1)))
        above *= 1 + min(bet, 0.5 / mean) * (x - mean)
        below *= 1 - min(bet, 0.5 / (1 - mean)) * (x - mean)
        total += x
        squares += (x - (0.5 + total) / (t + 1)) ** 2
        variance = (0.25 + squares) / (t + 1)
    return max(above / 2, below / 2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.sampled_from([0.3, 0.05, 0.001]))
def test_it_holds_the_means_that_nobody_became_rich_by_betting_against(values: list[float], alpha: float) -> None:
    low, high = mean_sequence(values, alpha)
    assert 0 <= low < high <= 1
    for mean in np.linspace(0.01, 0.99, 25):
        if min(abs(mean - low), abs(mean - high)) > 1e-6:
            assert (low < mean < high) == (capital(values, mean, alpha) < 1 / alpha)


@pytest.mark.parametrize(
    ("values", "alpha", "low", "high"),
    [
        # confseq 0.0.11, betting_cs(values, alpha=alpha, breaks=100_000).
        ([1, 1, 0, 1, 1, 1, 0.5, 1, 1, 1] * 6, 0.05, 0.70831, 0.94805),
        ([1, 1, 0, 1, 1, 1, 0.5, 1, 1, 1] * 6, 0.01, 0.67434, 0.96408),
        ([i % 4 / 3 for i in range(40)], 0.05, 0.32777, 0.66061),
    ],
)
def test_values_of_its_authors_code(values: list[float], alpha: float, low: float, high: float) -> None:
    assert mean_sequence(values, alpha) == (pytest.approx(low, abs=2e-5), pytest.approx(high, abs=2e-5))


def test_scores_beyond_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected values of 0 to 1, found 0\.0 to 2\.0"):
        mean_sequence([0, 2], 0.05)


def test_differences_are_paired_and_change_sign_with_their_sides() -> None:
    better = {f"t{i}": [1.0, float(i % 3 > 0)] for i in range(30)}
    worse = {f"t{i}": [0.0] for i in range(10, 40)}
    tasks, difference, (low, high) = difference_sequence(better, worse, 0.05) or (0, 0.0, (0, 0))
    assert tasks == 20 and difference == pytest.approx(np.mean([(1 + (i % 3 > 0)) / 2 for i in range(10, 30)]))
    assert 0 < low < difference < high
    assert difference_sequence(worse, better, 0.05) == (20, -difference, (pytest.approx(-high), pytest.approx(-low)))
    assert difference_sequence({"a": [1]}, {"b": [1]}, 0.05) is None


def simulated(rng: np.random.Generator, accuracies: list[float], tasks: int) -> dict[str, dict[str, list[float]]]:
    """Arms that find the same tasks hard."""
    hard = rng.uniform(-0.2, 0.2, tasks)
    return {
        f"arm {k}": {f"t{i}": [float(rng.random() < accuracy + hard[i])] for i in range(tasks)}
        for k, accuracy in enumerate(accuracies)
    }


def until(arms: dict[str, dict[str, list[float]]], tasks: int) -> dict[str, dict[str, list[float]]]:
    return {label: dict(list(scores.items())[:tasks]) for label, scores in arms.items()}


def test_equal_arms_are_stopped_no_more_often_than_said_and_looking_at_p_values_would_stop_them_more_often() -> None:
    rng = np.random.default_rng(0)
    games, stopped, naive = 60, 0, 0
    for game in range(games):
        arms = simulated(rng, [0.6] * 3, LOOKS[-1])
        looks = [until(arms, tasks) for tasks in LOOKS]
        stopped += any(losers(look, 3, ALPHA) for look in looks)
        pairs = [(look["arm 0"], look[other]) for look in looks for other in ("arm 1", "arm 2")]
        naive += game < 15 and any(found.p < ALPHA for pair in pairs if (found := stats.compare(*pair)))
    assert stopped / games <= ALPHA < naive / 15


def test_a_mean_is_missed_at_any_time_no_more_often_than_said() -> None:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(60):
        values = (rng.random(60) < 0.3).astype(float)
        intervals = [mean_sequence(values[:n], ALPHA) for n in range(1, 61, 2)]
        missed += any(not low < 0.3 < high for low, high in intervals)
    assert 0 < missed / 60 <= ALPHA


def test_a_loser_is_found_early_and_told_by_whom_it_is_beaten() -> None:
    rng = np.random.default_rng(2)
    found = [losers(until(simulated(rng, [0.7, 0.3, 0.75], 100), 80), 3, 0.05) for _ in range(20)]
    assert sum("arm 1" in one for one in found) >= 18
    assert not any({"arm 0", "arm 2"} & set(one) for one in found)
    loss = next(one["arm 1"] for one in found if one)
    assert loss.winner in ("arm 0", "arm 2") and loss.tasks == 80
    assert loss.interval[0] < loss.difference < loss.interval[1] < 0
