"""What a sweep plays: topologies × settings × models × seeds, each an arm with its own folder and a checked plan."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from inspect import isfunction, signature
from itertools import product
from typing import Any

from agents.cast import base_role
from agents.company import Backend
from agents.serving import SCOPES
from envs.errors import ConfigError, clip, unknown
from envs.types import Env, Split
from experiments.budget import RULER
from experiments.plan import CLUSTER, Plan, find_topology, make_plan, open_topology
from experiments.spending import Limits, Prices, check_prices, read_limits, require_prices
from experiments.sweep_table import Arm
from graphs.topology import fit

LONGEST = 64
"""Characters of an arm's folder."""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep whose arguments have been checked."""

    arms: dict[Arm, Plan]
    """Those that were asked for, in the order of the table."""
    rulers: dict[Arm, Plan]
    """Self-consistency, one a model and seed, yet without its number of samples."""
    limits: Limits
    prices: Prices
    stop_losers: float | None

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(arm.model for arm in self.arms))

    @property
    def pairs(self) -> int:
        """Of arms that are compared with one another: all that share a model, the seeds of each taken together."""
        counts = [len({arm.topology for arm in self.arms if arm.model == model}) for model in self.models]
        return sum(n * (n - 1) // 2 for n in counts)


def plan_sweep(
    topologies: Sequence[str],
    env: str | Env,
    models: Sequence[str],
    tasks: int | None,
    samples: int,
    seeds: Sequence[int],
    split: Split,
    calls: int | None,
    concurrency: int,
    settings: Mapping[str, Any] | None,
    grid: Mapping[str, Any] | None,
    budget: Mapping[str, Any] | None,
    prices: Mapping[str, Any] | None,
    stop_losers: float | None,
    backend: Backend,
    address: str | None,
) -> SweepPlan:
    """Check all arguments of `experiments.sweep`; prices are those of the file.

    Raises:
        ConfigError: the first thing that cannot be used.
    """
    shared = dict(settings or {})
    for key in shared:
        if key.partition(".")[0] not in ("env", CLUSTER, *SCOPES):
            raise ConfigError(f"{key} is no setting of a whole sweep: write it after its topology, as TOPOLOGY,{key}=…")
    if calls is not None and calls < 1:
        raise ConfigError(f"calls: expected a budget of at least 1 call an episode, found {calls}")
    if stop_losers is not None and not 0 < stop_losers < 1:
        raise ConfigError(f"stop_losers: expected a probability of error above 0 and below 1, found {stop_losers}")
    if not (topologies and models and seeds):
        raise ConfigError("a sweep needs at least one topology, one model and one seed")

    def planned(topology: str, own: Mapping[str, Any], model: str, seed: int) -> Plan:
        given = {**shared, **own}
        return make_plan(topology, env, model, tasks, samples, seed, split, concurrency, given, backend, address)

    arms, rulers = _arms(_expanded(topologies, _values(grid or {}), calls), models, seeds, planned)
    plan = SweepPlan(arms, rulers, read_limits(budget or {}), check_prices(prices or {}, "prices"), stop_losers)
    if "usd" in plan.limits:
        require_prices((one.config["cast"] for one in (*arms.values(), *rulers.values())), plan.prices)
    return plan


def _arms(
    sized: Sequence[tuple[str, dict[str, Any]]],
    models: Sequence[str],
    seeds: Sequence[int],
    planned: Callable[[str, Mapping[str, Any], str, int], Plan],
) -> tuple[dict[Arm, Plan], dict[Arm, Plan]]:
    """The runs that were asked for, and those of self-consistency."""
    folders: set[str] = set()

    def named(label: str, folder: str, model: str, seed: int) -> Arm:
        parts = [folder, model if len(models) > 1 else "", f"seed{seed}" if len(seeds) > 1 else ""]
        run = _folder("-".join(part for part in parts if part), folders)
        folders.add(run.lower())
        return Arm(topology=label, model=model, seed=seed, run=run)

    measured = [(model, seed) for model in models for seed in seeds]
    arms: dict[Arm, Plan] = {}
    known: set[tuple[str, str, int]] = set()
    for model, seed in measured:
        for topology, own in sized:
            label = ",".join([topology, *(f"{key}={value}" for key, value in own.items())])
            if (label, model, seed) in known:
                raise ConfigError(f"the sweep names {label} twice; arms are told apart by topology, model and seed")
            known.add((label, model, seed))
            arms[named(label, label, model, seed)] = planned(topology, own, model, seed)
    rulers = {named(RULER, "self-consistency", *pair): planned(RULER, {"samples": 1}, *pair) for pair in measured}
    return arms, rulers


def _folder(name: str, taken: set[str]) -> str:
    """A plain folder name; a long one, or one that another has but for its case, ends with a hash."""
    plain = re.sub(r"[^\w.,=+-]+", "-", name, flags=re.ASCII).strip("-.")
    if len(plain) <= LONGEST and plain.lower() not in taken:
        return plain
    return f"{plain[: LONGEST - 9]}-{sha256(name.encode()).hexdigest()[:8]}"


def _values(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Setting -> its values; text has commas between them."""
    values = {key: value.split(",") if isinstance(value, str) else list(value) for key, value in grid.items()}
    for key, found in values.items():
        if key.partition(".")[0] in ("env", CLUSTER, *SCOPES):
            raise ConfigError(
                f"grid {key}: arms share tasks, engines and pools, so that they can be compared; "
                "play a sweep for each of its values"
            )
        if not found or "" in found:
            raise ConfigError(f"grid {key}: expected values with commas between them, found {clip(grid[key])}")
    return values


def _expanded(
    topologies: Sequence[str], grid: Mapping[str, Sequence[Any]], calls: int | None
) -> list[tuple[str, dict[str, Any]]]:
    """Each topology with each of its settings of the grid, fitted into the budget of calls when there is one.

    A topology is played with the settings that it has: `solo` has no rounds. What is written after it goes before.
    """
    parsed = [_parsed(topology) for topology in topologies]
    takes = {key: [_takes(name, own, key) for name, own in parsed] for key in grid}
    for key, taking in takes.items():
        if not any(taking):
            raise unknown("setting in the grid", key, {one for name, own in parsed for one in _names(name, own)})
    found: list[tuple[str, dict[str, Any]]] = []
    for place, (name, own) in enumerate(parsed):
        keys = [key for key in grid if takes[key][place] and key not in own]
        for values in product(*(grid[key] for key in keys)):
            crossed = {**own, **dict(zip(keys, values, strict=True))}
            found.append((name, _fitted(name, crossed, calls)))
    return found


def _fitted(name: str, own: dict[str, Any], calls: int | None) -> dict[str, Any]:
    if calls is None:
        return own
    return {**own, **fit(find_topology(name), calls, _of_topology(own), name)}


def _takes(name: str, own: Mapping[str, Any], key: str) -> bool:
    """Whether a topology has a setting, or a role to be set."""
    role, dot, _ = key.partition(".")
    if not dot:
        return key in _names(name, own)
    roles = open_topology(name, _of_topology(own)).roles
    return not roles or role in {*roles, *map(base_role, roles)}


def _names(name: str, own: Mapping[str, Any]) -> Iterator[str]:
    function = find_topology(name)
    yield from signature(function).parameters if isfunction(function) else ()
    yield from (key for key in own if "." in key)


def _of_topology(own: Mapping[str, Any]) -> dict[str, Any]:
    """Without those of roles."""
    return {key: value for key, value in own.items() if "." not in key}


def _parsed(topology: str) -> tuple[str, dict[str, Any]]:
    """`society,agents=3` → its name and its settings."""
    name, *pairs = topology.split(",")
    own: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"topology {clip(topology)}: expected NAME,KEY=VALUE,…, found {clip(pair)}")
        own[key] = value
    find_topology(name)
    return name, own
