"""Programs in Monty, a Python interpreter without files, network or processes: the backend that needs nothing else.

Each program has a worker process of Monty's own pool to itself. Monty holds it to the limits; what it cannot stop it
kills at a deadline, and starts another worker. Clock, random numbers and sleeping are fixed, so that a program prints
the same at every run.

Monty knows a part of Python: no generators, no inheritance, a few modules of the standard library. What it does not
know is `forbidden`.
"""

import asyncio
import atexit
import math
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from envs.sandbox.types import Kind, Limits, Ran, Stopped, beyond, one_line

INSTALL = "pip install 'palaestra[tools]'"
GRACE_S = 0.5
"""Between the moment at which Monty is to stop a program, and its worker's end."""
_HARD_S = 2.0
"""From there until it is given up, should Monty's own deadline fail."""
_REST_S = 0.1
"""Before the interpreter ends: threads of Monty's that are still letting go of objects would be killed while they wait
for it, and that aborts the process."""
_CPU_CLOCK = 2
"""Linux: the clock of another process's CPU time has the number ~pid << 3 | 2."""
_NO_VALUE = "\n\nNone"
"""The value of a last expression would be converted to an object of this process: there is none then."""
_POLICY = {"datetime": datetime(2026, 1, 1, tzinfo=UTC), "sleep": "zero", "random_start": {"seed": 0}}


def why_unavailable() -> str:
    """What is missing and the command that mends it; empty when Monty can run here."""
    try:
        for package in ("pydantic-monty-client", "pydantic-monty-runtime"):
            version(package)
    except PackageNotFoundError as error:
        return f"{error.name} is not installed; {INSTALL}"
    return ""


class MontySandbox:
    """A Sandbox; its workers start when a program first needs them."""

    def __init__(self, limits: Limits, workers: int):
        self._limits, self._workers = limits, workers
        self._pool: Any = None
        self._lock = asyncio.Lock()
        self._running: set[_Said] = set()

    async def run(self, code: str) -> Ran | Stopped:
        said = _Said(self._limits.output_chars)
        started = time.monotonic()
        try:
            async with self._checkout(await self._opened()) as session:
                _bound_cpu(session.worker_pid, self._limits.seconds + GRACE_S)
                started = time.monotonic()
                stopped = await self._feed(session, code, said)
        except Exception as error:  # noqa: BLE001 - a worker that cannot be had or given back is a result, too
            stopped = "crash", one_line(f"{type(error).__name__}: {error}")
        finally:
            self._running.discard(said)
        seconds = time.monotonic() - started
        return Stopped(*stopped, said.text(), seconds) if stopped else Ran(said.text(), seconds)

    async def close(self) -> None:
        async with self._lock:
            pool, self._pool = self._pool, None
        for said in self._running:
            said.end("crash")
        if pool is not None:
            await pool.__aexit__(None, None, None)

    async def _opened(self) -> Any:
        from pydantic_monty import AsyncMonty

        async with self._lock:
            if self._pool is None:
                _rest_at_exit()
                pool = AsyncMonty(
                    max_processes=self._workers,
                    request_timeout=self._limits.seconds + GRACE_S,
                    feed_duration_limit_grace=GRACE_S,
                )
                self._pool = await pool.__aenter__()
            return self._pool

    def _checkout(self, pool: Any) -> Any:
        limits = {"max_feed_duration_secs": self._limits.seconds, "max_memory": self._limits.memory_mb << 20}
        return pool.checkout(limits=limits, os_policy=_POLICY, assert_message_annotations=False)

    async def _feed(self, session: Any, code: str, said: "_Said") -> tuple[Kind, str] | None:
        """Run it; None when it came to its end."""
        began = time.monotonic()
        message = ""
        try:
            async with asyncio.timeout(self._limits.seconds + GRACE_S + _HARD_S) as deadline:
                said.end_by(deadline)
                self._running.add(said)
                await session.feed_run(code + _NO_VALUE, print_callback=said)
        except TimeoutError:
            kind = said.ended or "time"
        except Exception as error:  # noqa: BLE001 - whatever the program made Monty raise
            kind, message = _judge(error, time.monotonic() - began >= self._limits.seconds)
        else:
            kind = None
        kind = said.ended or kind
        if kind == "time" or kind == "memory" or kind == "output":
            message = beyond(kind, self._limits)
        return (kind, message or "the sandbox was closed") if kind else None


class _Said:
    """What a running program prints, up to the limit; it is called from threads of Monty's."""

    def __init__(self, limit: int):
        self.ended: Literal["output", "crash"] | None = None
        """Why it is to be killed: it prints too much, or the sandbox is closed."""
        self._left = limit
        self._parts: list[str] = []

    def end_by(self, deadline: asyncio.Timeout) -> None:
        """Have the program's deadline come at once when it is to be killed: Monty would let it go on until then."""
        self._loop, self._deadline = asyncio.get_running_loop(), deadline

    def end(self, why: Literal["output", "crash"]) -> None:
        self.ended = self.ended or why
        self._loop.call_soon_threadsafe(self._expire)

    def __call__(self, stream: str, text: str) -> None:
        if self.ended:
            return
        if stream == "stdout":
            self._parts.append(text[: self._left])
        self._left -= len(text)
        if self._left < 0:
            self.end("output")

    def text(self) -> str:
        return "".join(self._parts)

    def _expire(self) -> None:
        with suppress(RuntimeError):  # the program has ended meanwhile
            self._deadline.reschedule(self._loop.time())


@cache
def _rest_at_exit() -> None:
    atexit.register(time.sleep, _REST_S)


def _bound_cpu(pid: int | None, seconds: float) -> None:
    """Have the kernel end a worker that computes for so long from now: one that outlived this process would go on."""
    if pid is None or not sys.platform.startswith("linux"):
        return
    import resource

    with suppress(OSError, ValueError):  # it has died already; or the user's own limit is lower
        used = time.clock_gettime((~pid << 3) | _CPU_CLOCK)
        _, most = resource.prlimit(pid, resource.RLIMIT_CPU)
        resource.prlimit(pid, resource.RLIMIT_CPU, (math.ceil(used + seconds) + 1, most))


def _judge(error: Exception, late: bool) -> tuple[Kind, str]:
    """What kind of end an error of Monty's means.

    Args:
        late: whether the program had used up its time: it may raise a TimeoutError itself.
    """
    from pydantic_monty import MontyCrashedError, MontyRuntimeError, MontySyntaxError

    if isinstance(error, MontyCrashedError):
        return ("time", "") if error.timed_out else ("crash", "the worker process died")
    if not isinstance(error, (MontyRuntimeError, MontySyntaxError)):
        return "crash", one_line(f"{type(error).__name__}: {error}")
    frames = error.traceback()
    where = f"line {frames[-1].line}: " if frames else ""
    message = one_line(where + error.display("type-msg"))
    if isinstance(error, MontySyntaxError):
        return "syntax", message
    return _kind_of(error.exception(), late), message


def _kind_of(raised: BaseException, late: bool) -> Kind:
    if isinstance(raised, TimeoutError) and late:
        return "time"
    if isinstance(raised, MemoryError):
        return "memory"
    if isinstance(raised, (PermissionError, ImportError)) or _is_absent(raised):
        return "forbidden"
    return "error"


def _is_absent(raised: BaseException) -> bool:
    """Whether it is Monty that has no such thing: it says so by errors that a program can raise as well."""
    text = str(raised)
    if isinstance(raised, NotImplementedError):
        return "monty" in text
    return isinstance(raised, RuntimeError) and text.endswith("is not supported in this environment")
