"""From returns to advantages: how much better each turn did than its group. Groups are always given explicitly.

Sums are exact (math.fsum), so that neither order nor machine changes a digit. Called by experiments.credit.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from agents.learning.samples import Sample

Advantage = Callable[[Sequence[float], Sequence[Hashable]], list[float]]
"""(returns, the group of each) -> advantages, in the same order."""

EPSILON = 1e-6
"""Added to a standard deviation, as GRPO's implementations do."""


def raw(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """The returns as they are, for games whose payoff is already balanced (SPC's released code).

    Raises:
        ValueError: here and in the following: a return that is not finite, or another number of groups than returns.
    """
    _check(returns, groups)
    return [float(value) for value in returns]


def dr_grpo(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Less the group's mean. Source: Liu et al., arXiv:2503.20783."""
    return _each(returns, groups, _centred)


def grpo(returns: Sequence[float], groups: Sequence[Hashable], unbiased: bool = False) -> list[float]:
    """Less the group's mean, over its standard deviation. A group that did all the same gets 0.

    Args:
        returns: of turns.
        groups: of each turn; usually the attempts at one task.
        unbiased: n - 1 in the standard deviation, as torch has it and so most trainers (Agent0), in place of n.

    Source: Shao et al., arXiv:2402.03300, section 4.1.
    """
    return _each(returns, groups, lambda values: _whitened(values, unbiased))


def rloo(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Less the mean of the group's others; 0 for who is alone. Source: Ahmadian et al., arXiv:2402.14740."""
    return _each(returns, groups, _left_out)


def reinforce(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """REINFORCE++: whitened over groups that are as large as can be, the whole batch or all of a role in it.

    Source: Hu, arXiv:2501.03262. Departures: every turn counts once, not every token; no KL in the reward.
    """
    return _each(returns, groups, lambda values: _whitened(values, unbiased=False))


ADVANTAGES: Mapping[str, Advantage] = {
    "grpo": grpo,
    "grpo_unbiased": partial(grpo, unbiased=True),
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce++": reinforce,
    "raw": raw,
}


def adapt(sample: Sample, agreement: float, least: float = 0.6) -> Sample:
    """ADPO: trust a pseudo-label as far as the votes agreed on it, and explore more where they did not.

    Args:
        sample: whose scale and upper clip are set.
        agreement: share of the votes for the label, 0 to 1.
        least: scale at an agreement of 0.3 and below; it rises to 1 at 0.8.

    Raises:
        ValueError: an agreement that is none.

    Source: Agent0's released code.
    """
    if not 0 <= agreement <= 1:
        raise ValueError(f"expected an agreement from 0 to 1, found {agreement} (sample {sample.key})")
    scale = least + (1 - least) * _unit((agreement - 0.3) / 0.5)
    return replace(sample, scale=scale, clip_high=0.2 + 0.1 * _unit((0.8 - agreement) / 0.5))


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))


def _check(returns: Sequence[float], groups: Sequence[Hashable]) -> None:
    if len(groups) != len(returns):
        raise ValueError(f"expected a group for each of {len(returns)} returns, found {len(groups)}")
    for i, (value, group) in enumerate(zip(returns, groups, strict=True)):
        if not math.isfinite(value):
            raise ValueError(f"expected finite returns, found {value} at {i} (group {group!r})")


def _each(
    returns: Sequence[float], groups: Sequence[Hashable], rule: Callable[[list[float]], list[float]]
) -> list[float]:
    _check(returns, groups)
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    advantages = [0.0] * len(returns)
    for indices in members.values():
        values = [float(returns[i]) for i in indices]
        # Rounding must not make a difference where there is none.
        if min(values) != max(values):
            for i, advantage in zip(indices, rule(values), strict=True):
                advantages[i] = advantage
    return advantages


def _centred(values: list[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]


def _whitened(values: list[float], unbiased: bool) -> list[float]:
    centred = _centred(values)
    deviation = math.sqrt(math.fsum(c * c for c in centred) / (len(values) - unbiased))
    return [c / (deviation + EPSILON) for c in centred]


def _left_out(values: list[float]) -> list[float]:
    total = math.fsum(values)
    return [value - (total - value) / (len(values) - 1) for value in values]
