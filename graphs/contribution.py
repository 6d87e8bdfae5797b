"""Who contributed what, and who should read whom: the mathematics of SelfOrg over the embeddings of N replies.

Agents are rows: `embeddings` is (N, d) with rows of any length but 0; edges go from the agent that is read to the one
that reads. "paper" and "code" name the published paper's graph and the released code's, which differ.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

Variant = Literal["paper", "code"]
Vectors = NDArray[np.float64]
SHARPNESS = 0.1
"""Temperature of the released code's softmax over contributions."""
MOST_EXACT = 8
"""Agents up to which the Shapley value is computed: 2 ** N coalitions."""


def unit(embeddings: np.ndarray) -> Vectors:
    """Rows scaled to length 1.

    Raises:
        ValueError: a row that is 0, infinite or no number.
    """
    vectors = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0)).tolist()
        raise ValueError(f"expected embeddings that are finite and not 0; rows {bad} of {len(vectors)} are not")
    return vectors / lengths


def surrogate(vectors: Vectors) -> Vectors:
    """Cosine of each agent's vector with the mean of all: (N,), in [-1, 1]."""
    mean = vectors.mean(0)
    return np.array([_cosine(vector, mean) for vector in vectors])


def shapley(vectors: Vectors) -> Vectors:
    """Exact Shapley value of each agent, where a coalition is worth the cosine of its mean with the mean of all: (N,).

    Raises:
        ValueError: more than MOST_EXACT agents.
    """
    n = len(vectors)
    if n > MOST_EXACT:
        raise ValueError(f"exact contributions take 2^N coalitions: expected at most {MOST_EXACT} agents, found {n}")
    mean = vectors.mean(0)
    worth: dict[tuple[int, ...], float] = {(): 0.0}
    for size in range(1, n + 1):
        for members in combinations(range(n), size):
            worth[members] = _cosine(vectors[list(members)].mean(0), mean)
    values = np.zeros(n)
    for members in worth:
        weight = 1 / (n * comb(n - 1, len(members))) if len(members) < n else 0.0
        for agent in set(range(n)) - set(members):
            values[agent] += weight * (worth[tuple(sorted((*members, agent)))] - worth[members])
    return values


def sharpened(contributions: Vectors) -> Vectors:
    """The released code's weights: softmax of the positive parts at SHARPNESS, which sum to 1."""
    scaled = np.maximum(contributions, 0) / SHARPNESS
    exponents = np.exp(scaled - scaled.max())
    return exponents / exponents.sum()


def organize(
    vectors: Vectors, contributions: Vectors, neighbours: int, threshold: float, variant: Variant
) -> "nx.DiGraph[int]":
    """Who reads whom: an acyclic graph over the agents, edges weighted.

    Args:
        vectors: (N, d), rows of length 1.
        contributions: (N,).
        neighbours: most agents that one reads.
        threshold: least similarity of an edge.
        variant: paper: of the most similar agents, those that contributed more. code: of all similar agents, those of
            the highest similarity scaled by how much more they contributed, whether more or not.
    """
    similarity, n = vectors @ vectors.T, len(vectors)
    weights = sharpened(contributions)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(n))
    for reader in range(n):
        near = [other for other in range(n) if other != reader and similarity[reader, other] >= threshold]
        if variant == "paper":
            near.sort(key=lambda other: (-similarity[reader, other], other))
            for other in near[:neighbours]:
                if contributions[other] > contributions[reader]:
                    graph.add_edge(other, reader, weight=float(similarity[reader, other]))
            continue
        gain = similarity[reader] * (1 + n * (weights - weights[reader]))
        near.sort(key=lambda other: (-gain[other], -weights[other], other))
        for other in near[:neighbours]:
            graph.add_edge(other, reader, weight=float(max(0.0, gain[other])))
    return without_cycles(graph, contributions, variant)


def without_cycles(graph: "nx.DiGraph[int]", contributions: Vectors, variant: Variant) -> "nx.DiGraph[int]":
    """Remove edges until there is no cycle: of a cycle the edge that leaves its weakest agent (paper) or the edge of
    the least weight (code), ties by number."""
    graph = graph.copy()
    while True:
        try:
            cycle = nx.find_cycle(graph)
        except nx.NetworkXNoCycle:
            return graph
        if variant == "paper":
            edge = min(cycle, key=lambda edge: (contributions[edge[0]], edge[0]))
        else:
            edge = min(cycle, key=lambda edge: (graph.edges[edge[0], edge[1]]["weight"], edge[0], edge[1]))
        graph.remove_edge(edge[0], edge[1])


def reading_order(graph: "nx.DiGraph[int]", contributions: Vectors) -> list[int]:
    """Agents such that each comes after those that it reads; among free ones the higher contribution first."""
    return list(nx.lexicographical_topological_sort(graph, key=lambda agent: (-contributions[agent], agent)))


def consensus(vectors: Vectors, least: float = 0.95, spread: float = 0.1) -> bool:
    """Whether all pairs are at least `least` similar and their similarities lie within `spread`; one agent agrees."""
    if len(vectors) < 2:
        return True
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return bool(pairs.min() >= least and pairs.max() - pairs.min() <= spread)


def centre(vectors: Vectors, contributions: Vectors, variant: Variant) -> tuple[int, Vectors]:
    """The agent nearest to the weighted centre of all, and every agent's cosine with it: (N,).

    Args:
        vectors: (N, d), rows of length 1.
        contributions: (N,); the weights as they are (paper) or sharpened (code).
        variant: which weights.
    """
    weights = contributions if variant == "paper" else sharpened(contributions)
    middle = weights @ vectors
    cosines = np.array([_cosine(vector, middle) for vector in vectors])
    return int(cosines.argmax()), cosines


def edges(graph: "nx.DiGraph[int]") -> Sequence[tuple[int, int, float]]:
    """(read, reader, weight) of each edge, sorted."""
    return sorted((u, v, float(weight)) for u, v, weight in graph.edges.data("weight"))


def _cosine(a: Vectors, b: Vectors) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0
