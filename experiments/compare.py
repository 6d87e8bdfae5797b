"""Compare runs: accuracy beside calls and tokens, and paired differences from the first run."""

from collections.abc import Sequence
from dataclasses import dataclass

from envs.errors import ConfigError
from experiments import stats
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
