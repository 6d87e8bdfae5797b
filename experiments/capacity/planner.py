"""How many GPUs of which kind: a workload on simulated replicas, for every kind that is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from agents.simulation.hardware import Hardware, Served
from envs.errors import ConfigError, unknown
from experiments.capacity.fleet import Played, simulate
from experiments.capacity.learning import MOST_GPUS
from experiments.capacity.workload import Segment, Workload

MOST_CALLS = 20_000
"""That are simulated of one segment; a longer one takes proportionally longer."""
CALL_S = 1e-3
"""What a call is supposed to cost the playing process, seconds: graph, routing, Ray and recording."""


@dataclass(frozen=True)
class Estimate:
    """One way to do a workload."""

    gpu: str
    replicas: int
    tensor_parallel: int
    """GPUs a replica."""
    trainer_gpus: int
    play_h: float
    """Of playing alone."""
    learn_h: float
    hours: float
    """From beginning to end."""
    usd: float | None
    """All GPUs for all hours; None where the price is not known."""
    price: str
    """A GPU's, with its date."""
    calls_per_s: float
    """While it plays, as the next two."""
    tokens_per_s: float
    """Of replies."""
    busy: float
    """Share of the time that a replica works."""
    cached: float
    """Share of prompt tokens that a prefix cache holds."""
    rows: int
    """Mean calls that fit on a replica at once, by its memory and its limit."""
    measured: bool
    """Whether the engine's costs were measured, or are derived from data sheets."""

    @property
    def gpus(self) -> int:
        return self.replicas * self.tensor_parallel + self.trainer_gpus


@dataclass
class Planner:
    """One model on one kind of GPU. Simulations are remembered.

    Raises:
        ConfigError: an unknown model or GPU, a model that does not fit.
    """

    workload: Workload
    hardware: Hardware
    model: str
    gpu: str
    limits: dict[str, Any]
    """Of a replica: see Limits; None leaves the engine's own."""
    tensor_parallel: int | None = None
    call_s: float = CALL_S

    def __post_init__(self) -> None:
        self._played: dict[int, list[Played]] = {}
        self.served  # noqa: B018 - checked at once, as is the next
        self.least_trainer  # noqa: B018

    @cached_property
    def served(self) -> Served:
        longest = self.workload.longest
        return self.hardware.served(self.model, self.gpu, self.tensor_parallel, longest).limited(**self.limits)

    @cached_property
    def least_trainer(self) -> int:
        """GPUs that learning needs at least."""
        if self.workload.learning is None:
            return 0
        for what, name, known in (("model", self.model, self.hardware.models), ("GPU", self.gpu, self.hardware.gpus)):
            if name not in known:
                raise unknown(f"{what} to train:", name, known)
        return self.workload.learning.gpus(self.model, self.gpu, self.hardware)

    def estimate(self, replicas: int, trainer_gpus: int | None = None) -> Estimate:
        """How long so many replicas take, and what that costs."""
        trainer_gpus = self.least_trainer if trainer_gpus is None else trainer_gpus
        played = self._simulated(replicas)
        pairs = zip(played, self.workload.segments, strict=True)
        seconds = [found.seconds * each.episodes / found.episodes * each.times for found, each in pairs]
        play_s, learn_s, total_s = sum(seconds), 0.0, sum(seconds)
        if learning := self.workload.learning:
            learn_s = learning.iterations * learning.seconds(
                self.hardware.models[self.model], self.gpu, trainer_gpus, self.hardware
            )
            total_s = max(seconds[0], learn_s) + sum(seconds[1:]) if learning.together else play_s + learn_s
        price = self.hardware.prices.get(self.gpu)
        gpus = replicas * self.served.gpus + trainer_gpus
        first, shapes = played[0], self.workload.shapes
        a_call = (shapes.prompt_tokens + shapes.reply_tokens) / shapes.calls
        return Estimate(
            self.gpu, replicas, self.served.gpus, trainer_gpus, play_s / 3600, learn_s / 3600, total_s / 3600,
            price and gpus * total_s / 3600 * price.usd_per_hour,
            f"${price.usd_per_hour:.2f} an hour on {price.date}" if price else "not known",
            first.calls / first.seconds, first.reply_tokens / first.seconds, first.busy,
            first.cached_tokens / first.prompt_tokens,
            max(1, min(self.served.limits.rows, int(self.served.limits.cache / a_call))),
            self.served.measured,
        )  # fmt: skip

    def within(self, hours: float) -> Estimate | None:
        """The cheapest that ends in time; None when no number of GPUs does."""
        trainers = [self.least_trainer]
        while trainers[-1] and trainers[-1] < MOST_GPUS:
            trainers.append(2 * trainers[-1])
        found = [self._fewest(hours, trainer) for trainer in trainers]
        in_time = [estimate for estimate in found if estimate is not None]
        return min(in_time, key=lambda estimate: estimate.gpus * estimate.hours, default=None)

    def _fewest(self, hours: float, trainer_gpus: int) -> Estimate | None:
        """The fewest replicas that end in time: time falls, or stays, as they become more."""
        low, high, most = 1, 1, self._useful
        if self._floor(trainer_gpus) > hours or self.estimate(most, trainer_gpus).hours > hours:
            return None
        while self.estimate(high, trainer_gpus).hours > hours:
            low, high = high + 1, min(2 * high, most)
        while low < high:
            middle = (low + high) // 2
            if self.estimate(middle, trainer_gpus).hours <= hours:
                high = middle
            else:
                low = middle + 1
        return self.estimate(high, trainer_gpus)

    @property
    def _useful(self) -> int:
        """Replicas among which no stage of the episodes in flight leaves one idle."""
        return max(
            each.concurrency * max(len(stage) for known in each.shapes.by_task for shape in known for stage in shape)
            for each in self.workload.segments
        )

    def _floor(self, trainer_gpus: int) -> float:
        """Hours that no number of replicas undercuts."""
        learning = self.workload.learning
        if learning is None:
            return 0.0
        size = self.hardware.models[self.model]
        return learning.iterations * learning.seconds(size, self.gpu, trainer_gpus, self.hardware) / 3600

    def _simulated(self, replicas: int) -> list[Played]:
        if replicas not in self._played:
            served, call_s = self.served, self.call_s
            self._played[replicas] = [play(each, served, replicas, call_s) for each in self.workload.segments]
        return self._played[replicas]


def play(segment: Segment, served: Served, replicas: int, call_s: float = CALL_S) -> Played:
    """Simulate a segment once; of a long one the first part."""
    jobs = (
        (task, segment.shapes.episode(task, sample))
        for task in range(segment.tasks)
        for sample in range(segment.samples)
    )
    most = max(int(MOST_CALLS / segment.shapes.calls), 2 * segment.concurrency)
    return simulate(islice(jobs, most), served, replicas, segment.concurrency, call_s)


def plan_capacity(
    workload: Workload,
    hardware: Hardware,
    model: str,
    gpus: Sequence[str],
    replicas: int | None = None,
    within_h: float | None = None,
    tensor_parallel: int | None = None,
    limits: dict[str, Any] | None = None,
) -> tuple[list[Estimate], list[str]]:
    """Estimates for kinds of GPUs, the cheapest first, and why others cannot do it.

    Args:
        workload: what is to be done.
        hardware: what is known.
        model: its name there.
        gpus: names there; none for all.
        replicas: how many; None for 1, or as many as the deadline takes.
        within_h: hours that it may take.
        tensor_parallel: see Hardware.served.
        limits: see Planner.

    Raises:
        ConfigError: unknown names, or no GPU of those asked about can do it.
    """
    _require_known(model, gpus, hardware)
    known = {name.partition("@")[2] for name in hardware.engines if name.startswith(f"{model}@")}
    estimates, refused = [], []
    for gpu in gpus or sorted({*hardware.gpus, *known} if model in hardware.models else known):
        try:
            planner = Planner(workload, hardware, model, gpu, limits or {}, tensor_parallel)
        except ConfigError as error:
            refused.append(str(error))
            continue
        found = planner.estimate(replicas or 1) if within_h is None else planner.within(within_h)
        if found is None:
            refused.append(
                f"{model} on {gpu}: not within {within_h:g} h, however many there are; raise --within or --concurrency"
            )
        else:
            estimates.append(found)
    if not estimates:
        raise ConfigError("; ".join(refused))
    return sorted(estimates, key=lambda e: (e.usd is None, e.usd or 0.0, e.hours)), refused


def _require_known(model: str, gpus: Sequence[str], hardware: Hardware) -> None:
    models = {*hardware.models, *(name.partition("@")[0] for name in hardware.engines)}
    if model not in models:
        raise unknown("model to be simulated:", model, models)
    for gpu in gpus:
        if gpu not in hardware.gpus and f"{model}@{gpu}" not in hardware.engines:
            raise unknown("GPU", gpu, hardware.gpus)
