"""Play the arms of one model: by blocks of tasks where a budget or early stopping asks for it, else all at once.

All arms share the model's pools. In a block the arms follow one another, and an arm begins when the one before it has
no more episodes to begin: the engine is left waiting only at the end of a block that something is decided by.
Self-consistency with as many samples as the dearest arm needs comes after the first block, when it is known what they
take.

Blocks are of tasks in an order that the seed draws, so that the tasks of every block are like those of all: a file may
be sorted. What is decided at the end of a block depends on the scores of the tasks until then and on nothing else, so
that it is the same at any concurrency, and in a sweep that was killed and gone on with. How much a budget leaves
unplayed may differ by what was in flight.
"""

import asyncio
import math
import random
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agents.company import Company
from agents.types import seed_of
from envs.types import Task
from experiments.arguments import require_same
from experiments.budget import RULER
from experiments.folder import write_whole
from experiments.plan import Plan, find_topology
from experiments.progress import Progress
from experiments.rollouts import Plays, rollouts
from experiments.runner import claim_directory, kept_if_played, play_one, recording
from experiments.runs import CONFIG, RESULT, Run
from experiments.sequential import Loss, losers
from experiments.spending import Prices, Purse, spent_by, spent_on
from experiments.stats import Scores
from experiments.store import FILE, StoreWriter
from experiments.sweep_plan import SweepPlan
from experiments.sweep_table import Arm, together

BLOCK = 20
"""Tasks after which arms are compared, and by which a budget is shared among them."""
MOST_SAMPLES = 64
"""Of the self-consistency that others are measured by; what costs more is compared with none."""
MARGIN = 1.25
"""More samples than the first block asks for: later ones may be dearer."""
Job = tuple[int, Task, int]
"""An episode's position, task and sample."""


async def play_model(
    sweep: SweepPlan,
    model: str,
    companies: Sequence[Company],
    directory: Path,
    purse: Purse,
    progress: bool | None,
    failed: bool = False,
) -> dict[str, Loss]:
    """Play all arms of a model, and self-consistency beside them.

    Args:
        sweep: with all arms.
        model: whose arms are played.
        companies: of its arms, then of its rulers.
        directory: of the sweep; what its runs hold already is not played again.
        purse: pays; when it is empty no episode begins.
        progress: as in `experiments.run`.
        failed: episodes that are stored as failed are asked again.

    Returns:
        Label -> why the arms of it were stopped.
    """
    own = [arm for arm in sweep.arms if arm.model == model]
    measuring = [arm for arm in sweep.rulers if arm.model == model]
    kept = {arm: _kept(directory / arm.run, failed) for arm in (*own, *measuring)}
    for arm in (arm for arm in kept if (directory / arm.run / FILE).is_file()):
        purse.add(spent_by(Run(directory / arm.run), sweep.prices))
    first = sweep.arms[own[0]]
    left = first.episodes * len(kept) - sum(map(len, kept.values()))
    with Progress(f"{len(own)} runs", left, progress) as shown:
        async with asyncio.TaskGroup() as group:
            gate = asyncio.Semaphore(first.concurrency)
            ground = _Ground(directory, group, gate, purse, sweep.prices, shown, failed)
            staffed = zip(own, companies[: len(own)], strict=True)
            playing = [_Player(arm, sweep.arms[arm], company, kept[arm], ground) for arm, company in staffed]

            def measure(tasks: Sequence[str], margin: float) -> list[_Player]:
                samples = _samples_needed([Run(player.folder) for player in playing], tasks, margin)
                sized = {arm: _with_samples(sweep.rulers[arm], samples) for arm in measuring}
                for arm in (arm for arm in measuring if _is_of_another_size(directory / arm.run, sized[arm])):
                    shutil.rmtree(directory / arm.run)
                    kept[arm] = frozenset()
                staffed = zip(sized.items(), companies[len(own) :], strict=True)
                return [_Player(arm, plan, company, kept[arm], ground) for (arm, plan), company in staffed]

            return await _play_blocks(sweep, playing, measure, ground)


def _kept(folder: Path, failed: bool) -> frozenset[int]:
    """Positions of the episodes that are stored and are not to be asked again."""
    if not (folder / FILE).is_file():
        return frozenset()
    rows = Run(folder).store.outcomes()
    return frozenset(row["position"] for row in rows if not (failed and row["status"] == "failed"))


def _is_of_another_size(folder: Path, ruler: Plan) -> bool:
    """Whether self-consistency was stored with fewer or more samples: what it measures was asked again since."""
    return (folder / CONFIG).is_file() and Run(folder).config["topology"] != ruler.config["topology"]


async def _play_blocks(
    sweep: SweepPlan,
    playing: "list[_Player]",
    measure: "Callable[[Sequence[str], float], list[_Player]]",
    ground: "_Ground",
) -> dict[str, Loss]:
    first = playing[0]
    stops = sweep.stop_losers is not None
    blocks = _blocks(first.plan, BLOCK if sweep.limits or stops else len(first.plan.tasks))
    rulers: list[_Player] = []
    lost: dict[str, Loss] = {}
    seen: list[str] = []
    for number, block in enumerate(blocks):
        seen += [first.plan.tasks[i].id for i in block]
        last = number == len(blocks) - 1
        if not await ground.begin(playing, block, last):
            break
        if number == 0 or (stops and not last):
            await asyncio.gather(*(player.ended() for player in playing))
        if number == 0:
            rulers = measure(seen, MARGIN if len(blocks) > 1 else 1.0)
        if not await ground.begin(rulers, block, last):
            break
        if sweep.stop_losers is not None and not last:
            lost |= _lost(playing, seen, sweep.pairs, sweep.stop_losers)
            for player in (player for player in playing if player.label in lost):
                player.close()
            playing = [player for player in playing if player.label not in lost]
    for player in (*playing, *rulers):
        player.close()
    return lost


def _blocks(plan: Plan, size: int) -> list[list[int]]:
    """The tasks, by their places in the plan, block by block; in the plan's order where one block holds them all."""
    order = list(range(len(plan.tasks)))
    if size < len(order):
        random.Random(seed_of(plan.seed, "order of tasks")).shuffle(order)
    return [order[start : start + size] for start in range(0, len(order), size)]


def _lost(playing: "Sequence[_Player]", tasks: Sequence[str], pairs: int, alpha: float) -> dict[str, Loss]:
    """The arms that are to be stopped: never the first, with which the table compares the others."""
    scores: dict[str, Scores] = {}
    for label in dict.fromkeys(player.label for player in playing):
        merged = together(Run(player.folder).scores() for player in playing if player.label == label)
        scores[label] = {task: merged[task] for task in tasks if task in merged}
    found = losers(scores, pairs, alpha)
    return {label: loss for label, loss in found.items() if label != playing[0].label}


@dataclass
class _Ground:
    """What the arms of a model share while they are played."""

    directory: Path
    group: asyncio.TaskGroup
    gate: asyncio.Semaphore
    purse: Purse
    prices: Prices
    shown: Progress
    failed: bool
    """Episodes that are stored as failed are asked again."""

    async def begin(self, players: "Sequence[_Player]", block: Sequence[int], last: bool) -> bool:
        """Begin all episodes on a block of tasks that are not stored yet; False when the purse has become empty.

        Args:
            players: one after the other.
            block: which of the tasks.
            last: no more will come.
        """
        for player in players:
            for job in player.jobs(block):
                await self.gate.acquire()
                if self.purse.is_spent:
                    self.gate.release()
                    return False
                player.begin(job)
            if last:
                player.close()
        return True


class _Player:
    """An arm while it is played: it is told which episodes begin, and stores them."""

    def __init__(self, arm: Arm, plan: Plan, company: Company, kept: Collection[int], ground: _Ground):
        self.label, self.plan, self.folder = arm.topology, plan, ground.directory / arm.run
        self._company, self._kept, self._ground = company, kept, ground
        self._begun: asyncio.Queue[Job | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def jobs(self, block: Sequence[int]) -> Iterator[Job]:
        """The episodes on some of the tasks that are not stored."""
        samples = self.plan.samples
        pairs = ((i, sample) for i in block for sample in range(samples) if i * samples + sample not in self._kept)
        return ((i * samples + sample, self.plan.tasks[i], sample) for i, sample in pairs)

    def begin(self, job: Job) -> None:
        """Begin an episode, for which the gate has been passed."""
        if self._task is None:
            self._task = self._ground.group.create_task(self._play())
        self._begun.put_nowait(job)

    async def ended(self) -> None:
        """Return when all that began has ended."""
        await self._begun.join()

    def close(self) -> None:
        """No more episodes begin. May be called again."""
        if self._task is not None and not self._closed:
            self._begun.put_nowait(None)
        elif self._task is None and (self.folder / FILE).is_file() and not (self.folder / RESULT).is_file():
            # It was killed when nothing was left but to say that it is whole.
            write_whole(self.folder / RESULT, {"seconds": None})
        self._closed = True

    async def _play(self) -> None:
        # What a topology opens is seen by the tasks that are made here: each arm has one of its own.
        folder = self.folder
        if (folder / CONFIG).is_file():
            require_same(self.plan.config, Run(folder).config, f"{folder.parent.name}/{folder.name}")
        else:
            claim_directory(self.plan, folder.name, folder.parent)
        with kept_if_played(folder):
            async with (
                recording(self.plan, folder, self._ground.failed) as writer,
                rollouts(self.plan, self._company) as plays,
                asyncio.TaskGroup() as group,
            ):
                while (job := await self._begun.get()) is not None:
                    group.create_task(self._one(plays, writer, *job))
                self._begun.task_done()

    async def _one(self, plays: Plays, writer: StoreWriter, position: int, task: Task, sample: int) -> None:
        ground = self._ground
        try:
            episode = await play_one(plays, writer, position, task, sample)
            ground.purse.add(spent_on(episode.turns, self.plan.config["cast"], ground.prices))
            ground.shown.ended(episode)
        finally:
            ground.gate.release()
            self._begun.task_done()


def _samples_needed(runs: Sequence[Run], tasks: Collection[str], margin: float) -> int:
    """Samples whose calls and tokens suffice for what every run takes on some tasks, and so many times more.

    A sample costs no less than the cheapest call seen.
    """
    spent: list[tuple[float, float]] = []
    for run in runs:
        rows = [row for row in run.store.outcomes() if row["task"] in tasks]
        calls = sum(row["calls"] for row in rows)
        tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
        spent += [(calls / len(rows), tokens / len(rows))] if calls else []
    if not spent:
        return 1
    cheapest = min(tokens / calls for calls, tokens in spent)
    needed = max(max(calls, tokens / max(cheapest, 1)) for calls, tokens in spent)
    return min(MOST_SAMPLES, math.ceil(margin * needed) + 1)


def _with_samples(plan: Plan, samples: int) -> Plan:
    from graphs import build

    topology = build(find_topology(RULER), {"samples": samples}, RULER)
    config = {**plan.config, "topology": {"name": topology.name, "settings": {"samples": samples}}}
    return replace(plan, topology=topology, config=config)
