"""Looking through turns: what an episode's opening round answered, where answers differed, how the votes fell.

An answer on the way is compared with the task's answers by text and as a plain number: the env's own verdict is known
of final answers alone, and asking it again would take minutes for a large run.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from envs.grading import group_by_text, same_number, same_text
from experiments.store import StoreReader
from experiments.viewer.records import Right, Turned

Vote = tuple[int, int]
"""How many agreed, of how many."""
_ANSWER = 2000
"""Characters up to which answers are compared; longer ones equal themselves alone."""


class Look(NamedTuple):
    """What the turns of an episode show."""

    opening: str | None = None
    disagreement: bool = False
    turned: Turned | None = None
    opening_vote: Vote | None = None
    last_vote: Vote | None = None


def look_through(
    store: StoreReader,
    episodes: Mapping[int, tuple[str, str | None]],
    looks: MutableMapping[int, Look],
    tokens: Counter[tuple[str, str]],
) -> None:
    """Look through the turns of some episodes.

    Args:
        store: theirs.
        episodes: position -> status and final answer.
        looks: what is found is added here,
        tokens: and to the tokens of each role here.

    Raises:
        sqlite3.Error: the store cannot be read.
    """
    first, last = min(episodes), max(episodes)
    accepted = {
        position: _texts(answers)
        for position, answers in store.rows(
            "SELECT position, CASE WHEN json_valid(body) THEN json_extract(body, '$.task.answers') END FROM episodes "
            "WHERE position BETWEEN ? AND ?",
            first,
            last,
        )
    }
    answers: dict[int, list[tuple[int, str]]] = {position: [] for position in episodes}
    query = (
        "SELECT episode, role, round, CASE WHEN json_valid(body) THEN json_extract(body, '$.result.answer', "
        "'$.prompt_tokens', '$.completion_tokens') END FROM turns WHERE episode BETWEEN ? AND ? ORDER BY episode, place"
    )
    for position, role, round, found in store.each(query, first, last):
        answer, prompt, completion = json.loads(found) if found else (None, 0, 0)
        tokens[str(role), "prompt"] += prompt if isinstance(prompt, int) else 0
        tokens[str(role), "completion"] += completion if isinstance(completion, int) else 0
        if isinstance(answer, str) and answer and position in answers:
            answers[position].append((round, answer))
    for position, (status, final) in episodes.items():
        looks[position] = look(answers[position], accepted.get(position, ()), status, final)


def look(answers: Sequence[tuple[int, str]], accepted: Sequence[str], status: str, final: str | None) -> Look:
    """What one episode shows.

    Args:
        answers: (round, answer) of the turns that gave one, in their order.
        accepted: the task's answers.
        status: of the final answer.
        final: the answer that the episode came to.
    """
    if not answers:
        return Look()
    rounds: dict[int, list[str]] = {}
    for round, answer in answers:
        rounds.setdefault(round, []).append(answer)
    votes = {round: vote(given) for round, given in rounds.items()}
    several = [round for round, given in rounds.items() if len(given) > 1]
    first, last = min(rounds), max(several, default=None)
    opening = rounds[first][votes[first][0]]
    return Look(
        opening=opening[:200],
        disagreement=any(votes[round][1] < len(given) for round, given in rounds.items()),
        turned=_turned(opening, accepted, status, final),
        opening_vote=(votes[first][1], len(rounds[first])) if first in several else None,
        last_vote=(votes[last][1], len(rounds[last])) if last is not None else None,
    )


def vote(answers: Sequence[str]) -> tuple[int, int]:
    """Index of the answer that was given most often, the first seen on ties, and how often."""
    (index, count), *_ = Counter(groups(answers)).most_common(1)
    return index, count


def groups(answers: Sequence[str]) -> list[int]:
    """For each answer the index of the first that is the same by text or as a number."""
    if len(set(answers)) == 1:
        return [0] * len(answers)
    return (
        group_by_text(answers) if all(len(answer) <= _ANSWER for answer in answers) else [*map(answers.index, answers)]
    )


def right(answer: str, accepted: Sequence[str], status: str = "", final: str | None = None) -> Right:
    """Whether an answer on the way is right: as the verdict says, where it is the final one, else by comparison.

    unknown: written otherwise than the task's, and neither a plain number nor a word.
    """
    if final is not None and status in ("correct", "incorrect") and _same(final, answer):
        return "correct" if status == "correct" else "incorrect"
    if any(_same(one, answer) for one in accepted):
        return "correct"
    return "incorrect" if accepted and all(_differs(one, answer) for one in accepted) else "unknown"


def _turned(opening: str, accepted: Sequence[str], status: str, final: str | None) -> Turned | None:
    began = right(opening, accepted, status, final)
    if began == "incorrect" and status == "correct":
        return "to right"
    return "to wrong" if began == "correct" and status in ("incorrect", "unparsed") else None


@lru_cache(maxsize=50_000)
def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    if max(len(one), len(other)) > _ANSWER:
        return False
    return same_text(one, other) or bool(same_number(one, other))


def _differs(accepted: str, answer: str) -> bool:
    """Whether two answers that are not the same by text differ for certain."""
    a, b = _number(accepted), _number(answer)
    if a is not None and b is not None:
        return abs(a - b) > 1e-6 * max(1.0, abs(a))
    return (_is_word(accepted) and _is_word(answer)) or (_is_word(accepted) and b is not None)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().strip("$").replace(",", "")) if len(text) < 40 else None
    except ValueError:
        return None


def _is_word(text: str) -> bool:
    return re.fullmatch(r"\(?[A-Za-z]+( [A-Za-z]+)*\)?\.?", text.strip()) is not None


def _texts(found: str | None) -> tuple[str, ...]:
    value = json.loads(found) if found else None
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()
