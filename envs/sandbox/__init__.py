"""A model's program, run where it can do no harm: `open_sandbox` gives a Sandbox of one of two backends.

`monty` is an interpreter without files, network or processes, in worker processes: embedded, quick, a part of Python.
`bubblewrap` is CPython with its standard library in namespaces of its own: Linux, one new process a program. Used by
topologies and envs that run code; docs/sandbox.md says what is promised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from envs.errors import ConfigError, clip, unknown
from envs.sandbox import bubblewrap, monty
from envs.sandbox.types import Kind, Limits, Ran, Sandbox, Stopped

Backend = Literal["monty", "bubblewrap"]


@dataclass(frozen=True)
class _Form:
    make: Callable[[Limits, int], Sandbox]
    why_unavailable: Callable[[], str]


BACKENDS: dict[str, _Form] = {
    "monty": _Form(monty.MontySandbox, monty.why_unavailable),
    "bubblewrap": _Form(bubblewrap.BubblewrapSandbox, bubblewrap.why_unavailable),
}


def why_unavailable(backend: str) -> str:
    """Why a backend cannot run here and, after a semicolon, what mends that; empty when it can.

    Raises:
        ConfigError: no such backend.
    """
    if backend not in BACKENDS:
        raise unknown("sandbox", backend, BACKENDS)
    return BACKENDS[backend].why_unavailable()


def open_sandbox(backend: str = "monty", limits: Limits | None = None, workers: int = 2) -> Sandbox:
    """Open a sandbox: `Ran` or `Stopped` comes of each program that is given to its `run`.

    Args:
        backend: "monty" or "bubblewrap".
        limits: of each program; the defaults of Limits when None.
        workers: most programs at once; more of them wait.

    Raises:
        ConfigError: no such backend, one that cannot run here, limits or workers that cannot be.
    """
    if problem := why_unavailable(backend):
        raise ConfigError(f"sandbox {backend}: {problem}")
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 1024:
        raise ConfigError(f"sandbox {backend}: expected 1 to 1024 workers, found {clip(workers)}")
    return BACKENDS[backend].make(limits or Limits(), workers)


__all__ = [
    "BACKENDS",
    "Backend",
    "Kind",
    "Limits",
    "Ran",
    "Sandbox",
    "Stopped",
    "open_sandbox",
    "why_unavailable",
]
