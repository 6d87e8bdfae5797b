"""A run on simulated replicas: episodes in flight up to a concurrency, their calls routed as a pool does. No clock.

Events are few in kind (a call arrives, a replica's stretch of steps ends or begins), so that a heap does for them what
a library of discrete events would.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agents.routing import SLACK_TOKENS
from agents.simulation import Batch, Job
from agents.simulation.hardware import Served
from experiments.capacity.shapes import Call, Shape

_ARRIVES, _ENDS, _BEGINS = range(3)
"""In this order where the time is the same: what arrives as a step ends joins the next."""


@dataclass(frozen=True)
class Played:
    """What a simulated run came to."""

    seconds: float
    episodes: int
    calls: int
    prompt_tokens: int
    cached_tokens: int
    """Of these, found in a prefix cache."""
    reply_tokens: int
    busy: float
    """Share of the time that a replica worked, a mean."""
    counts: dict[str, int]
    """Of all replicas together; see Batch.counts."""


@dataclass(slots=True)
class _Playing:
    """An episode that is under way."""

    number: int
    task: int
    shape: Shape
    stage: int = 0
    open: int = 0
    """Calls of its stage that are not answered."""


@dataclass(slots=True)
class _Replica:
    batch: Batch
    started: float = 0.0
    """When its stretch began."""
    working: bool = False
    due: bool = False
    """Whether it is to begin a stretch at this very time."""
    version: int = 0
    """Of its stretch: an end that was planned before it was cut counts no more."""
    tokens: int = 0
    """Outstanding."""
    worked_s: float = 0.0
    playing: dict[int, _Playing] = field(default_factory=dict)
    """Of each job that is not answered, by its identity: whose call it is."""


def simulate(
    episodes: Iterable[tuple[int, Shape]], served: Served, replicas: int, concurrency: int, call_s: float = 0.0
) -> Played:
    """Play episodes on simulated replicas.

    Args:
        episodes: of each the number of its task, whose equal prompts are shared, and its shape.
        served: one replica.
        replicas: how many.
        concurrency: most episodes in flight.
        call_s: what a call takes of the one process that plays, seconds; calls wait for one another there.

    Raises:
        ValueError: a call that can never run.
    """
    return _Fleet(iter(episodes), served, replicas, concurrency, call_s).run()


class _Fleet:
    def __init__(
        self, episodes: Iterator[tuple[int, Shape]], served: Served, replicas: int, concurrency: int, call_s: float
    ):
        self._episodes = enumerate(episodes)
        self._replicas = [_Replica(Batch(served.costs, served.limits)) for _ in range(replicas)]
        self._concurrency, self._call_s = concurrency, call_s
        self._events: list[tuple] = []
        self._numbers = itertools.count()
        self._homes: dict[object, _Replica] = {}
        self._caller_s = 0.0
        """Until when the playing process is at work."""
        self._ended = self._calls = self._prompts = self._replies = 0

    def run(self) -> Played:
        for number, (task, shape) in itertools.islice(self._episodes, self._concurrency):
            self._ask(0.0, _Playing(number, task, shape))
        now = 0.0
        while self._events:
            now, kind, _, *what = heapq.heappop(self._events)
            if kind == _ARRIVES:
                self._arrive(now, *what)
            elif kind == _BEGINS:
                self._begin(now, *what)
            else:
                self._end(now, *what)
        batches = [replica.batch for replica in self._replicas]
        counts = {key: sum(batch.counts[key] for batch in batches) for key in batches[0].counts}
        worked = sum(replica.worked_s for replica in self._replicas) / len(self._replicas)
        busy = worked / now if now else 0.0
        return Played(now, self._ended, self._calls, self._prompts, counts["cached"], self._replies, busy, counts)

    def _ask(self, now: float, playing: _Playing) -> None:
        """Ask all calls of the episode's stage."""
        stage = playing.shape[playing.stage]
        playing.open = len(stage)
        for call in stage:
            self._caller_s = max(self._caller_s, now) + self._call_s
            self._push(self._caller_s, _ARRIVES, playing, call)

    def _arrive(self, now: float, playing: _Playing, call: Call) -> None:
        opening = None if call.opening is None else (playing.task, call.opening)
        follows = (playing.number, call.follows) if call.follows else None
        job = Job(call.prompt, call.reply, opening, (playing.number, call.id), follows)
        replica = self._route(job)
        replica.batch.add(job)
        replica.playing[id(job)] = playing
        replica.tokens += job.prompt + job.reply
        self._calls += 1
        self._prompts += job.prompt
        self._replies += job.reply
        if replica.working:
            replica.version += 1
            end = replica.started + replica.batch.cut(now - replica.started)
            self._push(max(now, end), _ENDS, replica, replica.version)
        elif not replica.due:
            replica.due = True
            self._push(now, _BEGINS, replica)

    def _route(self, job: Job) -> _Replica:
        """As agents.routing does: the least loaded, or one that has the beginning and is not far ahead of it."""
        chosen = min(self._replicas, key=lambda replica: replica.tokens)
        home = self._homes.get(job.follows) or self._homes.get(job.opening)
        if home is not None and home.tokens - chosen.tokens <= SLACK_TOKENS:
            chosen = home
        self._homes[job.name] = chosen
        if job.opening is not None:
            self._homes[job.opening] = chosen
        return chosen

    def _begin(self, now: float, replica: _Replica) -> None:
        replica.started, replica.working, replica.due = now, True, False
        replica.version += 1
        self._push(now + replica.batch.begin(), _ENDS, replica, replica.version)

    def _end(self, now: float, replica: _Replica, version: int) -> None:
        if version != replica.version:
            return
        replica.working = False
        replica.worked_s += now - replica.started
        for job in replica.batch.finish():
            playing = replica.playing.pop(id(job))
            replica.tokens -= job.prompt + job.reply
            playing.open -= 1
            if not playing.open:
                self._go_on(now, playing)
        if not replica.batch.idle and not replica.due:
            replica.due = True
            self._push(now, _BEGINS, replica)

    def _go_on(self, now: float, playing: _Playing) -> None:
        playing.stage += 1
        if playing.stage < len(playing.shape):
            self._ask(now, playing)
            return
        self._ended += 1
        for call in (call for stage in playing.shape for call in stage):
            self._homes.pop((playing.number, call.id), None)
        if (following := next(self._episodes, None)) is not None:
            number, (task, shape) = following
            self._ask(now, _Playing(number, task, shape))

    def _push(self, time: float, kind: int, *what: object) -> None:
        heapq.heappush(self._events, (time, kind, next(self._numbers), *what))
