"""How well steps were judged, from stored episodes on env `steps`. Pure functions: nothing is asked again.

A verdict is a turn of the move critique; which step it is on stands in the episode's notes, `{"judged": turn id,
"step": index}`. Steps before the first wrong one are correct, that one is wrong, and verdicts on later ones are left
out, for what they are is not known. Accuracy on correct steps (a_c) and on wrong ones (a_e), their mean and their
harmonic mean are the figures of SPC (arXiv:2504.19162); on whole solutions there is ProcessBench's F1
(arXiv:2412.06559) besides. A verdict that could not be read counts as a miss. The unit of all intervals is the problem.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from agents.moves import CRITIQUE
from agents.results import Critique
from envs.arithmetic import compute, parse_step
from envs.errors import ConfigError
from envs.steps import given
from experiments import stats
from graphs.turns import Episode, Turn

Tallies = Mapping[str, np.ndarray]
"""Problem -> hits on correct steps, verdicts on correct steps, hits on wrong steps, verdicts on wrong steps."""


@dataclass(frozen=True)
class StepVerdict:
    """What was said of one step, against what is known of it."""

    problem: str
    wrong: bool
    """What the step is."""
    hit: bool
    """The verdict says so."""
    parsed: bool
    recomputed: bool
    """See `recomputes`."""


@dataclass(frozen=True)
class Part:
    """Some of the verdicts."""

    verdicts: int
    share: float
    accuracy: float | None
    """None without a verdict."""


@dataclass(frozen=True)
class Judging:
    """A run of step verdicts in figures: 0 to 1, higher is better; None where there is nothing to take it from."""

    problems: int
    failed: int
    """Episodes that did not end; their verdicts are left out."""
    correct_steps: int
    """Verdicts on correct steps, and on wrong ones."""
    wrong_steps: int
    a_c: float | None
    """Accuracy on correct steps."""
    a_e: float | None
    """Accuracy on wrong steps."""
    balanced: float | None
    """Their mean."""
    harmonic: float | None
    """Their harmonic mean; 0 when either is."""
    pooled: float
    """Accuracy over all steps, whatever they are: it rewards who calls everything what most steps are."""
    a_c_ci95: stats.Interval | None
    """Bootstrap over problems; Wilson's interval over problems where every verdict is a hit, or none is."""
    a_e_ci95: stats.Interval | None
    balanced_ci95: stats.Interval | None
    solutions_with_error: int
    """Solutions that were judged whole."""
    solutions_without_error: int
    first_error: float | None
    """Share of the solutions with an error whose first wrong step was named."""
    no_error: float | None
    """Share of the others that were called free of errors."""
    f1: float | None
    """ProcessBench's: the harmonic mean of these two."""
    unparsed: float
    """Share of the verdicts that could not be read."""
    recomputed: Part
    """Verdicts that compute something themselves, and those that do not."""
    asserted: Part


@dataclass(frozen=True)
class JudgingDifference:
    """A run's figures minus a baseline's, on the problems that both have; positive is better than the baseline.

    Intervals are 95 %, by a paired bootstrap over problems; None where no resample differs from another.
    """

    problems: int
    a_c: float | None
    a_c_ci95: stats.Interval | None
    a_e: float | None
    a_e_ci95: stats.Interval | None
    balanced: float | None
    balanced_ci95: stats.Interval | None


def step_verdicts(episode: Episode) -> Iterator[StepVerdict]:
    """The verdicts of an episode on steps that are known to be correct or wrong. Where a critic was asked again after a
    reply that could not be read, its last attempt counts.

    Raises:
        ConfigError: the task is of another env, or a note names a turn that is not there or no step.
    """
    steps, _ = given(episode.task)
    first_wrong = episode.task.details["first_wrong"]
    last = {_first_attempt(turn.id): turn for turn in episode.turns if turn.move == CRITIQUE.name}
    judged = {_first_attempt(note["judged"]): note["step"] for note in episode.notes if "judged" in note}
    for id, at in judged.items():
        if id not in last or not 0 <= at < len(steps):
            raise ConfigError(
                f"{episode.task.id}/{episode.sample}: a note says that {id} judged step {at}; expected a critique of "
                f"the episode and one of {len(steps)} steps, from 0"
            )
        if first_wrong is None or at <= first_wrong:
            yield _verdict(episode.task.question, last[id], at == first_wrong)


def recomputes(reply: str) -> bool:
    """Whether a verdict's reply holds, before its verdict line, an equation such as `7 * 2 = 14` whose result is what
    its operands give: a line of its own, or a piece of one between `;` or `,`. A right step that is only said again
    counts too, for it reads the same."""
    lines = reply.splitlines()
    verdict = [i for i, line in enumerate(lines) if re.match(r"[ \t*_]*verdict[ \t]*:", line, re.IGNORECASE)]
    before = lines[: verdict[-1]] if verdict else lines
    found = [parse_step(piece) for line in before for piece in re.split("[;,]", line)]
    return any(step is not None and step.result == compute(*step[:3]) for step in found)


def judging(episodes: Iterable[Episode]) -> Judging:
    """The figures of a run.

    Raises:
        ConfigError: as `step_verdicts`, or there is no verdict on any step.
    """
    ended, failed = _ended(episodes)
    verdicts = [verdict for episode in ended for verdict in step_verdicts(episode)]
    if not verdicts:
        raise ConfigError(
            f"expected verdicts on steps, found none in {len(ended)} episodes ({failed} more failed); "
            "play a topology that judges steps on --env steps"
        )
    table = np.stack(list(_tallies(verdicts).values()), axis=1)
    a_c, a_e = _rate(*table[:2]), _rate(*table[2:])
    errors, sound = _solutions(ended, with_error=True), _solutions(ended, with_error=False)
    first_error, no_error = _mean(errors), _mean(sound)
    return Judging(
        problems=table.shape[1],
        failed=failed,
        correct_steps=int(table[1].sum()),
        wrong_steps=int(table[3].sum()),
        a_c=a_c,
        a_e=a_e,
        balanced=None if a_c is None or a_e is None else (a_c + a_e) / 2,
        harmonic=None if a_c is None or a_e is None else harmonic_mean(a_c, a_e),
        pooled=float(np.mean([verdict.hit for verdict in verdicts])),
        a_c_ci95=_interval(*table[:2]),
        a_e_ci95=_interval(*table[2:]),
        balanced_ci95=None if a_c is None or a_e is None else stats.bootstrap(_balanced, *table),
        solutions_with_error=len(errors),
        solutions_without_error=len(sound),
        first_error=first_error,
        no_error=no_error,
        f1=None if first_error is None or no_error is None else harmonic_mean(first_error, no_error),
        unparsed=float(np.mean([not verdict.parsed for verdict in verdicts])),
        recomputed=_part(verdicts, True),
        asserted=_part(verdicts, False),
    )


def compare_judging(episodes: Iterable[Episode], baseline: Iterable[Episode]) -> JudgingDifference | None:
    """Compare two runs by problem; None when no problem has verdicts in both.

    Raises:
        ConfigError: as `step_verdicts`.
    """
    sides = [
        _tallies(verdict for episode in _ended(side)[0] for verdict in step_verdicts(episode))
        for side in (episodes, baseline)
    ]
    common = [problem for problem in sides[0] if problem in sides[1]]
    if not common:
        return None
    own, other = (np.stack([side[problem] for problem in common], axis=1) for side in sides)
    a_c = _difference(_ratio, [*own[:2], *other[:2]])
    a_e = _difference(_ratio, [*own[2:], *other[2:]])
    balanced = _difference(_balanced, [*own, *other])
    return JudgingDifference(len(common), *a_c, *a_e, *balanced)


def pooled_by_subset(groups: Mapping[str, Judging]) -> float:
    """The figure that SPC's released code gives for ProcessBench: the accuracy over all steps of each subset, and of
    these the mean, each subset counting the same. It is not the benchmark's own; see `Judging.f1`."""
    if not groups:
        raise ConfigError("expected the figures of at least one subset, found none")
    return float(np.mean([group.pooled for group in groups.values()]))


def kept_correctness(prior: float, a_c: float, a_e: float, attempts: int) -> float:
    """How often a step is correct that is kept once a critic accepts it, or at the last attempt.

    Args:
        prior: how often an attempt is correct.
        a_c: the critic's accuracy on correct steps.
        a_e: on wrong ones.
        attempts: most at the step, each independent of the others, as are the critic's verdicts.
    """
    rejected = prior * (1 - a_c) + (1 - prior) * a_e
    accepted = sum(rejected**earlier * prior * a_c for earlier in range(attempts - 1))
    return accepted + rejected ** (attempts - 1) * prior


def harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def _verdict(problem: str, turn: Turn, wrong: bool) -> StepVerdict:
    parsed = isinstance(turn.result, Critique)
    hit = isinstance(turn.result, Critique) and turn.result.correct != wrong
    return StepVerdict(problem, wrong, hit, parsed, recomputes(turn.reply))


def _first_attempt(id: str) -> str:
    role, _, number = id.rpartition("/")
    return f"{role}/{number.partition('.')[0]}"


def _ended(episodes: Iterable[Episode]) -> tuple[list[Episode], int]:
    """The episodes that ended, and how many did not."""
    ended, failed = [], 0
    for episode in episodes:
        if episode.failure is not None or episode.verdict is None:
            failed += 1
        else:
            ended.append(episode)
    return ended, failed


def _tallies(verdicts: Iterable[StepVerdict]) -> Tallies:
    tallies: dict[str, np.ndarray] = {}
    for verdict in verdicts:
        counts = tallies.setdefault(verdict.problem, np.zeros(4))
        counts[2 * verdict.wrong] += verdict.hit
        counts[2 * verdict.wrong + 1] += 1
    return tallies


def _solutions(episodes: Iterable[Episode], with_error: bool) -> list[bool]:
    """For each solution of one kind that was judged whole, whether the episode's answer on it is right."""
    return [
        episode.verdict is not None and episode.verdict.status == "correct"
        for episode in episodes
        if (episode.task.details["first_wrong"] is not None) == with_error
        if len(set(given(episode.task)[1])) == len(episode.task.details["steps"])
    ]


def _part(verdicts: Sequence[StepVerdict], recomputed: bool) -> Part:
    hits = [verdict.hit for verdict in verdicts if verdict.recomputed == recomputed]
    return Part(len(hits), len(hits) / len(verdicts), _mean(hits))


def _mean(hits: list[bool]) -> float | None:
    return float(np.mean(hits)) if hits else None


def _rate(hits: np.ndarray, counts: np.ndarray) -> float | None:
    return float(hits.sum() / counts.sum()) if counts.any() else None


def _interval(hits: np.ndarray, counts: np.ndarray) -> stats.Interval | None:
    hits, counts = hits[counts > 0], counts[counts > 0]
    if not len(counts):
        return None
    if hits.sum() in (0, counts.sum()):
        sure = len(counts) if hits.any() else 0
        low, high = scipy_stats.binomtest(sure, len(counts)).proportion_ci(stats.LEVEL, "wilson")
        return float(low), float(high)
    return stats.bootstrap(_ratio, hits, counts)


def _ratio(hits: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """Not a number where a resample holds no step of the kind."""
    with np.errstate(invalid="ignore"):
        return hits.sum(axis) / counts.sum(axis)


def _balanced(*table: np.ndarray, axis: int = -1) -> np.ndarray:
    return (_ratio(*table[:2], axis=axis) + _ratio(*table[2:], axis=axis)) / 2


def _difference(
    statistic: Callable[..., np.ndarray], columns: list[np.ndarray]
) -> tuple[float | None, stats.Interval | None]:
    """Of a statistic of the first half of the columns and the same of the second half, with its interval."""
    half = len(columns) // 2

    def difference(*table: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*table[:half], axis=axis) - statistic(*table[half:], axis=axis)

    found = float(difference(*columns))
    return (found, stats.bootstrap(difference, *columns)) if np.isfinite(found) else (None, None)
