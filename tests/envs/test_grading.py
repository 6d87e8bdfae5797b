"""Equivalence of answers, in processes that can be killed."""

import asyncio
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.grading import Grader, GraderError, equivalent, group_by_text, group_equivalent, same_number, same_text


@pytest.fixture(scope="module")
def grader() -> Grader:
    return Grader(timeout_s=20)


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("\\frac{3}{2}", "1.5", True),
        ("\\frac{3}{2}", "3/2", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", True),
        ("3\\sqrt{13}", "\\sqrt{117}", True),
        ("18", "18 dollars", True),
        ("18", "18 cm per day", True),
        ("18", "18 dozen", False),
        ("\\frac{3}{2}", "\\frac{2}{3}", False),
        ("4", "4 or 5", False),
        ("4", "There are many ways to see it but all of them give 4", False),
        ("p - q", "q - p", False),
    ],
)
def test_equivalent(grader: Grader, reference: str, answer: str, same: bool) -> None:
    assert asyncio.run(grader.call(equivalent, reference, answer)) is same


def test_groups(grader: Grader) -> None:
    answers = ["1/2", "0.5", "\\frac{1}{2}", "3", "3.0", "x"]
    assert asyncio.run(grader.call(group_equivalent, answers)) == [0, 0, 0, 3, 3, 5]
    assert group_by_text(answers) == [0, 1, 2, 3, 3, 5]


@given(st.lists(st.text(max_size=5), max_size=8))
def test_groups_name_first_occurrences(answers: list[str]) -> None:
    groups = group_by_text(answers)
    assert all(groups[group] == group <= i for i, group in enumerate(groups))
    assert all(
        same_text(answers[i], answers[group]) or same_number(answers[i], answers[group])
        for i, group in enumerate(groups)
    )


def test_plain_numbers() -> None:
    assert same_number("1,024", "1024.0") is True
    assert same_number("18", "19") is False
    assert same_number("0.33", "0.333") is None
    assert same_number("1e5", "100000") is None
    assert same_number("9" * 5000, "1") is None


def test_spaces_between_digits_count() -> None:
    assert same_text("11/2", "1 1 / 2") is False and same_text("12", "1 2") is False
    assert same_text("x + 1", "x+1") and same_text("$ 3. $", "3") and same_text("1 1/2", "1  1/2")


def test_a_worker_that_died_while_idle_costs_nobody_an_answer() -> None:
    grader = Grader()
    process = asyncio.run(grader.call(os.getpid))
    os.kill(process, signal.SIGKILL)
    time.sleep(0.1)
    assert asyncio.run(grader.call(len, "four")) == 4
    grader.close()


def test_a_call_that_hangs_is_killed_and_the_next_one_works() -> None:
    grader = Grader(timeout_s=1)
    with pytest.raises(GraderError, match="no result within 1 s"):
        asyncio.run(grader.call(time.sleep, 600))
    grader.timeout_s = 30
    assert asyncio.run(grader.call(abs, -3)) == 3
    grader.close()


def test_a_worker_that_dies_is_said_to_and_replaced() -> None:
    grader = Grader(timeout_s=30)
    with pytest.raises(GraderError, match="the worker process died"):
        asyncio.run(grader.call(os._exit, 3))
    assert asyncio.run(grader.call(abs, -3)) == 3
    grader.close()


def test_a_hung_worker_is_really_gone() -> None:
    grader = Grader(timeout_s=30)
    pid = asyncio.run(grader.call(os.getpid))
    grader.timeout_s = 0.5
    with pytest.raises(GraderError):
        asyncio.run(grader.call(time.sleep, 600))
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"worker {pid} still runs")


def test_what_the_function_raises_reaches_the_caller(grader: Grader) -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(grader.call(divmod, 1, 0))
    assert asyncio.run(grader.call(abs, -1)) == 1


def test_calls_at_the_same_time_are_each_answered(grader: Grader) -> None:
    async def many() -> list[int]:
        return await asyncio.gather(*(grader.call(abs, -i) for i in range(20)))

    assert asyncio.run(many()) == list(range(20))
