"""Equal budgets: self-consistency with as many calls or tokens as another topology took.

A run of `vote` with n samples holds self-consistency with every k up to n: its first k solutions are those that a run
with k samples draws.
"""

import asyncio
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from envs.errors import ConfigError
from envs.types import Env, Task
from experiments.runs import Run
from experiments.stats import Scores
from graphs.table import plurality

Budget = Literal["calls", "tokens"]
RULER = "vote"


@dataclass(frozen=True)
class _Drawn:
    """The solutions of one episode, each with its answer, if it has one, and its tokens."""

    task: Task
    answers: list[str | None]
    tokens: list[int]


class Ruler:
    """A run of `vote`, read at every number of samples."""

    def __init__(self, run: Run, env: Env):
        """
        Args:
            run: of the topology vote.
            env: that of the run; says which answers are equivalent, and which are right.

        Raises:
            ConfigError: a run of another topology, or without an episode that ended.
        """
        played = run.config["topology"]["name"]
        if played != RULER:
            raise ConfigError(f"run {run.name} plays {played}: name a run of vote first, whose samples are the budget")
        self.run, self._env = run, env
        self._drawn = [
            _Drawn(e.task, [t.answer for t in e.turns], [t.prompt_tokens + t.completion_tokens for t in e.turns])
            for e in run.episodes()
            if e.failure is None
        ]
        if not self._drawn:
            raise ConfigError(f"run {run.name} has no episode that ended; `palaestra show {run.name}` says why")
        self.run, self._env = run, env
        self.most = min(len(drawn.answers) for drawn in self._drawn)
        self._cost = [sum(sum(d.tokens[:k]) for d in self._drawn) / len(self._drawn) for k in range(self.most + 1)]
        self._groups: list[list[int]] = []

    def tokens(self, samples: int) -> float:
        """Prompt and completion tokens an episode takes on average."""
        return self._cost[samples]

    def samples_for(self, budget: Budget, amount: float) -> int | None:
        """The fewest samples that take at least as many calls or tokens an episode; None when the run has too few."""
        if budget == "calls":
            samples = max(1, math.ceil(amount))
            return samples if samples <= self.most else None
        return next((k for k in range(1, self.most + 1) if self._cost[k] >= amount), None)

    async def scores(self, samples: int) -> Scores:
        """Task id -> scores of self-consistency with so many samples; what the env cannot judge is absent."""
        if not self._groups:
            self._groups = list(await asyncio.gather(*map(self._grouped, self._drawn)))
        pairs = zip(self._drawn, self._groups, strict=True)
        judged = await asyncio.gather(*(self._score(drawn, groups[:samples]) for drawn, groups in pairs))
        scores: dict[str, list[float]] = defaultdict(list)
        for drawn, score in zip(self._drawn, judged, strict=True):
            if score is not None:
                scores[drawn.task.id].append(score)
        return scores

    async def _grouped(self, drawn: _Drawn) -> list[int]:
        """Of each solution the number of the first one with an equivalent answer; -1 for those without an answer."""
        given = [i for i, answer in enumerate(drawn.answers) if answer is not None]
        found = await self._env.group([drawn.answers[i] or "" for i in given]) if given else []
        groups = [-1] * len(drawn.answers)
        for i, first in zip(given, found, strict=True):
            groups[i] = given[first]
        return groups

    async def _score(self, drawn: _Drawn, groups: list[int]) -> float | None:
        winner = plurality([group for group in groups if group >= 0])
        return (await self._env.judge(drawn.task, None if winner is None else drawn.answers[winner])).score
