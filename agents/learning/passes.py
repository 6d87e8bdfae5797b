"""Forward passes over samples and pairs, for the trainer: micro-batches in, log-probabilities of trained tokens out.

Logits are computed only where some row of a micro-batch is trained: prompts, which every row has, cost none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from agents.learning.batch import Batch, make_batches, make_pair_batches
from agents.learning.losses import token_entropy, token_logprobs
from agents.learning.samples import Pair, Sample
from agents.learning.trainer_settings import TrainerSettings

Item = Sample | Pair
Key = tuple[int, int]
"""Index of an item among all that were given, and 1 for a pair's rejected reply, else 0."""
Logprobs = dict[Key, Tensor]
"""For each reply its targets' log-probabilities, 0 where nothing is trained: (length - 1,) float32 on the CPU."""


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass takes in."""

    keys: tuple[Key, ...]
    """Of each row."""
    batch: Batch
    labels: Tensor | None
    """(rows / 2,) of pairs, whose chosen replies come first; None for samples."""


@dataclass(frozen=True)
class Pass:
    """What came out, at the K targets that any of the B rows trains."""

    batch: Batch
    """As the loss reads it: K targets in place of all."""
    columns: Tensor
    """(K,) int64; where the targets stood."""
    logits: Tensor
    """(B, K + 1, V); the last have no target."""

    def logprobs(self) -> Tensor:
        """(B, K) float32, nats, at each sample's temperature."""
        return token_logprobs(self.logits, self.batch.ids, self.batch.temperature)

    def entropy(self) -> Tensor:
        """(B, K) float32, nats, without gradient."""
        return token_entropy(self.logits, self.batch.temperature)

    def known(self, logprobs: Logprobs, keys: Sequence[Key]) -> Tensor | None:
        """What is known already of these targets, (B, K); None where it is not."""
        if keys[0] not in logprobs:
            return None
        width = int(self.columns[-1]) + 1
        rows = torch.zeros(len(keys), max(width, *(len(logprobs[key]) for key in keys)))
        for row, key in zip(rows, keys, strict=True):
            row[: len(logprobs[key])] = logprobs[key]
        return rows.to(self.columns.device)[:, self.columns]


def micro_batches(items: Mapping[int, Item], max_tokens: int) -> list[MicroBatch]:
    """Cut items, by their index, into micro-batches of at most `max_tokens` tokens, padding included."""
    samples = {index: item for index, item in items.items() if isinstance(item, Sample)}
    pairs = {index: item for index, item in items.items() if isinstance(item, Pair)}
    of_samples, of_pairs = list(samples), list(pairs)
    made = [
        MicroBatch(tuple((of_samples[row], 0) for row in batch.rows), batch, None)
        for batch in make_batches(list(samples.values()), max_tokens)
    ]
    for both in make_pair_batches(list(pairs.values()), max_tokens):
        keys = tuple((of_pairs[row], side) for side in (0, 1) for row in both.rows)
        made.append(MicroBatch(keys, both.batch, both.labels))
    return made


def run(model: Any, whole: Batch, settings: TrainerSettings) -> Pass:
    """Run a model on a batch."""
    whole = whole.to(settings.device)
    columns = whole.trained.any(0).nonzero()[:, 0]
    with torch.autocast(settings.device, torch.bfloat16, enabled=settings.computes_in == "bfloat16"):
        # Without a mask: padding is on the right, where causal attention does not look.
        logits = model(input_ids=whole.ids, logits_to_keep=torch.cat([columns, columns[-1:]]), use_cache=False).logits
    batch = replace(
        whole,
        ids=_kept(whole.ids, columns),
        attention=_kept(whole.attention, columns),
        trained=whole.trained[:, columns],
        behaviour=whole.behaviour[:, columns],
    )
    return Pass(batch, columns, logits)


@torch.no_grad()
def logprobs_of(model: Any, micro: MicroBatch, settings: TrainerSettings) -> Logprobs:
    """The log-probabilities of every reply in a micro-batch."""
    passed = run(model, micro.batch, settings)
    targets = torch.zeros(len(micro.keys), micro.batch.ids.shape[1] - 1)
    targets[:, passed.columns.cpu()] = (passed.logprobs() * (passed.batch.trained > 0)).cpu()
    lengths = micro.batch.attention.sum(1).tolist()
    return {key: row[: length - 1].clone() for key, row, length in zip(micro.keys, targets, lengths, strict=True)}


def _kept(values: Tensor, columns: Tensor) -> Tensor:
    return torch.cat([values[:, :1], values[:, columns + 1]], 1)
