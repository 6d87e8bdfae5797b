"""The one loss interface: a weight times each trained token's log-probability, and a pairwise branch (the DPO family).

Policy gradient and weighted maximum likelihood differ only in where the weight comes from. What is averaged over is
counted over everything that a step trains on (`count`), so that the losses of micro-batches, or of several workers, are
summed and give exactly the loss of the whole. Metrics are summed likewise (`add_up`). Called by the trainer.

Sources: PPO's clip, arXiv:1707.06347; GRPO, arXiv:2402.03300; the ratio of a whole reply, SPC's released code; k3,
Schulman, "Approximating KL divergence" (2020); truncated importance sampling, as in verl's pull request 2953; DPO,
arXiv:2305.18290, with a label that may be soft.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from agents.learning.batch import Batch
from agents.learning.samples import Pair, Sample
from agents.learning.settings import LossSettings

LIMIT = 20.0
"""Nats. Differences of log-probabilities are held within it, without gradient beyond: exp of more is of no use."""
Metrics = dict[str, float]


@dataclass(frozen=True)
class Normalisers:
    """What a whole step holds. Replies without a trained token count nowhere."""

    tokens: int = 0
    """Trained ones of samples that are not supervised; `sequences` are those samples."""
    sequences: int = 0
    supervised_tokens: int = 0
    supervised_sequences: int = 0
    all_tokens: int = 0
    """Of these samples, prompts included."""
    pairs: int = 0


def count(items: Iterable[Sample | Pair]) -> Normalisers:
    """Count over all that one step trains on, before it is split."""
    played, taught, pairs, length = [], [], 0, 0
    for item in items:
        if isinstance(item, Pair):
            pairs += any(item.chosen.trained) or any(item.rejected.trained)
        elif any(item.trained):
            (taught if item.supervised else played).append(sum(item.trained))
            length += item.length
    return Normalisers(sum(played), len(played), sum(taught), len(taught), length, pairs)


def token_logprobs(logits: Tensor, ids: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Log-probability of each id given those before it.

    Args:
        logits: (B, T, V) of a model run on `ids`.
        ids: (B, T) int64.
        temperature: (B,) or one for all; that of sampling.

    Returns:
        (B, T-1) float32, nats.
    """
    scaled = _scaled(logits[:, :-1], temperature)
    # Not log_softmax: it would hold another tensor of the logits' size until the backward pass.
    return scaled.gather(-1, ids[:, 1:, None]).squeeze(-1) - scaled.logsumexp(-1)


@torch.no_grad()
def token_entropy(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Entropy of the distribution of each next token, in nats, without gradient: (B, T, V) to (B, T-1) float32."""
    scaled = _scaled(logits[:, :-1], temperature)
    # Row by row: the whole would need several times the logits' memory.
    return torch.stack([-(row.softmax(-1) * row.log_softmax(-1)).nan_to_num(0.0).sum(-1) for row in scaled])


def policy_loss(
    logp: Tensor,
    batch: Batch,
    settings: LossSettings,
    normalisers: Normalisers,
    *,
    old: Tensor | None = None,
    reference: Tensor | None = None,
    entropy: Tensor | None = None,
) -> tuple[Tensor, Metrics]:
    """The loss of policy-gradient and supervised samples. Lower is better; a positive advantage is good.

    Args:
        logp: (B, T-1) of the policy that learns, at the samples' temperatures.
        batch: what it was run on.
        settings: the switches.
        normalisers: `count` of all that the step trains on, of which this batch is a part.
        old: (B, T-1) of the policy before the update, as the trainer computes it; None takes what the samples bring.
        reference: (B, T-1) of the frozen reference; needed when settings.needs_reference, else only measured.
        entropy: (B, T-1), for the metrics.

    Returns:
        A scalar with gradient, and metrics to be passed to `add_up`: means over the step's trained tokens, except for
        those ending in `_max`.

    Raises:
        ValueError: `old` or `reference` is missing where a switch needs it.
    """
    if settings.needs_reference and reference is None:
        raise ValueError("this loss needs the reference's log-probabilities (kl or ratio_to is set), found None")
    played = (batch.trained > 0) & ~batch.supervised[:, None]
    before = batch.behaviour if old is None else old
    anchor = reference if settings.ratio_to == "reference" and reference is not None else before
    ratio = _ratio(logp, anchor, played, settings.ratio)
    cost, low, high = _clipped_cost(ratio, batch, settings)
    if settings.tis is not None:
        if old is None:
            raise ValueError("tis weighs the trainer's own log-probabilities before the update; pass `old`")
        cost = cost * _difference(old, batch.behaviour, played).exp().clamp(max=settings.tis).detach()
    measured = {"ratio_mean": ratio, "clipped_low": low, "clipped_high": high}
    if reference is not None:
        away = _difference(reference, logp, played)
        kl = away.exp() - away - 1
        measured["kl"] = kl
        if settings.kl == "k3":
            cost = cost + settings.beta * kl
    loss = _normalised(cost, played, settings, normalisers.tokens, normalisers.sequences)
    gap = _difference(logp if old is None else old, batch.behaviour, played).abs()
    measured |= {"gap_mean": gap} | ({} if entropy is None else {"entropy": entropy})
    metrics = _means(measured, played, normalisers.tokens) if normalisers.tokens else {}
    if normalisers.tokens:
        metrics |= {"policy_loss": loss.detach()}
        metrics |= {f"{name}_max": _within(value, played).max() for name, value in (("ratio", ratio), ("gap", gap))}
    if normalisers.supervised_tokens:
        supervised, nll = _supervised(logp, batch, settings, normalisers)
        loss = loss + settings.sft_mix * supervised
        metrics |= {"supervised_loss": supervised.detach(), "supervised_nll": nll}
    metrics |= {"loss": loss.detach(), "trained": batch.trained.sum() / max(1, normalisers.all_tokens)}
    return loss, _plain(metrics)


def sequence_logprobs(logp: Tensor, trained: Tensor) -> Tensor:
    """Sum over each row's trained tokens: (B, T-1), (B, T-1) -> (B,), nats."""
    return _within(logp, trained > 0).sum(1)


def pair_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    settings: LossSettings,
    labels: Tensor | None = None,
    pairs: int | None = None,
) -> tuple[Tensor, Metrics]:
    """The DPO loss of P pairs: cross-entropy between the label and the probability that the chosen reply is better.

    Args:
        chosen, rejected, reference_chosen, reference_rejected: (P,) `sequence_logprobs` of policy and reference.
        settings: pair_beta.
        labels: (P,) probability that chosen is better; None for certainty.
        pairs: how many the whole step holds; None for these.

    Returns:
        A scalar with gradient, and metrics to be passed to `add_up`, means over the step's pairs.
    """
    margin = settings.pair_beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    label = torch.ones_like(margin) if labels is None else labels
    number = max(1, len(margin) if pairs is None else pairs)
    loss = -(label * logsigmoid(margin) + (1 - label) * logsigmoid(-margin)).sum() / number
    found = margin.detach()
    accuracy = ((found > 0) == (label > 0.5)).float().sum() / number
    metrics = {"pair_loss": loss.detach(), "pair_accuracy": accuracy, "pair_margin": found.sum() / number}
    return loss, _plain(metrics)


def add_up(parts: Iterable[Mapping[str, float]]) -> Metrics:
    """The metrics of a step from those of its micro-batches."""
    whole: Metrics = {}
    for part in parts:
        for name, value in part.items():
            if name.endswith("_max"):
                whole[name] = max(whole.get(name, value), value)
            else:
                whole[name] = whole.get(name, 0.0) + value
    return whole


def _scaled(logits: Tensor, temperature: Tensor | float) -> Tensor:
    if isinstance(temperature, Tensor):
        temperature = temperature[:, None, None]
    return logits.float() / temperature


def _within(values: Tensor, on: Tensor) -> Tensor:
    """0 where it is off, with a gradient of exactly 0."""
    return torch.where(on, values, 0.0)


def _difference(a: Tensor, b: Tensor, on: Tensor) -> Tensor:
    return _within(a - b, on).clamp(-LIMIT, LIMIT)


def _ratio(logp: Tensor, anchor: Tensor, on: Tensor, kind: str) -> Tensor:
    if kind == "token":
        return _difference(logp, anchor, on).exp()
    mean = _within(logp - anchor, on).sum(1, keepdim=True) / on.sum(1, keepdim=True).clamp(min=1)
    return mean.clamp(-LIMIT, LIMIT).exp().expand_as(logp)


def _clipped_cost(ratio: Tensor, batch: Batch, settings: LossSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Cost of each token, and where the lower and the upper clip took its gradient."""
    advantage = (batch.advantage * batch.scale)[:, None]
    own = batch.clip_high[:, None]
    high = 1 + torch.where(own.isnan(), settings.clip_high, own)
    low = torch.full_like(high, 1 - settings.clip_low)
    cost = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    return cost, (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0)


def _normalised(cost: Tensor, on: Tensor, settings: LossSettings, tokens: int, sequences: int) -> Tensor:
    cost = _within(cost, on)
    if settings.normalise == "token":
        return cost.sum() / max(1, tokens)
    if settings.normalise == "sequence":
        return (cost.sum(1) / on.sum(1).clamp(min=1)).sum() / max(1, sequences)
    return cost.sum() / max(1, sequences * settings.length)


def _supervised(logp: Tensor, batch: Batch, settings: LossSettings, normalisers: Normalisers) -> tuple[Tensor, Tensor]:
    """Weighted negative log-likelihood, and the plain mean over tokens for the metrics."""
    taught = (batch.trained > 0) & batch.supervised[:, None]
    tokens, sequences = normalisers.supervised_tokens, normalisers.supervised_sequences
    loss = _normalised(-logp * batch.weight[:, None], taught, settings, tokens, sequences)
    return loss, -_within(logp.detach(), taught).sum() / tokens


def _means(values: Mapping[str, Tensor], on: Tensor, number: int) -> dict[str, Tensor]:
    return {name: _within(value.detach().float(), on).sum() / number for name, value in values.items()}


def _plain(metrics: Mapping[str, Tensor]) -> Metrics:
    # At once: each value for itself would have the CPU wait for the GPU.
    values = torch.stack([value.detach().float() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))
