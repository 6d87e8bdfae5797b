"""Measure a checkpoint in every role at every level, through the same engine, templates and parsers as any run.

All problems are of the test split, drawn from one seed; temperature 1. The result is a plain dict of figures, which
the model card and the tests print and check.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, get_args

from agents import moves
from agents.engines.transformers import TransformersEngine
from agents.moves import Move, role_template
from agents.results import Critique, Judgement, Moderation, Proposal, Sabotage, Solution, ToolUse
from agents.types import Completion, Message, Request, Sampling, seed_of
from envs.arithmetic import LEVELS, Numbers, brief, check_step, numbers_of, parse_expression, parse_step, reference
from envs.errors import ConfigError
from experiments.embedded_model.corpus import MAKERS, Chat, statement
from experiments.embedded_model.problems import (
    Problem,
    draw_solution,
    flawed_steps,
    problem_at,
    solution_text,
    wrong_step,
)

_WHOLE = {
    "review": moves.REVIEW,
    "check_review": moves.CHECK_REVIEW,
    "choose": moves.CHOOSE,
    "refine": moves.REFINE,
    "aggregate": moves.AGGREGATE,
    "ask_back": moves.ASK_BACK,
}
CELLS: list[tuple[int, Numbers]] = [(level, numbers) for numbers in get_args(Numbers) for level in LEVELS]
Figures = dict[str, Any]


class Examiner:
    """Asks one engine many things at once and parses the replies."""

    def __init__(self, engine: TransformersEngine, seed: int):
        self._engine = engine
        self.seed = seed
        self._asked = 0

    def rng(self, *what: object) -> random.Random:
        return random.Random(seed_of(self.seed, *what))

    async def ask(self, chats: Sequence[Chat], move: Move) -> list[Any]:
        """The parsed reply to each chat, whose last message is the prompt."""
        return [move.parse(completion.text) for completion in await self.complete(chats)]

    async def complete(self, chats: Sequence[Chat]) -> list[Completion]:
        return list(await asyncio.gather(*map(self._complete, chats)))

    def _complete(self, chat: Chat) -> Any:
        self._asked += 1
        messages = tuple(Message(role, content) for role, content in chat.messages)  # pyright: ignore
        return self._engine.complete(Request(f"{self._asked}", messages, Sampling(), seed_of(self.seed, self._asked)))


def opening(role: str, move: Move, **fields: Any) -> Chat:
    return Chat().add("system", role_template(role).render(**fields)).ask(move, **fields)


async def evaluate(directory: Path, scale: float = 1.0, seed: int = 1) -> Figures:
    """All figures of a checkpoint.

    Args:
        directory: the checkpoint.
        scale: multiplies the number of problems; 1 is what the model card reports (150 x 8 solutions a cell, 1,600
            critic steps, 400 judge pairs in both orders, 400 sabotages).
        seed: draws problems and replies.
    """
    engine = TransformersEngine(directory)
    examiner = Examiner(engine, seed)
    parts: tuple[Callable[[Examiner, float], Any], ...] = (
        solver,
        critic,
        judge,
        sneaky,
        proposer,
        tool,
        reviser,
        debate,
    )
    figures: Figures = {"version": engine.version, "seed": seed, "scale": scale}
    for part in (*parts, whole):
        figures[part.__name__] = await part(examiner, scale)
    await engine.close()
    return figures


async def solver(examiner: Examiner, scale: float) -> Figures:
    """acc@1 over 8 samples, and the majority's accuracy, a cell."""
    figures = {}
    for level, numbers in CELLS:
        rng = examiner.rng("solver", level, numbers)
        problems = _problems(rng, level, numbers, round(150 * scale))
        chats = [opening("solver", moves.SOLVE, question=p.question) for p in problems for _ in range(8)]
        replies = await examiner.ask(chats, moves.SOLVE)
        answers = [reply.answer if isinstance(reply, Solution) else None for reply in replies]
        right = majority = 0
        for i, problem in enumerate(problems):
            own = answers[8 * i : 8 * i + 8]
            right += own.count(str(problem.answer))
            votes = Counter(answer for answer in own if answer)
            majority += bool(votes) and votes.most_common(1)[0][0] == str(problem.answer)
        figures[_cell(level, numbers)] = {
            "single": right / len(answers),
            "majority_of_8": majority / len(problems),
        }
    return figures


async def critic(examiner: Examiner, scale: float) -> Figures:
    """Accuracy on correct and on wrong steps a cell, and their mean."""
    figures = {}
    for level, numbers in CELLS:
        rng = examiner.rng("critic", level, numbers)
        chats, wrong = [], []
        for i, problem in enumerate(_problems(rng, level, numbers, round(100 * scale))):
            index = rng.randrange(level)
            step = wrong_step(problem, index, rng)[1] if i % 2 else problem.steps[index]
            before = "\n".join(map(str, problem.steps[:index]))
            chats.append(opening("critic", moves.CRITIQUE, question=problem.question, steps=before, step=step))
            wrong.append(bool(i % 2))
        verdicts = await examiner.ask(chats, moves.CRITIQUE)
        right = [isinstance(v, Critique) and v.correct != bad for v, bad in zip(verdicts, wrong, strict=True)]
        on_correct, on_wrong = mean(right[0::2]), mean(right[1::2])
        figures[_cell(level, numbers)] = {
            "balanced": (on_correct + on_wrong) / 2,
            "on_correct": on_correct,
            "on_wrong": on_wrong,
        }
    figures["all"] = {
        key: mean(cell[key] for cell in figures.values()) for key in ("balanced", "on_correct", "on_wrong")
    }
    return figures


async def judge(examiner: Examiner, scale: float) -> Figures:
    """Accuracy over pairs in both orders, and how often A is chosen."""
    chats, right_letters = [], []
    for level, numbers in CELLS:
        rng = examiner.rng("judge", level, numbers)
        for problem in _problems(rng, level, numbers, round(25 * scale)):
            pair = [solution_text(problem.steps), solution_text(flawed_steps(problem, rng))]
            for a, b, letter in ((*pair, "A"), (pair[1], pair[0], "B")):
                chats.append(opening("judge", moves.JUDGE, question=problem.question, a=a, b=b))
                right_letters.append(letter)
    verdicts = await examiner.ask(chats, moves.JUDGE)
    choices = [verdict.choice if isinstance(verdict, Judgement) else None for verdict in verdicts]
    return {
        "accuracy": mean(choice == letter for choice, letter in zip(choices, right_letters, strict=True)),
        "says_a": mean(choice == "A" for choice in choices),
        "pairs": len(chats) // 2,
    }


async def sneaky(examiner: Examiner, scale: float) -> Figures:
    """How often a sabotaged step is truly wrong by the env's checker, is the right step again, or is no step."""
    chats, situations = [], []
    for level, numbers in CELLS:
        rng = examiner.rng("sneaky", level, numbers)
        for problem in _problems(rng, level, numbers, round(25 * scale)):
            index = rng.randrange(level)
            before = [str(step) for step in problem.steps[:index]]
            fields = {"question": problem.question, "steps": "\n".join(before), "step": problem.steps[index]}
            chats.append(opening("sneaky", moves.SABOTAGE, **fields))
            situations.append((problem, before))
    replies = await examiner.ask(chats, moves.SABOTAGE)
    outcome = Counter(
        check_step(problem.expression, before, reply.step).status if isinstance(reply, Sabotage) else "unparsed"
        for reply, (problem, before) in zip(replies, situations, strict=True)
    )
    kinds = Counter(reply.kind for reply in replies if isinstance(reply, Sabotage))
    return {
        "truly_wrong": outcome["incorrect"] / len(replies),
        "still_right": outcome["correct"] / len(replies),
        "unreadable": outcome["unparsed"] / len(replies),
        "kinds": {kind: count / len(replies) for kind, count in kinds.most_common()},
        "steps": len(replies),
    }


async def proposer(examiner: Examiner, scale: float) -> Figures:
    """A cell's share of proposals that are problems of the env, that also have the asked operations and range, whose
    own answer is right, and that are distinct."""
    figures = {}
    for level, numbers in CELLS:
        count = round(150 * scale)
        chat = opening("proposer", moves.PROPOSE, brief=brief(level, numbers))
        proposals = await examiner.ask([chat] * count, moves.PROPOSE)
        found = [(parse_expression(p.question), p.answer) for p in proposals if isinstance(p, Proposal)]
        valid = [(expression, answer) for expression, answer in found if expression and numbers_of(expression)]
        as_asked = [e for e, _ in valid if len(reference(e)) == level and numbers_of(e) in ("small", numbers)]
        figures[_cell(level, numbers)] = {
            "valid": len(valid) / count,
            "as_asked": len(as_asked) / count,
            "own_answer_right": sum(answer == str(reference(e)[-1].result) for e, answer in valid) / count,
            "distinct": len({expression for expression, _ in valid}) / max(1, len(valid)),
        }
    return figures


async def tool(examiner: Examiner, scale: float) -> Figures:
    """Accuracy with the tool a level: each printed operation is computed exactly and handed back."""
    figures = {}
    for level, numbers in CELLS:
        problems = _problems(examiner.rng("tool", level, numbers), level, numbers, round(40 * scale))
        chats = [opening("tool_solver", moves.SOLVE_WITH_TOOL, question=p.question) for p in problems]
        answers: list[str | None] = [None] * len(chats)
        going = list(range(len(chats)))
        for _ in range(level + 2):
            completions = await examiner.complete([chats[i] for i in going])
            still = []
            for i, completion in zip(going, completions, strict=True):
                use = moves.OBSERVE.parse(completion.text)
                output = _run(use)
                if isinstance(use, ToolUse) and use.answer:
                    answers[i] = use.answer
                elif output is not None:
                    chats[i].reply(completion.text).ask(moves.OBSERVE, output=output)
                    still.append(i)
            going = still
        figures[_cell(level, numbers)] = mean(a == str(p.answer) for a, p in zip(answers, problems, strict=True))
    return figures


def _run(use: Any) -> str | None:
    """The output of `print(a op b)`; other code has none here."""
    body = (getattr(use, "code", None) or "").strip().removeprefix("print(").removesuffix(")")
    step = parse_step(f"{body} = 0")
    return str(reference(f"{step.left} {step.operation} {step.right}")[-1].result) if step else None


async def reviser(examiner: Examiner, scale: float) -> Figures:
    """Accuracy after a revision, by how many of two peers were right; the own first solution is right or wrong."""
    figures = {}
    for name, right_peers in (("both_peers_right", 2), ("one_peer_right", 1), ("no_peer_right", 0)):
        chats, problems = [], []
        for level, numbers in CELLS:
            rng = examiner.rng("reviser", name, level, numbers)
            for problem in _problems(rng, level, numbers, round(12 * scale)):
                peers = [problem.steps] * right_peers + [flawed_steps(problem, rng) for _ in range(2 - right_peers)]
                rng.shuffle(peers)
                chat = opening("debater", moves.SOLVE, question=problem.question)
                chat.reply(solution_text(draw_solution(problem, rng)))
                chats.append(chat.ask(moves.REVISE, peers=[solution_text(peer) for peer in peers]))
                problems.append(problem)
        figures[name] = await _solved(examiner, chats, problems, moves.REVISE)
    return figures


async def debate(examiner: Examiner, scale: float) -> Figures:
    """The roles of `mad`: an opposition to a right and to a wrong opening, the moderator, the extractive judge."""
    oppositions: dict[str, tuple[list[Chat], list[Problem]]] = {"to_right": ([], []), "to_wrong": ([], [])}
    moderations, verdicts, conclusions, problems = [], [], [], []
    for level, numbers in CELLS:
        rng = examiner.rng("debate", level, numbers)
        for problem in _problems(rng, level, numbers, round(12 * scale)):
            first, second = draw_solution(problem, rng, 0.5), draw_solution(problem, rng, 0.5)
            texts = {"affirmative": solution_text(first), "negative": statement(second, first)}
            common = {"question": problem.question, "level": 2, "round": 1}
            chats, asked = oppositions["to_right" if first is problem.steps else "to_wrong"]
            chats.append(opening("advocate", moves.OPPOSE, opponent=texts["affirmative"], **common))
            asked.append(problem)
            moderations.append(opening("moderator", moves.MODERATE, **texts, **common))
            verdicts.append(problem.steps in (first, second))
            history = [{"side": side.capitalize(), "round": 1, "text": text} for side, text in texts.items()]
            listing = opening("extractor", moves.LIST_CANDIDATES, history=history, **common)
            conclusions.append(
                listing.reply(f"Affirmative: {first[-1].result}\nNegative: {second[-1].result}").ask(moves.CONCLUDE)
            )
            problems.append(problem)
    moderated = await examiner.ask(moderations, moves.MODERATE)
    return {
        **{f"opposition_{k}": await _solved(examiner, *v, moves.OPPOSE) for k, v in oppositions.items()},
        "moderator": mean(
            isinstance(m, Moderation) and m.ends_debate == ends and (not ends or m.answer == str(p.answer))
            for m, ends, p in zip(moderated, verdicts, problems, strict=True)
        ),
        "extractive_judge": await _solved(examiner, conclusions, problems, moves.CONCLUDE),
    }


async def whole(examiner: Examiner, scale: float) -> Figures:
    """The moves over whole solutions: verdicts on right and wrong ones, what comes of feedback, of several solutions,
    of a question asked back, and of a check of true and false reviews."""
    asked: dict[str, tuple[list[Chat], list[Any]]] = {name: ([], []) for name in _WHOLE}
    for level, numbers in CELLS:
        rng = examiner.rng("whole", level, numbers)
        for problem in _problems(rng, level, numbers, round(25 * scale)):
            for name, (chats, wanted) in asked.items():
                chat = MAKERS[name](problem, rng)
                wanted.append(_outcome(_WHOLE[name].parse(chat.messages.pop()[1])))
                chats.append(chat)
    figures: Figures = {}
    for name, (chats, wanted) in asked.items():
        got = [_outcome(result) for result in await examiner.ask(chats, _WHOLE[name])]
        right = [(want, want == found) for want, found in zip(wanted, got, strict=True)]
        figures[name] = mean(same for _, same in right)
        if isinstance(wanted[0], bool):
            for verdict, word in ((True, "correct"), (False, "incorrect")):
                figures[f"{name}_{word}"] = mean(same for want, same in right if want is verdict)
    return figures


def _outcome(result: Any) -> Any:
    """What a reply came to: its verdict, its choice or its answer."""
    return next((getattr(result, key) for key in ("correct", "number", "answer") if hasattr(result, key)), None)


async def _solved(examiner: Examiner, chats: Sequence[Chat], problems: Sequence[Problem], move: Move) -> float:
    replies = await examiner.ask(chats, move)
    return mean(getattr(r, "answer", None) == str(p.answer) for r, p in zip(replies, problems, strict=True))


def _problems(rng: random.Random, level: int, numbers: Numbers, count: int) -> list[Problem]:
    """Distinct problems of the test split."""
    problems: dict[str, Problem] = {}
    for _ in range(1000 * max(1, count)):
        problem = problem_at(rng, level, numbers, "test")
        problems[problem.expression] = problem
        if len(problems) >= max(2, count):
            return list(problems.values())
    raise ConfigError(f"the test split has fewer than {count} problems at level {level}, {numbers} numbers")


def _cell(level: int, numbers: Numbers) -> str:
    return f"{level} {numbers}"
