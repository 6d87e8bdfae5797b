"""Compare runs: accuracy beside calls and tokens, and paired differences from the first run, or from self-consistency
with as many calls or tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from envs.errors import ConfigError
from envs.types import Env
from experiments import stats
from experiments.budget import Budget, Ruler
from experiments.runs import Run


@dataclass(frozen=True)
class Row:
    """One run in a comparison."""

    run: str
    topology: str
    episodes: int
    accuracy: float | None
    ci95: stats.Interval | None
    calls_per_episode: float
    tokens_per_episode: float
    """Prompt and completion."""
    comparison: stats.Comparison | None
    """With the baseline, on the tasks that both have; None for the baseline itself."""
    samples: int | None = None
    """Of the self-consistency that is the baseline, where budgets are equal."""


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """A row a run, the first being the baseline of all differences.

    Raises:
        ConfigError: fewer than two runs, or one that shares no judged task with the baseline.
    """
    if len(runs) < 2:
        raise ConfigError(f"expected at least two runs to compare, found {len(runs)}")
    baseline = runs[0].scores()
    rows = []
    for run in runs:
        summary, scores = run.summary(), run.scores()
        if not scores:
            raise ConfigError(f"run {run.name} has no judged episode to compare; `palaestra show {run.name}` says why")
        comparison = None
        if run is not runs[0]:
            comparison = stats.compare(scores, baseline)
            if comparison is None:
                raise ConfigError(
                    f"runs {run.name} and {runs[0].name} share no judged task; compare runs of one env, level and split"
                )
        episodes = max(1, summary.episodes)
        rows.append(
            Row(
                run=run.name,
                topology=summary.topology,
                episodes=summary.episodes,
                accuracy=summary.accuracy,
                ci95=summary.ci95,
                calls_per_episode=summary.calls / episodes,
                tokens_per_episode=(summary.tokens.prompt + summary.tokens.completion) / episodes,
                comparison=comparison,
            )
        )
    return rows


async def compare_at_equal(runs: Sequence[Run], budget: Budget, env: Env) -> list[Row]:
    """A row a run, each but the first compared with self-consistency at as many calls or tokens an episode.

    Args:
        runs: the first is of `vote`; its samples are what the others are measured by.
        budget: what is equal; rounded up in favour of self-consistency.
        env: of the runs.

    Raises:
        ConfigError: as `compare_runs`; a first run of another topology, or one with too few samples.
    """
    rows = compare_runs(runs)
    ruler = Ruler(runs[0], env)
    equal = [rows[0]]
    for run, row in zip(runs[1:], rows[1:], strict=True):
        amount = row.calls_per_episode if budget == "calls" else row.tokens_per_episode
        samples = ruler.samples_for(budget, amount)
        if samples is None:
            raise ConfigError(
                f"run {run.name} took {amount:,.1f} {budget} an episode, and {runs[0].name} has {ruler.most} samples "
                f"with {ruler.tokens(ruler.most):,.0f} tokens; run vote with more samples to compare with"
            )
        comparison = stats.compare(run.scores(), await ruler.scores(samples))
        equal.append(replace(row, comparison=comparison, samples=samples))
    return equal
