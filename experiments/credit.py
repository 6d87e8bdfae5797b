"""Credit: how an episode's outcome becomes a reward for each trained turn, and turns with rewards become samples.

A credit is a pure function of an episode, so that the samples of a stored run can be computed again on any machine.
A recipe is mostly a credit function of its own. Called by training loops; the samples go to the trainer.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from agents.cast import base_role
from agents.learning.advantages import ADVANTAGES, Advantage, reinforce
from agents.learning.samples import Sample, SampleError
from agents.types import why_untrainable
from envs.errors import ConfigError, nearest, unknown
from experiments.runs import Run
from graphs.turns import Episode, Turn

Rewards = Mapping[str, Mapping[str, float]]
"""Turn id -> name of a term -> reward. A turn's reward is the sum of its terms; turns not named train nothing."""
Credit = Callable[[Episode], Rewards]
Group = Callable[[Episode, Turn], Hashable]
"""Turns of equal value share a baseline."""
Adapt = Callable[[Sample, Episode], Sample]
"""Gives a sample what it has of its own beside its advantage: a scale, an upper clip, a weight."""

GROUPS: Mapping[str, Group] = {
    "task/role": lambda episode, turn: (episode.task.id, turn.role),
    "task/turn": lambda episode, turn: (episode.task.id, turn.role, _number(turn)),
    "task": lambda episode, turn: episode.task.id,
    "prompt": lambda episode, turn: (turn.role, turn.prompt_ids),
    "role": lambda episode, turn: turn.role,
    "batch": lambda episode, turn: "",
}
"""By name: each role's turns on one task (the default); of these each one's n-th alone; all on one task, roles pooled;
each role's to one and the same prompt; each role's in the whole batch; the whole batch."""


def outcome(episode: Episode) -> Rewards:
    """The verdict's score to every turn. A reply that could not be parsed played no part in it and gets 0."""
    score = episode.verdict.score if episode.verdict else None
    return {turn.id: {"outcome": 0.0 if turn.failure else score or 0.0} for turn in episode.turns}


def format_penalty(penalty: float = 1.0) -> Credit:
    """Minus `penalty` for a reply that could not be parsed; 0 for the others."""
    return lambda episode: {turn.id: {"format": -penalty if turn.failure else 0.0} for turn in episode.turns}


def last_turn(credit: Credit) -> Credit:
    """What `credit` gives to each role's last turn; the role's others get 0 of each term. For use with `gamma`: an
    outcome that every turn is given must not be handed back from turn to turn besides."""

    def credited(episode: Episode) -> Rewards:
        rewards = credit(episode)
        last = {turn.role: turn.id for turn in episode.turns if turn.id in rewards}
        return {id: terms if id in last.values() else dict.fromkeys(terms, 0.0) for id, terms in rewards.items()}

    return credited


def by_role(credits: Mapping[str, Credit]) -> Credit:
    """Each role's turns by a credit of its own; `debater` also holds for `debater_1`. Other roles train nothing."""

    def credited(episode: Episode) -> Rewards:
        given = {role: credit(episode) for role, credit in credits.items()}
        named = {
            turn.id: next((n for n in (turn.role, base_role(turn.role)) if n in given), None) for turn in episode.turns
        }
        return {id: given[role][id] for id, role in named.items() if role is not None and id in given[role]}

    return credited


def total(*credits: Credit) -> Credit:
    """All terms together: a turn that several credits name has the terms of each; terms of one name are added."""

    def credited(episode: Episode) -> Rewards:
        terms: dict[str, dict[str, float]] = {}
        for rewards in (credit(episode) for credit in credits):
            for id, given in rewards.items():
                own = terms.setdefault(id, {})
                for name, value in given.items():
                    own[name] = own.get(name, 0.0) + value
        return terms

    return credited


def discounted(episode: Episode, rewards: Rewards, gamma: float) -> dict[str, float]:
    """Turn id -> return: a turn's reward, and `gamma` times the return of the same role's next turn with a reward."""
    following: dict[str, float] = {}
    returns: dict[str, float] = {}
    for turn in reversed(episode.turns):
        if turn.id in rewards:
            reward = math.fsum(rewards[turn.id].values())
            returns[turn.id] = following[turn.role] = reward + gamma * following.get(turn.role, 0.0)
    return returns


@dataclass(frozen=True)
class Credited:
    """What episodes give to learn from."""

    samples: list[Sample]
    """In the order of episodes and turns."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What trained nothing -> how often: failed and unscorable episodes, replies without a token or not sampled."""
    rewards: dict[str, dict[str, float]] = field(default_factory=dict)
    """Role -> term -> mean over the role's turns with that term."""


def samples_of(
    episodes: Run | Iterable[Episode],
    credit: Credit = outcome,
    advantage: str | Advantage = "grpo",
    *,
    roles: Collection[str] | None = None,
    group: str | Group | None = None,
    gamma: float = 0.0,
    policies: Mapping[str, str] | None = None,
    adapt: Adapt | None = None,
) -> Credited:
    """Samples with advantages from episodes, or from a stored run.

    Args:
        episodes: all that share baselines; failed and unscorable ones train nothing.
        credit: rewards of their turns.
        advantage: name in agents.learning.advantages.ADVANTAGES, or a function like those.
        roles: that are trained; `debater` also holds for `debater_1`. None: all that the credit names.
        group: name in GROUPS, or a function like those. None: `task/role`; for REINFORCE++ `role`.
        gamma: 0 to 1; see `discounted`.
        policies: the policy that turns name -> the trainer's name of it (the embedded model's turns say `embedded`,
            the pool's own model is ""). None keeps the turns' own names, and leaves checking them to the trainer.
        adapt: is given every sample, before its advantage is known, and its episode.

    Raises:
        ConfigError: an unknown advantage or group.
        SampleError: a trained turn of another policy, without token ids, or whose prompt does not begin with the turn
            that it follows; a credit that names a turn that is not there, or gives a reward that is not finite.
    """
    rule, grouping = _chosen(advantage, group)
    if not 0 <= gamma <= 1:
        raise ConfigError(f"expected gamma from 0 to 1, found {gamma:g}")
    left_out: Counter[str] = Counter()
    terms: dict[tuple[str, str], list[float]] = {}
    samples: list[Sample] = []
    returns: list[float] = []
    groups: list[Hashable] = []
    for episode in _scored(episodes, left_out):
        rewards = _checked(episode, credit(episode))
        found = discounted(episode, rewards, gamma)
        for turn in episode.turns:
            if turn.id not in rewards or not _is_trained(turn.role, roles):
                continue
            for name, value in rewards[turn.id].items():
                terms.setdefault((turn.role, name), []).append(value)
            if turn.choice_logprobs:
                left_out["replies that were chosen, not sampled"] += 1
                continue
            sample = _sample(episode, turn, policies, math.fsum(rewards[turn.id].values()))
            samples.append(adapt(sample, episode) if adapt else sample)
            returns.append(found[turn.id])
            groups.append(grouping(episode, turn))
    # A reply without a token has nothing to train, but its reward is part of what others are compared with.
    advantages = rule(returns, groups)
    kept = [replace(s, advantage=a) for s, a in zip(samples, advantages, strict=True) if s.token_ids]
    left_out["replies without a token"] += len(samples) - len(kept)
    means: dict[str, dict[str, float]] = {}
    for (role, name), values in terms.items():
        means.setdefault(role, {})[name] = math.fsum(values) / len(values)
    return Credited(kept, dict(+left_out), means)


def _chosen(advantage: str | Advantage, group: str | Group | None) -> tuple[Advantage, Group]:
    if isinstance(advantage, str) and advantage not in ADVANTAGES:
        raise unknown("advantage", advantage, ADVANTAGES)
    if group is None:
        group = "role" if advantage in ("reinforce++", reinforce) else "task/role"
    if isinstance(group, str) and group not in GROUPS:
        raise unknown("group", group, GROUPS)
    rule = ADVANTAGES[advantage] if isinstance(advantage, str) else advantage
    return rule, GROUPS[group] if isinstance(group, str) else group


def _scored(episodes: Run | Iterable[Episode], left_out: Counter[str]) -> Iterator[Episode]:
    for episode in episodes.episodes() if isinstance(episodes, Run) else episodes:
        if episode.failure is not None or episode.verdict is None:
            left_out["failed episodes"] += 1
        elif episode.verdict.score is None:
            left_out["unscorable episodes"] += 1
        else:
            yield episode


def _checked(episode: Episode, rewards: Rewards) -> Rewards:
    known = {turn.id for turn in episode.turns}
    for id, terms in rewards.items():
        if id not in known:
            raise SampleError(
                _key(episode, id), "a turn of its episode", id, f"the credit names it; {nearest(id, known)}"
            )
        for name, value in terms.items():
            if not math.isfinite(value):
                raise SampleError(_key(episode, id), f"a finite reward {name}", value, "look into the credit")
    return rewards


def _is_trained(role: str, roles: Collection[str] | None) -> bool:
    return roles is None or role in roles or base_role(role) in roles


def _sample(episode: Episode, turn: Turn, policies: Mapping[str, str] | None, reward: float) -> Sample:
    """One turn as a sample without an advantage yet. Raises SampleError."""
    key = _key(episode, turn.id)
    if policies is not None and turn.policy not in policies:
        raise SampleError(
            key,
            f"a turn of a policy that is trained ({', '.join(policies) or 'none'})",
            turn.policy,
            f"leave {turn.role} out of `roles`, or name its policy",
        )
    # Nothing sampled is no fault; a prompt is always there where an engine gives token ids.
    if (lacks := why_untrainable(turn)) and (turn.token_ids or not turn.prompt_ids):
        raise SampleError(
            key, "token ids and log-probabilities", lacks, f"play {turn.role} with embedded, hf: or vllm:"
        )
    _check_prefix(episode, turn, key)
    greedy = turn.temperature == 0
    return Sample(
        key=key,
        policy=turn.policy if policies is None else policies[turn.policy],
        version=turn.version,
        role=turn.role,
        prompt_ids=turn.prompt_ids,
        token_ids=turn.token_ids,
        logprobs=turn.logprobs,
        # Greedy replies come with log-probabilities of the model's own distribution.
        temperature=1.0 if greedy else turn.temperature,
        top_p=1.0 if greedy else turn.top_p,
        reward=reward,
    )


def _check_prefix(episode: Episode, turn: Turn, key: str) -> None:
    """A turn that goes on from another must begin with its very ids: else somebody tokenised text again."""
    if turn.follows is None:
        return
    earlier = next((other for other in episode.turns if other.id == turn.follows), None)
    if earlier is None:
        raise SampleError(
            key, f"the turn that it follows, {turn.follows}", "none of that id", "the episode is incomplete"
        )
    begun = (*earlier.prompt_ids, *earlier.token_ids) if earlier.token_ids else ()
    if turn.prompt_ids[: len(begun)] != begun:
        same = next(
            (i for i, (a, b) in enumerate(zip(begun, turn.prompt_ids, strict=False)) if a != b), len(turn.prompt_ids)
        )
        raise SampleError(
            key,
            f"a prompt that begins with the {len(begun)} token ids of {earlier.id}",
            f"{same} of them",
            "its conversation was tokenised again; send `prefix` on from the earlier turn",
        )


def _key(episode: Episode, id: str) -> str:
    return f"{episode.task.id}/{episode.sample}/{id}"


def _number(turn: Turn) -> str:
    return turn.id.rpartition("/")[2].partition(".")[0]
