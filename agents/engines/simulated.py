"""The simulated engine: it says nothing of worth, in the time that a model would take for it on GPUs.

For trying out what a cast, a pool and a concurrency will do before GPUs are rented. Replies come from a file, or their
lengths are drawn by the request's seed; when they come is decided by agents.simulation, scaled by `simulated.speed`.
Token ids stand for three bytes of UTF-8 text each.
"""

import asyncio
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace

from agents.engines.scripted import ReplayEngine, completion_of
from agents.serving import SimulatedSettings
from agents.simulation import Batch, Job, load_hardware
from agents.types import Completion, EngineError, Request

_WIDTH = 3
_WORD, _END = "la ", "\\boxed{0}"


class SimulatedEngine:
    """See the module. For one event loop. A request whose caller has gone runs on, as far as others are concerned."""

    version = "simulated"

    def __init__(self, target: str, settings: SimulatedSettings | None = None):
        """
        Args:
            target: MODEL@GPU, by their names in agents/simulation/hardware.toml or a file of the user's.
            settings: see SimulatedSettings.

        Raises:
            ConfigError: unknown names, a model that does not fit on the GPUs, a file that cannot be read.
        """
        self._settings = settings = settings or SimulatedSettings()
        self.policy = target
        model, _, gpu = target.partition("@")
        served = load_hardware(settings.hardware).served(model, gpu, settings.tensor_parallel)
        served = served.limited(
            rows=settings.max_batch, tokens=settings.max_tokens, prefix_caching=settings.prefix_caching
        )
        self.batch = Batch(served.costs, served.limits)
        self._recorded = ReplayEngine(settings.replies) if settings.replies else None
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._arrived = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def complete(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        started = loop.time()
        completion = await self._completion(request)
        prompt = completion.prompt_ids or tuple(_encode("".join(m.content for m in request.messages)))
        job = Job(
            max(1, len(prompt)),
            max(1, completion.completion_tokens),
            opening=hash(prompt),
            name=hash(prompt + completion.token_ids),
            follows=hash(request.prefix),
        )
        try:
            self.batch.add(job)
        except ValueError as error:
            raise EngineError(f"{self.policy}: {error}") from None
        future = self._futures[id(job)] = loop.create_future()
        self._arrived.set()
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        await future
        return replace(completion, compute_s=loop.time() - started)

    async def close(self) -> None:
        if self._working:
            self._working.cancel()
        for future in self._futures.values():
            if not future.done():
                future.set_exception(EngineError("the engine was closed"))

    async def _work(self) -> None:
        """Answer until nothing is left to be."""
        loop, speed = asyncio.get_running_loop(), self._settings.speed
        started = loop.time()
        await asyncio.sleep(0)  # what is asked at the same moment joins the first step
        while not self.batch.idle:
            self._arrived.clear()
            due = started + self.batch.begin() / speed
            while (left := due - loop.time()) > 0:
                try:
                    await asyncio.wait_for(self._arrived.wait(), left)
                except TimeoutError:
                    break
                self._arrived.clear()
                due = started + self.batch.cut((loop.time() - started) * speed) / speed
            started = due
            for job in self.batch.finish():
                future = self._futures.pop(id(job))
                if not future.done():
                    future.set_result(None)
            await asyncio.sleep(0)  # whoever asks again upon an answer joins the next step

    async def _completion(self, request: Request) -> Completion:
        if self._recorded is not None:
            text = (await self._recorded.complete(request)).text
        elif request.choices:
            text = json.dumps([-math.log(len(request.choices))] * len(request.choices))
        else:
            text = _words(self._drawn(request.seed), request.sampling.max_tokens)
        completion = completion_of(request, text, self.policy, self.version, _encode)
        cut = bool(text) and text.endswith(_WORD)
        return replace(completion, finish="length") if cut else completion

    def _drawn(self, seed: int) -> int:
        """Tokens of a reply."""
        spread = self._settings.reply_spread
        middle = math.log(self._settings.reply_tokens) - spread**2 / 2
        return round(random.Random(seed).lognormvariate(middle, spread))


def _words(tokens: int, most: int) -> str:
    """So many tokens, with an answer at the end where there is room for one."""
    end = len(_END) // _WIDTH
    return _WORD * most if tokens > most else _WORD * (tokens - end) + _END


def _encode(text: str) -> Iterator[int]:
    data = text.encode("utf-8", "replace")
    return (int.from_bytes(data[i : i + _WIDTH], "big") for i in range(0, len(data), _WIDTH))
