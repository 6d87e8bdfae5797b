"""What travels between a graph and an engine: Message, Sampling, Request, Completion; and the Engine protocol.

Plain frozen dataclasses: they cross processes by the thousand. Nothing here imports torch, ray or an engine.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a completion is drawn."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    max_tokens: int = 512
    """Also bounded by what the model's context leaves."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these; the token ids keep what was sampled."""


@dataclass(frozen=True, slots=True)
class Request:
    """One model call."""

    key: str
    """`task/sample/role/n`: names the turn within its run. Scripted and replayed engines answer by it."""
    messages: tuple[Message, ...]
    """The new messages; after `prefix` when there is one."""
    sampling: Sampling
    seed: int
    """Fixes the reply together with the prompt, the sampling and the weights."""
    prefix: tuple[int, ...] = ()
    """Exact token ids of an earlier turn's prompt and completion that this call goes on from."""
    history: tuple[Message, ...] = ()
    """The messages behind `prefix`, for engines that take text alone."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The reply to one request."""

    text: str
    finish: Finish
    policy: str
    version: str
    """Of the weights that sampled it; never reused for other weights."""
    prompt_ids: tuple[int, ...] = ()
    """Empty when the engine gives no token ids; then the turn cannot be trained."""
    token_ids: tuple[int, ...] = ()
    """As sampled, the end token included."""
    logprobs: tuple[float, ...] = ()
    """For each token its log-probability in nats under the distribution it was drawn from: temperature and top-p
    applied; at temperature 0 under the model's own distribution."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = field(default=0.0, compare=False)
    """From arrival at the engine to the first forward pass."""
    compute_s: float = field(default=0.0, compare=False)


class EngineError(RuntimeError):
    """The engine could not answer: the episode that asked fails, the run goes on."""


class Engine(Protocol):
    """Turns requests into completions. One instance may be asked many things at once."""

    policy: str
    version: str

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            EngineError: it cannot be answered (too long a prompt, no such scripted reply, a dead backend).
        """
        ...

    async def close(self) -> None: ...


def seed_of(*parts: object) -> int:
    """A 63-bit seed from what names a random choice, such as (run seed, task, sample, role, turn). Never a clock."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
