"""The schedule of a training run: how much is played, how it is credited, when it is measured. Plain data."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from agents.learning.advantages import ADVANTAGES
from agents.types import seed_of
from envs.errors import ConfigError, bind_settings, unknown
from envs.types import Env, Split, Task
from experiments.credit import GROUPS

Some = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AnyNumber = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Schedule:
    """Set with `--set KEY=VALUE`."""

    iterations: Some = 40
    tasks: Some = 32
    """New train tasks an iteration. A finite env begins again, in another order, when all have been played."""
    samples: Some = 8
    """Episodes a task."""
    concurrency: Some = 512
    """Most episodes in flight."""
    epochs: Some = 1
    """How often an iteration's samples are learned from."""
    minibatch: Some | None = None
    """Most samples an optimiser step; None takes all of an iteration at once."""
    lag: AnyNumber = 0
    """0 plays and learns by turns. Above 0, iterations are played with weights that are so many updates old, while the
    trainer works; samples that are older are refused."""
    roles: str = ""
    """That learn, with commas between; `debater` also stands for `debater_1`. Empty: all that the credit names."""
    advantage: str = "grpo"
    """Of agents.learning.advantages.ADVANTAGES."""
    group: str = ""
    """Of experiments.credit.GROUPS; empty for the advantage's usual one."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What a turn's reward passes on to the same role's turn before it."""
    drop_even: bool = True
    """Leave out samples without an advantage (groups that did all alike): they only cost time, and would keep the
    policy near its reference where there is a KL penalty."""
    shuffle_rewards: bool = False
    """A control: every return goes to some other turn. What is learned then, rewards did not teach."""
    random_signs: bool = False
    """Another: every reward's sign is drawn by a coin."""
    data: str = ""
    """Of sft: the stored run that is learned from."""
    start: str = ""
    """Of recipes that make their first policies themselves: the training whose first ones are taken."""
    restart: bool = False
    """Learn every iteration from the first weights on, in place of going on from the last ones."""
    buffer: bool = False
    """Learn from all iterations so far, in place of the newest alone."""
    mix_first: bool = False
    """Learn beside each sample from one of those that the first policies were made of (`loss.sft_mix` weighs them)."""
    opponents: Literal["matched", "newest"] = "matched"
    """Of games between policies: who plays an iteration. matched: the pair whose win rate is nearest to a half, one of
    its sides being the newest."""
    match_tasks: AnyNumber = 100
    """Of games between policies: validation tasks on which the newest meet all earlier ones after every update; 0 for
    no such matches, and the newest opponents."""
    questions: Some = 160
    """Of agent0, as are the following: that are posed for the pool of an iteration."""
    band: str = "released"
    """How far answers have to agree for a question to be kept: released, paper, or LOW..HIGH."""
    reward: Literal["paper", "released", "grounded"] = "paper"
    """The form of the proposer's reward; grounded is what solvers gain on labelled validation tasks (SOAR)."""
    tool_reward: Weight | None = None
    """Weight of its term for programs that were run, 0 for none; None for the form's own."""
    repetition: Weight | None = None
    """Weight of its term for questions that are like others of the batch."""
    own_answer: bool | None = None
    """Whether a question counts only where the proposer's own answer is what the votes say. None: as in the form of the
    reward, in the released one alone."""
    task_most: Some = 3
    """Of critique_loop: right solutions of one task that are learned from at most."""
    replay: AnyNumber = 0
    """Of rft and dpo: as many older items as this are learned from again each iteration."""
    replay_most: Some = 4096
    """Items that are kept for that, the newest."""
    evaluate_every: AnyNumber = 10
    """Iterations between two measurements on validation tasks; 0 for none."""
    validation_tasks: Some = 100
    validation_samples: Some = 4
    patience: AnyNumber = 0
    """Stop after so many measurements without a new best one; 0 never stops."""
    test_tasks: AnyNumber = 300
    """On which the first, the best and the last weights are measured; 0 for none."""
    test_samples: Some = 8
    greedy: bool = True
    """Measure at temperature 0 too."""
    train_split: Split = "train"
    validation_split: Split = "validation"
    test_split: Split = "test"
    """Where two of these are the same split, their tasks are different ones of it."""
    keep: Literal["needed", "all"] = "needed"
    """Which exported weights stay on disk: the first, the best, the last and what is pinned; or all."""

    @property
    def measures(self) -> bool:
        return self.evaluate_every > 0

    @property
    def learning_roles(self) -> tuple[str, ...] | None:
        return tuple(role.strip() for role in self.roles.split(",")) if self.roles else None


KEYS = tuple(field.name for field in fields(Schedule))


def make_schedule(changes: Mapping[str, Any], preset: Mapping[str, Any]) -> Schedule:
    """A schedule with the recipe's own settings and, above them, the user's.

    Raises:
        ConfigError: an unknown key, a value that cannot be.
    """
    schedule = Schedule(**bind_settings(Schedule, {**preset, **changes}, "the training"))
    if schedule.advantage not in ADVANTAGES:
        raise unknown("advantage", schedule.advantage, ADVANTAGES)
    if schedule.group and schedule.group not in GROUPS:
        raise unknown("group", schedule.group, GROUPS)
    if schedule.patience and not schedule.measures:
        raise ConfigError("patience counts measurements, and evaluate_every=0 makes none; set evaluate_every")
    return schedule


class Curriculum:
    """The tasks of a run: those that are trained on, iteration by iteration, and those held out."""

    def __init__(
        self,
        env: Env,
        schedule: Schedule,
        seed: int,
        trains: bool = True,
        exam: Env | None = None,
        plays_matches: bool = False,
    ):
        """
        Args:
            env: where those come from that are trained on.
            schedule: how many.
            seed: of their order.
            trains: whether any are trained on.
            exam: where those held out come from; None for the same env.
            plays_matches: whether policies meet on validation tasks of `env`.

        Raises:
            ConfigError: the env has too few tasks, or none of a split.
        """
        self._size, self._seed = schedule.tasks, seed
        taken: dict[Split, int] = {}
        self.test = _held_out(exam or env, schedule.test_split, schedule.test_tasks, taken)
        wanted = schedule.validation_tasks if schedule.measures else 0
        self.validation = _held_out(exam or env, schedule.validation_split, wanted, taken)
        meeting = plays_matches and schedule.match_tasks
        self.matches = env.tasks(schedule.match_tasks, schedule.validation_split) if meeting else []
        self._train: Sequence[Task] = []
        if not trains:
            return
        behind = taken.get(schedule.train_split, 0) if exam is None else 0
        self._train = _at_most(env, schedule.train_split, behind + schedule.iterations * schedule.tasks)[behind:]
        if len(self._train) < schedule.tasks:
            raise ConfigError(
                f"env {env.name}: expected at least {schedule.tasks} {schedule.train_split} tasks for an iteration, "
                f"found {len(self._train)} that are not held out; set fewer tasks, validation_tasks or test_tasks"
            )

    def iteration(self, number: int) -> list[Task]:
        """The tasks of an iteration, from 0; each of an env's tasks comes once before any comes again."""
        passes = len(self._train) // self._size
        order = list(range(len(self._train)))
        random.Random(seed_of(self._seed, "tasks", number // passes)).shuffle(order)
        start = number % passes * self._size
        return [self._train[i] for i in order[start : start + self._size]]


def _held_out(env: Env, split: Split, number: int, taken: dict[Split, int]) -> Sequence[Task]:
    if not number:
        return []
    start = taken.get(split, 0)
    taken[split] = start + number
    return env.tasks(start + number, split)[start:]


def _at_most(env: Env, split: Split, number: int) -> Sequence[Task]:
    try:
        return env.tasks(number, split)
    except ConfigError:
        return env.tasks(None, split)
