"""Agent0: a proposer and a solver with a tool learn from each other, from nothing but a brief.

Xia et al., arXiv:2511.16043; without the tool R-Zero, Huang et al., arXiv:2508.05004. The game is graphs.pose. An
iteration has three parts, each a folder of the training: the proposer learns by GRPO against the frozen solver
(`curriculum/0001`); it poses a pool of questions, which the solver answers under the very protocol that it is then
trained under (`pool/0001`, and `pool/0001.jsonl` with those at the frontier and their votes); the solver learns by ADPO
from what the votes say (`executor/0001`). Either goes on from its own weights of the iteration before, with new
optimiser states, the weights that it starts from being its reference.

What came of it is measured on what nobody learned from: labelled tasks (`test/`), and the solver as it was after the
first iteration on every pool (`fixed/0001`).

Departures: the numbers of questions and updates fit the embedded model. Of the published bands the released code's is
taken, of the two forms of reward the paper's. An advantage is over the turns of all attempts at a question, each with
its attempt's reward: attempts of more turns count more often. A question is kept once, and not where it is measured on.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from agents.types import seed_of
from envs.arithmetic import Arithmetic
from envs.errors import ConfigError
from envs.proposals import Proposals
from envs.types import Split
from experiments import stats
from experiments.clusters import shares
from experiments.credit import Credit, Rewards
from experiments.pseudo_labels import Filter, parse_band
from experiments.runner import in_event_loop
from experiments.runs import Run
from experiments.training.pool import Census, question_of, write_pool
from experiments.training.proposing import ProposerSettings, composite, make_proposer_settings
from experiments.training.recipe import Lesson, NothingToLearnError, Teach, policy_gradient
from experiments.training.registry import seat_settings
from experiments.training.schedule import KEYS, Schedule
from experiments.training.soar import Students
from experiments.training.training import Training, weights_of
from graphs.pose import PROPOSER
from graphs.turns import Episode

if TYPE_CHECKING:
    from experiments.training.asked import Asked
    from experiments.training.setup import TrainingPlan
    from experiments.training.stages import Stages

EXECUTOR, GROUNDED = "executor", "grounded"
OF_THE_WHOLE = (
    *("iterations", "questions", "band", "reward", "tool_reward", "repetition", "own_answer"),
    *("test_tasks", "test_samples", "test_split", "greedy", "concurrency"),
    *("validation_tasks", "validation_samples", "validation_split"),
)
"""Keys of the schedule that are no stage's own."""
OTHERS = {"curriculum": (EXECUTOR,), "executor": ("env", PROPOSER)}
"""Stage -> scopes of settings that it has no use for."""
FIRST, LAST = "first", "last"


def rewarded(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """What the proposer learns from a batch: rewards need all of it, since a question like others is worth less."""
    stored = list(episodes)
    rewards = proposer_rewards(stored, schedule)
    return policy_gradient(stored, lambda episode: rewards.get((episode.task.id, episode.sample), {}), schedule, seed)


def proposer_rewards(episodes: Iterable[Episode], schedule: Schedule) -> dict[tuple[str, int], Rewards]:
    """(task, sample) -> rewards of the proposer's turn, term by term. Failed episodes have none."""
    settings, strict = reward_settings(schedule), own_answer_counts(schedule)
    played = [episode for episode in episodes if episode.failure is None]
    found = [question_of(episode) for episode in played]
    # What could not be read is unlike all others, but part of the batch.
    alike = shares([one.text if one else "" for one in found])
    rewards: dict[tuple[str, int], Rewards] = {}
    for episode, one, share in zip(played, found, alike, strict=True):
        agreement = Fraction(0) if one is None else one.label.gated if strict else one.label.agreement
        terms = composite(settings, one is not None, agreement, one.calls if one else 0.0, share)
        rewards[episode.task.id, episode.sample] = {episode.turns[0].id: terms.rewards()}
    return rewards


def reward_settings(schedule: Schedule) -> ProposerSettings:
    """Of the forms that are made of votes and programs."""
    changes = {"tool": schedule.tool_reward, "repetition": schedule.repetition}
    return make_proposer_settings(schedule.reward, {key: value for key, value in changes.items() if value is not None})


def own_answer_counts(schedule: Schedule) -> bool:
    """Whether questions count only where the proposer's own answer is the label."""
    return schedule.reward == "released" if schedule.own_answer is None else schedule.own_answer


class CoEvolution:
    """All iterations, and what is measured between them: experiments.training.recipe.Conduct."""

    def check(self, asked: "Asked") -> None:
        plan = asked.plan()
        _check_own(asked, plan)
        parse_band(plan.schedule.band)
        if plan.schedule.reward != GROUNDED:
            reward_settings(plan.schedule)
        stages = plan.recipe.stages
        asked.stage("curriculum", stages["curriculum"], {}, OTHERS["curriculum"]).plan()
        # What it learns from is not there yet.
        for name in ("executor", "student"):
            asked.stage(name, stages[name], {"env": Arithmetic()}, OTHERS["executor"]).plan()

    def run(self, stages: "Stages") -> None:
        _Course(stages).run()


def _check_own(asked: "Asked", plan: "TrainingPlan") -> None:
    """Nothing may be set of the whole that a stage alone can do. Raises ConfigError."""
    if plan.plan.topology.name != plan.recipe.topology:
        raise ConfigError(
            f"recipe {plan.recipe.name}: expected topology {plan.recipe.topology}, which its rewards read, found "
            f"{plan.plan.topology.name}; leave the topology out"
        )
    for key in asked.settings:
        scope = key.partition(".")[0]
        if key == "start":
            raise ConfigError(f"recipe {plan.recipe.name}: it makes no first policies; leave start out")
        if (key in KEYS and key not in OF_THE_WHOLE) or scope in ("trainer", "loss"):
            raise ConfigError(
                f"recipe {plan.recipe.name}: {key} is a stage's own; set curriculum.{key} or executor.{key}"
            )


@dataclass
class _Course:
    """One training's way through its iterations."""

    stages: "Stages"
    weights: dict[str, Path] = field(default_factory=dict)
    """Policy -> its newest; the model itself while there are none."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of these."""
    fixed: Path | None = None
    """The solver's after the first iteration."""
    begun: float = field(default_factory=time.monotonic)

    @property
    def schedule(self) -> Schedule:
        return self.stages.plan.schedule

    @property
    def solver(self) -> str:
        """The role."""
        return next(role for role in self.stages.plan.plan.roles if role != PROPOSER)

    def run(self) -> None:
        training, done = self.stages.training, self.stages.training.updates
        training.keep(lambda line: line["updates"] <= done and line["kind"] in ("test", "update") and done > 0)
        if not done:
            self._examine(FIRST, 0)
        for number in range(1, self.schedule.iterations + 1):
            self._iteration(number, number > done)
        paths = {name: str(path.relative_to(training.path.absolute())) for name, path in self.weights.items()}
        self.stages.record(
            {
                "kind": "end",
                "updates": self.schedule.iterations,
                "reason": "all iterations",
                "best": self.schedule.iterations,
                "versions": self.versions,
                "weights": paths,
                "seconds": {"since_resumed" if done else "all": round(time.monotonic() - self.begun, 3)},
            }
        )

    def _iteration(self, number: int, is_new: bool) -> None:
        """Go through an iteration; of one that is recorded already only its weights are of interest."""
        started = time.monotonic()
        frozen = self._seat(self.weights.get(EXECUTOR))
        curriculum = self._learned("curriculum", number, {**frozen, **self._grouped()}, self._students(number))
        file = self.stages.training.path / "pool" / f"{number:04d}.jsonl"
        census = self._pool(number, file, frozen)
        # A frontier of few questions is played all the same.
        tasks = min(census.kept, self.stages.setting("executor", "tasks"))
        executor = self._learned("executor", number, {"env": "pool", **self._rows(file), "tasks": tasks})
        self.fixed = self.fixed or self.weights[EXECUTOR]
        if not is_new:
            return
        fixed = self._audited(number, file)
        self._examine(LAST if number == self.schedule.iterations else f"{number:04d}", number)
        posed, solved = curriculum.lines("update")[-1], executor.lines("update")[-1]
        self.stages.record(
            {
                "kind": "update",
                "updates": number,
                "items": census.kept,
                "left_out": dict(census.left_out),
                "rewards": {**posed["rewards"], **solved["rewards"]},
                "policies": {**posed["policies"], **solved["policies"]},
                "pool": census.figures(),
                "fixed": fixed,
                "seconds": {"all": round(time.monotonic() - started, 3)},
            }
        )
        self.stages.training.mark(number)

    def _learned(self, stage: str, number: int, changes: Mapping[str, Any], teach: Teach | None = None) -> Training:
        folder = f"{stage}/{number:04d}"
        seed = seed_of(self.stages.plan.plan.seed, folder)
        training = self.stages.train(stage, folder, self.weights, changes, seed, OTHERS[stage], teach)
        self.weights |= weights_of(training)
        self.versions |= training.lines("end")[0]["versions"]
        return training

    def _rows(self, file: Path) -> dict[str, str]:
        """Settings of the env `pool`."""
        is_arithmetic = isinstance(self.stages.plan.plan.env, Proposals)
        return {"env.path": str(file), "env.like": "arithmetic" if is_arithmetic else "dataset"}

    def _pool(self, number: int, file: Path, frozen: Mapping[str, str]) -> Census:
        """Pose and label the pool of an iteration. Raises NothingToLearnError: too few are worth learning from."""
        plan, folder = self.stages.plan.plan, f"pool/{number:04d}"
        proposer = seat_settings(self.weights[PROPOSER])
        settings = {**(plan.topology.settings or {}), **_for(PROPOSER, proposer), **frozen}
        posed = self.stages.play(
            folder, "pose", self.stages.asked.env or self.stages.plan.recipe.env, tasks=self.schedule.questions,
            seed=seed_of(plan.seed, folder), split="train", settings=settings,
        )  # fmt: skip
        source = {"iteration": number, "versions": dict(self.versions)}
        census = in_event_loop(
            lambda: write_pool(posed.episodes(), file, self._wanted, plan.env, self._held_out, source)
        )
        if not census.kept:
            raise NothingToLearnError(
                f"{folder}: expected questions worth learning from, kept none of {len(census.texts)} "
                f"({', '.join(f'{n}: {reason}' for reason, n in census.left_out.most_common(3))}); set more questions "
                "or another band, or train the proposer longer with curriculum.iterations"
            )
        return census

    @property
    def _held_out(self) -> set[str]:
        """Questions that are measured on."""
        schedule, exam = self.schedule, self.stages.plan.exam.env
        tasks = list(self.stages.plan.curriculum.test)
        if schedule.reward == GROUNDED:
            tasks += exam.tasks(schedule.validation_tasks, schedule.validation_split)
        return {task.question for task in tasks}

    @property
    def _wanted(self) -> Filter:
        return Filter(parse_band(self.schedule.band), own_answer_counts(self.schedule))

    def _students(self, number: int) -> Teach | None:
        """Who says what proposals are worth, where they are to be grounded."""
        if self.schedule.reward != GROUNDED:
            return None
        folder, start, env = f"students/{number:04d}", self.weights.get(EXECUTOR), self.stages.plan.plan.env
        others = OTHERS["executor"]
        return Students(
            self.stages, folder, start, self._wanted, env, self._held_out, others, self._rows, self._validation_accuracy
        ).teach

    def _grouped(self) -> dict[str, str]:
        """All proposals of a data set have one grounded reward: what counts is how data sets differ."""
        return {"group": "role"} if self.schedule.reward == GROUNDED else {}

    def _validation_accuracy(self, folder: str, weights: Path | None) -> float | None:
        schedule = self.schedule
        run = self._exam(
            folder, weights, schedule.validation_tasks, schedule.validation_samples, schedule.validation_split, {}
        )
        return stats.mean_score(run.scores())

    def _audited(self, number: int, file: Path) -> dict[str, float | None]:
        """How the solver of the first iteration fares on a pool: how often it says what the label is, and with how many
        programs."""
        exam = self.stages.plan.exam
        settings = {**protocol_of(self.stages.asked, self.stages.plan), **self._seat(self.fixed), **self._rows(file)}
        run = self.stages.play(
            f"fixed/{number:04d}", exam.topology.name, "pool", samples=self.schedule.test_samples, seed=exam.seed,
            split="train", settings=settings, without=OTHERS["executor"],
        )  # fmt: skip
        calls = [row["calls"] - 1 for row in run.store.outcomes() if row["status"] != "failed"]
        return {"accuracy": stats.mean_score(run.scores()), "calls": fmean(calls) if calls else None}

    def _examine(self, name: str, number: int) -> None:
        """Measure the solver on tasks that nobody learns from, and compare it with what it was at first."""
        if not self.schedule.test_tasks:
            return
        started = time.monotonic()
        warm = self._tested(name, self.schedule.test_samples, {})
        summary, scores = warm.summary(), warm.scores()
        versus = stats.compare(scores, Run(warm.path.with_name(FIRST)).scores()) if number else None
        line = {
            "kind": "test",
            "name": name,
            "updates": number,
            "accuracy": summary.accuracy,
            "ci95": summary.ci95,
            "gained": versus and versus.difference,
            "gained_ci95": versus and versus.interval,
            "calls": summary.calls / max(1, summary.episodes) - 1,
            "answered": 1 - summary.unparsed / max(1, summary.episodes - summary.failed),
            "failed": summary.failed,
        }
        if self.schedule.greedy:
            cold = self._tested(f"{name}-greedy", 1, {f"{self.solver}.temperature": 0.0}).summary()
            line |= {"greedy": cold.accuracy, "greedy_ci95": cold.ci95}
        self.stages.record(line | {"seconds": {"all": round(time.monotonic() - started, 3)}})

    def _tested(self, name: str, samples: int, changes: Mapping[str, Any]) -> Run:
        weights, tasks = self.weights.get(EXECUTOR), self.schedule.test_tasks
        return self._exam(f"test/{name}", weights, tasks, samples, self.schedule.test_split, changes)

    def _exam(
        self, folder: str, weights: Path | None, tasks: int, samples: int, split: Split, changes: Mapping[str, Any]
    ) -> Run:
        """A solver on labelled tasks, with the same draws every time."""
        exam = self.stages.plan.exam
        env = exam.config["env"]
        own = {f"env.{key}": value for key, value in env["settings"].items()} if env["opened_as"] else {}
        settings = {**protocol_of(self.stages.asked, self.stages.plan), **self._seat(weights), **own, **changes}
        return self.stages.play(
            folder, exam.topology.name, env["opened_as"] or exam.env, tasks=tasks, samples=samples, seed=exam.seed,
            split=split, settings=settings, without=OTHERS["executor"],
        )  # fmt: skip

    def _seat(self, weights: Path | None) -> dict[str, str]:
        """Settings that have the solver played by some weights; none for the model itself."""
        return _for(self.solver, seat_settings(weights)) if weights else {}


def protocol_of(asked: "Asked", plan: "TrainingPlan") -> dict[str, Any]:
    """How the solver is examined: as it is trained, but for what is asked of the exam alone."""
    own, game = plan.exam.topology.settings or {}, plan.plan.topology.settings or {}
    return {key: value if f"exam.{key}" in asked.settings else game.get(key, value) for key, value in own.items()}


def _for(role: str, seat: Mapping[str, str]) -> dict[str, str]:
    return {f"{role}.{key}": value for key, value in seat.items()}
