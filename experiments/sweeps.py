"""Sweeps: topologies × models × seeds over the same tasks, each a stored run, and one table over all of them.

A sweep is a folder of runs. Beside those asked for it plays self-consistency with as many samples as the dearest of
them needs (experiments.budget), so that each is compared at equal calls and at equal tokens. All arms of a model share
its pools, and an arm begins when the one before it has no more episodes to begin: the engine is never left waiting.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.company import Backend, Company, open_companies
from agents.serving import SCOPES
from envs.errors import ConfigError, clip
from envs.types import Env, Split
from experiments.budget import RULER
from experiments.plan import CLUSTER, CONCURRENCY, Plan, find_topology, make_plan
from experiments.plot import save_plot
from experiments.progress import Progress
from experiments.runner import (
    claim_directory,
    claim_folder,
    in_event_loop,
    kept_if_played,
    play_all,
    recording,
)
from experiments.runs import RUNS, SWEEP, Run
from experiments.sweep_table import Arm, Entry, SweepTable, tabulate
from graphs.topology import fit

MOST_SAMPLES = 64
"""Of the self-consistency that others are measured by; what costs more is compared with none."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder."""

    path: Path

    @property
    def table(self) -> SweepTable:
        """Its entries, in the order of models and topologies, and self-consistency at every number of samples."""
        return SweepTable.model_validate_json((self.path / SWEEP).read_text(encoding="utf-8"))

    @property
    def entries(self) -> list[Entry]:
        return self.table.entries

    def runs(self) -> list[Run]:
        return [Run(self.path / arm.run) for arm in self.table.arms]


def sweep(
    topologies: Sequence[str],
    env: str | Env = "arithmetic",
    models: Sequence[str] = ("embedded",),
    *,
    tasks: int | None = None,
    samples: int = 1,
    seeds: Sequence[int] = (0,),
    split: Split = "test",
    calls: int | None = None,
    concurrency: int = CONCURRENCY,
    settings: Mapping[str, Any] | None = None,
    backend: Backend = "ray",
    address: str | None = None,
    name: str | None = None,
    root: Path | str = RUNS,
    progress: bool | None = None,
) -> Sweep:
    """Play every topology with every model and seed over the same tasks, and compare them.

    Args:
        topologies: names or `module:function`, each with settings of its own after commas: `society,agents=3,rounds=2`,
            `vote,solver.temperature=0.5`. The first is what the others are compared with.
        env: as in `experiments.run`, as are tasks, samples, split, concurrency, backend, address, root, progress.
        models: each fills every role.
        seeds: each a run of its own; a task's scores are averaged over them.
        calls: fits every topology into so many calls an episode (graphs.topology.fit).
        settings: of all arms: `env.KEY` and those of engines and pools.
        name: of the sweep's folder.

    Raises:
        ConfigError: an argument that cannot be used; nothing has been loaded or written then.
        EngineError: a model could not be loaded.
    """
    shared = dict(settings or {})
    for key in shared:
        if key.partition(".")[0] not in ("env", CLUSTER, *SCOPES):
            raise ConfigError(f"{key} is no setting of a whole sweep: write it after its topology, as TOPOLOGY,{key}=…")
    if calls is not None and calls < 1:
        raise ConfigError(f"calls: expected a budget of at least 1 call an episode, found {calls}")
    if not (topologies and models and seeds):
        raise ConfigError("a sweep needs at least one topology, one model and one seed")

    def planned(topology: str, own: Mapping[str, Any], model: str, seed: int) -> Plan:
        given = {**shared, **own}
        return make_plan(topology, env, model, tasks, samples, seed, split, concurrency, given, backend, address)

    arms, rulers = _planned(topologies, models, seeds, calls, planned)
    directory = claim_folder(Path(root), name, "sweep")
    try:
        return in_event_loop(lambda: _play(arms, rulers, directory, progress))
    finally:
        if not any(directory.iterdir()):
            directory.rmdir()


def _planned(
    topologies: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    calls: int | None,
    planned: Callable[[str, Mapping[str, Any], str, int], Plan],
) -> tuple[dict[Arm, Plan], dict[Arm, Plan]]:
    """The runs that were asked for, and those of self-consistency."""

    def named(label: str, folder: str, model: str, seed: int) -> Arm:
        parts = [folder, model if len(models) > 1 else "", f"seed{seed}" if len(seeds) > 1 else ""]
        run = re.sub(r"[^\w.,=+-]+", "-", "-".join(part for part in parts if part)).strip("-.")
        return Arm(topology=label, model=model, seed=seed, run=run)

    measured = [(model, seed) for model in models for seed in seeds]
    parsed = [_parsed(topology, calls) for topology in topologies]
    arms: dict[Arm, Plan] = {}
    for pair in measured:
        for label, topology, own in parsed:
            arm = named(label, label, *pair)
            if any(other.run == arm.run for other in arms):
                raise ConfigError(f"the sweep names {label} twice; arms are told apart by topology, model and seed")
            arms[arm] = planned(topology, own, *pair)
    rulers = {named(RULER, "self-consistency", *pair): planned(RULER, {"samples": 1}, *pair) for pair in measured}
    return arms, rulers


async def _play(arms: dict[Arm, Plan], rulers: dict[Arm, Plan], directory: Path, progress: bool | None) -> Sweep:
    for model in dict.fromkeys(arm.model for arm in arms):
        own = {arm: plan for arm, plan in arms.items() if arm.model == model}
        measuring = {arm: plan for arm, plan in rulers.items() if arm.model == model}
        casts = [(plan.cast, plan.roles) for plan in (*own.values(), *measuring.values())]
        first = next(iter(own.values()))
        async with open_companies(casts, first.backend, first.serving, first.address, first.cluster.ship) as companies:
            await _play_arms(own, companies[: len(own)], directory, progress)
            needed = _samples_needed([Run(directory / arm.run) for arm in own])
            sized = {arm: _with_samples(plan, needed) for arm, plan in measuring.items()}
            await _play_arms(sized, companies[len(own) :], directory, progress)
    return await _tabulated(list(arms), list(rulers), next(iter(arms.values())).env, directory)


async def _play_arms(
    arms: Mapping[Arm, Plan], companies: Sequence[Company], directory: Path, progress: bool | None
) -> None:
    first = next(iter(arms.values()))
    gate = asyncio.Semaphore(first.concurrency)
    what = f"{len(arms)} runs" if len(arms) > 1 else first.topology.name
    with Progress(what, sum(plan.episodes for plan in arms.values()), progress) as shown:
        async with asyncio.TaskGroup() as group:
            for (arm, plan), company in zip(arms.items(), companies, strict=True):
                begun = asyncio.Event()
                group.create_task(_play_arm(plan, company, directory, arm.run, shown, gate, begun))
                await begun.wait()


async def _play_arm(
    plan: Plan,
    company: Company,
    directory: Path,
    name: str,
    shown: Progress,
    gate: asyncio.Semaphore,
    begun: asyncio.Event,
) -> None:
    folder = claim_directory(plan, name, directory)
    with kept_if_played(folder):
        async with recording(plan, folder) as writer:
            await play_all(plan, company, writer, shown, gate, begun.set)


def _samples_needed(runs: Sequence[Run]) -> int:
    """Samples whose calls and tokens suffice for every run. A sample costs no less than the cheapest call seen."""
    summaries = [run.summary() for run in runs]
    spent = [(s.calls / s.episodes, (s.tokens.prompt + s.tokens.completion) / s.episodes) for s in summaries if s.calls]
    if not spent:
        return 1
    cheapest = min(tokens / calls for calls, tokens in spent)
    needed = max(max(calls, tokens / max(cheapest, 1)) for calls, tokens in spent)
    return min(MOST_SAMPLES, math.ceil(needed) + 1)


def _with_samples(plan: Plan, samples: int) -> Plan:
    from graphs import build

    topology = build(find_topology(RULER), {"samples": samples}, RULER)
    config = {**plan.config, "topology": {"name": topology.name, "settings": {"samples": samples}}}
    return replace(plan, topology=topology, config=config)


async def _tabulated(arms: Sequence[Arm], rulers: Sequence[Arm], env: Env, directory: Path) -> Sweep:
    table = await tabulate(arms, rulers, directory, env)
    (directory / SWEEP).write_text(table.model_dump_json(indent=2) + "\n", encoding="utf-8")
    save_plot(table, directory / "sweep.png")
    return Sweep(directory)


def _parsed(topology: str, calls: int | None) -> tuple[str, str, dict[str, Any]]:
    """`society,agents=3` → its label, its name and its settings, fitted into the budget when there is one."""
    name, *pairs = topology.split(",")
    own: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"topology {clip(topology)}: expected NAME,KEY=VALUE,…, found {clip(pair)}")
        own[key] = value
    if calls is None:
        find_topology(name)
        return topology, name, own
    function = find_topology(name)
    sized = fit(function, calls, {key: value for key, value in own.items() if "." not in key}, name)
    fitted = {**own, **sized}
    return ",".join([name, *(f"{key}={value}" for key, value in fitted.items())]), name, fitted
