"""Sweeps: topologies × settings × models × seeds over the same tasks, each a stored run, and one table over all.

A sweep is a folder of runs. Beside those asked for it plays self-consistency with as many samples as the dearest of
them needs (experiments.budget), so that each is compared at equal calls and at equal tokens. `sweep_plan` says what is
played, `sweep_play` plays it, `sweep_table` reads what came of it.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.company import Backend, open_companies
from envs.errors import ConfigError
from envs.types import Env, Split
from experiments.arguments import arguments_again, store_arguments
from experiments.folder import claimed, gone_on_with, replace_whole
from experiments.plan import CONCURRENCY
from experiments.plot import save_plot
from experiments.runner import in_event_loop
from experiments.runs import ASKED, RUNS, SWEEP, Run
from experiments.sequential import Loss
from experiments.spending import PRICES, Purse, read_prices
from experiments.sweep_plan import SweepPlan, plan_sweep
from experiments.sweep_play import play_model
from experiments.sweep_table import Entry, SweepTable, tabulate


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
    grid: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    prices: Path | str | None = None,
    stop_losers: float | None = None,
    backend: Backend = "ray",
    address: str | None = None,
    name: str | None = None,
    root: Path | str = RUNS,
    progress: bool | None = None,
) -> Sweep:
    """Play every topology with every setting, model and seed over the same tasks, and compare them.

    Args:
        topologies: names or `module:function`, each with settings of its own after commas: `society,agents=3,rounds=2`,
            `vote,solver.temperature=0.5`. The first is what the others are compared with.
        env: as in `experiments.run`, as are tasks, samples, split, concurrency, backend, address, root, progress.
        models: each fills every role.
        seeds: each a run of its own; a task's scores are averaged over them.
        calls: fits every topology into so many calls an episode (graphs.topology.fit).
        settings: of all arms: `env.KEY` and those of engines and pools.
        grid: setting -> its values, `{"rounds": [1, 2], "solver.temperature": [0, 1]}`: each topology is played with
            all combinations of those that it has and that are not set after its name.
        budget: the most that is spent by all arms, self-consistency among them: any of `calls`, `tokens`, `usd`. No
            episode begins once it is reached; those in flight end. What is left is shared equally among the models
            that are still to come.
        prices: file of what models cost (experiments.spending); None takes `prices.json` in `root`, if there is one.
        stop_losers: stop an arm when another with its model is better, with at most this probability that the sweep
            ever stops one for another that is not (experiments.sequential); looked at every 20 tasks. The first
            topology is never stopped.
        name: of the sweep's folder.

    Raises:
        ConfigError: an argument that cannot be used; nothing has been loaded or written then.
        EngineError, StoreError: as in `experiments.run`.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("name", "root", "progress")}
    arguments |= {key: list(arguments[key]) for key in ("topologies", "models", "seeds")}
    arguments["grid"] = {key: one if isinstance(one, str) else list(one) for key, one in (grid or {}).items()}
    arguments["prices"] = _prices(prices, Path(root))
    plan = plan_sweep(**arguments)
    with claimed(Path(root), name, "sweep", ASKED, store_arguments(arguments)) as directory:
        try:
            return in_event_loop(lambda: _play(plan, directory, progress))
        finally:
            if not any(path.is_dir() for path in directory.iterdir()):
                shutil.rmtree(directory)


def resume_sweep(
    path: Path,
    *,
    env: Env | None = None,
    address: str | None = None,
    failed: bool = False,
    progress: bool | None = None,
) -> Sweep:
    """Finish a sweep that was killed or stopped; one that is whole is left as it is.

    Args:
        path: of its folder.
        env: what it was given ready-made, given again.
        address: of a Ray cluster; None takes the one that it began on.
        failed: ask the episodes that failed again, too.
        progress: as in `sweep`.

    Raises:
        ConfigError: no sweep; another process plays it; something has to be given again, or is not what it was.
        EngineError, StoreError: as in `experiments.run`.
    """
    if (path / SWEEP).is_file() and not failed:
        return Sweep(path)
    if not (path / ASKED).is_file():
        raise ConfigError(f"{path} is no sweep that can be gone on with: it holds no {ASKED}")
    with gone_on_with(path):
        asked = json.loads((path / ASKED).read_text(encoding="utf-8"))
        plan = plan_sweep(**arguments_again(asked, {"env": env, "address": address}, path.name))
        # Until it is made anew: a table that stays would say that the sweep is whole.
        (path / SWEEP).unlink(missing_ok=True)
        return in_event_loop(lambda: _play(plan, path, progress, failed))


def _prices(file: Path | str | None, root: Path) -> dict[str, Any]:
    at = Path(file) if file else root / PRICES
    found = read_prices(at) if file or at.is_file() else {}
    return {model: price.model_dump() for model, price in found.items()}


async def _play(plan: SweepPlan, directory: Path, progress: bool | None, failed: bool = False) -> Sweep:
    purse = Purse(plan.limits)
    lost: dict[tuple[str, str], Loss] = {}
    for number, model in enumerate(plan.models):
        purse.share(len(plan.models) - number)
        plans = [one for arms in (plan.arms, plan.rulers) for arm, one in arms.items() if arm.model == model]
        casts, first = [(one.cast, one.roles) for one in plans], plans[0]
        async with open_companies(casts, first.backend, first.serving, first.address, first.cluster.ship) as companies:
            found = await play_model(plan, model, companies, directory, purse, progress, failed)
        lost |= {(model, label): loss for label, loss in found.items()}
    return await _tabulated(plan, lost, directory)


async def _tabulated(plan: SweepPlan, lost: Mapping[tuple[str, str], Loss], directory: Path) -> Sweep:
    arms, rulers = ({arm: one.episodes for arm, one in some.items()} for some in (plan.arms, plan.rulers))
    table = await tabulate(arms, rulers, directory, next(iter(plan.arms.values())).env, lost, plan.prices)
    asked = table.model_copy(update={"budget": dict(plan.limits), "stop_losers": plan.stop_losers})
    save_plot(asked, directory / "sweep.png")
    # The last: it says that the sweep is whole.
    replace_whole(directory / SWEEP, asked.model_dump_json(indent=2) + "\n")
    return Sweep(directory)
