"""Runs on simulated replicas, and the shapes of episodes that they are made of."""

from itertools import count
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.simulation import Costs, Limits
from agents.simulation.hardware import Served
from experiments.capacity.calibration import Load, fit, predict
from experiments.capacity.fleet import simulate
from experiments.capacity.shapes import Call, Shape, Shapes, uniform

SERVED = Served(Costs(pass_s=1.0, prompt_s=0.1), Limits(rows=4), 1, True)


def episodes(*shapes: Shape) -> list[tuple[int, Shape]]:
    return list(zip(count(), shapes))


def shape(*stages: int, prompt: int = 10, reply: int = 3) -> Shape:
    """Stages of so many calls each."""
    return tuple(tuple(Call(f"s{i}/{n}", "s", prompt, reply) for n in range(calls)) for i, calls in enumerate(stages))


class TestSimulate:
    def test_one_call(self) -> None:
        played = simulate(episodes(shape(1)), SERVED, 1, 1)
        assert played.seconds == pytest.approx(4.0) and played.busy == pytest.approx(1.0)
        assert (played.calls, played.prompt_tokens, played.reply_tokens, played.episodes) == (1, 10, 3, 1)

    def test_calls_of_a_stage_run_together_and_stages_follow(self) -> None:
        # Three prompts in one step, two steps of decoding; then one call alone.
        assert simulate(episodes(shape(3, 1)), SERVED, 1, 1).seconds == pytest.approx(4.0 + 2.0 + 4.0)

    def test_concurrency_bounds_what_is_in_flight(self) -> None:
        one = shape(1)
        assert simulate(episodes(one, one), SERVED, 1, 1).seconds == pytest.approx(8.0)
        assert simulate(episodes(one, one), SERVED, 1, 2).seconds == pytest.approx(5.0)

    def test_replicas_share_the_calls(self) -> None:
        one = shape(1)
        played = simulate(episodes(one, one), SERVED, 2, 2)
        assert played.seconds == pytest.approx(4.0) and played.busy == pytest.approx(1.0)

    def test_calls_wait_for_the_playing_process(self) -> None:
        # The second comes in the middle of the first one's prompt, and joins at the next step.
        played = simulate(episodes(shape(2)), SERVED, 1, 1, call_s=0.5)
        assert played.seconds == pytest.approx(0.5 + 2.0 + 2.0 + 2.0)

    def test_equal_prompts_of_a_task_are_computed_once(self) -> None:
        asked: Shape = (tuple(Call(f"s/{n}", "s", 33, 1, opening=1) for n in range(3)),)
        played = simulate([(0, asked), (0, asked), (1, asked)], SERVED, 1, 1)
        assert played.cached_tokens == 32 * (2 + 3 + 2)

    def test_a_conversation_stays_where_it_is_cached(self) -> None:
        talk: Shape = ((Call("s/0", "s", 33, 15),), (Call("s/1", "s", 50, 1, follows="s/0"),))
        played = simulate(episodes(*[talk] * 6), SERVED, 3, 3)
        assert played.cached_tokens == 48 * 6

    @given(
        st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=12),
        st.integers(1, 4), st.integers(1, 6), st.sampled_from([0.0, 0.3]),
    )  # fmt: skip
    def test_every_call_is_made_whatever_the_replicas(
        self, made: list[list[int]], replicas: int, concurrency: int, call_s: float
    ) -> None:
        shapes = [shape(*stages, prompt=5 + n, reply=1 + n % 3) for n, stages in enumerate(made)]
        played = simulate(episodes(*shapes), SERVED, replicas, concurrency, call_s)
        calls = [call for known in shapes for stage in known for call in stage]
        assert (played.episodes, played.calls) == (len(shapes), len(calls))
        assert played.counts["requests"] == len(calls)
        assert played.prompt_tokens == sum(call.prompt for call in calls)
        assert played.counts["decoded"] == sum(call.reply - 1 for call in calls)
        longest = max(sum(max(call.reply for call in stage) for stage in known) for known in shapes)
        assert played.seconds >= longest and 0 < played.busy <= 1 + 1e-9


class TestShapes:
    def test_means_are_those_of_an_episode(self) -> None:
        known = Shapes(((shape(1), shape(3)), (shape(2, 2),)))
        assert known.calls == fmean([1, 3, 4]) and known.reply_tokens == 3 * known.calls
        assert known.doubt == pytest.approx(1 / 3), "tasks of 26 and 52 tokens: 13 around 39"
        assert Shapes((known.by_task[0],)).doubt is None
        assert known.longest == 13 and known.tokens({"s"}) == 13 * known.calls
        assert known.tokens({"judge"}) == 0

    def test_more_tasks_than_are_known_take_them_in_turn(self) -> None:
        known = Shapes(((shape(1), shape(3)), (shape(2),)))
        assert [len(known.episode(task, 0)[0]) for task in range(4)] == [1, 2, 3, 2]
        assert [len(known.episode(0, sample)[0]) for sample in range(3)] == [1, 3, 1]

    def test_prompts_grow_with_the_replies_that_they_show(self) -> None:
        first = (Call("a/0", "a", 20, 10), Call("b/0", "b", 20, 10))
        second = (Call("a/1", "a", 20 + 10 + 10 + 5, 10, reads=("b/0",), follows="a/0"),)
        ((scaled,),) = Shapes((((first, second),),)).scaled(None, 100).by_task
        assert [call.reply for stage in scaled for call in stage] == [100] * 3
        assert [call.prompt for stage in scaled for call in stage] == [20, 20, 20 + 100 + 100 + 5]

    def test_prompts_of_their_own_length(self) -> None:
        ((scaled,),) = Shapes(((shape(2),),)).scaled(40, None).by_task
        assert [(call.prompt, call.reply) for call in scaled[0]] == [(40, 3)] * 2


def test_costs_are_found_again_from_what_they_came_to() -> None:
    true = Costs(pass_s=2e-3, admit_s=1e-3, request_s=5e-4, prompt_s=2e-5, decode_s=1e-4, context_s=1e-7)
    limits = Limits(rows=64)
    served = Served(true, limits, 1, True)
    loads = []
    for prompt, reply, concurrency in (
        (20, 30, 1), (200, 30, 1), (20, 300, 1), (40, 60, 4), (300, 20, 8), (50, 100, 16), (20, 200, 32), (400, 100, 8)
    ):  # fmt: skip
        played = [(n, uniform(2, prompt + n, reply + 2 * n).episode(0, 0)) for n in range(2 * concurrency)]
        loads.append(Load(played, concurrency, simulate(played, served, 1, concurrency).seconds))
    found = fit(loads, limits)
    unseen = [(n, uniform(4, 120, 80 + n).episode(0, 0)) for n in range(40)]
    seconds = simulate(unseen, served, 1, 20).seconds
    assert predict(Load(unseen, 20, 0.0), found, limits) == pytest.approx(seconds, rel=0.02)
    assert found.pass_s == pytest.approx(true.pass_s, rel=0.1)
