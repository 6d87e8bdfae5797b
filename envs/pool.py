"""A pool of made-up problems with the labels that votes gave them: what Agent0's solver learns from.

One JSON object a line: `id`, `question`, `answer` (the label) and `details`, which become the task's. What is
equivalent to a label, another env says: the one that the problems were made up for. Written by
experiments.training.pool.
"""

from collections.abc import Sequence
from pathlib import Path

from envs.arithmetic import Arithmetic
from envs.dataset import Dataset, Format
from envs.errors import ConfigError, clip
from envs.rows import read_rows
from envs.types import Env, Split, Task, Verdict


class Pool:
    """The env. All tasks are of the train split: a label is no truth to be measured by."""

    def __init__(self, path: Path | None = None, like: str = "arithmetic"):
        """
        Args:
            path: a .jsonl file.
            like: whose equivalence holds: arithmetic, or dataset for that of math-verify.
        """
        if path is None:
            raise ConfigError("env pool needs a file: --set env.path=FILE")
        self.name, self.path = "pool", path
        self._tasks = [_task(place, row) for place, row in read_rows("pool", path)]
        if not self._tasks:
            raise ConfigError(f"env pool: {path} holds no rows")
        if like not in ("arithmetic", "dataset"):
            raise ConfigError(f"env pool: like: expected arithmetic or dataset, found {clip(like)}")
        self._like: Env = Arithmetic() if like == "arithmetic" else Dataset("pool", path, Format())

    def tasks(self, n: int | None = None, split: Split = "train") -> Sequence[Task]:
        if split != "train":
            raise ConfigError(f"env pool has one split, train: its labels are votes, no truth; asked for {split}")
        if n is not None and n > len(self._tasks):
            raise ConfigError(f"env pool: asked for {n} tasks, {self.path} has {len(self._tasks)}")
        return self._tasks[:n]

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        if answer is None or not answer.strip():
            return Verdict.unparsed()
        if isinstance(self._like, Dataset):
            return await self._like.judge(task, answer)  # what cannot be compared is unscorable
        (label,) = task.answers
        if (await self.group([label, answer]))[1] == 0:
            return Verdict.correct()
        return Verdict.incorrect(f"expected the label {label}, found {clip(answer)}")

    async def group(self, answers: Sequence[str]) -> list[int]:
        return await self._like.group(answers)


def _task(place: str, row: dict[str, object]) -> Task:
    try:
        shown = {key: row[key] for key in ("id", "question", "details")}
        return Task.model_validate({**shown, "answers": (row["answer"],)})
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"env pool: {place}: expected id, question, answer and details, found {clip(row)}: "
            f"{type(error).__name__}; take a file that agent0 wrote"
        ) from None
