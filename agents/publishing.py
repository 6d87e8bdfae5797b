"""Publishing: new weights on every replica of a pool, verified, or the old ones on all of them.

Used by pools. A publish holds new requests back, waits for those in flight, has each replica take over the weights and
score the probe, and only then lets requests in again: a completion is of one version, and no version is ever served
that was not verified.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from agents.engines import EMBEDDED, ModelSpec
from agents.probe import TOLERANCES, Probe, measure_directory
from agents.replica import Status
from agents.types import Completion, EngineError, Request
from envs.errors import ConfigError

State = Literal["starting", "ready", "dead"]


class ReplicaDiedError(EngineError):
    """It died before it answered: the request can be asked again elsewhere."""


class PublishError(EngineError):
    """A publish failed; the message says where, why, and what is served now."""


@dataclass(frozen=True)
class Published:
    """Weights that all replicas serve."""

    version: str
    source: str
    """Their directory; it has to stay as it is until the policy's next publish, for replicas that start again."""
    probe: Probe
    gap: float
    """Largest difference between any replica's log-probabilities and the source's, in nats."""


class ReplicaEnd(Protocol):
    """A pool's end of one replica."""

    number: int
    state: State
    life: int
    """Grows whenever the replica starts again."""
    restarts: int
    """After deaths; those that were asked for do not count."""
    last_error: str

    @property
    def outstanding(self) -> int:
        """How much it was asked that it has not answered."""
        ...

    async def ask(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            ReplicaDiedError: it died before it answered.
            EngineError: the engine's own.
        """
        ...

    async def embed(self, text: str) -> tuple[float, ...]:
        """The vector of a text; see agents.types.Embeds. Raises as `ask` does."""
        ...

    async def up(self) -> Status:
        """Wait while it starts. Raises what keeps it from serving."""
        ...

    async def status(self) -> Status: ...

    async def publish(self, policy: str, version: str, source: str) -> None: ...

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]: ...

    def restart(self, reason: str) -> None:
        """Start it anew, with the weights that were published last; `up` waits for it."""
        ...

    async def close(self) -> None: ...


class Door:
    """Lets requests in or holds them back, and knows when none is inside."""

    def __init__(self) -> None:
        self._open, self._empty = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()
        self._inside = 0

    async def enter(self) -> None:
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()

    def leave(self) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def emptied(self) -> None:
        await self._empty.wait()


async def install(replica: ReplicaEnd, policy: str, weights: Published, tolerance: float) -> float:
    """Put weights on one replica and verify them there. Returns the largest gap, in nats.

    Raises:
        EngineError: it cannot take them, or does not score the probe as their source does.
    """
    await replica.publish(policy, weights.version, weights.source)
    return weights.probe.compare(await replica.score(weights.probe.ids, policy), tolerance)


@dataclass(eq=False)
class _Trial:
    """A publish as it goes on one replica."""

    replica: ReplicaEnd
    before: Published | None = None
    """What to go back to, with the log-probabilities that this replica itself gave."""
    touched: bool = False
    life: int = 0
    gap: float = 0.0
    failure: str = ""
    hangs: bool = False


class Publisher:
    """Replaces the weights of one pool's replicas, one publish at a time."""

    def __init__(
        self, spec: ModelSpec, replicas: Collection[ReplicaEnd], published: dict[str, Published], door: Door
    ) -> None:
        """
        Args:
            spec: the pool's.
            replicas: all, also dead ones; changes `between` publishes alone.
            published: policy -> weights; written here, read by replicas that start again.
            door: which requests enter by.
        """
        self._spec, self._replicas, self._published, self._door = spec, replicas, published, door
        self._tolerance = tolerance_of(spec)
        self._used: set[tuple[str, str]] = set()
        self._lock = asyncio.Lock()

    async def publish(
        self, policy: str, version: str, source: Path, deadline_s: float | None, probe: Probe | None
    ) -> Published:
        """See agents.pool.Pool.publish."""
        deadline_s = deadline_s or self._spec.pool.publish_s
        async with self._lock:
            try:
                return await self._publish(policy, version, str(Path(source).absolute()), deadline_s, probe)
            finally:
                self._door.open()

    @contextlib.asynccontextmanager
    async def between(self) -> AsyncIterator[None]:
        """A time in which nothing is published."""
        async with self._lock:
            yield

    async def bring_up_to_date(self, replica: ReplicaEnd) -> None:
        """Have a replica take over what it does not have of what is served, `between` publishes. Raises EngineError."""
        has = (await replica.status()).versions
        for policy, weights in sorted(self._published.items()):
            if has.get(policy) != weights.version:
                await install(replica, policy, weights, self._tolerance)

    async def _publish(
        self, policy: str, version: str, source: str, deadline_s: float, probe: Probe | None
    ) -> Published:
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline_s
        name = f"publishing version {version} of {repr(policy) if policy else 'the weights'} to {self._spec.name}"
        step = "waiting for the replicas"
        try:
            async with asyncio.timeout_at(ends):
                trials = await self._trials(policy, version)
                step = "measuring the probe"
                probe = probe or await self._measured(policy, source)
                step = "waiting for requests in flight"
                self._door.shut()
                await self._door.emptied()
        except TimeoutError:
            raise PublishError(f"{name}: {step} took longer than {deadline_s:g} s; the weights are as before") from None
        except EngineError as error:
            raise PublishError(f"{name}: {error}; the weights are as before") from None
        self._used.add((policy, version))
        weights = Published(version, source, probe, 0.0)
        try:
            await self._try(trials, policy, weights, ends, deadline_s)
            failed = any(trial.failure for trial in trials)
            remeasured = {} if policy or failed else await self._remeasured_adapters(trials[0].replica)
        except BaseException as error:
            for trial in trials:
                trial.replica.restart(f"{name} was given up")
            if isinstance(error, EngineError):
                raise PublishError(f"{name}: {error}; replicas start again with the weights that they had") from None
            raise
        if failed:
            raise PublishError(f"{name}: {await self._undo(trials, policy)}")
        weights = replace(weights, gap=max(trial.gap for trial in trials))
        self._published.update(remeasured)
        self._published[policy] = weights
        return weights

    async def _trials(self, policy: str, version: str) -> list[_Trial]:
        """One for each replica that is not dead for good. Raises when none is, or when the version is not new."""
        for replica in self._replicas:
            if replica.state == "starting":
                with contextlib.suppress(EngineError, ConfigError):
                    await replica.up()
        alive = [replica for replica in self._replicas if replica.state == "ready"]
        if not alive:
            raise EngineError(f"all replicas are dead, the last: {list(self._replicas)[-1].last_error}")
        self._used |= {(name, found) for r in alive for name, found in (await r.status()).versions.items()}
        if (policy, version) in self._used:
            raise EngineError("the version is used already; versions are never used again, name another")
        return [_Trial(replica) for replica in alive]

    async def _measured(self, policy: str, source: str) -> Probe:
        if not policy:
            return await measure_directory(source)
        base = self._published[""].source if "" in self._published else home_of(self._spec)
        if base is None:
            raise EngineError(f"the base weights of {self._spec.name} are in no directory; pass a probe")
        return await measure_directory(base, source)

    async def _try(self, trials: list[_Trial], policy: str, weights: Published, ends: float, deadline_s: float) -> None:
        tasks = {asyncio.create_task(self._try_one(trial, policy, weights)): trial for trial in trials}
        try:
            await asyncio.wait(tasks, timeout=max(0.0, ends - asyncio.get_running_loop().time()))
            for task, trial in tasks.items():
                if not task.done():
                    trial.hangs, trial.failure = True, f"it was not done within {deadline_s:g} s"
                elif error := task.exception():
                    trial.failure = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
                elif trial.replica.state != "ready" or trial.replica.life != trial.life:
                    trial.failure = f"it died: {trial.replica.last_error}"
        finally:
            for task in tasks:
                task.cancel()

    async def _try_one(self, trial: _Trial, policy: str, weights: Published) -> None:
        replica, ids = trial.replica, weights.probe.ids
        versions = (await replica.up()).versions
        trial.life = replica.life
        if policy in versions:
            earlier = self._published.get(policy)
            source = earlier.source if earlier else (None if policy else home_of(self._spec))
            scored = Probe(ids, await replica.score(ids, policy))
            trial.before = Published(versions[policy], source, scored, 0.0) if source else None
        trial.touched = True
        trial.gap = await install(replica, policy, weights, self._tolerance)

    async def _undo(self, trials: list[_Trial], policy: str) -> str:
        """Bring every replica back to the weights it had. Returns what failed and what is served now."""
        failed = next(trial for trial in trials if trial.failure)
        for trial in trials:
            if trial.hangs:
                trial.replica.restart(f"it hung while weights were published ({trial.failure})")
        await asyncio.gather(*(self._restore(trial, policy) for trial in trials if not trial.hangs))
        # What is restored already serves while the others load.
        self._door.open()
        lost = []
        for trial in trials:
            try:
                async with asyncio.timeout(self._spec.pool.publish_s):
                    await trial.replica.up()
            except TimeoutError:
                lost.append(f"replica {trial.replica.number} is still starting")
            except Exception as error:  # noqa: BLE001 - part of the report
                lost.append(f"replica {trial.replica.number} did not come back ({error})")
        now = "; ".join(lost) or "every replica has the weights that it had before"
        return f"replica {failed.replica.number}: {failed.failure}; {now}"

    async def _restore(self, trial: _Trial, policy: str) -> None:
        known = not policy or policy in self._published
        if not trial.touched or not known or trial.replica.life != trial.life:
            return  # as it was; or an adapter that nobody can ask for; or started again with what was published
        try:
            if trial.before is None:
                raise EngineError("its earlier weights are in no directory")
            async with asyncio.timeout(self._spec.pool.publish_s):
                await install(trial.replica, policy, trial.before, self._tolerance)
        except (EngineError, TimeoutError) as error:
            trial.replica.restart(f"its earlier weights could not be put back ({error})")

    async def _remeasured_adapters(self, replica: ReplicaEnd) -> dict[str, Published]:
        """Adapters score otherwise on new base weights: what holds for them now is what a verified replica finds."""
        remeasured = {}
        for policy, weights in self._published.items():
            if policy:
                found = await replica.score(weights.probe.ids, policy)
                remeasured[policy] = replace(weights, probe=Probe(weights.probe.ids, found))
        return remeasured


def home_of(spec: ModelSpec) -> str | None:
    """The directory (or the hub's name) that a model's own weights are loaded from; None for engines made in Python."""
    if spec.kind == "embedded":
        return str(EMBEDDED)
    return spec.target if spec.kind in ("hf", "vllm") else None


def tolerance_of(spec: ModelSpec) -> float:
    """Largest gap between a replica's log-probabilities and the source's that a publish accepts."""
    if spec.pool.tolerance is not None:
        return spec.pool.tolerance
    dtype = getattr(spec.settings, "dtype", "float32")
    if dtype == "auto":
        config = Path(spec.target) / "config.json"
        described: Mapping[str, object] = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        dtype = described.get("dtype") or described.get("torch_dtype") or "bfloat16"
    return TOLERANCES.get(str(dtype), TOLERANCES["bfloat16"])
