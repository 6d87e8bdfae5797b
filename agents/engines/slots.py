"""Keys and values of the rows of a running batch: one slot a row, filled from position 0.

Used by the transformers engine alone. A slot's positions after the row's last token hold leftovers, which the
attention mask hides; masked positions at the end change no bit of the sums, whatever the buffer's length.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_GROWTH = 128


class Placement:
    """Where the forward pass that comes next writes, and what it may read; shared by all layers."""

    def __init__(self) -> None:
        self.prefill: slice | None = None
        """Slots to fill from position 0; None while decoding."""
        self.rows = torch.empty(0, dtype=torch.long)
        self.positions = torch.empty(0, dtype=torch.long)
        """While decoding: the position of each row's new token."""
        self.span = 0
        """While decoding: how many positions the attention sees."""


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values: (slots, heads, positions, head size)."""

    is_sliding = False
    # Optional in the base class, until they are initialised.
    keys: Any
    values: Any

    def __init__(self, placement: Placement):
        super().__init__()
        self.placement = placement

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = key_states.new_zeros((0, key_states.shape[1], 0, key_states.shape[3]))
        self.values = value_states.new_zeros((0, value_states.shape[1], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        place = self.placement
        if place.prefill is not None:
            length = key_states.shape[2]
            self.reserve(place.prefill.stop, length)
            self.keys[place.prefill, :, :length] = key_states
            self.values[place.prefill, :, :length] = value_states
            return key_states, value_states
        self.keys[place.rows, :, place.positions] = key_states[:, :, 0]
        self.values[place.rows, :, place.positions] = value_states[:, :, 0]
        n = len(place.rows)
        return self.keys[:n, :, : place.span], self.values[:n, :, : place.span]

    def reserve(self, slots: int, positions: int) -> None:
        have, heads, length, size = self.keys.shape
        if slots <= have and positions <= length:
            return
        shape = (max(slots, have), heads, max(-(-positions // _GROWTH) * _GROWTH, length), size)
        self.keys, self.values = (_grown(tensor, shape) for tensor in (self.keys, self.values))

    def move(self, source: int, target: int, length: int) -> None:
        self.keys[target, :, :length] = self.keys[source, :, :length]
        self.values[target, :, :length] = self.values[source, :, :length]

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1


def _grown(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    grown = tensor.new_zeros(shape)
    grown[: tensor.shape[0], :, : tensor.shape[2]] = tensor
    return grown


class Slots:
    """The forward passes of a batch whose rows come and go: `fill` new rows, `extend` all rows by a token."""

    def __init__(self, model: Any, layers: int, rows: int, tile: int):
        """
        Args:
            model: a causal language model of transformers.
            layers: its number of attention layers.
            rows: most rows at once.
            tile: rows of a step and lengths of prompts are rounded up to multiples of this. Matrix kernels treat the
                odd rows at a batch's end differently, so that with 1 a row's last bits depend on its neighbours.
        """
        self._model, self._tile = model, tile
        self._place = Placement()
        self._layers = [SlotLayer(self._place) for _ in range(layers)]
        self._cache = Cache(layers=[*self._layers])
        self._device = model.device
        self._rows = torch.arange(rows + tile, device=self._device)

    def fill(self, first: int, prompts: list[list[int]]) -> Tensor:
        """Run prompts into the slots from `first` on. Returns the logits after each prompt: (len(prompts), V)."""
        # A width of whole tiles makes whole tiles of any number of rows; the same goes for the positions that are kept.
        count, width = len(prompts), self._rounded(max(map(len, prompts)), 2)
        ids = torch.zeros((count, width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self._device)
        kept, where = last.unique(return_inverse=True)
        kept = torch.cat([kept, kept[-1:].expand(self._rounded(len(kept)) - len(kept))])
        self._place.prefill = slice(first, first + count)
        logits = self._forward(
            ids.to(self._device), torch.arange(width, device=self._device).expand(count, -1), logits_to_keep=kept
        )
        return logits[torch.arange(len(prompts), device=self._device), where]

    def extend(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Append `tokens` (B,) at `positions` (B,) of the slots 0 to B-1. Returns the next logits: (B, V)."""
        count = self._rounded(len(tokens))
        extra = (0, count - len(tokens))
        tokens, padded = (torch.nn.functional.pad(tensor, extra) for tensor in (tokens, positions))
        place = self._place
        place.prefill, place.rows, place.positions = None, self._rows[:count], padded
        longest = int(positions.max()) + 1
        for layer in self._layers:
            layer.reserve(count, longest)
        place.span = min(-(-longest // 32) * 32, self._layers[0].keys.shape[2])
        visible = torch.arange(place.span, device=self._device) <= padded[:, None]
        logits = self._forward(tokens[:, None], padded[:, None], attention_mask=visible[:, None, None])
        return logits[: len(positions), -1]

    def read(self, sequences: list[list[int]], start: int) -> list[list[float]]:
        """Log-probabilities of each sequence's tokens from `start` on, nats at temperature 1; no slot is touched."""
        width = max(map(len, sequences))
        ids = torch.zeros((len(sequences), width), dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
        ids = ids.to(self._device)
        kept = torch.arange(start - 1, width - 1, device=self._device)
        logprobs = self._model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits.float().log_softmax(-1)
        found = logprobs.gather(2, ids[:, start:, None])[:, :, 0].tolist()
        return [row[: len(sequence) - start] for row, sequence in zip(found, sequences, strict=True)]

    def move(self, source: int, target: int, length: int) -> None:
        for layer in self._layers:
            layer.move(source, target, length)

    def _rounded(self, n: int, tiles: int = 1) -> int:
        size = self._tile * tiles if self._tile > 1 else 1
        return -(-n // size) * size

    def _forward(self, ids: Tensor, positions: Tensor, **kwargs: Any) -> Tensor:
        return self._model(
            input_ids=ids, position_ids=positions, past_key_values=self._cache, use_cache=True, **kwargs
        ).logits
