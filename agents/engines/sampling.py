"""Drawing next tokens for many rows at once, each with its own temperature, top-p and random numbers.

A row's draw depends on its own logits and its own uniform number alone, never on the rows beside it.
"""

import math

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, n: int) -> np.ndarray:
    """The first `n` random numbers of a request: (n,) float32 in [0, 1), one a token."""
    return np.random.Generator(np.random.Philox(seed)).random(n, dtype=np.float32)


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution.

    Args:
        logits: (B, V).
        temperature: (B,) float; 0 takes the likeliest token.
        top_p: (B,) float, or None when every row's is 1.
        uniform: (B,) float in [0, 1).

    Returns:
        tokens (B,) int64 and logprobs (B,) float32, nats: under the distribution drawn from (temperature and top-p
        applied), at temperature 0 under the plain softmax.
    """
    logits = logits.float()
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, torch.ones_like(temperature), temperature)[:, None]
    if top_p is not None:
        scaled = _nucleus(scaled, torch.where(greedy, torch.ones_like(top_p), top_p))
    logprobs = torch.log_softmax(scaled, -1)
    cumulative = logprobs.exp().cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the threshold to the total: then no token would lie above it.
    threshold = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    tokens = torch.where(greedy, logits.argmax(-1), tokens)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


def self_certainty(logits: Tensor) -> Tensor:
    """Of each row's distribution at temperature 1 over the whole vocabulary: (B,) nats; see Completion.certainty."""
    logprobs = torch.log_softmax(logits.float(), -1)
    return -(logprobs.mean(-1) + math.log(logits.shape[-1]))


def _nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities reach top-p; the others become -inf."""
    ordered, order = logits.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = before >= top_p[:, None]
    dropped[:, 0] = False
    return logits.masked_fill(dropped.scatter(1, order, dropped), float("-inf"))
