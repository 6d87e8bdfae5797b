"""Samples that must not be trained on are refused, by name."""

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest

from agents.learning import Pair, Sample, SampleError, refuse
from tests.agents.learning_helpers import VOCABULARY, make_pairs, make_sample, make_samples

POLICIES = {"learner": {"v1", "v2"}, "": {"v0"}}


def check(*items: Sample | Pair, recomputed: bool = False) -> None:
    refuse(items, POLICIES, VOCABULARY, recomputed)


def test_what_is_in_order_passes() -> None:
    check(*make_samples(7), *make_pairs(3), make_sample(policy="", version="v0"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": "lerner"}, "did you mean 'learner'"),
        ({"version": "v7"}, "a version of learner among v1, v2, found 'v7'"),
        ({"token_ids": (1, 2), "logprobs": (-1.0, math.nan), "mask": ()}, "found nan"),
        ({"token_ids": (1, 2), "logprobs": (-1.0, -math.inf), "mask": ()}, "found -inf"),
        ({"token_ids": (1, 2), "logprobs": (-1.0, 0.5), "mask": ()}, "at most 0, found 0.5"),
        ({"token_ids": (1, 2), "logprobs": (-1.0,), "mask": ()}, "2 log-probabilities, one a token, found 1"),
        ({"token_ids": (1, 2), "logprobs": (-1.0, -1.0), "mask": (True,)}, "a mask of 2 tokens, found 1"),
        ({"prompt_ids": (3, VOCABULARY)}, "token ids below 40, found 40"),
        ({"token_ids": (-1,), "logprobs": (-1.0,), "mask": ()}, "token ids below 40, found -1"),
        ({"prompt_ids": ()}, "expected a prompt"),
        ({"advantage": math.nan}, "a finite advantage"),
        ({"scale": math.inf}, "a finite scale"),
        ({"clip_high": -0.1}, "clip_high"),
        ({"temperature": 0.0}, "a temperature above 0"),
        ({"top_p": 0.9}, "recompute_old"),
    ],
)
def test_a_sample_that_is_out_of_order_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SampleError) as caught:
        check(make_sample(1), make_sample(0, key="task-9/3/critic/1", **changes))
    assert caught.value.key == "task-9/3/critic/1"
    assert "'task-9/3/critic/1'" in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zero_length_reply_is_no_error() -> None:
    check(make_sample(token_ids=(), logprobs=(), mask=()))


def test_supervised_samples_need_no_behaviour() -> None:
    check(make_sample(supervised=True, version="of a teacher", logprobs=(), top_p=0.9))


def test_a_truncated_distribution_is_fine_where_the_trainer_computes_its_own() -> None:
    check(make_sample(top_p=0.9), recomputed=True)


def test_masked_tokens_need_no_log_probability() -> None:
    check(make_sample(token_ids=(1, 2), logprobs=(-1.0, math.nan), mask=(True, False)))


def test_pairs_are_checked_on_both_sides() -> None:
    pair = make_pairs(1)[0]
    with pytest.raises(SampleError, match="a pair trains one policy"):
        check(replace(pair, rejected=replace(pair.rejected, policy="")))
    with pytest.raises(SampleError, match="did you mean 'learner'"):
        check(replace(pair, rejected=replace(pair.rejected, policy="learners")))
    with pytest.raises(SampleError, match=r"a label from 0 to 1, found 1\.5"):
        check(replace(pair, label=1.5))


def test_samples_cross_processes() -> None:
    samples = [*make_samples(3), *make_pairs(1)]
    assert pickle.loads(pickle.dumps(samples)) == samples
