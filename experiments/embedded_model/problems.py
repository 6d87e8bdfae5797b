"""Problems of the arithmetic env with right and wrong steps and solutions: what corpus and evaluation are made of."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from envs import slips
from envs.arithmetic import (
    LARGEST,
    LEVELS,
    Numbers,
    Step,
    compute,
    make_expression,
    question,
    reference,
    split_of,
)
from envs.types import ErrorKind, Split

LEVEL_WEIGHTS = (0.18, 0.17, 0.16, 0.15, 0.13, 0.11, 0.06, 0.04)
SHORT_LEVEL_WEIGHTS = (0.45, 0.35, 0.2, 0, 0, 0, 0, 0)
LARGE_SHARE = 0.6
RIGHT_SHARE = 0.6
"""How often another agent's solution in a prompt is right."""


@dataclass(frozen=True)
class Problem:
    """An expression of the train split with its canonical solution."""

    expression: str
    steps: list[Step]

    @property
    def question(self) -> str:
        return question(self.expression)

    @property
    def answer(self) -> int:
        return self.steps[-1].result


def draw_problem(rng: random.Random, weights: Sequence[float] = LEVEL_WEIGHTS) -> Problem:
    level = rng.choices(LEVELS, weights)[0]
    return problem_at(rng, level, "large" if rng.random() < LARGE_SHARE else "small")


def problem_at(rng: random.Random, level: int, numbers: Numbers, split: Split = "train") -> Problem:
    while True:
        expression = make_expression(rng, level, numbers)
        if split_of(expression) == split:
            return Problem(expression, reference(expression))


def solution_text(steps: Sequence[Step]) -> str:
    return "\n".join([*map(str, steps), f"\\boxed{{{steps[-1].result}}}"])


def backwards(expression: str, place: int) -> list[str] | None:
    """The steps from the answer back to the number at `place` of the expression's tokens: what comes before it is
    computed, what comes after it is undone from the end. None where a factor of 0 leaves it open."""
    tokens = expression.split()
    terms: list[tuple[str, list[int]]] = []
    for i in range(0, len(tokens), 2):
        if i and tokens[i - 1] == "*":
            terms[-1][1].append(i)
        else:
            terms.append((tokens[i - 1] if i else "+", [i]))
    steps: list[str] = []

    def write(left: int, operation: str, right: int) -> int:
        result = left // right if operation == "/" else compute(left, operation, right)
        steps.append(f"{left} {operation} {right} = {result}")
        return result

    def value(factors: Sequence[int]) -> int:
        product = int(tokens[factors[0]])
        for factor in factors[1:]:
            product = write(product, "*", int(tokens[factor]))
        return product

    at = next(i for i, (_, factors) in enumerate(terms) if place in factors)
    before: int | None = None
    for operation, factors in terms[:at]:
        worth = value(factors)
        before = worth if before is None else write(before, operation, worth)
    after = reference(expression)[-1].result
    for operation, factors in reversed(terms[at + 1 :]):
        after = write(after, "-" if operation == "+" else "+", value(factors))
    operation, factors = terms[at]
    if before is not None:
        after = write(after, "-", before) if operation == "+" else write(before, "-", after)
    others = [int(tokens[factor]) for factor in factors if factor != place]
    for other in others:
        if other == 0:
            return None
        after = write(after, "/", other)
    return steps


def flawed_steps(problem: Problem, rng: random.Random) -> list[Step]:
    """The canonical steps with one wrong result that is carried on; the answer is wrong and within 0–999."""
    while True:
        slip = rng.randrange(len(problem.steps))
        steps = reference(problem.expression, {slip: slips.off(problem.steps[slip].result, rng)})
        if steps[-1].result != problem.answer and all(0 <= step.result <= LARGEST["large"] for step in steps):
            return steps


def wrong_step(problem: Problem, index: int, rng: random.Random) -> tuple[ErrorKind, Step]:
    """A wrong version of a step and its kind."""
    return slips.wrong_step(problem.expression, problem.steps, index, rng)


def draw_solution(problem: Problem, rng: random.Random, right_share: float = RIGHT_SHARE) -> list[Step]:
    return problem.steps if rng.random() < right_share else flawed_steps(problem, rng)
