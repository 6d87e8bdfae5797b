"""What tests of training share: a tiny model, a game that it learns in seconds, short settings.

The game: the share of a reply's tokens whose id is even. A random model says as many even as odd ones, and a few
updates change that; verdicts play no part.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import Run
from experiments.training import Training, train
from graphs import Episode, chain, solve, topology
from graphs.turns import Turn

TOKENS = 8
SHORT: Mapping[str, Any] = {
    "iterations": 3,
    "tasks": 3,
    "samples": 4,
    "evaluate_every": 0,
    "test_tasks": 0,
    "env.level": 2,
    "trainer.learning_rate": 0.02,
}


def evenness(turn: Turn) -> float:
    return sum(id % 2 == 0 for id in turn.token_ids) / max(1, len(turn.token_ids))


def even(episode: Episode) -> dict[str, dict[str, float]]:
    """Every turn is paid for even tokens."""
    return {turn.id: {"even": evenness(turn)} for turn in episode.turns}


def is_right(episode: Episode, turn: Turn) -> bool:
    return turn.answer in episode.task.answers


def opposite(episode: Episode) -> dict[str, dict[str, float]]:
    """The role honest is paid for right answers, the role liar for wrong ones."""
    return {
        turn.id: {turn.role: float(is_right(episode, turn) == (turn.role == "honest"))}
        for turn in episode.turns
        if turn.answer
    }


@topology(roles=lambda: ("honest", "liar"), calls=lambda: 2)
def pair() -> Any:
    """Two roles are asked the same."""

    async def both(state: Any, runtime: Any) -> dict[str, Any]:
        update = await solve(state, runtime, ["honest", "liar"])
        return {**update, "answer": update["turns"][0].answer, "stop_reason": "said"}

    return chain(both)


def trained(root: Path, model: Path, recipe: Any = even, **options: Any) -> Training:
    """Train a small model a little. Settings are given as for --set, above SHORT; replies are cut short."""
    settings = {**SHORT, "solver.max_tokens": TOKENS, **options.pop("settings", {})}
    return train(
        recipe, "solo", "arithmetic", f"hf:{model}", root=root, settings=settings, **{"backend": "local", **options}
    )


def mean_evenness(run: Run, role: str = "solver") -> float:
    found = [evenness(turn) for episode in run.episodes() for turn in episode.turns if turn.role == role]
    return sum(found) / len(found)


def without_times(training: Training) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in training.lines()]
