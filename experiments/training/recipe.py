"""Recipes: how a policy learns from episodes. `grpo` is the plain one; one's own is mostly a credit function.

A recipe turns the episodes of an iteration into what the trainer is given. It is a pure function of them, the schedule
and a seed: a killed run makes the same samples again from what is stored.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from agents.learning.advantages import ADVANTAGES, Advantage, adapt
from agents.learning.samples import Pair, Sample
from agents.types import EngineError
from experiments.credit import Adapt, Credit, Credited, outcome, samples_of
from experiments.pseudo_labels import agreement_of
from experiments.training.schedule import Schedule
from graphs.turns import Episode

if TYPE_CHECKING:
    from experiments.training.arena import Arena, Weights
    from experiments.training.asked import Asked
    from experiments.training.stages import Stages
    from experiments.training.training import Line

Items = Sequence[Sample | Pair]


class NothingToLearnError(EngineError):
    """Episodes without anything to learn from; the message says what they lacked."""


@dataclass(frozen=True)
class Lesson:
    """What is learned from some episodes."""

    items: Items
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What trains nothing -> how often."""
    rewards: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Role -> term -> mean."""


Teach = Callable[[Iterable[Episode], Credit, Schedule, int], Lesson]
"""(episodes that share baselines, credit, schedule, seed) -> lesson. Samples keep the turns' own policies."""


class Conduct(Protocol):
    """Goes through the stages of a training that has no loop of its own."""

    def check(self, asked: "Asked") -> None:
        """See that the stages will find nothing wrong with the arguments. Raises ConfigError."""
        ...

    def run(self, stages: "Stages") -> None:
        """Train and play, stage by stage, and record what came of it. Called again where a run was stopped: stages
        that are finished are left as they are."""
        ...


class Rules(Protocol):
    """How policies of a game meet one another. Both answers depend on what is stored alone."""

    async def matches(self, arena: "Arena", updates: int) -> "Line":
        """Play the newest versions against all earlier ones; a line of metrics of kind `league`."""
        ...

    def opponents(self, arena: "Arena", updates: int) -> "Weights":
        """The versions that play the next iteration."""
        ...


@dataclass(frozen=True)
class Exam:
    """What policies are measured by, where that is not what they are trained on."""

    topology: str
    env: str = ""
    """Empty for the one that is trained on."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of both: `env.KEY`, and the topology's own."""


@dataclass(frozen=True)
class Recipe:
    """See the module."""

    name: str
    teach: Teach
    loss: str = "grpo"
    """Preset of agents.learning.settings."""
    credit: Credit = outcome
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """Where it departs from the schedule's defaults."""
    replays: bool = False
    """Whether it can learn again from what older weights said."""
    from_run: bool = False
    """Whether it learns from the episodes of a stored run, and plays only to measure."""
    topology: str = "solo"
    """What is played where nothing else is asked for."""
    env: str = "arithmetic"
    """On what."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Beside the schedule's, where nothing else is set: as with `--set`."""
    exam: Exam | None = None
    stages: Mapping[str, "Recipe"] = field(default_factory=dict)
    """Trainings of their own that this one is made of, each in a folder of it; `NAME.KEY` sets what is theirs alone.
    Where nobody conducts them, each comes once, in order, before the loop: it starts from the weights of the one
    before, and the loop from those of the last."""
    conduct: Conduct | None = None
    """Goes through the stages in place of the loop."""
    rules: Rules | None = None
    """Of a game between policies; None where all play with their newest weights."""


def policy_gradient(
    episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int, own: Adapt | None = None
) -> Lesson:
    """Every turn weighs its advantage over its group; `own` sets what samples have beside it."""
    rule, group = ADVANTAGES[schedule.advantage], schedule.group or None
    if group is None:
        group = "role" if schedule.advantage == "reinforce++" else "task/role"
    credited = samples_of(
        episodes,
        credit,
        controlled(rule, schedule, seed),
        roles=schedule.learning_roles,
        group=group,
        gamma=schedule.gamma,
        adapt=own,
    )
    return _lesson(credited, credited.samples, schedule.drop_even)


def adpo(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """The same on pseudo-labels: the fewer votes agreed on a task's label, the less its turns weigh, and the further
    their ratios may rise. Agent0, Xia et al., arXiv:2511.16043; with the loss `adpo`, and advantage `grpo_unbiased`.

    Raises:
        ConfigError: a task without the agreement of its label (experiments.pseudo_labels).
    """

    def own(sample: Sample, episode: Episode) -> Sample:
        return adapt(sample, float(agreement_of(episode.task)))

    return policy_gradient(episodes, credit, schedule, seed, own)


def imitation(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """Turns with a reward above 0 are learned by heart, each as much as its reward; equal replies to a prompt once.

    Rejection-sampling fine-tuning, as in Yuan et al., arXiv:2308.01825.
    """
    credited = _rewarded(episodes, credit, schedule, seed)
    kept: dict[Hashable, Sample] = {}
    for sample in credited.samples:
        if sample.advantage > 0:
            taught = replace(sample, supervised=True, weight=sample.advantage, advantage=0.0)
            kept.setdefault((sample.policy, sample.prompt_ids, sample.token_ids), taught)
    return _lesson(credited, list(kept.values()))


def preferences(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """Pairs of replies to one and the same prompt, of which one was rewarded more; each reply is in one pair at most.

    DPO, Rafailov et al., arXiv:2305.18290, on what the policy itself has just said.
    """
    credited = _rewarded(episodes, credit, schedule, seed)
    alike: dict[Hashable, list[Sample]] = {}
    for sample in credited.samples:
        alike.setdefault((sample.policy, sample.prompt_ids), []).append(sample)
    pairs: list[Sample | Pair] = []
    for group in alike.values():
        ranked = sorted(group, key=lambda sample: -sample.advantage)
        couples = zip(ranked, reversed(ranked), strict=True)
        pairs += [Pair(a, b) for a, b in couples if a.advantage > b.advantage]
    return _lesson(credited, pairs)


def _rewarded(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Credited:
    """Samples with their returns as advantages."""
    rule = controlled(ADVANTAGES["raw"], schedule, seed)
    return samples_of(episodes, credit, rule, roles=schedule.learning_roles, gamma=schedule.gamma)


def _lesson(credited: Credited, items: Items, drop_even: bool = False) -> Lesson:
    left_out = Counter(credited.left_out)
    if drop_even:
        kept = [item for item in cast(Sequence[Sample], items) if item.advantage]
        left_out["samples without an advantage"] += len(items) - len(kept)
        items = kept
    return Lesson(items, dict(+left_out), credited.rewards)


def controlled(rule: Advantage, schedule: Schedule, seed: int) -> Advantage:
    """The rule, of returns from which nothing can be learned where the schedule asks for such a control."""
    if not (schedule.shuffle_rewards or schedule.random_signs):
        return rule

    def control(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
        rng, mixed = random.Random(seed), list(returns)
        if schedule.shuffle_rewards:
            rng.shuffle(mixed)
        if schedule.random_signs:
            mixed = [abs(value) * rng.choice((-1, 1)) for value in mixed]
        return rule(mixed, groups)

    return control
