"""What travels between a graph and an engine: Message, Sampling, Request, Completion; and the Engine protocols.

Plain frozen dataclasses: they cross processes by the thousand. Nothing here imports torch, ray or an engine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool run, as in OpenAI's chat protocol."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it, which may be no JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's message, beside its content."""
    tool_call_id: str = ""
    """Of a tool's message: the call that it answers."""


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
    policy: str = ""
    """A policy published to the pool (an adapter on the pool's model); empty for the pool's own weights."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that the model may call: OpenAI's `{"type": "function", "function": {…}}`."""
    tool_choice: str = "auto"
    """auto, none, required, or the name of the tool that must be called."""
    opening: str = ""
    """The beginning of the reply, given; what is sampled goes on from it."""
    choices: tuple[str, ...] = ()
    """Nothing is sampled: the reply is the likeliest of these after `opening`, each weighed by its log-probability."""
    certainty: bool = False
    """Whether the completion is to say how far each token's distribution was from uniform."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the reply is held to while it is sampled. An engine that cannot do so raises EngineError."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The reply to one request."""

    text: str
    """Without the markup of tool calls."""
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
    certainty: tuple[float, ...] = ()
    """For each token, when asked for: the KL divergence of the uniform distribution from the model's own (temperature
    1, whole vocabulary), in nats. Kang et al., arXiv:2502.18581."""
    choice_logprobs: tuple[float, ...] = ()
    """For each of the request's choices its log-probability in nats at temperature 1, summed over its tokens."""
    tool_calls: tuple[ToolCall, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = field(default=0.0, compare=False)
    """From arrival at the engine to the first forward pass."""
    compute_s: float = field(default=0.0, compare=False)


class HasTokens(Protocol):
    """What a Completion and a Turn have in common for training."""

    @property
    def prompt_ids(self) -> tuple[int, ...]: ...
    @property
    def token_ids(self) -> tuple[int, ...]: ...
    @property
    def logprobs(self) -> tuple[float, ...]: ...


def why_untrainable(turn: HasTokens) -> str | None:
    """What a completion or a turn lacks to be trained, as a sentence; None when it lacks nothing."""
    if not turn.prompt_ids or not turn.token_ids:
        return "not trainable: this endpoint returns no token ids"
    if len(turn.logprobs) != len(turn.token_ids):
        return "not trainable: this endpoint returns no log-probabilities for its token ids"
    return None


class EngineError(RuntimeError):
    """The engine could not answer: the episode that asked fails, the run goes on."""


class EngineDiedError(EngineError):
    """The process that the engine runs its model in is gone: it answers nothing any more and has to be made anew."""


class Engine(Protocol):
    """Turns requests into completions. One instance may be asked many things at once."""

    @property
    def policy(self) -> str: ...

    @property
    def version(self) -> str: ...

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            EngineError: it cannot be answered (too long a prompt, no such scripted reply, a dead backend).
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Publishable(Protocol):
    """An engine whose weights can be replaced and checked. Called by the pool while the engine has no requests."""

    async def publish(self, policy: str, version: str, source: Path) -> None:
        """Take over weights; completions name the new version from now on.

        Args:
            policy: empty for the engine's own weights, else the name of an adapter, which is added when it is new.
            version: never used before for this policy.
            source: a directory in Hugging Face format; for an adapter in PEFT's.

        Raises:
            EngineError: they cannot be loaded; the engine may then be left with either weights.
        """
        ...

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        """Log-probabilities in nats of `ids[1:]`, each given those before it, at temperature 1: (len(ids) - 1,)."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """An engine whose own model also turns texts into vectors."""

    async def embed(self, text: str) -> tuple[float, ...]:
        """The vector of a text, of any length but 0, by the engine's own weights: (dimensions,).

        It depends on the text and the weights alone, whatever else the engine does meanwhile.

        Raises:
            EngineError: there is none (too long a text, a model that gives none).
        """
        ...


def seed_of(*parts: object) -> int:
    """A 63-bit seed from what names a random choice, such as (run seed, task, sample, role, turn). Never a clock."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
