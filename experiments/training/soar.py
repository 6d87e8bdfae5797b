"""Grounded rewards: what was proposed is worth what copies of the solver gain by learning from it, on labelled tasks.

After SOAR, arXiv:2601.18778: the proposals of one brief are a data set; a student, a copy of the frozen solver, learns
from it a little (stage `student`), and is measured on labelled validation tasks as the solver was before.

Departures: labels are votes, as in the pool, in place of the proposer's own answers; one student a data set; students
are dropped, where SOAR's better ones become what later ones start from.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.types import seed_of
from envs.types import Env
from experiments.credit import Credit
from experiments.pseudo_labels import Filter
from experiments.runner import in_event_loop
from experiments.training.pool import question_of, write_pool
from experiments.training.proposing import grounded
from experiments.training.recipe import Lesson, policy_gradient
from experiments.training.schedule import Schedule
from experiments.training.training import weights_of
from graphs.turns import Episode

if TYPE_CHECKING:
    from experiments.training.stages import Stages

POLICY = "executor"


@dataclass(frozen=True)
class Students:
    """Teaches a proposer by what its proposals do. All that is played and learned for that lies in a folder, so that
    nothing is done twice."""

    stages: "Stages"
    folder: str
    start: Path | None
    """Weights of the solver; None for the model itself."""
    wanted: Filter
    """Which questions they learn from."""
    env: Env
    held_out: Collection[str]
    """Questions that they must not learn from: those that somebody is measured on."""
    without: tuple[str, ...]
    rows: Callable[[Path], dict[str, str]]
    """File of a pool -> settings of the env that reads it."""
    accuracy: Callable[[str, Path | None], float | None]
    """(folder, weights of a solver) -> its accuracy on validation tasks."""

    def teach(self, episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
        """See experiments.training.recipe.Teach; called on a thread of its own."""
        sets: dict[str, list[Episode]] = {}
        stored = [episode for episode in episodes if episode.failure is None]
        for episode in stored:
            sets.setdefault(episode.task.id, []).append(episode)
        gains = {
            task: self._gain(f"{self.folder}/{seed:016x}-{number}", found)
            for number, (task, found) in enumerate(sets.items())
        }

        def progress(episode: Episode) -> dict[str, dict[str, float]]:
            if episode.failure is not None:
                return {}
            terms = {"progress": gains[episode.task.id]} if question_of(episode) else {"format": -1.0}
            return {episode.turns[0].id: terms}

        return policy_gradient(stored, progress, schedule, seed)

    def _gain(self, folder: str, proposed: Iterable[Episode]) -> float:
        """What a student gains by a data set; 0 where nothing in it is worth learning from."""
        file = self.stages.training.path / f"{folder}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        census = in_event_loop(lambda: write_pool(proposed, file, self.wanted, self.env, self.held_out))
        if not census.kept:
            return 0.0
        changes = {"env": "pool", **self.rows(file), "tasks": census.kept}
        seed = seed_of(self.stages.plan.plan.seed, folder)
        starts = {POLICY: self.start} if self.start else {}
        student = self.stages.train("student", folder, starts, changes, seed, self.without)
        before = self.accuracy(f"{self.folder}/before", self.start)
        after = self.accuracy(f"{folder}/after", weights_of(student)[POLICY])
        return 0.0 if before is None or after is None else grounded(before, [after])
