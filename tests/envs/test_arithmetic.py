"""The arithmetic env: problems, splits, the reference solution and the checker of steps."""

import ast
import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import Arithmetic, ConfigError, check_env, make_env
from envs.arithmetic import (
    LARGEST,
    LEVELS,
    Numbers,
    Step,
    check_step,
    make_expression,
    numbers_of,
    parse_expression,
    parse_step,
    question,
    reference,
    run_report,
    split_of,
)
from envs.types import Checks

levels = st.sampled_from(LEVELS)
sizes = st.sampled_from(["small", "large"])
seeds = st.integers(0, 10**6)


def value(expression: str) -> int:
    """The value by Python's own grammar: an oracle that shares nothing with the env."""
    operations = {ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b}

    def walk(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return operations[type(node.op)](walk(node.left), walk(node.right))
        assert isinstance(node, ast.Constant) and isinstance(node.value, int)
        return node.value

    return walk(ast.parse(expression, mode="eval").body)


@given(levels, sizes, seeds)
def test_problems_are_as_asked(level: int, numbers: Numbers, seed: int) -> None:
    expression = make_expression(random.Random(seed), level, numbers)
    steps = reference(expression)
    assert len(steps) == level
    assert steps[-1].result == value(expression)
    assert numbers_of(expression) == numbers
    assert all(0 <= n <= LARGEST[numbers] for step in steps for n in (step.left, step.right, step.result))
    assert parse_expression(question(expression)) == expression


@given(levels, sizes, seeds)
def test_reference_steps_are_right_in_their_order(level: int, numbers: Numbers, seed: int) -> None:
    expression = make_expression(random.Random(seed), level, numbers)
    steps = [str(step) for step in reference(expression)]
    for i, step in enumerate(steps):
        assert check_step(expression, steps[:i], step).status == "correct"


@given(levels, sizes, seeds, st.integers(-50, 50).filter(bool))
def test_a_wrong_result_is_incorrect(level: int, numbers: Numbers, seed: int, offset: int) -> None:
    rng = random.Random(seed)
    expression = make_expression(rng, level, numbers)
    steps = reference(expression)
    i = rng.randrange(level)
    wrong = steps[i]._replace(result=steps[i].result + offset)
    assert check_step(expression, [str(s) for s in steps[:i]], str(wrong)).status == "incorrect"


@given(levels, seeds)
def test_a_slip_makes_one_step_wrong(level: int, seed: int) -> None:
    rng = random.Random(seed)
    expression = make_expression(rng, level, "large")
    slip = rng.randrange(level)
    steps = [str(s) for s in reference(expression, {slip: reference(expression)[slip].result + 1})]
    verdicts = [check_step(expression, steps[:i], step).status for i, step in enumerate(steps)]
    assert verdicts == ["incorrect" if i == slip else "correct" for i in range(level)]


@pytest.mark.parametrize(
    ("expression", "before", "step", "status"),
    [
        ("46 + 7 * 2", [], "46 + 7 = 53", "incorrect"),  # the product comes first
        ("46 + 7 * 2", [], "2 * 7 = 14", "correct"),  # either order of the factors
        ("46 + 7 * 2", ["7 * 2 = 14"], "14 + 46 = 60", "correct"),
        ("46 - 9 + 3", [], "9 + 3 = 12", "incorrect"),  # would be 46 - (9 + 3)
        ("46 - 9 + 3", [], "9 - 46 = -37", "incorrect"),
        ("1 + 2 + 3", [], "2 + 3 = 5", "correct"),  # sums may start in the middle
        ("5 + 5 + 5", ["5 + 5 = 10"], "10 + 5 = 15", "correct"),
        ("8 * 3 - 4", ["8 * 3 = 25"], "25 - 4 = 21", "correct"),  # goes on from the slip
        ("8 * 3 - 4", ["8 * 3 = 25"], "24 - 4 = 20", "incorrect"),
        ("1 + 2", [], "1 + 2 = 3 and more", "unparsed"),
        ("1 + 2", [], "", "unparsed"),
        ("1 + 2", ["nonsense"], "1+2=3", "correct"),
    ],
)
def test_check_step(expression: str, before: list[str], step: str, status: str) -> None:
    assert check_step(expression, before, step).status == status


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=3))
def test_check_step_takes_any_text(step: str, before: Sequence[str]) -> None:
    assert check_step("46 + 7 * 2", before, step).status in ("correct", "incorrect", "unparsed")


@pytest.mark.parametrize("text", ["", "1", "1 +", "+ 1 2", "1 / 2", "1 + 2 = 3", "What is it?", "1 + (2)", "1 ++ 2"])
def test_what_is_no_expression(text: str) -> None:
    assert parse_expression(text) is None


def test_numbers_of_out_of_range() -> None:
    assert numbers_of("3 - 5") is None
    assert numbers_of("500 * 2") is None
    assert numbers_of("9 * 9 + 9") == "small"


@pytest.mark.parametrize("numbers", ["small", "large"])
def test_splits_are_disjoint_whatever_the_seed(numbers: Numbers) -> None:
    drawn = {split: set() for split in ("train", "validation", "test")}
    for split, expressions in drawn.items():
        for level in (1, 3, 8):
            for seed in range(3):
                env = Arithmetic(level, numbers, seed)
                expressions |= {task.details["expression"] for task in env.tasks(60, split)}  # pyright: ignore
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


@given(levels, sizes, seeds)
def test_the_split_is_decided_by_the_text_alone(level: int, numbers: Numbers, seed: int) -> None:
    expression = make_expression(random.Random(seed), level, numbers)
    assert split_of(expression) == split_of(str(expression)) in ("train", "validation", "test")


def test_tasks_are_the_same_again_and_differ_by_seed() -> None:
    assert Arithmetic(4).tasks(20) == Arithmetic(4).tasks(20)
    assert Arithmetic(4, seed=1).tasks(20) != Arithmetic(4).tasks(20)


def test_conformance() -> None:
    check_env(make_env("arithmetic", level=3))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        *(("60", "correct"), ("60.0", "correct"), ("$60$", "correct"), ("61", "incorrect"), ("-60", "incorrect")),
        *(("sixty", "unparsed"), ("60 or 61", "unparsed"), (None, "unparsed")),
    ],
)
def test_judge(answer: str | None, status: str) -> None:
    env = Arithmetic(2)
    task = env.tasks(1)[0].model_copy(update={"answers": ("60",)})
    assert asyncio.run(env.judge(task, answer)).status == status


def test_a_comma_groups_thousands_and_nothing_else() -> None:
    env = Arithmetic()
    task = env.tasks(1)[0].model_copy(update={"answers": ("45",)})
    assert asyncio.run(env.judge(task, "4,5")).status == "unparsed"
    assert asyncio.run(env.judge(task.model_copy(update={"answers": ("1024",)}), "1,024")).status == "correct"


def test_group_counts_equal_numbers_as_one() -> None:
    assert asyncio.run(Arithmetic().group(["18", "20", "18.0", "x", " x ", "1,800", "1800"])) == [0, 1, 0, 3, 3, 5, 5]


def test_levels_and_numbers_of_tasks_are_checked() -> None:
    with pytest.raises(ConfigError, match="level must be 1 to 8, found 9"):
        make_env("arithmetic", level=9)
    with pytest.raises(ConfigError, match="too few test problems at level 1, small numbers"):
        make_env("arithmetic", level=1, numbers="small").tasks(3000)


def test_step_reads_as_written() -> None:
    assert str(Step(7, "*", 2, 14)) == "7 * 2 = 14"


def checked(reply: str) -> str | None:
    env = Arithmetic(2)
    assert isinstance(env, Checks)
    return asyncio.run(env.check(env.tasks(1)[0], reply))


@given(levels, seeds)
def test_running_right_steps_shows_nothing(level: int, seed: int) -> None:
    steps = reference(make_expression(random.Random(seed), level, "large"))
    assert checked("\n".join([*map(str, steps), f"\\boxed{{{steps[-1].result}}}"])) is None


@given(levels, seeds, st.integers(-50, 50).filter(bool), st.integers(0, 2))
def test_running_shows_the_first_wrong_step_with_its_line(level: int, seed: int, offset: int, above: int) -> None:
    rng = random.Random(seed)
    expression = make_expression(rng, level, "large")
    right, slip = reference(expression), rng.randrange(level)
    steps = reference(expression, {slip: right[slip].result + offset})
    later = [step._replace(result=step.result + 1) for step in steps[slip + 1 :]]
    reply = "\n".join([*("Let me see." for _ in range(above)), *map(str, [*steps[: slip + 1], *later])])
    assert checked(reply) == run_report(above + slip + 1, right[slip], steps[slip])


def test_what_running_shows_is_said_in_words() -> None:
    assert checked("7 * 2 = 14\n\n  14 + 3 = 18 ") == "Running it shows an error in line 3: 14 + 3 = 17, not 18."


@pytest.mark.parametrize("reply", ["", "\n", "\\boxed{5}", "It is 7 * 2 = 15.", "x = 3\n7 / 2 = 9"])
def test_text_without_steps_shows_nothing(reply: str) -> None:
    assert checked(reply) is None


def test_running_does_not_show_whether_the_step_was_to_be_done() -> None:
    env = Arithmetic(2)
    task = env.tasks(1)[0]
    assert asyncio.run(env.check(task, "1 + 1 = 2\n\\boxed{2}")) is None
    assert asyncio.run(env.judge(task, "2")).status == "incorrect"


@given(st.lists(st.sampled_from(["1", "20", " + ", "-", "*", " = ", "\n", " ", "\\boxed{", "x", "٣"])).map("".join))
def test_any_text_can_be_run(text: str) -> None:
    said = checked(text)
    assert said is None or said.startswith("Running it shows an error in line ")


async def test_numbers_without_end_are_no_step() -> None:
    endless = f"1 + {'9' * 5000} = 2"
    assert parse_step(endless) is None
    assert check_step("1 + 2", [endless], endless).status == "unparsed"
    assert await Arithmetic().check(Arithmetic().tasks(1)[0], f"{endless}\n\\boxed{{2}}") is None
