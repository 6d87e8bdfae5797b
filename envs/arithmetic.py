"""Arithmetic on whole numbers, made on the fly: the env on which everything can be tried without a data set.

A problem is a sum of numbers and products of two, such as `What is 46 + 7 * 2 - 9?`. Its level is the number of
operations; with `numbers="small"` every value on the way stays in 0–99, with `"large"` in 0–999 (and one at least is
above 99). Each expression belongs to one split, decided by a hash of its text, so that the splits are disjoint for
every seed and level; the embedded model was trained on the train split alone.

Beside tasks and verdicts the env knows the steps: `reference` writes a solution step by step, `check_step` judges one
step after others. Both are pure functions of text, used to build corpora and to score critics and saboteurs.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from envs.errors import ConfigError
from envs.types import ErrorKind, Split, Task, Verdict

LEVELS = range(1, 9)
LONGEST = 400
"""Characters of a question that is read as a problem: a model may write numbers without end."""
Numbers = Literal["small", "large"]
LARGEST: dict[Numbers, int] = {"small": 99, "large": 999}
_OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
_EXPRESSION = re.compile(r"\d+(?: [-+*] \d+)+")
_STEP = re.compile(r"(\d{1,18})\s*([-+*])\s*(\d{1,18})\s*=\s*(-?\d{1,18})")
"""Bounded: a model may write numbers without end."""


class Step(NamedTuple):
    """One operation with its result, as in `7 * 2 = 14`."""

    left: int
    operation: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.operation} {self.right} = {self.result}"


def compute(left: int, operation: str, right: int) -> int:
    return _OPERATIONS[operation](left, right)


def split_of(expression: str) -> Split:
    """The split that an expression belongs to: 8 of 10 train, 1 validation, 1 test, by a hash of its text."""
    bucket = hashlib.sha256(expression.encode()).digest()[0] % 10
    return "test" if bucket == 9 else "validation" if bucket == 8 else "train"


def question(expression: str) -> str:
    return f"What is {expression}?"


def brief(level: int, numbers: Numbers) -> str:
    """What a proposer is asked for: the `brief` of the propose move."""
    operations = "1 operation" if level == 1 else f"{level} operations"
    return f"an arithmetic problem with {operations} on whole numbers up to {LARGEST[numbers]}"


def parse_expression(text: str) -> str | None:
    """The expression that a question (or a bare expression) asks for, in canonical spacing; None if there is none."""
    body = text.strip().removeprefix("What is").strip().removesuffix("?")
    spaced = " ".join(re.findall(r"\d+|[-+*]", body))
    if not _EXPRESSION.fullmatch(spaced) or re.sub(r"\s", "", spaced) != re.sub(r"\s", "", body):
        return None
    return spaced


def reference(expression: str, slips: Mapping[int, int] | None = None) -> list[Step]:
    """Solve left to right, computing each product when it is reached; the last step's result is the answer.

    Args:
        expression: in canonical spacing.
        slips: step index -> a result that is written there instead of the right one, and carried on.
    """
    steps: list[Step] = []

    def step(left: int, operation: str, right: int) -> int:
        result = (slips or {}).get(len(steps), compute(left, operation, right))
        steps.append(Step(left, operation, right, result))
        return result

    total: int | None = None
    operation = "+"
    for token in re.split(r" (?=[-+])| (?<=[-+] )", expression):
        if token in ("+", "-"):
            operation = token
            continue
        value, *factors = map(int, token.split(" * "))
        for factor in factors:
            value = step(value, "*", factor)
        total = value if total is None else step(total, operation, value)
    return steps


def parse_step(text: str) -> Step | None:
    match = _STEP.fullmatch(text.strip())
    return Step(int(match[1]), match[2], int(match[3]), int(match[4])) if match else None


def run_report(line: int, right: Step, found: Step) -> str:
    """What running a solution says of its first wrong step, on that line."""
    return f"Running it shows an error in line {line}: {right}, not {found.result}."


def check_step(expression: str, before: Sequence[str], step: str) -> Verdict:
    """Judge one step after the steps before it.

    A step is right when its result is right and its operation may be done next in what the steps before it leave of
    the expression: any order that precedence allows, and either order of the operands of + and *. Steps before it are
    taken as they stand, wrong results included, so that one slip makes one step wrong and not all that follow.

    Returns:
        correct, incorrect (the reason says what is wrong), or unparsed when the text is not of the form `a + b = c`.
    """
    states = {tuple(expression.split())}
    for earlier in before:
        parsed = parse_step(earlier)
        if parsed:
            states = {after for state in states for after in _reduce(state, parsed)} or states
    parsed = parse_step(step)
    if parsed is None:
        return Verdict.unparsed(f"expected a step such as 7 * 2 = 14, found {step[:60]!r}")
    if not any(_reduce(state, parsed) for state in states):
        remaining = " or ".join(sorted(" ".join(state) for state in states))
        return Verdict.incorrect(f"{parsed.left} {parsed.operation} {parsed.right} is no next operation of {remaining}")
    right = compute(parsed.left, parsed.operation, parsed.right)
    if parsed.result != right:
        return Verdict.incorrect(f"{parsed.left} {parsed.operation} {parsed.right} is {right}, not {parsed.result}")
    return Verdict.correct()


def _reduce(state: tuple[str, ...], step: Step) -> set[tuple[str, ...]]:
    """Every expression that is left when the step's operation is done at a place where precedence allows it."""
    left, right, result = str(step.left), str(step.right), str(step.result)
    after = set()
    for i in range(1, len(state), 2):
        if state[i] != step.operation:
            continue
        operands = (state[i - 1], state[i + 1])
        if operands != (left, right) and (step.operation == "-" or operands != (right, left)):
            continue
        previous = state[i - 2] if i > 1 else "+"
        following = state[i + 2] if i + 2 < len(state) else "+"
        if step.operation == "*" or (previous == "+" and following != "*"):
            after.add((*state[: i - 1], result, *state[i + 2 :]))
    return after


def make_expression(rng: random.Random, level: int, numbers: Numbers) -> str:
    """Draw an expression of `level` operations; every value on the way lies in the range of `numbers`."""
    while True:
        expression = _draw(rng, level, LARGEST[numbers])
        if expression and (numbers == "small" or numbers_of(expression) == "large"):
            return expression


def numbers_of(expression: str) -> Numbers | None:
    """The smallest range that holds every value on the way; None when one falls outside 0–999."""
    values = [value for step in reference(expression) for value in (step.left, step.right, step.result)]
    if min(values) < 0 or max(values) > LARGEST["large"]:
        return None
    return "small" if max(values) <= LARGEST["small"] else "large"


def _draw(rng: random.Random, level: int, largest: int) -> str | None:
    products = min(sum(rng.random() < 0.3 for _ in range(level)), max(1, level // 2))
    places = set(rng.sample(range(level - products + 1), min(products, level - products + 1)))
    if len(places) < products:
        return None
    expression, total = "", None
    for place in range(level - products + 1):
        for _ in range(20):
            term, value = _product(rng, largest) if place in places else _number(rng, largest)
            operation = rng.choice("+-")
            result = value if total is None else compute(total, operation, value)
            if value <= largest and 0 <= result <= largest:
                expression = term if total is None else f"{expression} {operation} {term}"
                total = result
                break
        else:
            return None
    return expression


def _number(rng: random.Random, largest: int) -> tuple[str, int]:
    """Digits in a fixed mixture: one-, two- and (for large numbers) three-digit values, all of them common."""
    draw = rng.random()
    if draw < 0.3:
        value = rng.randint(1, 9)
    elif draw < 0.85 or largest < 100:
        value = rng.randint(10, 99)
    else:
        value = rng.randint(100, 499)
    return str(value), value


def _product(rng: random.Random, largest: int) -> tuple[str, int]:
    wide = rng.random() < (0.7 if largest > 99 else 0.15)
    factors = [rng.randint(2, 99 if wide else 9), rng.randint(2, 9)]
    rng.shuffle(factors)
    return f"{factors[0]} * {factors[1]}", factors[0] * factors[1]


class Arithmetic:
    """The env. Tasks depend on (seed, split, level, numbers) alone; all expressions of a sequence differ."""

    def __init__(self, level: int = 5, numbers: Numbers = "large", seed: int = 0):
        """
        Args:
            level: operations in a problem, 1 to 8.
            numbers: "small" keeps every value on the way in 0–99, "large" in 0–999.
            seed: draws another set of tasks from the same distribution.
        """
        if level not in LEVELS:
            raise ConfigError(f"env arithmetic: level must be {LEVELS[0]} to {LEVELS[-1]}, found {level}")
        self.name = "arithmetic"
        self.level, self.seed = level, seed
        self.numbers: Numbers = numbers

    def tasks(self, n: int | None = None, split: Split = "test") -> list[Task]:
        if n is None:
            n = 100
        rng = random.Random(f"{self.seed}/{split}/{self.level}/{self.numbers}")
        tasks: dict[str, Task] = {}
        misses = 0
        while len(tasks) < n:
            expression = make_expression(rng, self.level, self.numbers)
            task = _task(expression)
            if split_of(expression) != split or task.id in tasks:
                misses += 1
                if misses > 5000 + 50 * n:
                    raise ConfigError(
                        f"env arithmetic has too few {split} problems at level {self.level}, {self.numbers} numbers: "
                        f"asked for {n}, found {len(tasks)}; ask for fewer or take a higher level"
                    )
                continue
            tasks[task.id] = task
        return list(tasks.values())

    def posed(self, question: str) -> Task | None:
        """See envs.types.Poses. Of any number of operations; every value on the way has to lie in 0–999."""
        expression = parse_expression(question) if len(question) <= LONGEST else None
        return _task(expression) if expression and numbers_of(expression) else None

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        number = _integer(answer)
        if number is None:
            return (
                Verdict.unparsed() if answer is None else Verdict.unparsed(f"expected a number, found {answer[:60]!r}")
            )
        expected = int(task.answers[0])
        return Verdict.correct() if number == expected else Verdict.incorrect(f"expected {expected}, found {number}")

    async def check(self, task: Task, reply: str) -> str | None:
        """Computes what each step of the reply says that it computes; whether it is the step to do, running it does
        not show."""
        for line, text in enumerate(reply.splitlines(), 1):
            if step := parse_step(text):
                right = step._replace(result=compute(*step[:3]))
                if right != step:
                    return run_report(line, right, step)
        return None

    def spoil(self, task: Task, before: Sequence[str], step: str, seed: int) -> tuple[ErrorKind, str] | None:
        """See envs.types.Spoils."""
        from envs.slips import wrong_step

        steps = [parsed for text in (*before, step) if (parsed := parse_step(text))]
        if len(steps) <= len(before):
            return None
        kind, wrong = wrong_step(task.details["expression"], steps, len(before), random.Random(seed))
        return kind, str(wrong)

    async def group(self, answers: Sequence[str]) -> list[int]:
        keys = [answer.strip() if (number := _integer(answer)) is None else number for answer in answers]
        return [keys.index(key) for key in keys]


def _task(expression: str) -> Task:
    level, numbers = len(reference(expression)), numbers_of(expression)
    digest = hashlib.sha256(expression.encode()).hexdigest()[:10]
    return Task(
        id=f"arithmetic-{level}-{numbers}-{digest}",
        question=question(expression),
        answers=(str(reference(expression)[-1].result),),
        details={"expression": expression, "level": level, "numbers": numbers},
    )


def _integer(answer: str | None) -> int | None:
    """A whole number, also as 1,024 or 18.0 or $18$; anything else is none."""
    match = re.fullmatch(
        r"([-+]?(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,18}))(?:\.0*)?", (answer or "").strip().strip("$").strip()
    )
    return int(match[1].replace(",", "")) if match else None
