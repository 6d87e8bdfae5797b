"""The words of an environment: Task, Verdict, the Env protocol, and how a final answer is read from a reply.

This module imports nothing of ours; agents, graphs and experiments build on it.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

Split = Literal["train", "validation", "test"]
Status = Literal["correct", "incorrect", "unparsed", "unscorable"]
ErrorKind = Literal["calculation", "digit", "number", "operation", "order"]
ERROR_KINDS: tuple[ErrorKind, ...] = ("calculation", "digit", "number", "operation", "order")
"""How a step can be spoiled: a wrong result, a digit of it changed or swapped, another number, another operation, a
step that may not be done yet."""


class Task(BaseModel):
    """One problem instance, with what is needed to judge an answer."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Unique in its env, and the same in every run: `compare` pairs runs by it."""
    question: str
    """What the agents are shown. They are shown nothing else of the task."""
    answers: tuple[str, ...]
    """Accepted final answers; any one of them is right."""
    details: dict[str, Any] = {}
    """What the env itself needs later (level, source line); JSON values only."""


class Verdict(BaseModel):
    """What an env says of an answer."""

    model_config = ConfigDict(frozen=True)

    status: Status
    score: float | None
    """1 for correct, 0 for incorrect and unparsed; None when unscorable, so that no mean can take it for a 0."""
    reason: str = ""

    @classmethod
    def correct(cls, reason: str = "") -> "Verdict":
        return cls(status="correct", score=1.0, reason=reason)

    @classmethod
    def incorrect(cls, reason: str = "") -> "Verdict":
        return cls(status="incorrect", score=0.0, reason=reason)

    @classmethod
    def unparsed(cls, reason: str = "no final answer was found") -> "Verdict":
        return cls(status="unparsed", score=0.0, reason=reason)

    @classmethod
    def unscorable(cls, reason: str) -> "Verdict":
        return cls(status="unscorable", score=None, reason=reason)


@runtime_checkable
class Env(Protocol):
    """A source of tasks and the judge of their answers. `envs.check_env` tests an implementation."""

    name: str

    def tasks(self, n: int | None = None, split: Split = "test") -> Sequence[Task]:
        """The first `n` tasks of a split (all of a finite split when None), the same at every call.

        Raises:
            ConfigError: the split has fewer than `n` tasks.
        """
        ...

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        """Judge a final answer; None means that no answer could be read. Never raises and never hangs."""
        ...

    async def group(self, answers: Sequence[str]) -> list[int]:
        """For each answer the index of the first answer that is equivalent to it: what a vote counts."""
        ...


@runtime_checkable
class Checks(Protocol):
    """An env that can run a solution."""

    async def check(self, task: Task, reply: str) -> str | None:
        """What running a solution shows to be wrong with it, said to whoever wrote it; None when nothing is. It must
        not look at the task's answers."""
        ...


@runtime_checkable
class Spoils(Protocol):
    """An env that can make errors by rule: what a critic learns from that has no opponent."""

    def spoil(self, task: Task, before: Sequence[str], step: str, seed: int) -> tuple[ErrorKind, str] | None:
        """A wrong version of a right step and its kind, fixed by the seed; None for a step that it cannot read."""
        ...


@runtime_checkable
class Poses(Protocol):
    """An env for which problems can be made up, and that knows what is right of such a problem too."""

    def posed(self, question: str) -> Task | None:
        """The task that a question is; None where it is no problem of the env. For audits alone: whoever learns from
        what was made up must not know the answer."""
        ...


def split_steps(text: str) -> list[str]:
    """The steps of a solution: its paragraphs where it has several, else its lines. Joined they are the text again,
    so that what stands before a step is a beginning that can be gone on from."""
    separator = r"\n[ \t]*\n\s*" if len(re.findall(r"\S[ \t]*\n[ \t]*\n\s*\S", text)) else r"\n"
    steps: list[str] = []
    start = 0
    for found in re.finditer(separator, text):
        if text[start : found.end()].strip():
            steps.append(text[start : found.end()])
            start = found.end()
    rest = text[start:]
    if rest.strip() or not steps:
        steps.append(rest)
    elif rest:
        steps[-1] += rest
    return steps


_BRACES = re.compile(r"(\\boxed)?\{|\}")
_MARKED = re.compile(
    r"^[ \t*_>#-]*"
    r"(?:####|(?:final[ \t]+)?answer[ \t]*:|A[ \t]*:|(?:so |thus,? |therefore,? )?the (?:final )?answer is:?)(.+)$",
    re.IGNORECASE | re.MULTILINE,
)


def final_answer(reply: str) -> str | None:
    r"""Read the final answer of a reply: the last `\boxed{…}`, else the last line marked as the answer.

    Marked lines are `#### 18`, `A: 18`, `Answer: 18` and `The answer is 18.`; a full stop at the end is not part of
    the answer. None when the reply marks no answer: a number that merely comes last is not taken for one.
    """
    return _last_boxed(reply) or _last_marked(reply)


def _last_boxed(reply: str) -> str | None:
    """The content of the last closed box that is not empty; one pass, however many braces are never closed."""
    opened: list[int | None] = []
    last, answer = -1, None
    for brace in _BRACES.finditer(reply):
        if brace[0] != "}":
            opened.append(brace.end() if brace[1] else None)
        elif opened and (start := opened.pop()) is not None and start > last:
            content = reply[start : brace.start()].strip()
            last, answer = (start, content) if content else (last, answer)
    return answer


def _last_marked(reply: str) -> str | None:
    found = _MARKED.findall(reply)
    answer = found[-1].strip(" \t*_") if found else ""
    return answer.removesuffix(".").strip() or None
