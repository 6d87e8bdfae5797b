"""Cluster shares: the worked example, and to the last digit what nltk's BLEU and scikit-learn give pair by pair."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from scipy.spatial.distance import squareform
from sklearn.cluster import AgglomerativeClustering

from experiments import clusters
from experiments.clusters import distances, labels, shares

WORKED = [
    "Find the number of positive integers n less than 100 divisible by 7",
    "Find the number of positive integers n less than 200 divisible by 9",
    "How many primes p below 500 satisfy p mod 12 equal to 7",
    "A circle of radius 5 is inscribed in a square ; compute the area outside the circle",
]
# Few words, so that much is repeated; punctuation, so that a word is what stands between white space.
texts = st.lists(
    st.lists(st.sampled_from(["a", "a.", "b", "c", "7"]), max_size=9).map(" ".join), min_size=2, max_size=12
)


def looped(texts: Sequence[str]) -> np.ndarray:
    """(n, n): every pair by itself."""
    found = np.zeros((len(texts), len(texts)))
    for i, one in enumerate(texts):
        for j in range(i + 1, len(texts)):
            words, others = one.split(), texts[j].split()
            score: Any = sentence_bleu([others], words, smoothing_function=SmoothingFunction().method1)
            found[i, j] = found[j, i] = 0.0 if words == others != [] and len(words) < 4 else 1 - score
    return found


def test_agent0_worked_clusters() -> None:
    found = squareform(distances(WORKED))
    assert found[0, 1] == pytest.approx(0.2984, abs=5e-5)
    assert all(found[i, j] >= 0.9845 - 5e-5 for i in range(4) for j in range(i + 1, 4) if (i, j) != (0, 1))
    assert shares(WORKED) == [0.5, 0.5, 0.25, 0.25] and labels(WORKED) == [0, 0, 1, 2]


@given(texts=texts)
def test_distances_are_those_of_a_loop_over_pairs(texts: list[str]) -> None:
    assert (distances(texts) == squareform(looped(texts))).all()


@given(texts=texts)
def test_shares_are_those_of_the_released_clustering(texts: list[str]) -> None:
    released: Any = {"n_clusters": None, "distance_threshold": 0.5, "metric": "precomputed", "linkage": "average"}
    grown = AgglomerativeClustering(**released)
    numbers = grown.fit_predict(looped(texts)).tolist()
    assert shares(texts) == [numbers.count(number) / len(texts) for number in numbers]


@pytest.mark.parametrize("pairs", [1, 7, 40])
def test_counting_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    many = [f"{first} {second}" for first in WORKED for second in WORKED]
    whole = distances(many)
    monkeypatch.setattr(clusters, "_PAIRS", pairs)
    assert (distances(many) == whole).all() and len(whole) == 16 * 15 / 2


columns = st.lists(st.tuples(*[st.integers(0, 3) | st.integers(0, 2**40)] * 5), min_size=1, max_size=20)


@given(rows=columns)
def test_rows_are_told_apart_however_large_their_counts(rows: list[tuple[int, ...]]) -> None:
    first, numbers = clusters._distinct(list(np.array(rows).T))
    assert [rows[first[number]] for number in numbers] == rows and len(first) == len(set(rows))


def test_clusters_merge_below_the_threshold_alone() -> None:
    nearest = float(distances(WORKED).min())
    assert labels(WORKED, nearest) == [0, 1, 2, 3]
    assert labels(WORKED, float(np.nextafter(nearest, 1))) == [0, 0, 1, 2]


def test_short_texts_that_are_equal_are_one_cluster_and_empty_ones_are_none() -> None:
    assert shares([]) == [] and shares(["x"]) == [1.0]
    assert shares(["2 + 2", "2 + 2", "2 + 3"]) == [2 / 3, 2 / 3, 1 / 3]
    assert shares(["", " ", "2 + 2", "2 + 2 "]) == [0.25, 0.25, 0.5, 0.5]
