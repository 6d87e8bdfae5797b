"""Aggregation against the worked numbers of the published systems."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import aggregate

A, B, C = 0, 1, 2
GROUPS = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def test_rpc_counts_a_text_once() -> None:
    groups, texts = [A, A, B, B], ["a1", "a2", "b", "b"]
    scores = aggregate.perplexity_consistency(groups, texts, [math.log(p) for p in (0.04, 0.03, 0.05, 0.05)])
    assert scores[A] == pytest.approx(0.07) and scores[B] == pytest.approx(0.05)
    assert aggregate.best(scores) == A
    assert aggregate.tally(groups)[A] == aggregate.tally(groups)[B], "a plain vote ties"


def test_borda_votes_by_certainty() -> None:
    certainty = [4.0, 3.0, 2.0, 1.0]
    half, square = (aggregate.tally([A, B, B, C], aggregate.borda(certainty, p)) for p in (0.5, 2))
    assert half[A] == pytest.approx(2) and half[B] == pytest.approx(3.1463, abs=5e-5)
    assert square[A] == 16 and square[B] == 13
    assert aggregate.borda(certainty, 0) == [1, 1, 1, 1]


def test_self_certainty_is_the_divergence_from_uniform() -> None:
    assert aggregate.self_certainty(np.array([[0.7, 0.1, 0.1, 0.1]])) == pytest.approx(0.4298, abs=5e-5)
    assert aggregate.self_certainty(np.full((3, 4), 0.25)) == pytest.approx(0)


def test_fobar_lets_the_question_asked_back_decide() -> None:
    scores = aggregate.forward_backward({A: 0.6, B: 0.4}, {A: 0.2, B: 0.8})
    assert scores[A] == pytest.approx(0.3798, abs=5e-5) and scores[B] == pytest.approx(0.6202, abs=5e-5)
    assert aggregate.forward_backward({A: 0.6, B: 0.4}, {}) == {A: 0.6, B: 0.4}


def test_models_vote_by_their_consistency() -> None:
    scores, consistency = aggregate.collective({"a": [7, 7, 7, 7], "b": [5, 5, 5, 9], "c": [5, 5, 7, 3]})
    assert scores[7] == pytest.approx(4.5) and scores[5] == pytest.approx(3.25)
    assert consistency == pytest.approx(0.5)


def test_p_true() -> None:
    assert aggregate.p_true(-0.2, -1.9) == pytest.approx(0.8455, abs=5e-5)


def test_pruning_drops_the_lower_of_two_clusters() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0.001, 0.003, 12), rng.uniform(0.2, 0.4, 12)
    pruned = aggregate.unlikely([*low, *high])
    assert all(pruned[:12]) and not any(pruned[12:])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_pruning_never_drops_all(probabilities: list[float]) -> None:
    pruned = aggregate.unlikely(probabilities)
    assert len(pruned) == len(probabilities)
    assert not probabilities or not all(pruned)


@given(GROUPS)
def test_the_first_seen_wins_a_tie_and_none_wins_nothing(groups: list[int]) -> None:
    won = aggregate.best(aggregate.tally(groups))
    most = max(groups.count(group) for group in groups)
    assert won == next(group for group in groups if groups.count(group) == most)
    assert aggregate.best({}) is None


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=12), st.floats(0, 3))
def test_borda_gives_each_rank_once(scores: list[float], power: float) -> None:
    votes = aggregate.borda(scores, power)
    assert sorted(votes) == pytest.approx(sorted(float(r**power) for r in range(1, len(scores) + 1)))
    best = scores.index(max(scores))
    assert votes[best] == pytest.approx(float(len(scores) ** power))
