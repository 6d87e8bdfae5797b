"""Faults of an endpoint: late, refusing, breaking off, silent."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from experiments.faults.chat_server import Behaviour, ChatServer, breaks_off, hangs, refuses, resets, says
from experiments.faults.ground import Ground, Outcome

EPISODES = 24
LATE_S = 2.0
ONE_IN = 6


class Moody:
    """Answers the same to the same request, but for faults."""

    def __init__(self, strikes: Callable[[int], Behaviour | None]):
        """
        Args:
            strikes: which fault a call meets; takes a number that tells requests apart.
        """
        self.strikes = strikes

    async def __call__(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        asked = json.dumps([body["messages"], body.get("seed")]).encode()
        number = int.from_bytes(hashlib.sha256(asked).digest()[:6], "big")
        fault = self.strikes(number) or says(f"\\boxed{{{number % 7}}}")
        return await fault(request, body)


def _played(folder: Path, what: str, faults: tuple[Behaviour, ...], *settings: str, always: bool = False) -> Outcome:
    """A run in which some calls meet a fault, when they are asked first or however often they are."""
    met: list[int] = []

    def strikes(number: int) -> Behaviour | None:
        if number % ONE_IN or (number in met and not always):
            return None
        met.append(number)
        return faults[number // ONE_IN % len(faults)]

    moody = Moody(lambda _: None)
    with ChatServer(moody) as server:
        ground = Ground(folder, EPISODES, f"openai:tiny@{server.url}")
        unbroken = ground.unbroken()
        moody.strikes = strikes
        how = [part for setting in settings for part in ("--set", setting)]
        status, failed = ground.go_on("moody", *how).wait(), ground.run("moody").summary().failed
        ended = str(status)
        if failed:
            moody.strikes = lambda _: None
            again = ground.drive("resume", "moody", "--failed").wait()
            ended = f"{status}, {failed} failed; answered again, resume --failed: {again}"
    return ground.outcome(f"an endpoint, {what}, {len(met)} calls", ended, "moody", unbroken)


async def late(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Something else, when nobody waits for it any more."""
    await asyncio.sleep(LATE_S + 1)
    return await says("\\boxed{99}")(request, body)


def endpoint_late(folder: Path) -> Outcome:
    """Answers come after the time-out."""
    return _played(folder, "answers after the time-out", (late,), f"endpoint.timeout_s={LATE_S}")


def endpoint_refuses(folder: Path) -> Outcome:
    """429 with and without Retry-After, 500, 503, lost connections, replies that break off."""
    faults = (refuses(429, headers={"Retry-After": "0"}), refuses(429), refuses(500), refuses(503), resets, breaks_off)
    return _played(folder, "429, 5xx, lost connections", faults)


def endpoint_hangs(folder: Path) -> Outcome:
    """Some calls are never answered, however often they are asked; then the server is mended."""
    return _played(folder, "never answers", (hangs,), f"endpoint.timeout_s={LATE_S}", "endpoint.retries=0", always=True)
