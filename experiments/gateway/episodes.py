"""Open episodes: whose calls are recorded together, and the one gate through which all calls pass.

A gateway knows no company: every episode brings a recorder, which asks its own.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from envs.errors import clip, nearest
from graphs.record import Call, Recorder
from graphs.turns import Turn

CALLS = 1000
"""Calls an episode may make: an agent that loops for ever ends instead of calling models for ever."""

RETRY_S = 5
"""What clients that come while the gateway closes are told to wait."""


class RefusedError(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, status: HTTPStatus, message: str, code: str | None = None, parameter: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.parameter = status, message, code, parameter


class OpenEpisode:
    """An episode whose agents call from outside."""

    def __init__(self, id: str, recorder: Recorder):
        self.id, self.recorder = id, recorder
        self._asked = 0
        self._calls: set[asyncio.Task[object]] = set()
        self._used = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last call ended; 0 while one is going on."""
        return 0.0 if self._calls else time.monotonic() - self._used

    async def ask(self, call: Call, n: int = 1) -> list[Turn]:
        """Have the role answer n times. Cancelled when the episode ends.

        Raises:
            RefusedError: the episode has made too many calls.
            EngineError: a call cannot be answered; all have ended then, so that the record does not depend on timing.
        """
        if self._asked + n > CALLS:
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS, f"an episode may make {CALLS} calls", "too_many_calls")
        self._asked += n
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            if n == 1:
                return [await self.recorder.call(call)]
            ended = await asyncio.gather(*(self.recorder.call(call) for _ in range(n)), return_exceptions=True)
        finally:
            self._calls.discard(task)
            self._used = time.monotonic()
        turns = [turn for turn in ended if isinstance(turn, Turn)]
        for problem in ended:
            if isinstance(problem, BaseException):
                raise problem
        return turns

    def end(self) -> None:
        """Drop the calls that are still going on."""
        for call in self._calls:
            call.cancel()


@dataclass
class Gateway:
    """What all requests to one server share."""

    roles: Sequence[str] = ()
    """The roles that may be asked; with none, whoever is cast."""
    token: str | None = field(default=None, repr=False)
    """What clients must show; None lets everybody in."""
    alone: Callable[[], Recorder] | None = None
    """Makes the recorder of a call that names no episode; None refuses such calls."""
    closing: bool = False
    url: str = ""
    """Where the server is reached, once it is up."""
    episodes: dict[str, OpenEpisode] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextmanager
    def admit(self, recorder: Recorder, id: str | None = None) -> Iterator[OpenEpisode]:
        """Take calls for an episode, until the block ends."""
        episode = OpenEpisode(id or str(next(self._numbers)), recorder)
        self.episodes[episode.id] = episode
        try:
            yield episode
        finally:
            del self.episodes[episode.id]
            episode.end()

    def base_url(self, episode: OpenEpisode, url: str = "") -> str:
        """What a client of the episode takes for OpenAI's address."""
        return f"{url or self.url}/episodes/{episode.id}/v1"

    def check_role(self, role: str) -> None:
        """
        Raises:
            RefusedError: there is no such role.
        """
        if self.roles and role not in self.roles:
            raise no_role(f"unknown role {clip(role)}; {nearest(role, self.roles)}")

    def check_open(self) -> None:
        """
        Raises:
            RefusedError: the gateway is closing.
        """
        if self.closing:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway is closing", "closing")

    def episode(self, id: str | None) -> OpenEpisode:
        """The open episode of this id; one for a single call when no id is given.

        Raises:
            RefusedError: there is none, or the gateway is closing.
        """
        self.check_open()
        if id is None and self.alone is not None:
            return OpenEpisode("", self.alone())
        found = self.episodes.get(id or "")
        if found is None:
            what = f"episode {clip(id)} is not open" if id else "name an episode"
            raise RefusedError(
                HTTPStatus.NOT_FOUND, f"{what}: use the base_url that came with the episode", "episode_not_found"
            )
        return found


def no_role(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.NOT_FOUND, message, "model_not_found", "model")
