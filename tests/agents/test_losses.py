"""The losses: against written-out loops at batch sizes 1, 2 and 7 for every switch, and the published numbers."""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from agents.learning import LossSettings, Sample, make_loss
from agents.learning.advantages import adapt
from agents.learning.batch import Batch, make_batches, make_pair_batches
from agents.learning.losses import (
    Normalisers,
    add_up,
    count,
    pair_loss,
    policy_loss,
    sequence_logprobs,
    token_entropy,
    token_logprobs,
)
from agents.learning.settings import PRESETS
from envs import ConfigError
from tests.agents.learning_helpers import VOCABULARY, make_pairs, make_sample, make_samples
from tests.agents.loss_oracle import Scored, entropy, logprob, loss_of, pair_loss_of

SIZES = [1, 2, 7]
SWITCHES: list[dict[str, Any]] = [
    {},
    {"ratio": "sequence"},
    {"ratio": "sequence", "normalise": "sequence"},
    {"clip_low": 0.05, "clip_high": 0.3},
    {"normalise": "sequence", "kl": "k3", "beta": 0.3},
    {"normalise": "constant", "length": 5},
    {"ratio_to": "reference", "kl": "k3"},
    {"tis": 1.1},
    {"tis": 1.1, "ratio": "sequence", "kl": "k3", "normalise": "sequence"},
    {"sft_mix": 0.15, "normalise": "sequence"},
    {"sft_mix": 0.0, "normalise": "constant"},
]
SETTINGS = [LossSettings(**switches) for switches in SWITCHES] + list(PRESETS.values())


def score(sample: Sample, seed: int) -> Scored:
    """Log-probabilities near the behaviour's: some ratios are clipped, some are not."""
    draw = random.Random(seed + 10)

    def near(spread: float) -> list[float]:
        return [min(-1e-3, p + draw.gauss(0, spread)) for p in sample.logprobs]

    return Scored(sample, near(0.5), near(0.2), near(0.4))


def tensor_of(batch: Batch, scored: Sequence[Scored], kind: Literal["new", "old", "reference"]) -> Tensor:
    """Log-probabilities of each row's reply where the batch has its targets; elsewhere noise, which nothing reads."""
    values = torch.randn(batch.trained.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 9
    for row, one in zip(values, scored, strict=True):
        start = len(one.sample.prompt_ids) - 1
        row[start : start + len(one.new)] = torch.tensor(getattr(one, kind), dtype=torch.float64)
    return values


def losses(
    scored: Sequence[Scored], settings: LossSettings, recomputed: bool, max_tokens: int = 10_000
) -> tuple[float, dict[str, float], list[list[float]]]:
    """Loss, metrics, and the gradient of each reply's log-probabilities, over as many micro-batches as it takes."""
    samples = [s.sample for s in scored]
    total, metrics, gradients = 0.0, [], [[0.0] * len(s.new) for s in scored]
    for batch in make_batches(samples, max_tokens):
        rows = [scored[row] for row in batch.rows]
        logp = tensor_of(batch, rows, "new").requires_grad_()
        old = tensor_of(batch, rows, "old") if recomputed else None
        reference = tensor_of(batch, rows, "reference") if settings.needs_reference else None
        loss, found = policy_loss(logp, batch, settings, count(samples), old=old, reference=reference)
        loss.backward()
        assert logp.grad is not None
        assert (logp.grad[batch.trained == 0] == 0).all(), "the gradient of what is not trained is exactly 0"
        for i, row in enumerate(batch.rows):
            start = len(samples[row].prompt_ids) - 1
            gradients[row] = logp.grad[i, start : start + len(scored[row].new)].tolist()
        total += loss.item()
        metrics.append(found)
    return total, add_up(metrics), gradients


def slopes(function: Callable[[Sequence[Scored]], float], scored: Sequence[Scored]) -> list[list[float]]:
    """The gradient by central differences."""

    def moved(row: int, t: int, by: float) -> list[Scored]:
        new = [p + by * (i == t) for i, p in enumerate(scored[row].new)]
        return [*scored[:row], replace(scored[row], new=new), *scored[row + 1 :]]

    return [
        [(function(moved(r, t, 1e-5)) - function(moved(r, t, -1e-5))) / 2e-5 for t in range(len(s.new))]
        for r, s in enumerate(scored)
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_loss_and_gradient_are_those_of_the_loop(settings: LossSettings, size: int) -> None:
    scored = [score(sample, i) for i, sample in enumerate(make_samples(size))]
    recomputed = settings.tis is not None
    loss, metrics, gradients = losses(scored, settings, recomputed)
    assert loss == pytest.approx(loss_of(scored, settings, recomputed), rel=1e-5, abs=1e-6)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    expected = slopes(lambda s: loss_of(s, settings, recomputed), scored)
    for found, slope in zip(gradients, expected, strict=True):
        assert found == pytest.approx(slope, rel=1e-3, abs=1e-6)
    if size == 7 and settings.ratio == "token":
        assert metrics["clipped_low"] > 0 and metrics["clipped_high"] > 0, "these samples say too little"


@pytest.mark.parametrize("recomputed", [False, True])
def test_the_old_policy_is_the_trainers_own_where_it_is_given(recomputed: bool) -> None:
    scored = [score(sample, i) for i, sample in enumerate(make_samples(7))]
    loss, metrics, _ = losses(scored, LossSettings(), recomputed)
    assert loss == pytest.approx(loss_of(scored, LossSettings(), recomputed), rel=1e-5)
    gaps = [
        abs(p - b)
        for s in scored
        if not s.sample.supervised
        for p, b, on in zip(s.old if recomputed else s.new, s.sample.logprobs, s.sample.trained, strict=True)
        if on
    ]
    assert metrics["gap_mean"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-4)
    assert metrics["gap_max"] == pytest.approx(max(gaps), rel=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_micro_batches_add_up_to_the_whole(settings: LossSettings) -> None:
    scored = [score(sample, i) for i, sample in enumerate(make_samples(7))]
    recomputed = settings.tis is not None
    whole, metrics, gradients = losses(scored, settings, recomputed)
    for max_tokens in (1, 20):
        parts, found, parted = losses(scored, settings, recomputed, max_tokens)
        assert parts == pytest.approx(whole, rel=1e-5, abs=1e-7)
        assert found == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        for a, b in zip(parted, gradients, strict=True):
            assert a == pytest.approx(b, rel=1e-6, abs=1e-12)


def test_counts_leave_out_what_trains_nothing() -> None:
    samples = [
        make_sample(0, token_ids=(1, 2, 3), logprobs=(-1.0,) * 3, mask=(True, False, True), prompt_ids=(1,)),
        make_sample(1, token_ids=(), logprobs=(), mask=()),
        make_sample(2, token_ids=(1,), logprobs=(-1.0,), mask=(), prompt_ids=(1, 2), supervised=True),
    ]
    assert count([*samples, *make_pairs(2)]) == Normalisers(2, 1, 1, 1, 4 + 3, 2)
    assert losses([score(samples[1], 0)], LossSettings(), False) == (0, {}, [[]])


@pytest.mark.parametrize("size", SIZES)
def test_log_probabilities_and_entropies_are_those_of_the_loop(size: int) -> None:
    samples = make_samples(size)
    (batch,) = make_batches(samples, 10_000)
    logits = torch.randn(*batch.ids.shape, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 3
    found, spread = (
        token_logprobs(logits, batch.ids, batch.temperature),
        token_entropy(logits, batch.temperature),
    )
    for i in range(size):
        for t in range(batch.ids.shape[1] - 1):
            row, temperature = logits[i, t].tolist(), batch.temperature[i].item()
            assert found[i, t].item() == pytest.approx(logprob(row, int(batch.ids[i, t + 1]), temperature), abs=1e-4)
            assert spread[i, t].item() == pytest.approx(entropy(row, temperature), abs=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_logits_of_masked_tokens_have_a_gradient_of_exactly_zero(settings: LossSettings) -> None:
    samples = [adapt(make_sample(i), 0.3 + i / 10) for i in range(6)]
    (batch,) = make_batches(samples, 10_000)
    logits = torch.randn(*batch.ids.shape, VOCABULARY, generator=torch.Generator().manual_seed(1)).requires_grad_()
    logp = token_logprobs(logits, batch.ids, batch.temperature)
    before = torch.full_like(batch.behaviour, -1.0)
    loss, _ = policy_loss(logp, batch, settings, count(samples), old=before, reference=before)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[:, :-1][batch.trained == 0] == 0).all()
    assert (logits.grad[:, -1] == 0).all()
    assert (logits.grad[:, :-1][batch.trained > 0] != 0).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_pair_loss_is_that_of_the_loop(size: int, max_tokens: int) -> None:
    pairs, settings = make_pairs(size), LossSettings(pair_beta=0.4)
    chosen = [score(pair.chosen, i) for i, pair in enumerate(pairs)]
    rejected = [score(pair.rejected, -i) for i, pair in enumerate(pairs)]
    total, metrics = 0.0, []
    for found in make_pair_batches(pairs, max_tokens):
        rows = [side[row] for side in (chosen, rejected) for row in found.rows]
        new, new_rejected = sequence_logprobs(tensor_of(found.batch, rows, "new"), found.batch.trained).chunk(2)
        old, old_rejected = sequence_logprobs(tensor_of(found.batch, rows, "reference"), found.batch.trained).chunk(2)
        loss, part = pair_loss(new, new_rejected, old, old_rejected, settings, found.labels, size)
        total += loss.item()
        metrics.append(part)
    expected = pair_loss_of(list(zip(pairs, chosen, rejected, strict=True)), settings)
    assert total == pytest.approx(expected, rel=1e-5)
    assert add_up(metrics)["pair_loss"] == pytest.approx(expected, rel=1e-5)


def test_pair_loss_in_figures() -> None:
    sure, half = torch.ones(1), torch.full((1,), 0.5)

    def found(sums: tuple[float, float, float, float], beta: float, labels: Tensor | None) -> tuple[Tensor, Any]:
        chosen, rejected, reference_chosen, reference_rejected = torch.tensor(sums)[:, None]
        settings = LossSettings(pair_beta=beta)
        return pair_loss(chosen, rejected, reference_chosen, reference_rejected, settings, labels)

    assert found((-3, -3, -3, -3), 0.1, sure)[0].item() == pytest.approx(math.log(2))
    better = (-1, -5, -2, -4)  # one nat up and one down against the reference
    loss, metrics = found(better, 0.5, sure)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-1))), rel=1e-6)
    assert metrics["pair_accuracy"] == 1 and metrics["pair_margin"] == pytest.approx(1.0)
    assert found(better, 0.5, None)[0].item() == loss.item()
    # A label of a half is best met by no preference at all.
    assert found(better, 0.5, half)[0].item() > math.log(2)


def one_token(new: float, **changes: Any) -> Scored:
    """A reply of one token whose old and reference log-probability is -0.6."""
    fields = {"token_ids": (1,), "logprobs": (-0.6,), "mask": (), "scale": 1.0, "clip_high": None, "weight": 1.0}
    sample = make_sample(0, **{**fields, "supervised": False, **changes})
    return Scored(sample, [new], [-0.6], [-0.6])


def test_spc_worked_numbers() -> None:
    spc = PRESETS["spc"]
    rewards, means = [1, -1, 1, -1], [-0.5, -0.9, -0.3, -0.45]
    played = [one_token(mean, advantage=float(reward)) for reward, mean in zip(rewards, means, strict=True)]
    taught = one_token(-0.4, supervised=True)
    one_by_one = [losses([scored], spc, False) for scored in played]
    ratios = [metrics["ratio_mean"] for _, metrics, _ in one_by_one]
    assert ratios == pytest.approx([1.1052, 0.7408, 1.3499, 1.1618], abs=5e-5)
    assert [loss for loss, _, _ in one_by_one] == pytest.approx([-1.1052, 0.8, -1.2, 1.1618], abs=5e-5)
    rl, _, gradients = losses(played, spc, False)
    assert rl == pytest.approx(-0.0858, abs=5e-5)
    assert [gradient == [0.0] for gradient in gradients] == [False, True, True, False]
    assert losses([*played, taught], spc, False)[0] == pytest.approx(-0.0258, abs=5e-5)
    flat = [*(loss for loss, _, _ in one_by_one), losses([taught], spc, False)[0]]
    assert sum(flat) / 5 == pytest.approx(-0.0567, abs=5e-5)


def test_spc_ratio_is_of_the_mean_over_a_reply() -> None:
    """The same sample as the first of the worked ones, over three tokens that differ."""
    fields = {"token_ids": (1, 2, 3), "logprobs": (-9.0,) * 3, "advantage": 1.0}
    sample = one_token(0, **fields).sample
    scored = Scored(sample, [-0.3, -0.9, -0.3], [-9.0] * 3, [-0.1, -0.6, -1.1])
    loss, _, gradients = losses([scored], PRESETS["spc"], False)
    assert loss == pytest.approx(-1.1052, abs=5e-5)
    assert gradients == [pytest.approx([-1.1052 / 3] * 3, abs=5e-5)]


@pytest.mark.parametrize(
    ("advantage", "ratio", "adaptive", "static"),
    [
        (0.5889, 1.25, -0.7361, -0.7067),
        (0.5889, 1.35, -0.7538, -0.7067),
        (-0.5889, 0.7, 0.4711, 0.4711),
        (-0.5889, 1.35, 0.7950, 0.7950),
    ],
)
def test_adpo_worked_clips(advantage: float, ratio: float, adaptive: float, static: float) -> None:
    settings = LossSettings()
    scored = one_token(-0.6 + math.log(ratio), advantage=advantage)
    own = replace(scored, sample=replace(adapt(scored.sample, 0.4), scale=1.0))
    assert losses([own], settings, False)[0] == pytest.approx(adaptive, abs=6e-5)
    assert losses([scored], settings, False)[0] == pytest.approx(static, abs=6e-5)


def test_a_batch_of_mixed_agreement_has_a_bound_for_each_sample() -> None:
    agreements = [0.3, 0.4, 0.6, 0.8]
    far = [one_token(0.4, advantage=1.0) for _ in agreements]  # a ratio of e
    own = [replace(s, sample=adapt(s.sample, a)) for s, a in zip(far, agreements, strict=True)]
    expected = [-0.60 * 1.30, -0.68 * 1.28, -0.84 * 1.24, -1.00 * 1.20]
    assert losses(own, LossSettings(), False)[0] == pytest.approx(sum(expected) / 4, rel=1e-5)
    bounds = [losses([s], LossSettings(), False)[0] for s in own]
    assert bounds == pytest.approx(expected, rel=1e-5)


def test_metrics_say_what_was_clipped_and_by_how_much() -> None:
    ratios, advantages = [1.5, 1.5, 0.5, 0.5, 1.0], [1.0, -1.0, 1.0, -1.0, 1.0]
    scored = [one_token(-0.6 + math.log(r), advantage=a) for r, a in zip(ratios, advantages, strict=True)]
    _, metrics, _ = losses(scored, LossSettings(), False, max_tokens=1)
    assert metrics["clipped_high"] == pytest.approx(0.2)
    assert metrics["clipped_low"] == pytest.approx(0.2)
    assert metrics["ratio_mean"] == pytest.approx(1.0)
    assert metrics["ratio_max"] == pytest.approx(1.5)
    assert metrics["trained"] == pytest.approx(5 / sum(s.sample.length for s in scored))


def test_the_reference_is_measured_also_where_it_costs_nothing() -> None:
    scored = one_token(-0.5)
    (batch,) = make_batches([scored.sample], 100)
    logp, reference = tensor_of(batch, [scored], "new"), tensor_of(batch, [scored], "reference")
    loss, metrics = policy_loss(logp, batch, LossSettings(), count([scored.sample]), reference=reference)
    assert metrics["kl"] == pytest.approx(math.exp(-0.1) + 0.1 - 1, rel=1e-4)
    assert loss.item() == policy_loss(logp, batch, LossSettings(), count([scored.sample]))[0].item()


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_absurd_log_probabilities_give_finite_losses(ratio: Literal["token", "sequence"]) -> None:
    scored = [one_token(-900.0, advantage=1.0), one_token(-0.1, advantage=-1.0, logprobs=(-900.0,))]
    loss, _, gradients = losses(scored, LossSettings(ratio=ratio, kl="k3"), False)
    assert math.isfinite(loss)
    assert all(math.isfinite(g) for gradient in gradients for g in gradient)


def test_what_a_switch_needs_is_asked_for() -> None:
    sample = make_sample(0)
    (batch,) = make_batches([sample], 100)
    for settings, missing in ((LossSettings(kl="k3"), "reference"), (LossSettings(tis=2.0), "`old`")):
        with pytest.raises(ValueError, match=missing):
            policy_loss(batch.behaviour, batch, settings, count([sample]))


def test_loss_settings_are_read_from_text_and_refused_by_name() -> None:
    assert make_loss("spc", {"clip_high": "0.3"}) == replace(PRESETS["spc"], clip_high=0.3)
    assert make_loss("grpo", {"kl": "off", "tis": "2"}).tis == 2.0
    for preset, changes, said in [
        ("gpro", {}, "did you mean 'grpo'"),
        ("grpo", {"cliphigh": 0.3}, "did you mean 'clip_high'"),
        ("grpo", {"kl": "k2"}, "kl cannot be 'k2'"),
        ("grpo", {"clip_low": "1.5"}, "clip_low cannot be '1.5'"),
        ("grpo", {"beta": "nan"}, "beta cannot be 'nan'"),
        ("spc", {"tis": 2}, "tis only with ratio_to=behaviour"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(said)):
            make_loss(preset, changes)
