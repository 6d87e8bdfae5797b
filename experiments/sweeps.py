"""Sweeps: topologies × models × seeds over the same tasks, each a stored run, and one table over all of them.

A sweep is a folder of runs. Beside those asked for it plays self-consistency with as many samples as the dearest of
them needs (experiments.budget), so that each is compared at equal calls and at equal tokens. All arms of a model share
its pools, and an arm begins when the one before it has no more episodes to begin: the engine is never left waiting.
"""

import asyncio
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.company import Backend, Company, open_companies
from agents.serving import SCOPES
from envs.errors import ConfigError, clip
from envs.types import Env, Split
from experiments.arguments import arguments_again, require_same, store_arguments
from experiments.budget import RULER
from experiments.folder import claimed, gone_on_with, replace_whole
from experiments.plan import CONCURRENCY, Plan, find_topology, make_plan
from experiments.plot import save_plot
from experiments.progress import Progress
from experiments.runner import (
    claim_directory,
    in_event_loop,
    kept_if_played,
    play_all,
    recording,
)
from experiments.runs import ASKED, CONFIG, RUNS, SWEEP, Run
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
    arguments = {key: value for key, value in locals().items() if key not in ("name", "root", "progress")}
    arms, rulers = _checked(**arguments)
    with claimed(Path(root), name, "sweep", ASKED, store_arguments(arguments)) as directory:
        try:
            return in_event_loop(lambda: _play(arms, rulers, directory, progress))
        finally:
            if not any(path.is_dir() for path in directory.iterdir()):
                shutil.rmtree(directory)


def resume_sweep(path: Path, *, env: Env | None = None, failed: bool = False, progress: bool | None = None) -> Sweep:
    """Finish a sweep that was killed or stopped.

    Args:
        path: of its folder.
        env: what it was given ready-made, given again.
        failed: ask the episodes that failed again, too.
        progress: as in `sweep`.

    Raises:
        ConfigError: another process plays it; something has to be given again, or is not what it was.
        EngineError, StoreError: as in `experiments.run`.
    """
    if (path / SWEEP).is_file() and not failed:
        return Sweep(path)
    with gone_on_with(path):
        asked = json.loads((path / ASKED).read_text(encoding="utf-8"))
        arms, rulers = _checked(**arguments_again(asked, {"env": env}, path.name))
        return in_event_loop(lambda: _play(arms, rulers, path, progress, failed))


def _checked(
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
    backend: Backend,
    address: str | None,
) -> tuple[dict[Arm, Plan], dict[Arm, Plan]]:
    """See `sweep` and `_planned`."""
    shared = dict(settings or {})
    for key in shared:
        if key.partition(".")[0] not in ("env", *SCOPES):
            raise ConfigError(f"{key} is no setting of a whole sweep: write it after its topology, as TOPOLOGY,{key}=…")
    if calls is not None and calls < 1:
        raise ConfigError(f"calls: expected a budget of at least 1 call an episode, found {calls}")
    if not (topologies and models and seeds):
        raise ConfigError("a sweep needs at least one topology, one model and one seed")

    def planned(topology: str, own: Mapping[str, Any], model: str, seed: int) -> Plan:
        given = {**shared, **own}
        return make_plan(topology, env, model, tasks, samples, seed, split, concurrency, given, backend, address)

    return _planned(topologies, models, seeds, calls, planned)


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


async def _play(
    arms: dict[Arm, Plan], rulers: dict[Arm, Plan], directory: Path, progress: bool | None, failed: bool = False
) -> Sweep:
    for model in dict.fromkeys(arm.model for arm in arms):
        own = {arm: plan for arm, plan in arms.items() if arm.model == model}
        measuring = {arm: plan for arm, plan in rulers.items() if arm.model == model}
        casts = [(plan.cast, plan.roles) for plan in (*own.values(), *measuring.values())]
        first = next(iter(own.values()))
        async with open_companies(casts, first.backend, first.serving, first.address) as companies:
            await _play_arms(own, companies[: len(own)], directory, progress, failed)
            needed = _samples_needed([Run(directory / arm.run) for arm in own])
            sized = {arm: _with_samples(plan, needed) for arm, plan in measuring.items()}
            _drop_of_other_sizes(sized, directory)
            await _play_arms(sized, companies[len(own) :], directory, progress, failed)
    return await _tabulated(list(arms), list(rulers), next(iter(arms.values())).env, directory)


async def _play_arms(
    arms: Mapping[Arm, Plan], companies: Sequence[Company], directory: Path, progress: bool | None, failed: bool
) -> None:
    first = next(iter(arms.values()))
    gate = asyncio.Semaphore(first.concurrency)
    what = f"{len(arms)} runs" if len(arms) > 1 else first.topology.name
    with Progress(what, sum(plan.episodes for plan in arms.values()), progress) as shown:
        async with asyncio.TaskGroup() as group:
            for (arm, plan), company in zip(arms.items(), companies, strict=True):
                begun = asyncio.Event()
                group.create_task(_play_arm(plan, company, directory, arm.run, shown, gate, begun, failed))
                await begun.wait()


async def _play_arm(
    plan: Plan,
    company: Company,
    directory: Path,
    name: str,
    shown: Progress,
    gate: asyncio.Semaphore,
    begun: asyncio.Event,
    failed: bool,
) -> None:
    folder = directory / name
    if (folder / CONFIG).is_file():
        require_same(plan.config, Run(folder).config, f"{directory.name}/{name}")
    else:
        claim_directory(plan, name, directory)
    with kept_if_played(folder):
        async with recording(plan, folder, failed) as writer:
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


def _drop_of_other_sizes(rulers: Mapping[Arm, Plan], directory: Path) -> None:
    """Remove self-consistency with fewer or more samples: what it is to measure has been asked again since."""
    for arm, plan in rulers.items():
        folder = directory / arm.run
        if (folder / CONFIG).is_file() and Run(folder).config["topology"] != plan.config["topology"]:
            shutil.rmtree(folder)


async def _tabulated(arms: Sequence[Arm], rulers: Sequence[Arm], env: Env, directory: Path) -> Sweep:
    table = await tabulate(arms, rulers, directory, env)
    save_plot(table, directory / "sweep.png")
    # The last: it says that the sweep is whole.
    replace_whole(directory / SWEEP, table.model_dump_json(indent=2) + "\n")
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
