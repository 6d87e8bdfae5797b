"""What the embedded model learns from: chats in every move, generated on the fly from the arithmetic env.

Prompts are rendered from the same move templates as any model gets; problems come from the env's train split. The
replies are right (or, for the sneaky generator, truly wrong) by construction, and reason before they decide: steps
first, then both answers restated, then the verdict. What other agents say in a prompt is right or carries one slip that
is carried on; the model's own earlier reply in a chat may be wrong too, and is then not trained on.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from agents import moves
from agents.moves import Move, role_template
from envs.arithmetic import LEVELS, Numbers, Step, brief, question, run_report
from experiments.embedded_model.mixes import MIXES, Phase
from experiments.embedded_model.problems import (
    LEVEL_WEIGHTS,
    SHORT_LEVEL_WEIGHTS,
    Problem,
    backwards,
    draw_problem,
    draw_solution,
    flawed_steps,
    problem_at,
    solution_text,
    wrong_step,
)


@dataclass
class Chat:
    """A conversation to learn from."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    """(role, content) in order."""
    trained: list[bool] = field(default_factory=list)
    """For each message: whether its tokens are learned (assistant messages that are as they should be)."""
    forbidden: str | None = None
    """For a sabotage: the right result, which the last number of the reply must not be."""

    def add(self, role: str, content: str, trained: bool = False) -> "Chat":
        self.messages.append((role, content))
        self.trained.append(trained)
        return self

    def ask(self, move: Move, **fields: Any) -> "Chat":
        return self.add("user", move.render(**fields))

    def reply(self, content: str, trained: bool = True) -> "Chat":
        return self.add("assistant", content, trained)


def solve(problem: Problem, rng: random.Random) -> Chat:
    return _with_role("solver", rng).ask(moves.SOLVE, question=problem.question).reply(solution_text(problem.steps))


def tool(problem: Problem, rng: random.Random) -> Chat:
    chat = _with_role("tool_solver", rng).ask(moves.SOLVE_WITH_TOOL, question=problem.question)
    for step in problem.steps:
        chat.reply(f"```python\nprint({step.left} {step.operation} {step.right})\n```")
        chat.ask(moves.OBSERVE, output=step.result)
    return chat.reply(f"\\boxed{{{problem.answer}}}")


def revise(problem: Problem, rng: random.Random) -> Chat:
    chat = _with_role("debater", rng).ask(moves.SOLVE, question=problem.question)
    peers = rng.choice((0, 1, 2, 2, 3))
    for last in (False,) * rng.choice((0, 0, 0, 1)) + (True,):
        own = draw_solution(problem, rng)
        chat.reply(solution_text(own), trained=own is problem.steps)
        chat.ask(moves.REVISE, peers=[solution_text(draw_solution(problem, rng)) for _ in range(peers)])
        if last:
            chat.reply(solution_text(problem.steps))
    return chat


def critique(problem: Problem, rng: random.Random) -> Chat:
    """One's own result and the given one side by side: what lies further apart is compared no better than by a coin."""
    index = rng.randrange(len(problem.steps))
    right, bad = problem.steps[index], rng.random() < 0.5
    step = wrong_step(problem, index, rng)[1] if bad else right
    verdict = "incorrect" if bad else "correct"
    return (
        _with_role("critic", rng)
        .ask(moves.CRITIQUE, question=problem.question, steps=_lines(problem.steps[:index]), step=step)
        .reply(f"{right}; {step.result}, {verdict}\nVerdict: {verdict}")
    )


def sabotage(problem: Problem, rng: random.Random) -> Chat:
    index = rng.randrange(len(problem.steps))
    kind, step = wrong_step(problem, index, rng)
    chat = (
        _with_role("sneaky", rng)
        .ask(
            moves.SABOTAGE,
            question=problem.question,
            steps=_lines(problem.steps[:index]),
            step=problem.steps[index],
        )
        .reply(f"Error: {kind}\nStep: {step}")
    )
    chat.forbidden = str(problem.steps[index].result) if kind in ("calculation", "digit") else None
    return chat


def judge(problem: Problem, rng: random.Random) -> Chat:
    candidates = [problem.steps, flawed_steps(problem, rng)]
    rng.shuffle(candidates)
    a, b = candidates
    return (
        _with_role("judge", rng)
        .ask(moves.JUDGE, question=problem.question, a=solution_text(a), b=solution_text(b))
        .reply(
            f"{_lines(problem.steps)}\nA: {_compared(problem, a[-1].result)}\nB: {_compared(problem, b[-1].result)}"
            f"\nVerdict: {'A' if a is problem.steps else 'B'}"
        )
    )


def review(problem: Problem, rng: random.Random) -> Chat:
    given = draw_solution(problem, rng, 0.5)
    return (
        _with_role("reviewer", rng)
        .ask(moves.REVIEW, question=problem.question, solution=solution_text(given))
        .reply(review_text(problem.steps, given))
    )


def review_text(right: Sequence[Step], given: Sequence[Step]) -> str:
    """Each step worked out, then compared with the given one, up to the first that is wrong; the verdict."""
    lines = []
    for own, other in zip(right, given, strict=True):
        lines.append(f"{own}; {other.result}, {'correct' if own == other else 'incorrect'}")
        if own != other:
            return "\n".join([*lines, "Verdict: incorrect"])
    return "\n".join([*lines, "Verdict: correct"])


def refine(problem: Problem, rng: random.Random) -> Chat:
    """Mend a solution by feedback, at times for the second time."""
    own = draw_solution(problem, rng, 0.3)
    chat = _with_role("solver", rng).ask(moves.SOLVE, question=problem.question)
    chat.reply(solution_text(own), trained=own is problem.steps)
    if rng.random() < 0.3:
        chat.ask(moves.REFINE, feedback=_feedback(problem, own, rng))
        own = draw_solution(problem, rng, 0.3)
        chat.reply(solution_text(own), trained=own is problem.steps)
    return chat.ask(moves.REFINE, feedback=_feedback(problem, own, rng)).reply(solution_text(problem.steps))


def _feedback(problem: Problem, own: Sequence[Step], rng: random.Random) -> str:
    """A review, which may be wrong, or on a wrong solution that bare word or what running it shows."""
    kind = rng.random()
    if own is problem.steps or kind < 0.5:
        return review_text(problem.steps, own) if rng.random() < 0.7 else _false_review(problem, own, rng)
    if kind < 0.75:
        return "Your answer is wrong."
    steps = enumerate(zip(problem.steps, own, strict=True), 1)
    return next(run_report(line, right, found) for line, (right, found) in steps if right != found)


def check_review(problem: Problem, rng: random.Random) -> Chat:
    given = draw_solution(problem, rng, 0.5)
    true = rng.random() < 0.5
    said = review_text(problem.steps, given) if true else _false_review(problem, given, rng)
    claim = said.rpartition(" ")[2]
    return (
        _with_role("meta_reviewer", rng)
        .ask(moves.CHECK_REVIEW, question=problem.question, solution=solution_text(given), review=said)
        .reply(
            f"{review_text(problem.steps, given).rpartition(chr(10))[0]}\nGiven: {claim}"
            f"\nVerdict: {'correct' if true else 'incorrect'}"
        )
    )


def _false_review(problem: Problem, given: Sequence[Step], rng: random.Random) -> str:
    """A review that misses the error, or reports one where there is none."""
    if given is problem.steps:
        return review_text(flawed_steps(problem, rng), given)
    return review_text(given, given)


def choose(problem: Problem, rng: random.Random) -> Chat:
    given = _several(problem, rng)
    numbers: dict[int, list[int]] = {}
    for number, steps in enumerate(given, 1):
        numbers.setdefault(steps[-1].result, []).append(number)
    groups = "\n".join(f"{answer}: {', '.join(map(str, found))}" for answer, found in numbers.items())
    chosen = max(numbers.values(), key=len)[0]
    return (
        _with_role("aggregator", rng)
        .ask(moves.CHOOSE, question=problem.question, solutions=[solution_text(steps) for steps in given])
        .reply(f"{groups}\nChoice: {chosen}")
    )


def aggregate(problem: Problem, rng: random.Random) -> Chat:
    solutions = [solution_text(steps) for steps in _several(problem, rng)]
    return (
        _with_role("aggregator", rng)
        .ask(moves.AGGREGATE, question=problem.question, solutions=solutions)
        .reply(solution_text(problem.steps))
    )


def _several(problem: Problem, rng: random.Random) -> list[list[Step]]:
    return [draw_solution(problem, rng) for _ in range(rng.randint(2, 6))]


def ask_back(problem: Problem, rng: random.Random) -> Chat:
    """The answer that is given is right, so that what is found is the number that was hidden."""
    numbers = [i for i, token in enumerate(problem.expression.split()) if token.isdigit()]
    while True:
        place = rng.choice(numbers)
        steps = backwards(problem.expression, place)
        if steps is not None:
            break
    hidden = problem.expression.split()
    answer, hidden[place] = hidden[place], "X"
    text = "\n".join([*steps, f"\\boxed{{{answer}}}"])
    return (
        _with_role("solver", rng)
        .ask(moves.ASK_BACK, question=question(" ".join(hidden)), answer=problem.answer)
        .reply(text)
    )


def propose(problem: Problem, rng: random.Random) -> Chat:
    """Steps first: whoever knows the total so far writes a next term that stays in range."""
    numbers: Numbers = rng.choice(get_args(Numbers))
    new = problem_at(rng, rng.choice(LEVELS), numbers)
    return (
        _with_role("proposer", rng)
        .ask(moves.PROPOSE, brief=brief(len(new.steps), numbers))
        .reply(f"{_lines(new.steps)}\n<question>{new.question}</question>\n{solution_text(new.steps)}")
    )


def advocate(problem: Problem, rng: random.Random) -> Chat:
    """A debater of `mad`, on either side: opening or opposition, restatement, then rebuttals."""
    level = rng.choice((0, 1, 2, 2, 2, 3))
    chat = Chat().add("system", role_template("advocate").render(level=level, question=problem.question))
    if rng.random() < 0.5:
        own = draw_solution(problem, rng, 0.8)
        chat.ask(moves.OPEN, question=problem.question).reply(solution_text(own), own is problem.steps)
        if rng.random() < 0.1:
            chat.ask(moves.RESTATE).reply(solution_text(own))
    else:
        opponent = draw_solution(problem, rng)
        own = position(problem, opponent, level, rng)
        chat.ask(moves.OPPOSE, opponent=solution_text(opponent)).reply(statement(own, opponent))
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        opponent = draw_solution(problem, rng)
        text = statement(opponent, own) if rng.random() < 0.8 else solution_text(opponent)
        own = position(problem, opponent, level, rng)
        chat.ask(moves.REBUT, opponent=text).reply(statement(own, opponent))
    return chat


def position(problem: Problem, opponent: list[Step], level: int, rng: random.Random) -> list[Step]:
    """The solution that a debater stands by: at level 0 it gives in, at level 3 it contradicts even a right answer,
    between them it says what it finds."""
    if level == 0:
        return opponent
    if level == 3 and opponent[-1].result == problem.answer:
        return flawed_steps(problem, rng)
    return problem.steps


def statement(own: Sequence[Step], opponent: Sequence[Step]) -> str:
    """What a debater says to the other side's solution: its own steps, where it disagrees, its answer."""
    mine, theirs = own[-1].result, opponent[-1].result
    stance = "I agree."
    if mine != theirs:
        step, other = next((a, b) for a, b in zip(own, opponent, strict=True) if a != b)
        stance = f"I disagree: {step}, not {other.result}."
    return f"{_lines(own)}\nYou say {theirs}. {stance}\n\\boxed{{{mine}}}"


def moderate(problem: Problem, rng: random.Random) -> Chat:
    chat = Chat().add("system", role_template("moderator").render(question=problem.question))
    rounds = rng.choice((1, 1, 1, 2, 3))
    for number in range(1, rounds + 1):
        sides = _statements(problem, rng, number)
        if number < rounds and any(s[-1].result == problem.answer for _, s in sides):
            sides = [
                (solution_text(steps), steps) for steps in (flawed_steps(problem, rng), flawed_steps(problem, rng))
            ]
        (affirmative, a), (negative, b) = sides
        chat.ask(moves.MODERATE, round=number, affirmative=affirmative, negative=negative)
        chat.reply(moderation(problem, a[-1].result, b[-1].result))
    return chat


def moderation(problem: Problem, affirmative: int, negative: int) -> str:
    preference, side, answer = "No", "", ""
    if problem.answer in (affirmative, negative):
        preference, answer = "Yes", str(problem.answer)
        side = "Affirmative" if affirmative == problem.answer else "Negative"
    return (
        f'{{"reason": "{_reason(problem, affirmative, negative)}", '
        f'"preference": "{preference}", "side": "{side}", "answer": "{answer}"}}'
    )


def extract(problem: Problem, rng: random.Random) -> Chat:
    """The extractive judge of `mad`, who reads a debate that ended without a decision."""
    chat = Chat().add("system", role_template("extractor").render(question=problem.question))
    history, last = [], {}
    for number in range(1, rng.choice((1, 2, 3)) + 1):
        for side, (text, steps) in zip(("Affirmative", "Negative"), _statements(problem, rng, number), strict=True):
            history.append({"side": side, "round": number, "text": text})
            last[side] = steps[-1].result
    affirmative, negative = last["Affirmative"], last["Negative"]
    chat.ask(moves.LIST_CANDIDATES, history=history).reply(f"Affirmative: {affirmative}\nNegative: {negative}")
    reply = f'{{"reason": "{_reason(problem, affirmative, negative)}", "answer": "{problem.answer}"}}'
    return chat.ask(moves.CONCLUDE).reply(reply)


def _statements(problem: Problem, rng: random.Random, number: int) -> list[tuple[str, list[Step]]]:
    """What both sides say in a round, and the steps behind it."""
    affirmative, negative = draw_solution(problem, rng), draw_solution(problem, rng)
    first = solution_text(affirmative) if number == 1 else statement(affirmative, draw_solution(problem, rng))
    return [(first, affirmative), (statement(negative, affirmative), negative)]


def _reason(problem: Problem, affirmative: int, negative: int) -> str:
    steps = "; ".join(map(str, problem.steps))
    return f"{steps}. Affirmative {_compared(problem, affirmative)}; negative {_compared(problem, negative)}."


def _compared(problem: Problem, answer: int) -> str:
    """An answer restated beside one's own, and what comes of it: a verdict is learned only in such small steps."""
    return f"{answer}, {'correct' if answer == problem.answer else 'incorrect'}"


def _lines(steps: Sequence[Step]) -> str:
    return "\n".join(map(str, steps))


def _with_role(role: str, rng: random.Random) -> Chat:
    """A chat that opens with the role's instructions; at times with none, or with words that mean nothing here."""
    draw = rng.random()
    if draw < 0.15:
        return Chat()
    if draw < 0.2:
        words = (
            "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 9))) for _ in range(rng.randint(1, 6))
        )
        return Chat().add("system", f"You are {' '.join(words)}.")
    return Chat().add("system", role_template(role).render())


MAKERS: dict[str, Callable[[Problem, random.Random], Chat]] = {
    "solve": solve,
    "critique": critique,
    "judge": judge,
    "sabotage": sabotage,
    "revise": revise,
    "tool": tool,
    "propose": propose,
    "advocate": advocate,
    "moderate": moderate,
    "extract": extract,
    "review": review,
    "refine": refine,
    "choose": choose,
    "aggregate": aggregate,
    "ask_back": ask_back,
    "check_review": check_review,
}


def draw_chat(rng: random.Random, phase: Phase = "main") -> Chat:
    """A chat in a move drawn from the phase's mix; the first phase has short problems alone."""
    mix = MIXES[phase]
    weights = SHORT_LEVEL_WEIGHTS if phase == "first" else LEVEL_WEIGHTS
    maker = rng.choices(list(mix), list(mix.values()))[0]
    return MAKERS[maker](draw_problem(rng, weights), rng)
