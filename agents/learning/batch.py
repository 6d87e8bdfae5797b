"""Samples to padded tensors, in micro-batches of samples that are about equally long.

Padding is on the right, so that positions need no care. The loss of micro-batches adds up to that of the whole: see
agents.learning.losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from agents.learning.samples import Pair, Sample


@dataclass(frozen=True)
class Batch:
    """B samples, padded to T tokens. Entry t of what is (B, T-1) belongs to the target `ids[:, t + 1]`."""

    rows: tuple[int, ...]
    """Where each sample stood in the list that the batches were made of."""
    ids: Tensor
    """(B, T) int64; prompt, reply, padding."""
    attention: Tensor
    """(B, T) bool; False where there is padding."""
    trained: Tensor
    """(B, T-1) float32; 1 where the target is trained."""
    behaviour: Tensor
    """(B, T-1) float32, nats; the log-probabilities that the samples bring, 0 where nothing is trained."""
    advantage: Tensor
    """(B,) float32, as are the following."""
    scale: Tensor
    clip_high: Tensor
    """NaN for the setting's."""
    weight: Tensor
    supervised: Tensor
    """(B,) bool."""
    temperature: Tensor

    def to(self, device: "torch.device | str") -> "Batch":
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "rows"}
        return replace(self, **moved)


@dataclass(frozen=True)
class PairBatch:
    """P pairs as one batch of 2 P rows: the chosen replies, then the rejected ones in the same order."""

    rows: tuple[int, ...]
    """Where each pair stood in the list that the batches were made of: (P,)."""
    batch: Batch
    labels: Tensor
    """(P,) float32; see Pair.label."""

    def to(self, device: "torch.device | str") -> "PairBatch":
        return PairBatch(self.rows, self.batch.to(device), self.labels.to(device))


def make_batches(samples: Sequence[Sample], max_tokens: int, pad_id: int = 0) -> list[Batch]:
    """Micro-batches of at most `max_tokens` tokens, padding included; the longest come first, so that too little memory
    shows at once. The same samples in the same order give the same batches.

    Args:
        samples: those without a trained token are left out.
        max_tokens: a sample that is longer makes a batch of its own.
        pad_id: any id; nothing reads it.
    """
    kept = [(row, sample) for row, sample in enumerate(samples) if any(sample.trained)]
    buckets = _buckets([sample.length for _, sample in kept], max_tokens)
    return [_pad([kept[i] for i in bucket], pad_id) for bucket in buckets]


def make_pair_batches(pairs: Sequence[Pair], max_tokens: int, pad_id: int = 0) -> list[PairBatch]:
    """As make_batches; both replies of a pair are in the same micro-batch. Pairs without a trained token in either
    reply are left out."""
    kept = [(row, p) for row, p in enumerate(pairs) if any(p.chosen.trained) or any(p.rejected.trained)]
    lengths = [max(pair.chosen.length, pair.rejected.length) for _, pair in kept]
    batches = []
    for bucket in _buckets(lengths, max_tokens // 2):
        rows = tuple(kept[i][0] for i in bucket)
        both = [(kept[i][0], kept[i][1].chosen) for i in bucket] + [(kept[i][0], kept[i][1].rejected) for i in bucket]
        labels = torch.tensor([kept[i][1].label for i in bucket], dtype=torch.float32)
        batches.append(PairBatch(rows, _pad(both, pad_id), labels))
    return batches


def _buckets(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices, the longest first, in groups whose size times the first one's length is at most `max_tokens`."""
    buckets: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not buckets or lengths[buckets[-1][0]] * (len(buckets[-1]) + 1) > max_tokens:
            buckets.append([])
        buckets[-1].append(i)
    return buckets


def _pad(rows: Sequence[tuple[int, Sample]], pad_id: int) -> Batch:
    samples = [sample for _, sample in rows]
    width = max(sample.length for sample in samples)

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(sample, name) for sample in samples], dtype=torch.float32)

    ids = torch.full((len(samples), width), pad_id)
    attention = torch.zeros(len(samples), width, dtype=torch.bool)
    trained, behaviour = torch.zeros(len(samples), width - 1), torch.zeros(len(samples), width - 1)
    for i, sample in enumerate(samples):
        start = len(sample.prompt_ids)
        ids[i, : sample.length] = torch.tensor([*sample.prompt_ids, *sample.token_ids])
        attention[i, : sample.length] = True
        mask = torch.tensor(sample.trained, dtype=torch.float32)
        trained[i, start - 1 : sample.length - 1] = mask
        if sample.logprobs:
            found = torch.tensor(sample.logprobs, dtype=torch.float32)
            behaviour[i, start - 1 : sample.length - 1] = torch.where(mask > 0, found, 0.0)
    return Batch(
        rows=tuple(row for row, _ in rows),
        ids=ids,
        attention=attention,
        trained=trained,
        behaviour=behaviour,
        advantage=column("advantage"),
        scale=column("scale"),
        clip_high=torch.tensor([torch.nan if s.clip_high is None else s.clip_high for s in samples]),
        weight=column("weight"),
        supervised=torch.tensor([sample.supervised for sample in samples]),
        temperature=column("temperature"),
    )
