"""A replay buffer: what was learned from before, to be learned from again. Bounded, seeded, and each item with where it
is from."""

import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from agents.learning.samples import Pair, Sample

Item = Sample | Pair


@dataclass(frozen=True)
class Kept:
    """An item and its lineage."""

    item: Item
    iteration: int
    """In which it was played."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Of the weights that said it; a pair's may be two."""
        samples = (self.item,) if isinstance(self.item, Sample) else (self.item.chosen, self.item.rejected)
        return tuple(dict.fromkeys(sample.version for sample in samples))


class ReplayBuffer:
    """Keeps the newest items; the oldest make room."""

    def __init__(self, most: int):
        """
        Args:
            most: items that are kept.
        """
        self._kept: deque[Kept] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, items: Iterable[Item], iteration: int) -> None:
        self._kept.extend(Kept(item, iteration) for item in items)

    def draw(self, number: int, seed: int) -> list[Kept]:
        """That many different items, or all where there are fewer; the same for the same contents and seed."""
        return random.Random(seed).sample(list(self._kept), min(number, len(self._kept)))
