"""One engine that batches continuously, as a discrete-event model: nothing sleeps, no clock is read.

An engine works in steps, as vLLM's scheduler does (Kwon et al., arXiv:2309.06180): each decodes one token for every
running request, and fills what is left of its token budget with prompts, in pieces where they are long (Agrawal et
al., arXiv:2308.16369). A prompt's last piece gives the first token. Departures: memory for a reply is reserved when
its request is taken in, so that nothing is preempted; a cached beginning that a running request shares is counted
twice; attention within a prompt costs nothing of its own.

Steps in which nothing changes but lengths are made in one stretch, so that a model of a million tokens takes seconds.
"""

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass

from envs.errors import ConfigError

BLOCK = 16
"""Tokens of a cache block: what is reused of a beginning is whole blocks. vLLM's default."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a step takes, in seconds: pass_s, what is admitted, the longer of reading and computing, and attention."""

    pass_s: float
    """Each step."""
    read_s: float = 0.0
    """Reading the weights, which goes on while tokens are computed."""
    admit_s: float = 0.0
    """More for a step that computes prompts."""
    request_s: float = 0.0
    """For each request that is taken in."""
    prompt_s: float = 0.0
    """For each prompt token that is computed."""
    decode_s: float = 0.0
    """For each token that is decoded."""
    context_s: float = 0.0
    """For each token of context that a decoded one attends to."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine holds at once."""

    rows: int = 256
    """Requests that run; others wait."""
    tokens: int = 8192
    """Of a step, prompts and decoded ones together."""
    cache: int = 1 << 40
    """Tokens of all running requests, prompts and replies."""
    prefix_caching: bool = True
    padded: bool = False
    """Every row attends to as many positions as the longest, as in the transformers engine."""

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= self.tokens:
            raise ConfigError(
                f"the simulated engine: expected 1 ≤ max_batch ≤ max_tokens, found {self.rows} and {self.tokens}"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """One request, as far as it takes time."""

    prompt: int
    """Tokens, at least 1."""
    reply: int
    """Tokens, at least 1."""
    opening: Hashable = None
    """Names the prompt: jobs of one opening have the same."""
    name: Hashable = None
    """Names prompt and reply together."""
    follows: Hashable = None
    """The name of the job whose prompt and reply this prompt begins with."""


@dataclass(slots=True)
class _Stretch:
    """Steps that are under way."""

    steps: int
    tokens: int
    """Of prompts; then it is one step."""
    admitted: int
    rows: int
    context: int
    """Tokens that the rows attend to in the first of the steps."""


class Batch:
    """See the module. `begin` a stretch, `cut` it when something arrives meanwhile, `finish` it; and again."""

    def __init__(self, costs: Costs, limits: Limits):
        self.costs, self.limits = costs, limits
        self.waiting: deque[Job] = deque()
        self.counts = dict.fromkeys(("steps", "admitting", "requests", "prompt", "cached", "decoded", "context"), 0)
        """All in all: steps, those that computed prompts, requests, prompt tokens computed and found in the cache,
        tokens decoded (without each reply's first), and tokens of context that they attended to."""
        self._filling: list[list] = []  # [job, prompt tokens to be computed]
        self._running: list[tuple[int, int, Job]] = []  # (step after which it ends, arrival, job): a heap
        self._step = 0
        self._context = 0
        self._reserved = 0
        self._numbers = itertools.count()
        self._kept: OrderedDict[Hashable, int] = OrderedDict()
        self._kept_tokens = 0
        self._stretch: _Stretch | None = None

    @property
    def rows(self) -> int:
        """Requests that run."""
        return len(self._filling) + len(self._running)

    @property
    def reserved(self) -> int:
        """Tokens that running requests hold."""
        return self._reserved

    @property
    def idle(self) -> bool:
        return not (self.rows or self.waiting)

    def add(self, job: Job) -> None:
        """A request arrives. It is looked at when the next stretch begins.

        Raises:
            ValueError: it can never run.
        """
        if job.prompt < 1 or job.reply < 1:
            raise ValueError(f"expected a prompt and a reply of at least 1 token, found {job.prompt} and {job.reply}")
        if job.prompt + job.reply > self.limits.cache:
            raise ValueError(
                f"a request of {job.prompt + job.reply} tokens, prompt and reply, does not fit into a cache of "
                f"{self.limits.cache}"
            )
        self.waiting.append(job)

    def begin(self) -> float:
        """Begin a stretch, and say how many seconds it takes. The batch must not be idle."""
        assert self._stretch is None and not self.idle
        decoding = len(self._running)
        budget, admitted = self.limits.tokens - decoding, 0
        pieces = 0
        for row in self._filling:
            pieces += min(row[1], budget - pieces)
        while self.waiting and pieces < budget and self.rows < self.limits.rows and self._fits(self.waiting[0]):
            left = self._admit(self.waiting.popleft())
            pieces += min(left, budget - pieces)
            admitted += 1
        steps = 1 if self._filling else self._running[0][0] - self._step
        self._stretch = _Stretch(steps, pieces, admitted, decoding, self._attended())
        return self._seconds(steps)

    def cut(self, seconds: float) -> float:
        """Something has arrived so long after the beginning: end after the step that is under way then.

        Returns:
            Seconds from the beginning to the end, as they are now.
        """
        stretch = self._stretch
        assert stretch is not None
        low, high = 1, stretch.steps
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._seconds(middle) >= seconds else (middle + 1, high)
        stretch.steps = low
        return self._seconds(low)

    def finish(self) -> list[Job]:
        """End the stretch. Returns the requests that it answered."""
        stretch, self._stretch = self._stretch, None
        assert stretch is not None
        self._count(stretch)
        self._step += stretch.steps
        self._context += stretch.steps * stretch.rows
        done = []
        while self._running and self._running[0][0] <= self._step:
            job = heapq.heappop(self._running)[2]
            self._context -= job.prompt + job.reply
            done.append(job)
        done += self._fill(stretch.tokens)
        for job in done:
            self._reserved -= job.prompt + job.reply
            self._keep(job.name, job.prompt + job.reply)
        return done

    def _attended(self) -> int:
        """Tokens that the rows attend to in the next step."""
        if not self.limits.padded or not self._running:
            return self._context
        return len(self._running) * (self._step + max(job.prompt + job.reply - end for end, _, job in self._running))

    def _fits(self, job: Job) -> bool:
        return self._reserved + job.prompt + job.reply <= self.limits.cache

    def _admit(self, job: Job) -> int:
        """Returns the prompt tokens that are to be computed."""
        found = max(self._kept.get(job.opening, 0), self._kept.get(job.follows, 0))
        # The last token is always computed: its logits are what the first of the reply is drawn from.
        cached = min(found, job.prompt - 1) // BLOCK * BLOCK
        self._reserved += job.prompt + job.reply
        self._keep(job.opening, job.prompt)
        self.counts["cached"] += cached
        self._filling.append([job, job.prompt - cached])
        return job.prompt - cached

    def _fill(self, tokens: int) -> list[Job]:
        """Spend prompt tokens, the oldest request first; those whose prompt is done run on, or are answered."""
        done, still = [], []
        for row in self._filling:
            job, left = row
            spent = min(left, tokens)
            tokens -= spent
            if spent < left:
                still.append([job, left - spent])
            elif job.reply == 1:
                done.append(job)
            else:
                heapq.heappush(self._running, (self._step + job.reply - 1, next(self._numbers), job))
                self._context += job.prompt + 1
        self._filling = still
        return done

    def _seconds(self, steps: int) -> float:
        costs, stretch = self.costs, self._stretch
        assert stretch is not None
        computing = costs.decode_s * stretch.rows + costs.prompt_s * stretch.tokens
        each = costs.pass_s + max(costs.read_s, computing)
        attended = steps * stretch.context + stretch.rows * steps * (steps - 1) // 2
        admitting = costs.admit_s * bool(stretch.tokens) + costs.request_s * stretch.admitted
        return steps * each + costs.context_s * attended + admitting

    def _count(self, stretch: _Stretch) -> None:
        steps, counts = stretch.steps, self.counts
        counts["steps"] += steps
        counts["admitting"] += bool(stretch.tokens)
        counts["requests"] += stretch.admitted
        counts["prompt"] += stretch.tokens
        counts["decoded"] += steps * stretch.rows
        counts["context"] += steps * stretch.context + stretch.rows * steps * (steps - 1) // 2

    def _keep(self, name: Hashable, tokens: int) -> None:
        """Remember a beginning for as long as there is room beside what runs; the one unused for longest goes first."""
        if not self.limits.prefix_caching:
            return
        if name is not None:
            self._kept_tokens += tokens - self._kept.pop(name, 0)
            self._kept[name] = tokens
        while self._kept and self._kept_tokens > self.limits.cache - self._reserved:
            self._kept_tokens -= self._kept.popitem(last=False)[1]
