"""Engines without a model: replies written by hand (tests) or recorded before (audits, studies).

Both answer by the request's key, `task/sample/role/n`, never by the order in which requests arrive, so an episode is
the same at any concurrency. Token ids are the UTF-8 bytes of the text, the prefix of a conversation included. Tool
calls are scripted as models write them: see agents.engines.tools. A choice is scripted as the JSON list of its
log-probabilities.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.engines.tools import split_tool_calls
from agents.types import Completion, EngineError, Request
from envs.errors import ConfigError, clip

Script = Callable[[Request], str] | Mapping[str, str | Sequence[str]]


class ScriptedEngine:
    """Answers from a script: role -> its replies in order (or one reply for all), or a function of the request."""

    version = "1"

    def __init__(self, script: Script, policy: str = "scripted"):
        self.policy = policy
        self._script = script
        self._used: set[tuple[str, int]] = set()

    async def complete(self, request: Request) -> Completion:
        return completion_of(request, self._reply(request), self.policy, self.version)

    async def close(self) -> None:
        pass

    def unused(self) -> list[tuple[str, int]]:
        """The (role, number) of scripted replies that nobody asked for."""
        if callable(self._script):
            return []
        listed = {role: replies for role, replies in self._script.items() if not isinstance(replies, str)}
        return [
            (role, n) for role, replies in listed.items() for n in range(len(replies)) if (role, n) not in self._used
        ]

    def _reply(self, request: Request) -> str:
        if callable(self._script):
            return self._script(request)
        role, n = role_and_number(request.key)
        replies = self._script.get(role)
        if isinstance(replies, str):
            return replies
        if replies is None or n >= len(replies):
            raise EngineError(f"no reply is scripted for {request.key} ({role} has {len(replies or ())})")
        self._used.add((role, n))
        return replies[n]


class ReplayEngine:
    """Answers from a file of recorded replies.

    JSON lines, each `{"task": ID, "role": NAME, "replies": [TEXT, …]}` with an optional `"sample": K` (0 when absent):
    what the role said in that episode, in order.
    """

    version = "recorded"

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.policy = self.path.stem
        self._replies = dict(_read_recording(self.path))

    async def complete(self, request: Request) -> Completion:
        episode_and_role, _, number = request.key.rpartition("/")
        replies = self._replies.get(episode_and_role)
        if replies is None or not number.isdigit() or int(number) >= len(replies):
            raise EngineError(f"{self.path} holds no reply for {request.key}")
        return completion_of(request, replies[int(number)], self.policy, self.version)

    async def close(self) -> None:
        pass


def role_and_number(key: str) -> tuple[str, int]:
    """The role and the running number at the end of a request's key; a second attempt counts as the first's."""
    _, role, number = key.rsplit("/", 2)
    return role, int(number.partition(".")[0])


def completion_of(
    request: Request, text: str, policy: str, version: str, encode: Callable[[str], Iterable[int]] = str.encode
) -> Completion:
    """The completion that says `text`, or chooses by it; `encode` makes token ids of a text."""
    prompt = [*request.prefix] or [id for m in request.history for id in encode(m.content)]
    prompt += [id for m in request.messages for id in encode(m.content)]
    if request.choices:
        weights = tuple(float(weight) for weight in json.loads(text))
        best = request.choices[weights.index(max(weights))]
        return Completion(best, "stop", policy, version, choice_logprobs=weights, prompt_tokens=len(prompt))
    ids = tuple(encode(text))
    words, tool_calls = split_tool_calls(text, request.seed, request.tools)
    return Completion(
        text=words,
        tool_calls=tool_calls,
        finish="stop",
        policy=policy,
        version=version,
        prompt_ids=tuple(prompt),
        token_ids=ids,
        logprobs=(0.0,) * len(ids),
        prompt_tokens=len(prompt),
        completion_tokens=len(ids),
    )


def _read_recording(path: Path) -> Iterable[tuple[str, list[str]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the replay file {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            raise ConfigError(
                f'{path}, line {number}: expected {{"task": ID, "role": NAME, "replies": [TEXT, …]}}, '
                f"found {clip(line)}"
            )
        yield f"{row['task']}/{row.get('sample', 0)}/{row['role']}", row["replies"]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not {"task", "role"} <= row.keys():
        return None
    replies = row.get("replies")
    return row if isinstance(replies, list) and all(isinstance(reply, str) for reply in replies) else None
