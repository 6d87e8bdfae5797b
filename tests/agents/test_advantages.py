"""Advantages: the published numbers, and what must not change them."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.learning.advantages import ADVANTAGES, adapt, dr_grpo, grpo, raw, reinforce, rloo
from tests.agents.learning_helpers import make_sample

RULES = sorted(ADVANTAGES)
BASELINED = ["dr_grpo", "grpo", "grpo_unbiased", "reinforce++", "rloo"]
# Multiples of 1/8, so that shifting them rounds nothing.
returns = st.lists(st.integers(-80, 80).map(lambda n: n / 8), min_size=1, max_size=20)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[float], list[str]]:
    values = draw(returns)
    return values, draw(st.lists(st.sampled_from("abc"), min_size=len(values), max_size=len(values)))


def close(expected: list[float], digits: float = 5e-5) -> object:
    return pytest.approx(expected, abs=digits)


def test_the_four_updates_check() -> None:
    rewards, group = [1, 0, 0, 0], [0] * 4
    assert rloo(rewards, group) == close([1, -1 / 3, -1 / 3, -1 / 3], 1e-12)
    assert grpo(rewards, group) == close([1.73, -0.58, -0.58, -0.58], 5e-3)
    assert dr_grpo(rewards, group) == [0.75, -0.25, -0.25, -0.25]
    assert raw([1, -1], [0, 0]) == [1.0, -1.0]


def test_agent0_curriculum_group() -> None:
    rewards, group = [0.9375, 0.5125, 0.2125, 0.4625], [0] * 4
    found = grpo(rewards, group, unbiased=True)
    assert found == ADVANTAGES["grpo_unbiased"](rewards, group) == close([1.3499, -0.0623, -1.0591, -0.2284])


@pytest.mark.parametrize("low", [0, -1])
def test_agent0_executor_group(low: int) -> None:
    scale = adapt(make_sample(), 0.4).scale
    half = [scale * a for a in grpo([1, 1, low, low], [0] * 4, unbiased=True)]
    assert half == close([0.5889, 0.5889, -0.5889, -0.5889])
    assert [scale * a for a in grpo([1, low, low, low], [0] * 4, unbiased=True)] == close([1.02, -0.34, -0.34, -0.34])
    assert grpo([1, 1, low, low], [0] * 4, unbiased=True) == close([0.866, 0.866, -0.866, -0.866])


@pytest.mark.parametrize(
    ("agreement", "scale", "clip_high"),
    [(0.3, 0.60, 0.30), (0.4, 0.68, 0.28), (0.6, 0.84, 0.24), (0.8, 1.00, 0.20), (0.1, 0.60, 0.30), (1.0, 1.00, 0.20)],
)
def test_adpo_scale_and_clip(agreement: float, scale: float, clip_high: float) -> None:
    adapted = adapt(make_sample(), agreement)
    assert adapted.scale == pytest.approx(scale, abs=1e-12)
    assert adapted.clip_high == pytest.approx(clip_high, abs=1e-12)


@pytest.mark.parametrize("agreement", [-0.1, 1.1, math.nan])
def test_an_agreement_that_is_none_is_refused(agreement: float) -> None:
    with pytest.raises(ValueError, match=r"agreement from 0 to 1, found .*task-0/0/solver/0"):
        adapt(make_sample(), agreement)


def test_reinforce_whitens_the_whole_batch_where_grpo_whitens_each_task() -> None:
    rewards, tasks = [1, 1, 1, 0], ["easy", "easy", "hard", "hard"]
    assert grpo(rewards, tasks) == close([0, 0, 1, -1])
    assert reinforce(rewards, ["batch"] * 4) == close([0.57735, 0.57735, 0.57735, -1.73205], 1e-5)


@pytest.mark.parametrize("rule", BASELINED)
@given(data=grouped(), shift=st.integers(-9, 9))
def test_a_shift_of_all_returns_changes_nothing(rule: str, data: tuple[list[float], list[str]], shift: int) -> None:
    values, groups = data
    moved = ADVANTAGES[rule]([value + shift for value in values], groups)
    assert moved == close(ADVANTAGES[rule](values, groups), 1e-9)


@pytest.mark.parametrize("rule", RULES)
@given(data=grouped(), random=st.randoms())
def test_order_changes_no_digit(rule: str, data: tuple[list[float], list[str]], random: Random) -> None:
    values, groups = data
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = ADVANTAGES[rule]([values[i] for i in order], [groups[i] for i in order])
    found = ADVANTAGES[rule](values, groups)
    assert shuffled == [found[i] for i in order]


@pytest.mark.parametrize("rule", RULES)
@given(data=grouped())
def test_groups_know_nothing_of_each_other(rule: str, data: tuple[list[float], list[str]]) -> None:
    values, groups = data
    found = ADVANTAGES[rule](values, groups)
    for group in set(groups):
        inside = [i for i, other in enumerate(groups) if other == group]
        alone = ADVANTAGES[rule]([values[i] for i in inside], [group] * len(inside))
        assert alone == [found[i] for i in inside]


@pytest.mark.parametrize("rule", BASELINED)
@given(data=grouped())
def test_advantages_of_a_group_sum_to_zero_and_keep_its_order(rule: str, data: tuple[list[float], list[str]]) -> None:
    values, groups = data
    found = ADVANTAGES[rule](values, groups)
    for group in set(groups):
        inside = sorted((values[i], found[i]) for i, other in enumerate(groups) if other == group)
        assert math.fsum(advantage for _, advantage in inside) == pytest.approx(0, abs=1e-6)
        advantages = [advantage for _, advantage in inside]
        assert advantages == sorted(advantages)


@given(data=grouped(), factor=st.sampled_from([2.0, 0.25, 8.0]))
def test_whitened_advantages_do_not_depend_on_the_unit_of_rewards(
    data: tuple[list[float], list[str]], factor: float
) -> None:
    values, groups = data
    assert grpo([factor * value for value in values], groups) == close(grpo(values, groups), 1e-4)


@pytest.mark.parametrize("rule", BASELINED)
def test_a_group_that_did_all_the_same_gets_exactly_zero(rule: str) -> None:
    assert ADVANTAGES[rule]([0.1] * 3 + [0.7], ["a"] * 3 + ["alone"]) == [0.0] * 4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_return_that_is_not_finite_is_refused(rule: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"found {wrong} at 1 \(group 'b'\)"):
        ADVANTAGES[rule]([0.0, wrong], ["a", "b"])
    with pytest.raises(ValueError, match="a group for each of 2 returns, found 1"):
        ADVANTAGES[rule]([0.0, 1.0], ["a"])
