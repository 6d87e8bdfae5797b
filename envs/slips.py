"""Errors in arithmetic, made by rule as slips make them: what corpora and controls are spoiled with.

Whatever is drawn is drawn in one order: the embedded model's corpus depends on it.
"""

import random
from collections.abc import Sequence

from envs.arithmetic import LARGEST, Step, check_step, compute, parse_step
from envs.types import ERROR_KINDS, ErrorKind


def wrong_step(expression: str, steps: Sequence[Step], index: int, rng: random.Random) -> tuple[ErrorKind, Step]:
    """A wrong version of the step at `index` of a solution and its kind; the env's own checker confirms it."""
    before = [str(step) for step in steps[:index]]
    while True:
        kind = rng.choices(ERROR_KINDS, (0.4, 0.2, 0.15, 0.15, 0.1))[0]
        step = _spoil(expression, steps, index, kind, rng)
        if step is None or not 0 <= step.result <= LARGEST["large"]:
            continue
        if check_step(expression, before, str(step)).status == "incorrect":
            return kind, step


def error_kind(right: str, wrong: str) -> ErrorKind:
    """The kind of error that makes a wrong step of a right one; `calculation` where the two are no equations."""
    a, b = parse_step(right), parse_step(wrong)
    if a is None or b is None:
        return "calculation"
    if a.operation != b.operation:
        return "operation"
    if (a.left, a.right) != (b.left, b.right):
        return "number"
    one, other = str(a.result), str(b.result)
    swapped = sorted(one) == sorted(other)
    changed = len(one) == len(other) and sum(x != y for x, y in zip(one, other, strict=True)) == 1
    return "digit" if swapped or changed else "calculation"


def off(value: int, rng: random.Random) -> int:
    """A number near `value` as slips make it: units, tens or hundreds off, or one digit changed or swapped."""
    while True:
        draw = rng.random()
        if draw < 0.75:
            wrong = value + rng.choice(
                (1, -1, 2, -2) if draw < 0.4 else (10, -10, 20, -20) if draw < 0.68 else (100, -100)
            )
        else:
            wrong = _other_digit(value, rng)
        if wrong != value and 0 <= wrong <= LARGEST["large"]:
            return wrong


def _other_digit(value: int, rng: random.Random) -> int:
    digits = list(str(value))
    i = rng.randrange(len(digits))
    if len(digits) > 1 and rng.random() < 0.4:
        i = rng.randrange(len(digits) - 1)
        digits[i], digits[i + 1] = digits[i + 1], digits[i]
    else:
        digits[i] = str(rng.randint(0, 9))
    return int("".join(digits))


def _spoil(expression: str, steps: Sequence[Step], index: int, kind: ErrorKind, rng: random.Random) -> Step | None:
    step = steps[index]
    if kind == "calculation":
        offset = rng.choice((1, -1, 2, -2, 10, -10, 20, -20, 100, -100))
        return step._replace(result=step.result + offset)
    if kind == "digit":
        return step._replace(result=_other_digit(step.result, rng))
    if kind == "number":
        others = [n for s in steps for n in (s.left, s.right)]
        right = rng.choice(others) if rng.random() < 0.5 else off(step.right, rng)
        return Step(step.left, step.operation, right, compute(step.left, step.operation, right))
    if kind == "operation":
        operation = {"+": "-", "-": "+", "*": "+"}[step.operation]
        result = compute(step.left, operation, step.right)
        written = operation if rng.random() < 0.6 else step.operation
        return Step(step.left, written, step.right, result)
    return _too_early(expression, rng)


def _too_early(expression: str, rng: random.Random) -> Step:
    """An operation between neighbours of the expression whose turn has not come, computed rightly."""
    tokens = expression.split()
    i = rng.choice(range(1, len(tokens), 2))
    left, operation, right = int(tokens[i - 1]), tokens[i], int(tokens[i + 1])
    return Step(left, operation, right, compute(left, operation, right))
