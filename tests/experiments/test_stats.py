"""Intervals and paired tests against values worked out elsewhere, and their behaviour at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from experiments import stats


def scores(*values: float) -> dict[str, list[float]]:
    return {f"t{i}": [value] for i, value in enumerate(values)}


def test_wilson() -> None:
    # 8 of 10: (0.4902, 0.9433), Wilson's interval without continuity correction.
    low, high = stats.mean_interval(scores(*[1] * 8, 0, 0)) or (0, 0)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert stats.mean_score(scores(*[1] * 8, 0, 0)) == 0.8


def test_nothing_to_judge_gives_no_figure() -> None:
    assert stats.mean_score({}) is None and stats.mean_interval({}) is None
    assert stats.compare({}, {}) is None and stats.compare(scores(1), {"other": [1]}) is None


def test_samples_of_a_task_are_averaged_first() -> None:
    uneven = {"a": [1.0] * 9, "b": [0.0]}
    assert stats.mean_score(uneven) == 0.5
    low, high = stats.mean_interval(uneven) or (0, 0)
    assert (low, high) == (0, 1), "two tasks that differ tell nearly nothing, however many samples they have"


def test_bootstrap_covers_and_repeats() -> None:
    rng = np.random.default_rng(1)
    sampled = {f"t{i}": list(rng.binomial(1, 0.6, 4).astype(float)) for i in range(200)}
    first = stats.mean_interval(sampled)
    assert first == stats.mean_interval(sampled)
    assert first is not None and first[0] < 0.6 < first[1] and first[1] - first[0] < 0.12


def test_mcnemar_exact() -> None:
    # 10 better, 2 worse of 50: two-sided exact p = 2 * P(X <= 2 | 12, 1/2) = 2 * 79 / 4096.
    run = scores(*[1] * 10, *[0] * 2, *[1] * 38)
    base = scores(*[0] * 10, *[1] * 2, *[1] * 38)
    compared = stats.compare(run, base)
    assert compared is not None
    assert (compared.wins, compared.losses, compared.tasks) == (10, 2, 50)
    assert compared.p == pytest.approx(2 * 79 / 4096)
    assert compared.difference == pytest.approx(0.16)
    # (11 - 3) / 52 ± 1.96 * sqrt((14/52 - (8/52)²) / 52)
    assert compared.interval == (pytest.approx(0.0192, abs=1e-4), pytest.approx(0.2885, abs=1e-4))
    assert compared.test == "McNemar, exact"


def test_equal_runs_are_not_certain_to_be_equal() -> None:
    compared = stats.compare(scores(*[1] * 20), scores(*[1] * 20))
    assert compared is not None and compared.p == 1 and compared.difference == 0
    low, high = compared.interval or (0, 0)
    assert low < -0.05 and high > 0.05, "twenty ties do not prove equality to the last point"


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_the_paired_interval_is_antisymmetric_and_bounded(wins: int, losses: int, ties: int) -> None:
    n = wins + losses + ties
    low, high = stats.bonett_price(wins, losses, n)
    assert -1 <= low <= high <= 1
    mirrored = stats.bonett_price(losses, wins, n)
    assert mirrored == (pytest.approx(-high), pytest.approx(-low))


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40))
def test_comparison_is_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    run, base = scores(*(a for a, _ in pairs)), scores(*(b for _, b in pairs))
    one, other = stats.compare(run, base), stats.compare(base, run)
    assert one is not None and other is not None
    assert one.difference == pytest.approx(-other.difference)
    assert (one.wins, one.losses, one.p) == (other.losses, other.wins, other.p)


def test_several_samples_are_compared_by_task() -> None:
    rng = np.random.default_rng(0)
    run = {f"t{i}": list(rng.binomial(1, 0.8, 4).astype(float)) for i in range(60)}
    base = {f"t{i}": list(rng.binomial(1, 0.4, 4).astype(float)) for i in range(60)}
    compared = stats.compare(run, base)
    assert compared is not None and compared.test == "sign-flip permutation"
    assert compared.p < 0.01 and compared.interval is not None and compared.interval[0] > 0
    differences = [np.mean(run[t]) - np.mean(base[t]) for t in run]
    assert compared.interval[0] == pytest.approx(np.mean(differences) - 1.96 * scipy_stats.sem(differences), abs=0.02)


def test_where_samples_cannot_tell_there_is_no_interval_that_is_a_point() -> None:
    assert stats.mean_interval({"a": [0.5, 0.5]}) is None and stats.mean_interval({"a": [1.0, 0.0]}) is None
    low, high = stats.mean_interval({task: [1.0, 1.0] for task in "abcd"}) or (1, 1)
    assert low < 0.6 and high == 1
    alone = stats.compare({"a": [1.0, 0.0]}, {"a": [0.0, 0.0]})
    assert alone is not None and (alone.p, alone.interval) == (1.0, None)
    equal = stats.compare({task: [1.0, 0.0] for task in "abcd"}, {task: [0.0, 1.0] for task in "abcd"})
    assert equal is not None and equal.interval == stats.bonett_price(0, 0, 4)


def test_only_common_tasks_are_compared() -> None:
    compared = stats.compare({"a": [1.0], "b": [1.0]}, {"b": [0.0], "c": [1.0]})
    assert compared is not None and compared.tasks == 1 and compared.difference == 1


def test_coverage_of_the_paired_interval() -> None:
    """The interval holds the true difference about as often as it says, on small samples too."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        a, b = rng.random(40) < 0.7, rng.random(40) < 0.55
        low, high = stats.bonett_price(int((a & ~b).sum()), int((~a & b).sum()), 40)
        held += low <= 0.15 <= high
    assert 0.92 <= held / 400 <= 0.99


def test_holm_corrects_for_the_number_of_comparisons() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0] and stats.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_makes_a_p_value_smaller_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = stats.holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [corrected[i] for i in ranked] == sorted(corrected)
