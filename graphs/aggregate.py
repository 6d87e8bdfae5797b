"""Ways to settle on one of many answers: pure functions over groups of equivalent answers.

A group is the index of the first answer that is equivalent to an answer, as `Env.group` gives it. Ties go to the group
seen first.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

WEIBULL_SHARE = (0.2, 0.8)


def tally(groups: Sequence[int], weights: Sequence[float] | None = None) -> dict[int, float]:
    """Group -> sum of the weights of its answers (1 each when None), in the order in which groups are first seen."""
    scores: dict[int, float] = {}
    for group, weight in zip(groups, weights if weights is not None else [1.0] * len(groups), strict=True):
        scores[group] = scores.get(group, 0.0) + weight
    return scores


def best(scores: Mapping[int, float]) -> int | None:
    """The group of the highest score, the first seen on ties; None when there is none."""
    return max(scores, key=lambda group: scores[group]) if scores else None


def borda(scores: Sequence[float], power: float) -> list[float]:
    """Votes by rank: of n samples, the one of rank r casts (n - r + 1) ** power; the first of equals ranks higher.

    Kang et al., Self-Certainty, arXiv:2502.18581. Power 0 is the plain vote.
    """
    n = len(scores)
    order = sorted(range(n), key=lambda i: -scores[i])
    votes = [0.0] * n
    for rank, i in enumerate(order):
        votes[i] = float((n - rank) ** power)
    return votes


def self_certainty(probabilities: np.ndarray) -> float:
    """Mean KL divergence of the uniform distribution from each token's distribution, in nats.

    Args:
        probabilities: (tokens, vocabulary), the whole vocabulary, each above 0.
    """
    return float(-np.mean(np.log(probabilities.shape[-1] * probabilities)))


def perplexity_consistency(groups: Sequence[int], texts: Sequence[str], logprobs: Sequence[float]) -> dict[int, float]:
    """Group -> summed probability of its distinct texts. Zhou et al., RPC, arXiv:2502.00511.

    Args:
        groups: of the answers.
        texts: the replies; one that occurs twice counts once.
        logprobs: of the replies, nats; summed or averaged over tokens, as the caller decides.
    """
    scores: dict[int, float] = {}
    seen: set[str] = set()
    for group, text, logprob in zip(groups, texts, logprobs, strict=True):
        scores.setdefault(group, 0.0)
        if text not in seen:
            seen.add(text)
            scores[group] += math.exp(logprob)
    return scores


def unlikely(probabilities: Sequence[float]) -> list[bool]:
    """Which replies RPC prunes (arXiv:2502.00511): those that the lower component of a mixture of two Weibull
    distributions explains better, and that lie below the mean.

    With fewer than three different values nothing is pruned: there is no mixture to fit.
    """
    from scipy.optimize import minimize

    values = np.maximum(np.asarray(probabilities, float), 1e-300)
    if len(set(values.tolist())) < 3:
        return [False] * len(values)
    scale = values.mean()
    x = values / scale

    def densities(parameters: np.ndarray) -> np.ndarray:
        share, shapes, scales = parameters[0], np.exp(parameters[1:3, None]), np.exp(parameters[3:5, None])
        ratio = x / scales
        density = shapes / scales * ratio ** (shapes - 1) * np.exp(-(ratio**shapes))
        return np.array([[share], [1 - share]]) * density

    def loss(parameters: np.ndarray) -> float:
        return float(-np.log(densities(parameters).sum(0) + 1e-300).sum())

    low, high = np.log(np.quantile(x, [0.25, 0.75]) + 1e-12)
    fit = minimize(loss, [0.5, 0.0, 0.0, low, high], bounds=[WEIBULL_SHARE, *[(-2, 3)] * 2, *[(-12, 6)] * 2])
    means = [math.exp(fit.x[3 + i]) * math.gamma(1 + math.exp(-fit.x[1 + i])) for i in range(2)]
    lower = int(means[1] < means[0])
    shares = densities(fit.x)
    return [bool(shares[lower, i] > shares[1 - lower, i] and x[i] < 1) for i in range(len(x))]


def forward_backward(
    forward: Mapping[int, float], backward: Mapping[int, float], alpha: float = 0.5
) -> dict[int, float]:
    """Group -> probability in proportion to forward ** alpha * backward ** (1 - alpha).

    Jiang et al., FOBAR, arXiv:2308.07758. Where no group has both, the forward shares decide alone.

    Args:
        forward: group -> share of the votes.
        backward: group -> share of the questions asked back that were answered right.
        alpha: weight of the forward side, 0 to 1.
    """
    scores = {group: forward[group] ** alpha * backward.get(group, 0.0) ** (1 - alpha) for group in forward}
    total = sum(scores.values())
    if total == 0:
        scores, total = dict(forward), sum(forward.values())
    return {group: score / total for group, score in scores.items()} if total else scores


def collective(samples: Mapping[str, Sequence[int]]) -> tuple[dict[int, float], float]:
    """Vote of several models, each weighted by its own consistency: the largest share that an answer has among its
    samples. RLCCF, arXiv:2508.12338.

    Args:
        samples: model -> groups of its answers.

    Returns:
        group -> weighted votes, and the share of all weight that the best group has (collective consistency).
    """
    scores: dict[int, float] = {}
    for groups in samples.values():
        counts = tally(groups)
        weight = max(counts.values(), default=0.0) / max(len(groups), 1)
        for group, count in counts.items():
            scores[group] = scores.get(group, 0.0) + weight * count
    total = sum(scores.values())
    return scores, max(scores.values()) / total if total else 0.0


def p_true(true: float, false: float) -> float:
    """Probability of True among the two, from their log-probabilities in nats. Kadavath et al., arXiv:2207.05221."""
    return 1 / (1 + math.exp(false - true))
