"""SelfOrg's mathematics against the worked example: four agents, three dimensions."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphs import contribution as c

TOY = c.unit(np.array([(1, 0, 0), (0.9, 0.3, 0), (0.8, 0.1, 0.5), (0, 1, 0.2)]))
PSI = c.surrogate(TOY)
CLOUDS = st.integers(1, 7).flatmap(
    lambda n: arrays(np.float64, (n, 3), elements=st.floats(-1, 1, allow_nan=False).filter(lambda x: abs(x) > 1e-3))
)


def pairs(graph: "nx.DiGraph[int]") -> set[tuple[int, int]]:
    return {(u, v) for u, v, _ in c.edges(graph)}


def four(values: "np.ndarray | list[float]") -> list[float]:
    return [round(float(value), 4) for value in values]


def test_similarities_and_contributions() -> None:
    s = TOY @ TOY.T
    assert four([s[0, 1], s[0, 2], s[1, 2], s[0, 3], s[1, 3], s[2, 3]]) == [0.9487, 0.8433, 0.8333, 0, 0.3101, 0.2067]
    assert four(PSI) == [0.8706, 0.9642, 0.8991, 0.4730]
    exact = c.shapley(TOY)
    assert four(exact) == [0.2770, 0.3016, 0.2813, 0.1401] and exact.sum() == pytest.approx(1)


def test_the_papers_graph() -> None:
    graph = c.organize(TOY, PSI, 2, 0.5, "paper")
    assert pairs(graph) == {(1, 0), (1, 2), (2, 0)}
    assert c.reading_order(graph, PSI) == [1, 2, 0, 3]
    assert pairs(c.organize(TOY, PSI, 2, 0.9, "paper")) == {(1, 0)}
    assert pairs(c.organize(TOY, PSI, 1, 0.5, "paper")) == {(1, 0)}, "the nearest are taken before contributions are"
    best, cosines = c.centre(TOY, PSI, "paper")
    assert best == 1 and four(cosines) == [0.9265, 0.9785, 0.9233, 0.3489]


def test_the_released_codes_graph() -> None:
    assert four(c.sharpened(PSI)) == [0.2042, 0.5205, 0.2715, 0.0038]
    graph = c.organize(TOY, PSI, 2, -1, "code")
    assert {(u, v): round(w, 4) for u, v, w in c.edges(graph)} == {
        (1, 0): 2.1492,
        (2, 0): 1.0703,
        (1, 2): 1.6636,
        (1, 3): 0.9510,
        (2, 3): 0.4280,
    }, "and 0→1, 0→2 and 2→1 are removed"
    assert c.reading_order(graph, PSI) == [1, 2, 0, 3]
    assert pairs(c.organize(TOY, PSI, 2, 0.75, "code")) == {(1, 0), (2, 0), (1, 2)}
    best, cosines = c.centre(TOY, PSI, "code")
    assert best == 1 and four(cosines) == [0.9671, 0.9824, 0.9163, 0.2310]


@pytest.mark.parametrize(("degrees", "agree"), [((0, 4, 8, 10), True), ((0, 1, 17, 18), True), ((0, 4, 8, 30), False)])
def test_consensus(degrees: tuple[int, ...], agree: bool) -> None:
    angles = np.radians(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert c.consensus(vectors) is agree
    assert not c.consensus(TOY)


def test_what_embeddings_cannot_tell() -> None:
    """A coherent wrong majority is central, and the one correct reply is not."""
    wrong = c.unit(np.array([(1, 0, 0, 0), (0, 1, 0, 0), (0, 1, 0.05, 0), (0, 1, 0, 0.05)]))
    assert four(c.surrogate(wrong)) == [0.3164, 0.9484, 0.9480, 0.9480]
    scattered = c.unit(np.array([(1, 0, 0, 0), (1, 0.05, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]))
    assert four(c.surrogate(scattered)) == [0.8162, 0.8162, 0.4083, 0.4083]


@given(CLOUDS, st.integers(1, 4), st.floats(-1, 1), st.sampled_from(["paper", "code"]))
def test_every_graph_is_acyclic_and_every_agent_comes_once(
    cloud: np.ndarray, neighbours: int, threshold: float, variant: c.Variant
) -> None:
    vectors = c.unit(cloud)
    psi = c.surrogate(vectors)
    graph = c.organize(vectors, psi, neighbours, threshold, variant)
    order = c.reading_order(graph, psi)
    assert sorted(order) == list(range(len(vectors)))
    assert all(order.index(u) < order.index(v) for u, v, _ in c.edges(graph))
    assert all(graph.in_degree(agent) <= neighbours for agent in graph)  # pyright: ignore[reportOperatorIssue]


@given(CLOUDS)
def test_shapley_shares_the_whole(cloud: np.ndarray) -> None:
    vectors = c.unit(cloud)
    whole = 1.0 if np.linalg.norm(vectors.mean(0)) > 1e-9 else 0.0
    if whole:
        assert c.shapley(vectors).sum() == pytest.approx(1, abs=1e-6)


def test_cycles_lose_their_weakest_edge() -> None:
    ring: nx.DiGraph[int] = nx.DiGraph()
    ring.add_weighted_edges_from([(0, 1, 3.0), (1, 2, 1.0), (2, 0, 2.0)])
    psi = np.array([0.5, 0.9, 0.1])
    assert pairs(c.without_cycles(ring, psi, "code")) == {(0, 1), (2, 0)}
    assert pairs(c.without_cycles(ring, psi, "paper")) == {(0, 1), (1, 2)}


def test_embeddings_that_are_no_numbers_are_refused_by_row() -> None:
    with pytest.raises(ValueError, match=r"rows \[1, 2\] of 3"):
        c.unit(np.array([(1, 0), (float("nan"), 1), (0, 0)]))
    with pytest.raises(ValueError, match="at most 8 agents, found 9"):
        c.shapley(np.eye(9))
