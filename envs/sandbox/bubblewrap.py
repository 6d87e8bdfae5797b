"""Programs in CPython behind bubblewrap: Linux namespaces, refused system calls and limits of a process.

Each program is a process of its own (`envs.sandbox.inside` runs in it, `envs.sandbox.isolation` says what it sees),
with the program on its stdin; it is killed when it prints too much or its time is up, and with it all that there is in
its namespaces. CPython's whole language and standard library, no installed packages. The clock and random numbers are
real.
"""

import asyncio
import codecs
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from envs.sandbox import isolation
from envs.sandbox.types import Kind, Limits, Ran, Stopped, beyond, one_line

INSTALL = "apt-get install bubblewrap"
INTERPRETER_MB = 32
"""MiB of address space that the interpreter takes before a program begins."""
_OPEN_FILES = 64
_PROBE_S = 30.0
_INSIDE = Path(__file__).with_name("inside.py")
_CHUNK = 1 << 16
_TOLD_BYTES = 4096
"""Of stderr, the end of which tells how a program failed."""


@cache
def why_unavailable() -> str:
    """What is missing and what mends it; empty when a program can run here. Tried out once."""
    if not sys.platform.startswith("linux"):
        return f"it is for Linux, and this is {sys.platform}; use the sandbox monty"
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return f"bwrap is not installed; {INSTALL}"
    if not isolation.system_call_filter():
        return "the system calls of this machine are not known to it; use the sandbox monty"
    filter_fd = _filter_fd()
    asked = [*isolation.command(bwrap, filter_fd), "-c", "print(1)"]
    try:
        tried = subprocess.run(asked, capture_output=True, pass_fds=(filter_fd,), timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be run: {one_line(str(error))}; use the sandbox monty"
    finally:
        os.close(filter_fd)
    if tried.stdout == b"1\n":
        return ""
    problem = one_line(tried.stderr.decode("utf-8", "replace")) or f"status {tried.returncode}"
    if "Unknown option" in problem:
        return f"bwrap is older than 0.8 ({problem}); install a newer bubblewrap"
    return f"bwrap cannot isolate a program ({problem}); allow user namespaces, or use the sandbox monty"


class BubblewrapSandbox:
    """A Sandbox; one process a program, and at most `workers` of them at once."""

    def __init__(self, limits: Limits, workers: int):
        self._limits = limits
        self._free = asyncio.Semaphore(workers)
        self._running: set[asyncio.subprocess.Process] = set()
        space = (limits.memory_mb + INTERPRETER_MB) << 20
        # Processes: for users other than root, and beside the refused system calls.
        held = {"AS": space, "CPU": math.ceil(limits.seconds) + 1, "FSIZE": 0, "CORE": 0, "NOFILE": _OPEN_FILES}
        held |= {"MSGQUEUE": 0, "MEMLOCK": 0, "NPROC": 1}
        self._arguments = [_INSIDE.read_text(encoding="utf-8"), *(str(v) for item in held.items() for v in item)]

    async def run(self, code: str) -> Ran | Stopped:
        async with self._free:
            started = time.monotonic()
            output = _Output(self._limits.output_chars)
            try:
                stopped = await self._run(code, output)
            except OSError as error:
                stopped = "crash", one_line(f"the sandbox could not be started: {error}")
            seconds = time.monotonic() - started
        return Stopped(*stopped, output.text(), seconds) if stopped else Ran(output.text(), seconds)

    async def close(self) -> None:
        for process in list(self._running):
            _signal(process)
            await process.wait()

    async def _run(self, code: str, output: "_Output") -> tuple[Kind, str] | None:
        if "\0" in code:  # CPython's own words for it differ between versions
            return "syntax", "source code cannot contain null bytes"
        process = await self._start()
        self._running.add(process)
        told = bytearray()
        talk = _write(process, code.encode("utf-8", "surrogatepass")), _collect(process, output), _listen(process, told)
        talking = [asyncio.create_task(one) for one in talk]
        try:
            async with asyncio.timeout(self._limits.seconds):
                await asyncio.gather(*talking)
                status = await process.wait()
        except TimeoutError:
            return "time", beyond("time", self._limits)
        finally:
            _signal(process)
            # Waited for also when the caller is cancelled meanwhile.
            await asyncio.shield(self._gone(process, talking))
        if output.overflowed:
            return "output", beyond("output", self._limits)
        return self._judge(status, told.decode("utf-8", "replace"))

    async def _gone(self, process: asyncio.subprocess.Process, talking: list[asyncio.Task[None]]) -> None:
        """Wait until a process that was killed is gone, with all that it started.

        asyncio says so once its pipes are at their ends, and does not read on from one of which much is left unread.
        """
        for one in talking:
            one.cancel()
        await asyncio.wait(talking)
        assert process.stdout and process.stderr
        for pipe in (process.stdout, process.stderr):
            with suppress(OSError):
                while await pipe.read(_CHUNK):
                    pass
        await process.wait()
        self._running.discard(process)

    async def _start(self) -> asyncio.subprocess.Process:
        filter_fd = _filter_fd()
        try:
            return await asyncio.create_subprocess_exec(
                *isolation.command(shutil.which("bwrap") or "bwrap", filter_fd),
                *("-c", *self._arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(filter_fd,),
                start_new_session=True,
            )
        finally:
            os.close(filter_fd)

    def _judge(self, status: int, told: str) -> tuple[Kind, str] | None:
        """How a program ended: its status, as bubblewrap hands it on, and what was told on stderr."""
        if status == 0:
            return None
        if status == 128 + signal.SIGXCPU:
            return "time", beyond("time", self._limits)
        if status < 0 or status > 128:
            return "crash", f"the process was killed by {_signal_name(-status if status < 0 else status - 128)}"
        last = told.rstrip().rpartition("\n")[2]
        kind, line, message = (*last.split("\t", 2), "", "")[:3]
        if message and kind in ("error", "forbidden", "syntax"):
            return kind, one_line(f"line {line}: {message}" if line.isdecimal() and line != "0" else message)
        if kind == "memory" or "MemoryError" in last:
            return "memory", beyond("memory", self._limits)
        return "error", one_line(last) or f"exit status {status}"


class _Output:
    """What is printed, up to the limit in characters; bytes that are no UTF-8 are replaced."""

    def __init__(self, limit: int):
        self.overflowed = False
        self._left = limit
        self._parts: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, data: bytes, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        self._parts.append(text[: self._left])
        self.overflowed = self.overflowed or len(text) > self._left
        self._left = max(0, self._left - len(text))

    def text(self) -> str:
        return "".join(self._parts)


async def _write(process: asyncio.subprocess.Process, code: bytes) -> None:
    assert process.stdin
    with suppress(BrokenPipeError, ConnectionResetError):  # it ended before it had read all
        process.stdin.write(code)
        await process.stdin.drain()
    process.stdin.close()


async def _collect(process: asyncio.subprocess.Process, output: _Output) -> None:
    assert process.stdout
    while data := await process.stdout.read(_CHUNK):
        if output.overflowed:
            continue  # it was killed, and is gone once its pipes are at their ends: see `_gone`
        output.add(data)
        if output.overflowed:
            _signal(process)
    output.add(b"", final=True)


async def _listen(process: asyncio.subprocess.Process, told: bytearray) -> None:
    assert process.stderr
    while data := await process.stderr.read(_CHUNK):
        told += data
        del told[:-_TOLD_BYTES]


def _signal(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _filter_fd() -> int:
    """A pipe that holds the filter; the caller closes it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, isolation.system_call_filter())
    finally:
        os.close(writing)
    return reading
