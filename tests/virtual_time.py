"""An event loop whose clock moves only when nothing else does: waits cost no time, and what is measured is exact.

Real work on other threads takes no time on this clock: while any is under way (executors count by themselves, all else
with `real_work`) the clock stands still, and it then jumps to what is waited for next.
"""

import asyncio
import contextlib
import selectors
from collections.abc import Iterator
from typing import Any


class VirtualTime(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._now = 0.0
        self._working = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    @contextlib.contextmanager
    def real_work(self) -> Iterator[None]:
        """The clock stands still in it."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self._working += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self._ended())
        return future

    def _ended(self) -> None:
        self._working -= 1

    def waited(self, timeout: float | None) -> float | None:
        """How long to wait in earnest when nothing is ready for `timeout` seconds of this clock."""
        if timeout is None or timeout <= 0:
            return timeout
        if self._working:
            return None  # until a thread has something to say
        self._now += timeout
        return 0


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTime):
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        return super().select(self._loop.waited(timeout))
