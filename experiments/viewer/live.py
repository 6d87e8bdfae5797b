"""WIP"""

from collections.abc import AsyncIterator
from typing import Any

from experiments.viewer.episode_records import Changed


class Live:
    def __init__(self, library: Any):
        self.library = library

    async def follow(self, under: str | None) -> AsyncIterator[Changed]:
        raise NotImplementedError
        yield
