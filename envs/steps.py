"""Steps to be judged: the env over solutions whose first wrong step is known (`envs.judged` reads them).

A task is a problem with a solution to it; its answer is the index of the first wrong step, from 0, or `none`. Asked for
solutions, each is judged whole, as ProcessBench has it. Asked for steps, one step a task is judged, as many of them
wrong as correct: plain accuracy is balanced accuracy then, the mean of those on correct and on wrong steps. What comes
after the first wrong step is never such a step: whether it is right is not known.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from envs.errors import ConfigError, clip
from envs.grading import group_by_text
from envs.judged import Form, Judged, read_judged, write_processbench
from envs.types import Split, Task, Verdict

NONE = "none"
"""The answer when no step is wrong."""


class Steps:
    """Solutions and their steps, from a file with known first errors: ProcessBench, PRM800K, DeltaBench."""

    def __init__(
        self,
        path: Path | None = None,
        form: Form = "auto",
        ask: Literal["solution", "step", "error"] = "solution",
        seed: int = 0,
        validation: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        """
        Args:
            path: .jsonl, .json (a list of objects) or .parquet.
            form: of its rows; auto goes by the first row's fields.
            ask: for the first wrong step of a whole solution; for one step a task, half of them wrong; or for the wrong
                steps alone, whose accuracy tells how many are found.
            seed: orders the tasks, and draws the correct steps that stand beside the wrong ones.
            validation: share of the problems that are the validation split, by a hash of the problem, so that they are
                the same under every seed; all solutions to one problem are in one split. The others are the test split.

        Raises:
            ConfigError: the file cannot be read, a row is malformed (named with its line), or there are no rows.
        """
        self.name = "steps"
        if path is None:
            raise ConfigError("env steps needs a file (ProcessBench, PRM800K or DeltaBench): --set env.path=FILE")
        if not 0 <= validation < 1:
            raise ConfigError(f"env steps: expected validation from 0 to below 1, found {validation}")
        self.path, self.ask, self.seed, self.validation = Path(path), ask, seed, validation
        self._records = list(read_judged(self.name, self.path, form))
        if not self._records:
            raise ConfigError(f"env steps: {path} holds no rows")
        self._tasks: dict[Split, list[Task]] = {}

    def tasks(self, n: int | None = None, split: Split = "test") -> Sequence[Task]:
        if split == "train":
            raise ConfigError("env steps has no train split: its files are for measuring; asked for train")
        if split == "validation" and not self.validation:
            raise ConfigError(
                "env steps has one file and thus one split, test; asked for validation: "
                "give a share of the problems to it with --set env.validation=0.25"
            )
        if split not in self._tasks:
            self._tasks[split] = self._make(split)
        tasks = self._tasks[split]
        if n is not None and n > len(tasks):
            raise ConfigError(
                f"env steps: asked for {n} tasks, {self.path} has {len(tasks)} in its {split} split, ask={self.ask}"
            )
        return tasks[:n]

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        if answer is None or not answer.strip():
            return Verdict.unparsed()
        found = answer.strip()
        if re.fullmatch(r"[0-9]{1,9}", found):
            found = str(int(found))
        elif found != NONE:
            return Verdict.unparsed(f"expected the index of a step or {NONE}, found {clip(answer, 60)}")
        if found in task.answers:
            return Verdict.correct()
        return Verdict.incorrect(f"expected {' or '.join(task.answers)}, found {found}")

    async def group(self, answers: Sequence[str]) -> list[int]:
        return group_by_text(answers)

    def _make(self, split: Split) -> list[Task]:
        records = [record for record in self._records if split_of(record.question, self.validation) == split]
        rng = random.Random(f"{self.seed}/{split}")
        if self.ask == "solution":
            mixed = rng.sample(records, len(records))
            tasks = [_task(f"steps-{record.id}", record, range(len(record.steps))) for record in mixed]
        else:
            wrong = [(record, record.first_wrong) for record in records if record.first_wrong is not None]
            chosen = wrong if self.ask == "error" else balanced(records, rng)
            tasks = [_task(f"steps-{record.id}-{at}", record, [at]) for record, at in chosen]
        if not tasks:
            what = "solution" if self.ask == "solution" else "wrong step with a correct one to put beside it"
            raise ConfigError(f"env steps: {self.path} has no {what} in its {split} split")
        return tasks


def given(task: Task) -> tuple[list[str], list[int]]:
    """The steps of a task's solution, and the indices of those that are to be judged.

    Raises:
        ConfigError: the task is of another env.
    """
    steps, judge = task.details.get("steps"), task.details.get("judge")
    if (
        not isinstance(steps, list)
        or not isinstance(judge, list)
        or not all(isinstance(step, str) for step in steps)
        or not all(type(at) is int and 0 <= at < len(steps) for at in judge)
    ):
        raise ConfigError(
            f"expected a task with the steps of a solution to judge, found {clip(task.id)}; play on --env steps"
        )
    return steps, judge


def split_of(question: str, validation: float) -> Split:
    """The split that a problem belongs to, by a hash of its text."""
    draw = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8]) / 2**64
    return "validation" if draw < validation else "test"


def balanced(records: Sequence[Judged], rng: random.Random) -> list[tuple[Judged, int]]:
    """Each solution's first wrong step, and as many correct ones, in a mixed order: of each two tasks one is wrong.

    A correct step is drawn at the same place of a solution as a wrong one is, so that its place tells nothing, and at
    the nearest where no solution has one there; among solutions from the one that was drawn from least. Where there are
    fewer correct steps than wrong ones, wrong ones are left out.
    """
    wrong = [(record, at) for record in records if (at := record.first_wrong) is not None]
    rng.shuffle(wrong)
    needed = Counter(at for _, at in wrong)
    reach = [len(record.steps) if record.first_wrong is None else record.first_wrong for record in records]
    drawn, lacking = _drawn(needed, reach, rng)
    kept = []
    for record, at in wrong:
        if lacking[at]:
            lacking[at] -= 1
        else:
            kept.append((record, at))
    correct = [(records[i], at) for i, at in drawn]
    rng.shuffle(correct)
    pairs = zip(kept, correct, strict=True)
    return [step for pair in pairs for step in rng.sample(pair, 2)]


def _drawn(
    needed: Counter[int], reach: Sequence[int], rng: random.Random
) -> tuple[list[tuple[int, int]], Counter[int]]:
    """Correct steps as (solution, place), and of how many at each place there are too few.

    Args:
        needed: place -> how many.
        reach: of each solution, how many steps from its beginning are correct.
        rng: decides between solutions that were drawn from equally often.
    """
    order = rng.sample(range(len(reach)), len(reach))
    used = [0] * len(reach)
    free = {at: [i for i in order if reach[i] > at] for at in range(max(reach, default=0))}
    drawn: list[tuple[int, int]] = []

    def take(at: int, n: int) -> int:
        """Draws at one place; how many were not to be had."""
        chosen = sorted(free.get(at, []), key=lambda i: used[i])[:n] if n else []
        for i in chosen:
            used[i] += 1
        if chosen:
            taken = set(chosen)
            free[at] = [i for i in free[at] if i not in taken]
        drawn.extend((i, at) for i in chosen)
        return n - len(chosen)

    # Latest places first: few solutions reach them, and those that do could be used up by places that all have.
    lacking = Counter({at: take(at, n) for at, n in sorted(needed.items(), reverse=True)})
    for at, n in lacking.items():
        for near in sorted(free, key=lambda other: (abs(other - at), other)) if n else ():
            lacking[at] = take(near, lacking[at])
    return drawn, lacking


def _task(id: str, record: Judged, judge: Sequence[int]) -> Task:
    wrong = record.first_wrong if record.first_wrong in judge else None
    return Task(
        id=id,
        question=record.question,
        answers=(NONE if wrong is None else str(wrong),),
        details={
            "steps": list(record.steps),
            "judge": list(judge),
            "first_wrong": record.first_wrong,
            "source": record.source,
        },
    )


__all__ = ["Form", "Judged", "Steps", "balanced", "given", "read_judged", "split_of", "write_processbench"]
