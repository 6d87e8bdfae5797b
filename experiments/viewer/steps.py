"""Step-level marks: which step of which solution a critic called correct or incorrect."""

from collections.abc import Sequence

from agents.results import Critique, Review
from envs.types import split_steps
from experiments.viewer.episode_records import Mark, Step
from graphs.turns import Turn


def marked_steps(turns: Sequence[Turn], shown: int) -> dict[str, list[Step]]:
    """Turn id -> its steps, of the solutions that critics marked step by step.

    Args:
        turns: of the episode, in order.
        shown: characters of a reply that are shown; steps that begin behind them are left out.
    """
    by_id = {turn.id: turn for turn in turns}
    marks: dict[str, dict[int, list[Mark]]] = {}
    asked: dict[tuple[str, str], int] = {}
    for turn in turns:
        solution = by_id.get(turn.reads[0]) if turn.reads else None
        if solution is None:
            continue
        if isinstance(turn.result, Review):
            for step, correct in enumerate(turn.result.marks):
                marks.setdefault(solution.id, {}).setdefault(step, []).append(Mark(turn=turn.id, correct=correct))
        elif turn.move == "critique":
            place = solution.id, turn.role
            step = _step(turn, solution, asked.get(place, 0))
            asked[place] = asked.get(place, 0) + (not turn.is_retry)
            correct = turn.result.correct if isinstance(turn.result, Critique) else None
            if step is not None:
                marks.setdefault(solution.id, {}).setdefault(step, []).append(Mark(turn=turn.id, correct=correct))
    return {id: _steps(by_id[id].reply, found, shown) for id, found in marks.items()}


def units(text: str) -> int:
    """How long a text is for JavaScript: UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _step(critique: Turn, solution: Turn, number: int) -> int | None:
    """The step that a critic was asked about: its prompt shows the steps up to it. Asked in order, where that fits."""
    asked = critique.messages[-1].content if critique.messages else ""
    shown = [i for i, step in enumerate(split_steps(solution.reply)) if step.strip() and step.strip() in asked]
    return number if number in shown else max(shown, default=None)


def _steps(reply: str, marks: dict[int, list[Mark]], shown: int) -> list[Step]:
    steps, start, begun = [], 0, 0
    for i, text in enumerate(split_steps(reply)):
        if begun >= shown:
            break
        end = start + units(text)
        steps.append(Step(start=start, end=end, marks=marks.get(i, [])))
        start, begun = end, begun + len(text)
    return steps
