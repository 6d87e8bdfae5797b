"""Rewards and advantages of turns, computed again from what a training run has stored.

Only for recipes that ship with Palaestra: a credit function of the user's own is code, and a viewer imports none that a
stored file names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from experiments.runs import TRAINING, Run
from experiments.viewer.keys import at, text_at
from experiments.viewer.library import Library
from experiments.viewer.records import Histogram

MOST = 2000
"""Episodes of an iteration up to which rewards are computed: baselines are over all of it."""
_CONTROLS = {"shuffle_rewards": "shuffled", "random_signs": "with signs drawn by a coin"}


@dataclass(frozen=True)
class Credited:
    """Of the turns of a training's iteration."""

    note: str = ""
    """How rewards were found, or why there are none; empty where nothing is trained."""
    terms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """`task/sample/turn` -> term -> reward."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    advantages: Mapping[str, float] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)


def credited(library: Library, path: Path) -> Credited:
    """What the turns of a run earned, where the run is an iteration of a training."""
    training = path.parent.parent
    if path.parent.name != "rollouts" or not (training / TRAINING).is_file():
        return Credited()
    return library.keep(("credit", path), library.stamp(path), lambda: _credited(library, path, training))


def reward_histograms(library: Library, path: Path, episodes: int) -> list[Histogram]:
    """A histogram a role."""
    from experiments.viewer.run_page import histogram

    found = credited(library, path) if episodes <= MOST else Credited()
    by_role: dict[str, list[float]] = {}
    for key, reward in found.rewards.items():
        by_role.setdefault(found.roles[key], []).append(reward)
    shown = (histogram(role, values) for role, values in sorted(by_role.items()))
    return [one for one in shown if one is not None]


def _credited(library: Library, path: Path, training: Path) -> Credited:
    from experiments.training.recipe import policy_gradient
    from experiments.training.recipes import RECIPES

    try:
        config = library.config(training, TRAINING)
    except ConfigError as error:
        return Credited(f"rewards are not known: {error}")
    name, schedule = text_at(config, "recipe"), at(config, "schedule") or {}
    if name not in RECIPES:
        return Credited(f"the credit of {name} is code of its own, which the viewer does not import")
    if len(library.outcomes(path).rows) > MOST:
        return Credited(f"rewards are shown of iterations of up to {MOST} episodes")
    mixed = [what for key, what in _CONTROLS.items() if schedule.get(key)]
    gradient = RECIPES[name].teach is policy_gradient and not mixed
    rule = text_at(schedule, "advantage") if gradient else "raw"
    try:
        found = _computed(path, RECIPES[name].credit, rule, schedule)
    except Exception as error:  # noqa: BLE001 - a damaged run or an odd schedule costs the rewards, not the page
        return Credited(f"rewards cannot be computed: {type(error).__name__}: {error}")
    note = f"credit of {name}" + (f", advantages by {rule}" if gradient else "")
    if mixed:
        note += f"; what was learned from were these rewards {' and '.join(mixed)}"
    return Credited(note, *found[:2], found[2] if gradient else {}, found[3])


def _computed(path: Path, credit: Any, rule: str, schedule: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
    from experiments.credit import samples_of

    run = Run(path)
    roles = [role.strip() for role in text_at(schedule, "roles").split(",") if role.strip()] or None
    gamma = float(schedule.get("gamma") or 0.0)
    found = samples_of(run, credit, rule, roles=roles, group=text_at(schedule, "group") or None, gamma=gamma)
    terms = {
        f"{episode.task.id}/{episode.sample}/{turn}": dict(given)
        for episode in run.episodes()
        if episode.verdict is not None and episode.failure is None
        for turn, given in credit(episode).items()
    }
    rewards = {sample.key: sample.reward for sample in found.samples}
    advantages = {sample.key: sample.advantage for sample in found.samples}
    return terms, rewards, advantages, {sample.key: sample.role for sample in found.samples}
