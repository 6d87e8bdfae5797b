"""Making up problems: a task is a brief, and what is judged is the problem that somebody posed.

A problem counts as correct where it is one of the asked env, with as many operations and numbers in the asked range.
Nobody who learns from it needs to be told so: it measures a proposer. Answers to a problem are grouped as the env that
it is of does. Made for arithmetic; an env of your own that is Poses can be handed over in Python.
"""

from collections.abc import Sequence

from envs.arithmetic import Arithmetic, Numbers, brief
from envs.errors import ConfigError, clip
from envs.types import Split, Task, Verdict


class Proposals:
    """The env. Tasks differ in nothing but their id and, with several levels, in which of them they ask for."""

    def __init__(self, levels: int | str = 7, numbers: Numbers = "large"):
        """
        Args:
            levels: operations of the problems that are asked for, 1 to 8; with commas between, tasks take turns.
            numbers: of the problems; see env arithmetic.
        """
        self.name = "proposals"
        try:
            self.of = [Arithmetic(int(level), numbers) for level in str(levels).split(",")]
        except ValueError as error:
            raise ConfigError(f"env proposals: expected levels as in 6,7,8, found {clip(levels)}: {error}") from None

    def tasks(self, n: int | None = None, split: Split = "test") -> list[Task]:
        n = 100 if n is None else n
        asked = [(env, env.tasks(1, "train")[0].question) for env in self.of]
        return [_task(f"proposals-{split}-{i}", *asked[i % len(asked)]) for i in range(n)]

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        if answer is None or not answer.strip():
            return Verdict.unparsed()
        found = self.posed(answer)
        if found is None:
            return Verdict.incorrect(f"expected {task.question}, found {clip(answer)}")
        level, numbers = (found.details[key] for key in ("level", "numbers"))
        if level != task.details["level"] or numbers not in ("small", task.details["numbers"]):
            return Verdict.incorrect(f"expected {task.question}, found {level} operations on {numbers} numbers")
        return Verdict.correct()

    def posed(self, question: str) -> Task | None:
        """See envs.types.Poses."""
        return self.of[0].posed(question)

    async def group(self, answers: Sequence[str]) -> list[int]:
        return await self.of[0].group(answers)


def _task(id: str, env: Arithmetic, example: str) -> Task:
    details = {"level": env.level, "numbers": env.numbers}
    return Task(id=id, question=brief(env.level, env.numbers), answers=(example,), details=details)
