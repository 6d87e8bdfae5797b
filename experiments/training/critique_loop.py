"""Self-training with a critic in the loop: what was right, at once or once mended, is learned by heart.

MathCritique, Xi et al., arXiv:2411.16579; played is `actor_critic` with `judged`. The solver learns the first right
solution of every lane from the question alone; one that was mended also from the conversation in which it was. The
reviewer learns the critiques that turned a wrong solution into a right one. Hard tasks are not to drown among easy
ones: equal solutions of a task count once, and of different ones at most `task_most` are drawn; so a task that is
always solved weighs no more than that many times one that was mended once.

Departures: the published critic is first taught on critiques of a larger model; ours begins as it is. Critiques that
mended something all say incorrect, and a reviewer that learns these alone finds fault with everything: it learns beside
them as many that let a right solution stand. Solver and reviewer are policies of their own, so that either is measured
by itself: an adapter that learns verdicts would change solutions too.
"""

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agents.learning.advantages import ADVANTAGES
from agents.learning.samples import Sample
from agents.moves import REVIEW
from experiments.credit import Credit, Rewards, samples_of
from experiments.training.recipe import Lesson, NothingToLearnError, controlled
from experiments.training.schedule import Schedule
from graphs.turns import Episode, Turn

RIGHT, MENDS, STANDS = "right", "mends", "stands"
_WRONG = ("incorrect", "unparsed")


def rewards(episode: Episode) -> Rewards:
    """1 to what is learned: the first right solution of a lane; a critique of a wrong solution that is right once
    mended; one that lets a right solution stand."""
    status = _verdicts(episode)
    found: dict[str, dict[str, float]] = {}
    done: set[str] = set()
    for turn in episode.turns:
        if turn.id in status:
            is_first = status[turn.id] == "correct" and turn.role not in done
            done |= {turn.role} if is_first else set()
            found[turn.id] = {RIGHT: float(is_first)}
        elif (solution := _reviewed(turn, status)) and status[solution] == "correct":
            found[turn.id] = {STANDS: float(getattr(turn.result, "correct", None) is True)}
        elif solution and status[solution] in _WRONG:
            after = (status.get(other.id) for other in episode.turns if turn.id in other.reads)
            found[turn.id] = {MENDS: float("correct" in after)}
    return found


def mending(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """What an iteration teaches. Raises NothingToLearnError."""
    stored = list(episodes)
    places = {key: place for episode in stored for key, place in _places(episode).items()}
    if not places:
        raise NothingToLearnError(
            f"expected verdicts on solutions, found none in {len(stored)} episodes; play actor_critic with judged=true"
        )
    rule = controlled(ADVANTAGES["raw"], schedule, seed)
    credited = samples_of(stored, credit, rule, roles=schedule.learning_roles)
    kept = [replace(one, supervised=True, advantage=0.0) for one in credited.samples if one.advantage > 0]
    solutions = [sample for sample in kept if places[sample.key].asked]
    if not solutions and any(places[sample.key].asked for sample in credited.samples):
        raise NothingToLearnError(
            f"expected right solutions, found none in {len(stored)} episodes, mended ones included; take an easier "
            "level, a stronger solver, or more tasks an iteration"
        )
    # As if a mended solution had been the answer to the question; its log-probabilities were others.
    answers = [replace(one, prompt_ids=places[one.key].asked, logprobs=()) for one in solutions]
    mended = [one for one in solutions if one.prompt_ids != places[one.key].asked]
    critiques = [sample for sample in kept if not places[sample.key].asked]
    taught = [_few(rows, places, schedule.task_most, seed) for rows in (answers, mended)]
    told = _even(critiques, places, seed)
    alike = len(answers) + len(mended) - sum(map(len, taught))
    left_out = {
        f"solutions that are equal or beyond {schedule.task_most} a task": alike,
        "critiques beyond as many of the other side": len(critiques) - len(told),
    }
    items = [*taught[0], *taught[1], *told]
    return Lesson(items, {**credited.left_out, **{k: n for k, n in left_out.items() if n}}, credited.rewards)


@dataclass(frozen=True)
class _Place:
    """Where a sample stands."""

    task: str
    asked: tuple[int, ...] = ()
    """Of a solution: what its lane was asked first."""
    is_of_right: bool = False
    """Of a critique: whether the solution was right."""


def _places(episode: Episode) -> dict[str, _Place]:
    """Key of a sample -> its place."""
    status, found = _verdicts(episode), {}
    asked: dict[str, tuple[int, ...]] = {}
    for turn in episode.turns:
        key = f"{episode.task.id}/{episode.sample}/{turn.id}"
        if turn.id in status:
            found[key] = _Place(episode.task.id, asked.setdefault(turn.role, turn.prompt_ids))
        elif solution := _reviewed(turn, status):
            found[key] = _Place(episode.task.id, is_of_right=status[solution] == "correct")
    return found


def _verdicts(episode: Episode) -> Mapping[str, str]:
    """Turn id of a solution -> the status of its verdict."""
    return next((note["verdicts"] for note in episode.notes if "verdicts" in note), {})


def _reviewed(turn: Turn, status: Mapping[str, str]) -> str | None:
    """The solution that a turn reviews."""
    return next((id for id in turn.reads if id in status), None) if turn.move == REVIEW.name else None


def _few(samples: Sequence[Sample], places: Mapping[str, _Place], most: int, seed: int) -> list[Sample]:
    """At most so many different replies a task, in their order."""
    tasks: dict[Hashable, dict[Hashable, int]] = {}
    for i, sample in enumerate(samples):
        tasks.setdefault(places[sample.key].task, {}).setdefault(sample.token_ids, i)
    rng, kept = random.Random(seed), []
    for different in tasks.values():
        kept += rng.sample(list(different.values()), min(most, len(different)))
    return [samples[i] for i in sorted(kept)]


def _even(critiques: Sequence[Sample], places: Mapping[str, _Place], seed: int) -> list[Sample]:
    """Those of wrong solutions, and at most as many of right ones, in their order."""
    of_right = [i for i, one in enumerate(critiques) if places[one.key].is_of_right]
    others = len(critiques) - len(of_right)
    dropped = set(random.Random(seed).sample(of_right, max(0, len(of_right) - others)))
    return [one for i, one in enumerate(critiques) if i not in dropped]
