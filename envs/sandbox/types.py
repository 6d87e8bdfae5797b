"""The words of a sandbox: Limits, what came of a program (Ran or Stopped), and the Sandbox protocol.

A program is a model's text. It is run by nobody but a sandbox, and whatever it does is a result, never an exception.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from envs.errors import ConfigError, clip

Kind = Literal["error", "syntax", "time", "memory", "output", "forbidden", "crash"]
MESSAGE_CHARS = 500


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    seconds: float = 5.0
    """By the clock, from its beginning."""
    memory_mb: int = 256
    """MiB, beside what the interpreter itself takes."""
    output_chars: int = 10_000
    """Most characters that it may print."""

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigError: a limit that no program could be held to.
        """
        for name, least, most in (("seconds", 0.01, 3600), ("memory_mb", 8, 1 << 20), ("output_chars", 1, 1 << 24)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise ConfigError(
                    f"sandbox limit {name}: expected a number from {least} to {most}, found {clip(value)}"
                )
        for name in ("memory_mb", "output_chars"):
            if getattr(self, name) != math.floor(getattr(self, name)):
                raise ConfigError(f"sandbox limit {name}: expected a whole number, found {getattr(self, name)}")


@dataclass(frozen=True)
class Ran:
    """The program came to its end."""

    output: str
    """What it printed to stdout. The value of a last expression is not shown: a program prints what it finds."""
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """The program did not come to its end."""

    kind: Kind
    """`error`: it raised, or ended with a status that is not 0. `forbidden`: files, network, processes, modules or
    parts of the language that the sandbox does not have. `crash`: its worker died, or could not be started."""
    message: str
    """One line of at most MESSAGE_CHARS characters: `line 3: ZeroDivisionError: division by zero`."""
    output: str
    """What it printed until then."""
    seconds: float


class Sandbox(Protocol):
    """Runs programs, each on its own: nothing of one is seen by the next. For one event loop at a time."""

    async def run(self, code: str) -> Ran | Stopped:
        """Run a program and return what came of it. It waits for a free worker, never raises for what a program does
        and never hangs; when it is cancelled, the program is killed."""
        ...

    async def close(self) -> None:
        """Stop the workers; programs that still run end as `crash`. The sandbox can be used again."""
        ...


def one_line(text: str) -> str:
    """Text as a message: on one line, clipped, and without characters that cannot be shown."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * MESSAGE_CHARS]).split())
    return flat if len(flat) <= MESSAGE_CHARS else f"{flat[: MESSAGE_CHARS - 1]}…"


def beyond(kind: Literal["time", "memory", "output"], limits: Limits) -> str:
    """What is said of a limit that was reached: nothing that differs from one time to the next."""
    return {
        "time": f"no end within {limits.seconds:g} s",
        "memory": f"it needs more than {limits.memory_mb} MiB of memory",
        "output": f"it prints more than {limits.output_chars} characters",
    }[kind]
