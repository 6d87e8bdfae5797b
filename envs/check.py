"""The conformance check that any env must pass: `check_env(env)` in a test of yours."""

import asyncio
import json
import time

from envs.types import Env, Task, Verdict, final_answer

HOSTILE = (
    "",
    " ",
    "I do not know.",
    "\\boxed{",
    "{" * 2000,
    "9" * 5000,
    "\x00\ud7ff\U0001f600",
    "<script>alert(1)</script>",
    "__import__('os').system('true')",
    "9**9**9**9",
    "\\frac{1}{0}",
)
"""Final answers that a model may give: each must get a verdict that is not correct, in time."""


def check_env(env: Env, n: int = 5, timeout_s: float = 60.0) -> None:
    """Test an env's promises on its first `n` test tasks.

    Tasks: the same at every call, ids unique, JSON-serialisable, a shorter request is a prefix of a longer one.
    Verdicts: each accepted answer is correct; no answer is unparsed; echoed questions, several answers at once and
    hostile texts are not correct; every verdict comes within `timeout_s` and without an exception. Groups: an answer
    is grouped with itself and under its first occurrence.

    Raises:
        AssertionError: naming the promise that is broken.
    """
    assert isinstance(env, Env), f"{env!r} lacks name, tasks, judge or group"
    tasks = list(env.tasks(n))
    assert len(tasks) == n, f"tasks({n}) gave {len(tasks)}"
    assert [task.id for task in env.tasks(n)] == [task.id for task in tasks], "tasks differ between two calls"
    assert list(env.tasks(n - 1)) == tasks[: n - 1], f"tasks({n - 1}) is not the beginning of tasks({n})"
    assert len({task.id for task in tasks}) == n, "task ids are not unique"
    asyncio.run(_check_verdicts(env, tasks, timeout_s))


async def _check_verdicts(env: Env, tasks: list[Task], timeout_s: float) -> None:
    for task in tasks:
        assert Task.model_validate(json.loads(task.model_dump_json())) == task, f"{task.id} does not survive JSON"
        assert task.question.strip() and task.answers, f"{task.id} lacks a question or an answer"
        for answer in task.answers:
            verdict = await _judge(env, task, answer, timeout_s)
            assert verdict.status == "correct", f"{task.id}: its own answer {answer!r} is {verdict}"
            boxed = final_answer(f"So it is\n\\boxed{{{answer}}}")
            assert boxed == answer, f"{task.id}: {answer!r} does not survive being boxed: {boxed!r}"
        assert (await _judge(env, task, None, timeout_s)).status == "unparsed", f"{task.id}: no answer is not unparsed"
        several = f"{task.answers[0]} or {task.answers[0]}1"
        for answer in (*HOSTILE, task.question, several):
            verdict = await _judge(env, task, answer, timeout_s)
            assert verdict.status != "correct", f"{task.id}: {answer[:80]!r} was judged correct"
    answers = [task.answers[0] for task in tasks]
    groups = await env.group([*answers, *answers])
    assert groups[: len(answers)] == groups[len(answers) :], "the same answers were grouped differently"
    assert all(groups[g] == g <= i for i, g in enumerate(groups)), f"groups do not name first occurrences: {groups}"


async def _judge(env: Env, task: Task, answer: str | None, timeout_s: float) -> Verdict:
    started = time.monotonic()
    verdict = await asyncio.wait_for(env.judge(task, answer), timeout_s)
    assert isinstance(verdict, Verdict), f"{task.id}: expected a Verdict, found {verdict!r}"
    assert (verdict.score is None) == (verdict.status == "unscorable"), f"{task.id}: {verdict} has the wrong score"
    assert time.monotonic() - started <= timeout_s, f"{task.id}: judging {str(answer)[:80]!r} took too long"
    return verdict
