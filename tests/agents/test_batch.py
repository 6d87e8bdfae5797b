"""Samples to tensors: every id, mask and number where it belongs, in micro-batches of about equal length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.learning import Sample
from agents.learning.batch import Batch, make_batches, make_pair_batches
from tests.agents.learning_helpers import make_pairs, make_sample, make_samples


def check_row(batch: Batch, i: int, sample: Sample) -> None:
    """Token by token, with no tensor arithmetic."""
    ids = [*sample.prompt_ids, *sample.token_ids]
    start = len(sample.prompt_ids)
    for t in range(batch.ids.shape[1]):
        assert bool(batch.attention[i, t]) == (t < len(ids))
        if t < len(ids):
            assert batch.ids[i, t] == ids[t]
        if t > 0:
            trained = start <= t < len(ids) and sample.trained[t - start]
            assert batch.trained[i, t - 1] == trained
            logprob = sample.logprobs[t - start] if trained and sample.logprobs else 0.0
            assert batch.behaviour[i, t - 1] == pytest.approx(logprob, rel=1e-6)
    for name in ("advantage", "scale", "weight", "temperature", "supervised"):
        assert getattr(batch, name)[i].item() == pytest.approx(getattr(sample, name), rel=1e-6)
    own = batch.clip_high[i]
    assert own.isnan() if sample.clip_high is None else own.item() == pytest.approx(sample.clip_high)


@pytest.mark.parametrize("number", [1, 2, 7])
@pytest.mark.parametrize("max_tokens", [1, 20, 1000])
def test_every_number_is_where_it_belongs(number: int, max_tokens: int) -> None:
    samples = make_samples(number)
    batches = make_batches(samples, max_tokens)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(number))
    for batch in batches:
        for i, row in enumerate(batch.rows):
            check_row(batch, i, samples[row])


@given(st.integers(0, 30), st.integers(1, 60))
def test_batches_stay_within_their_size_longest_first(number: int, max_tokens: int) -> None:
    samples = make_samples(number)
    batches = make_batches(samples, max_tokens)
    for batch in batches:
        assert len(batch.rows) == 1 or batch.ids.numel() <= max_tokens
    lengths = [samples[row].length for batch in batches for row in batch.rows]
    assert lengths == sorted(lengths, reverse=True)
    assert [batch.rows for batch in batches] == [batch.rows for batch in make_batches(samples, max_tokens)]


def test_zero_length_and_fully_masked_replies_train_nothing() -> None:
    nothing = make_sample(1, token_ids=(), logprobs=(), mask=())
    masked = make_sample(2, token_ids=(1, 2), logprobs=(-1.0, -1.0), mask=(False, False))
    (batch,) = make_batches([nothing, make_sample(3), masked], 1000)
    assert batch.rows == (1,)
    assert make_batches([nothing, masked], 1000) == []


def test_tool_output_and_padding_are_never_trained() -> None:
    said, read = (5, 6), (7, 8, 9)
    sample = make_sample(
        token_ids=(*said, *read, 10), logprobs=(-1.0,) * 6, mask=(True, True, False, False, False, True)
    )
    (batch,) = make_batches([sample, make_sample(1, prompt_ids=(1,) * 30)], 1000)
    row = batch.rows.index(0)
    assert batch.ids[row, 1:][batch.trained[row] > 0].tolist() == [5, 6, 10]
    assert batch.trained[~batch.attention[:, 1:]].sum() == 0


def test_pairs_stay_together() -> None:
    pairs = make_pairs(7)
    batches = make_pair_batches(pairs, 40)
    assert len(batches) > 1
    assert sorted(row for batch in batches for row in batch.rows) == list(range(7))
    for found in batches:
        assert found.batch.ids.numel() <= 40
        size = len(found.rows)
        for i, row in enumerate(found.rows):
            check_row(found.batch, i, pairs[row].chosen)
            check_row(found.batch, size + i, pairs[row].rejected)
            assert found.labels[i].item() == pytest.approx(pairs[row].label)


def test_batches_move_whole() -> None:
    (batch,) = make_batches(make_samples(3), 1000)
    (pairs,) = make_pair_batches(make_pairs(2), 1000)
    assert {tensor.device.type for tensor in vars(batch.to("meta")).values() if isinstance(tensor, torch.Tensor)} == {
        "meta"
    }
    assert pairs.to("meta").labels.device.type == pairs.to("meta").batch.ids.device.type == "meta"
