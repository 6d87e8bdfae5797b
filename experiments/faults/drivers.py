"""The command in processes of its own, which are stopped from outside or end themselves at a point of their code.

They are forked from a server that has imported what takes long, so that each begins at once.
"""

import importlib
import inspect
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from envs.errors import ConfigError
from experiments.store import FILE, StoreReader

PATIENCE_S = 900.0
LOOK_S = 0.01
PLACES = {
    "StoreWriter": "experiments.store",
    "LocalTeacher": "experiments.training.teacher",
    "Training": "experiments.training.training",
    "Registry": "experiments.training.registry",
    "LocalPool": "agents.pool",
}
_SPAWN = multiprocessing.get_context("forkserver")
_PRELOADED = [__name__, "agents.remote", "experiments.resuming", "experiments.show"]


def preload(*modules: str) -> None:
    """Have drivers forked from a process that has imported more; too late once the first has begun."""
    _PRELOADED.extend(modules)
    _SPAWN.set_forkserver_preload(_PRELOADED)


preload()


def _command(arguments: list[str]) -> int:
    from experiments.command import main

    return main(arguments)


class Driver:
    """A process that runs `palaestra` with some arguments."""

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        *,
        point: str = "",
        by: signal.Signals = signal.SIGKILL,
        file_limit: int | None = None,
        play: Callable[[list[str]], int] = _command,
    ):
        """
        Args:
            arguments: of the command.
            output: a folder for what it prints.
            point: where a signal meets it: CLASS.METHOD:N, before the N-th call of that, or with a + at the end after
                it.
            by: which; SIGSTOP has it stand still, see `halted`.
            file_limit: bytes beyond which no file of it can grow.
            play: what it does instead of the command: takes the arguments, returns the exit status.
        """
        self._printed = output / f"{time.monotonic_ns()}"
        self._process = _SPAWN.Process(
            target=_drive, args=(play, list(arguments), self._printed, point, by, file_limit)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        self._process.join(PATIENCE_S)
        if self._process.exitcode is None:
            self._give_up("was not done")
        return self._process.exitcode or 0

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def halted(self) -> "Driver":
        """Wait until it stands still at its point; `signal(SIGCONT)` has it go on."""
        if not self.once(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED):
            raise RuntimeError(f"palaestra ended with status {self.wait()} before its point; it said: {self.said}")
        return self

    @property
    def runs(self) -> bool:
        return self._process.is_alive()

    @property
    def said(self) -> str:
        """What it said on stderr."""
        return self._printed.with_suffix(".err").read_text(encoding="utf-8", errors="replace")

    @property
    def result(self) -> Any:
        """What it printed with --json."""
        return json.loads(self._printed.with_suffix(".out").read_text(encoding="utf-8"))

    def actors(self, kind: str) -> list[psutil.Process]:
        """The processes of its Ray's actors of a class."""
        try:
            family = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [one for one in family if f"ray::{kind}" in _title(one)]

    def once(self, ready: Callable[[], bool]) -> bool:
        """Wait until something is so. Returns whether it still runs then."""
        deadline = time.monotonic() + PATIENCE_S
        while self.runs and not ready():
            if time.monotonic() > deadline:
                self._give_up("did not come so far")
            time.sleep(LOOK_S)
        return self.runs

    def _give_up(self, why: str) -> NoReturn:
        self._process.kill()
        raise TimeoutError(f"palaestra {why} within {PATIENCE_S:g} s; it said: {self.said}")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def stored(folder: Path) -> int:
    """Episodes on disk, of a run or of all runs in a folder."""
    found = 0
    for path in folder.rglob(FILE):
        try:
            found += StoreReader(path.parent).rows("SELECT count(*) FROM episodes")[0][0]
        except (ConfigError, sqlite3.Error):
            continue  # it is just being made
    return found


def _drive(
    play: Callable[[list[str]], int],
    arguments: list[str],
    printed: Path,
    point: str,
    by: signal.Signals,
    file_limit: int | None,
) -> None:
    for stream, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(printed.with_suffix(suffix), os.O_WRONLY | os.O_CREAT, 0o644), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if point:
        _met_at(point, by)
    sys.exit(play(arguments))


def _met_at(point: str, by: signal.Signals) -> None:
    """Have a signal meet this process at a point."""
    target, _, count = point.partition(":")
    name, _, method = target.partition(".")
    owner = getattr(importlib.import_module(PLACES[name]), name)
    original, calls, wanted, after = getattr(owner, method), itertools.count(1), int(count.rstrip("+")), "+" in count

    def meet(number: int, here: bool) -> None:
        if here and number == wanted:
            os.kill(os.getpid(), by)

    def plain(*args: Any, **options: Any) -> Any:
        meet(number := next(calls), not after)
        result = original(*args, **options)
        meet(number, after)
        return result

    async def awaited(*args: Any, **options: Any) -> Any:
        meet(number := next(calls), not after)
        result = await original(*args, **options)
        meet(number, after)
        return result

    setattr(owner, method, awaited if inspect.iscoroutinefunction(original) else plain)
