"""What a trainer is given: Sample (one trained turn, flat) and Pair (two of them, one preferred), and what it refuses.

Plain frozen dataclasses without torch: made by experiments.credit, batched by agents.learning.batch.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from envs.errors import clip, nearest

ROUNDING = 1e-3
"""Nats by which a log-probability may lie above 0: half precision rounds so."""


class SampleError(ValueError):
    """A sample that must not be trained on. One line: which, what was expected, what was found, what to do."""

    def __init__(self, key: str, expected: str, found: object, remedy: str):
        # Kept apart, so that it can be pickled: the trainer is another process.
        super().__init__(key, expected, found, remedy)
        self.key = key

    def __str__(self) -> str:
        key, expected, found, remedy = self.args
        return f"sample {clip(key)}: expected {expected}, found {clip(found)}; {remedy}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One trained turn. Token ids and log-probabilities are those that were sampled; nothing is tokenised again."""

    key: str
    """`task/sample/turn id`."""
    policy: str
    """Whose weights sampled it and learn from it, as the trainer names them; empty for the pool's own model."""
    version: str
    role: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The reply. Empty: the sample trains nothing."""
    logprobs: tuple[float, ...] = ()
    """Nats, of each of token_ids under the distribution that it was drawn from, at `temperature`. Not needed where
    no ratio is taken: of supervised samples and of pairs."""
    temperature: float = 1.0
    """The trainer scores at this temperature too: a ratio of two temperatures would say nothing of the weights."""
    top_p: float = 1.0
    """Below 1, `logprobs` are of a truncated distribution: such samples need a trainer that computes its own."""
    mask: tuple[bool, ...] = ()
    """Which of token_ids are trained; empty for all. Tool output and others' words are prompt, or masked here."""
    advantage: float = 0.0
    reward: float = 0.0
    """For metrics; the loss reads the advantage."""
    scale: float = 1.0
    """Of the advantage, as in ADPO."""
    clip_high: float | None = None
    """The sample's own upper clip of the ratio, as in ADPO; None for the setting's."""
    weight: float = 1.0
    """Of a supervised sample."""
    supervised: bool = False
    """Weighted maximum likelihood in place of a policy gradient."""

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each of token_ids whether it is trained."""
        return self.mask or (True,) * len(self.token_ids)

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies of which one is preferred, for the DPO family. Masks are those of the samples."""

    chosen: Sample
    rejected: Sample
    label: float = 1.0
    """Probability that `chosen` really is the better one, 0 to 1."""


def refuse(
    items: Iterable[Sample | Pair],
    policies: Mapping[str, Collection[str]],
    vocabulary: int,
    recomputed: bool = False,
) -> None:
    """Check what is to be trained on. A reply without tokens is no error: it trains nothing.

    Args:
        items: to be checked.
        policies: every policy that learns -> the versions that its samples may come from (none older than the declared
            lag). Supervised samples and pairs may come from anywhere.
        vocabulary: size; token ids lie below it.
        recomputed: whether the trainer computes the log-probabilities before the update itself, so that samples of a
            truncated distribution can be used.

    Raises:
        SampleError: an unknown policy, a foreign or too old version, a log-probability that is none, arrays that do not
            fit each other, ids outside the vocabulary, no prompt.
    """
    for item in items:
        if isinstance(item, Sample):
            _check(item, policies, vocabulary)
            if not item.supervised:
                _check_behaviour(item, policies[item.policy], recomputed)
            continue
        for sample in (item.chosen, item.rejected):
            _check(sample, policies, vocabulary)
        if item.chosen.policy != item.rejected.policy:
            raise SampleError(
                item.rejected.key,
                f"policy {item.chosen.policy!r} as of the chosen reply",
                item.rejected.policy,
                "a pair trains one policy",
            )
        if not 0 <= item.label <= 1:
            raise SampleError(item.chosen.key, "a label from 0 to 1", item.label, "it is a probability")


def _check(sample: Sample, policies: Mapping[str, Collection[str]], vocabulary: int) -> None:
    if sample.policy not in policies:
        raise SampleError(sample.key, "a policy that this trainer has", sample.policy, nearest(sample.policy, policies))
    if not sample.prompt_ids:
        raise SampleError(
            sample.key,
            "a prompt",
            (),
            "its first token has nothing to be predicted from; take an engine with token ids",
        )
    outside = next((id for id in (*sample.prompt_ids, *sample.token_ids) if not 0 <= id < vocabulary), None)
    if outside is not None:
        raise SampleError(
            sample.key,
            f"token ids below {vocabulary}",
            outside,
            "it was sampled with another vocabulary than is trained",
        )
    if sample.mask and len(sample.mask) != len(sample.token_ids):
        raise SampleError(
            sample.key, f"a mask of {len(sample.token_ids)} tokens", len(sample.mask), "one entry a token"
        )
    if sample.clip_high is not None and not sample.clip_high >= 0:
        raise SampleError(sample.key, "a clip_high of 0 or more", sample.clip_high, "None takes the setting's")
    for name in ("advantage", "scale", "weight"):
        if not math.isfinite(getattr(sample, name)):
            raise SampleError(
                sample.key, f"a finite {name}", getattr(sample, name), "look into the credit that gave it"
            )
    if not (math.isfinite(sample.temperature) and sample.temperature > 0):
        raise SampleError(
            sample.key, "a temperature above 0", sample.temperature, "greedy replies are scored at temperature 1"
        )


def _check_behaviour(sample: Sample, versions: Collection[str], recomputed: bool) -> None:
    """What a ratio to the policy that sampled needs."""
    if sample.version not in versions:
        raise SampleError(
            sample.key,
            f"a version of {sample.policy or 'the policy'} among {', '.join(sorted(versions))}",
            sample.version,
            "it is foreign or older than the lag allows: play anew, or raise the lag",
        )
    if len(sample.logprobs) != len(sample.token_ids):
        raise SampleError(
            sample.key,
            f"{len(sample.token_ids)} log-probabilities, one a token",
            len(sample.logprobs),
            "take an engine that gives them",
        )
    wrong = next((p for p in _kept(sample.logprobs, sample.trained) if not (p <= ROUNDING and math.isfinite(p))), None)
    if wrong is not None:
        raise SampleError(
            sample.key,
            "log-probabilities that are finite and at most 0",
            wrong,
            "the engine that sampled it is at fault",
        )
    if sample.top_p < 1 and not recomputed:
        raise SampleError(
            sample.key,
            "log-probabilities of the whole distribution",
            f"top_p {sample.top_p:g}",
            "sample with top_p 1, or have the trainer compute its own (recompute_old)",
        )


def _kept(values: Sequence[float], kept: Sequence[bool]) -> list[float]:
    return [value for value, keep in zip(values, kept, strict=True) if keep]
