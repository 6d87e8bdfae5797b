"""Rewards of proposers: the published numbers of both forms, terms that add up."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.learning.advantages import grpo
from envs import ConfigError
from experiments.training.proposing import (
    FORMS,
    composite,
    grounded,
    make_proposer_settings,
    released_uncertainty,
    uncertainty,
)

PAPER, RELEASED = FORMS["paper"], FORMS["released"]
WORKED = [(0.5, 0, 1 / 16), (0.7, 2, 3 / 16), (0.9, 6, 3 / 16), (0.3, 1, 3 / 16)]
"""Agreement, executed calls, cluster share."""
ROUNDING = 1e-12
shares = st.floats(1e-4, 1)


def close(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=1e-9)


def test_uncertainty_in_both_forms() -> None:
    agreements = [Fraction(3, 10), Fraction(1, 2), Fraction(7, 10), Fraction(4, 5), Fraction(1)]
    assert [uncertainty(p) for p in agreements] == [0.6, 1.0, 0.6, 0.4, 0.0]
    assert [released_uncertainty(p) for p in agreements] == [0.3, 0.5, 0.3, 0.2, 0.0]
    assert uncertainty(0.0) == released_uncertainty(0.0) == 0.0


def test_agent0_worked_composite() -> None:
    paper = [composite(PAPER, True, *proposal).total for proposal in WORKED]
    assert paper == close([0.9375, 0.5125, 0.2125, 0.4625])
    released = [composite(RELEASED, True, *proposal).total for proposal in WORKED]
    assert released == close([0.4375, 0.2125, 0.1125, 0.1625])
    assert composite(PAPER, False, 0, 0, 1 / 16).total == 0.0
    assert composite(RELEASED, False, 0, 0, 1 / 16).total == pytest.approx(-1.0625)
    advantages = grpo(paper, [0] * 4, unbiased=True)
    assert advantages == pytest.approx([1.3499, -0.0623, -1.0591, -0.2284], abs=5e-5)


def test_terms_are_told_apart() -> None:
    found = composite(PAPER, True, *WORKED[1])
    assert found.rewards() == pytest.approx(
        {"uncertainty": 0.6, "tool": 0.1, "repetition": -0.1875, "format": 0, "floor": 0}
    )
    unparsed = composite(RELEASED, False, 0, 0, 0.25).rewards()
    assert unparsed == {"uncertainty": 0, "tool": 0, "repetition": -0.25, "format": -1, "floor": 0}


def test_only_the_papers_form_is_held_above_0() -> None:
    alike = composite(PAPER, True, Fraction(9, 10), 0, 1.0)
    assert (alike.total, alike.floor) == pytest.approx((0, 0.8))
    assert composite(RELEASED, True, Fraction(9, 10), 0, 1.0).total == pytest.approx(-0.9)


@given(st.sampled_from([PAPER, RELEASED]), st.booleans(), st.fractions(0, 1), st.floats(0, 50), shares)
def test_rewards_stay_in_their_range_and_are_the_sum_of_their_terms(
    settings: Any, parsed: bool, agreement: Fraction, calls: float, share: float
) -> None:
    found = composite(settings, parsed, agreement, calls, share)
    assert found.total == math.fsum(found.rewards().values())
    low, high = (0, 1.2) if settings is PAPER else (-2, 0.7)
    assert low - ROUNDING <= found.total <= high
    # Neither who is rarer nor who has tools used loses by it.
    assert composite(settings, parsed, agreement, calls, share / 2).total >= found.total - ROUNDING
    assert composite(settings, parsed, agreement, calls + 1, share).total >= found.total - ROUNDING


@pytest.mark.parametrize(
    ("agreement", "calls", "share", "said"),
    [
        (1.1, 0, 0.5, "an agreement from 0 to 1, found 1.1"),
        (-0.1, 0, 0.5, "an agreement from 0 to 1"),
        (math.nan, 0, 0.5, "an agreement from 0 to 1, found nan"),
        (0.5, -1, 0.5, "executed calls from 0 to inf, found -1"),
        (0.5, math.inf, 0.5, "executed calls from 0 to inf, found inf"),
        (0.5, math.nan, 0.5, "executed calls"),
        (0.5, 0, 0, "a cluster share above 0 to 1, found 0"),
        (0.5, 0, 1.5, "a cluster share above 0 to 1, found 1.5"),
    ],
)
@pytest.mark.parametrize("settings", [PAPER, RELEASED])
@pytest.mark.parametrize("parsed", [True, False])
def test_numbers_that_cannot_be_are_refused(
    settings: Any, parsed: bool, agreement: float, calls: float, share: float, said: str
) -> None:
    with pytest.raises(ValueError, match=f"expected {said}"):
        composite(settings, parsed, agreement, calls, share)


def test_constants_are_settings() -> None:
    heavy = make_proposer_settings("released", {"tool": "2", "most_calls": "1", "repetition": "0"})
    assert composite(heavy, True, 0.5, 3, 1.0).total == pytest.approx(0.6)
    assert make_proposer_settings() == PAPER and replace(heavy, form="paper") != heavy
    for form, changes, said in [
        ("code", {}, "unknown form of the proposer's reward 'code'; one of: paper, released"),
        ("paper", {"tools": 1}, "'tools'; did you mean 'tool'"),
        ("paper", {"form": "released"}, "unknown setting of the proposer's reward: 'form'"),
        ("paper", {"repetition": -1}, "the proposer's reward: repetition cannot be -1"),
    ]:
        with pytest.raises(ConfigError, match=said):
            make_proposer_settings(form, changes)


class TestGrounded:
    def test_soar_worked_numbers(self) -> None:
        assert grounded(0.02, [0.05, 0.03, 0.06, 0.02]) == pytest.approx(0.02)
        assert grounded(0.5, [0.25]) == -0.25

    @pytest.mark.parametrize(("before", "after"), [(0.5, []), (1.5, [0.5]), (0.5, [0.5, -0.1]), (0.5, [math.nan])])
    def test_accuracies_that_cannot_be_are_refused(self, before: float, after: list[float]) -> None:
        with pytest.raises(ValueError, match="expected"):
            grounded(before, after)
