"""SIGTERM ends what is under way as Ctrl-C does: what has ended is stored, pools are closed, and Ray is stopped."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def stopping_on_sigterm(stopped: list[int]) -> Iterator[None]:
    """Have SIGTERM do what SIGINT does, and add it to `stopped`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
        return

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        # Where a shell has put this into the background, SIGINT is ignored, and nobody handles it.
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
