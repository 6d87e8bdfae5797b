"""The losses written out in plain Python, token by token: what the tensors are compared with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agents.learning import LossSettings, Pair, Sample


@dataclass(frozen=True)
class Scored:
    """A sample with the log-probabilities of its reply's tokens under each policy."""

    sample: Sample
    new: list[float]
    old: list[float]
    """Before the update, as the trainer computes it."""
    reference: list[float]


def logprob(logits: Sequence[float], chosen: int, temperature: float) -> float:
    total = 0.0
    for logit in logits:
        total += math.exp(logit / temperature)
    return logits[chosen] / temperature - math.log(total)


def entropy(logits: Sequence[float], temperature: float) -> float:
    found = 0.0
    for i in range(len(logits)):
        log_p = logprob(logits, i, temperature)
        found -= math.exp(log_p) * log_p
    return found


def loss_of(scored: Sequence[Scored], settings: LossSettings, recomputed: bool) -> float:
    """The loss of all samples together."""
    played = [s for s in scored if any(s.sample.trained) and not s.sample.supervised]
    taught = [s for s in scored if any(s.sample.trained) and s.sample.supervised]
    costs = [played_costs(s, settings, recomputed) for s in played]
    lessons = [[-s.sample.weight * s.new[t] for t in trained(s)] for s in taught]
    return mean_of(costs, settings) + settings.sft_mix * mean_of(lessons, settings)


def trained(scored: Scored) -> list[int]:
    return [t for t, on in enumerate(scored.sample.trained) if on]


def mean_of(costs: list[list[float]], settings: LossSettings) -> float:
    if not costs:
        return 0.0
    total, tokens = 0.0, 0
    for reply in costs:
        for cost in reply:
            total += cost / len(reply) if settings.normalise == "sequence" else cost
            tokens += 1
    divisor = {"token": tokens, "sequence": len(costs), "constant": len(costs) * settings.length}
    return total / divisor[settings.normalise]


def played_costs(scored: Scored, settings: LossSettings, recomputed: bool) -> list[float]:
    """Of each trained token."""
    sample = scored.sample
    behaviour = list(sample.logprobs)
    before = scored.old if recomputed else behaviour
    anchor = scored.reference if settings.ratio_to == "reference" else before
    mean = 0.0
    for t in trained(scored):
        mean += (scored.new[t] - anchor[t]) / len(trained(scored))
    high = settings.clip_high if sample.clip_high is None else sample.clip_high
    advantage = sample.advantage * sample.scale
    costs = []
    for t in trained(scored):
        ratio = math.exp(mean if settings.ratio == "sequence" else scored.new[t] - anchor[t])
        held = min(max(ratio, 1 - settings.clip_low), 1 + high)
        cost = -min(ratio * advantage, held * advantage)
        if settings.tis is not None:
            cost *= min(math.exp(scored.old[t] - behaviour[t]), settings.tis)
        if settings.kl == "k3":
            away = scored.reference[t] - scored.new[t]
            cost += settings.beta * (math.exp(away) - away - 1)
        costs.append(cost)
    return costs


def pair_loss_of(pairs: Sequence[tuple[Pair, Scored, Scored]], settings: LossSettings) -> float:
    total = 0.0
    for pair, chosen, rejected in pairs:
        margin = 0.0
        for sign, side in ((1, chosen), (-1, rejected)):
            for t in trained(side):
                margin += sign * (side.new[t] - side.reference[t])
        p = 1 / (1 + math.exp(-settings.pair_beta * margin))
        total -= pair.label * math.log(p) + (1 - pair.label) * math.log(1 - p)
    return total / len(pairs)
