"""A served run for tests, in the test's own event loop, on a free loopback port."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from agents import Cast, ScriptedEngine
from experiments.gateway.episodes import Gateway
from experiments.gateway.serve import serving
from experiments.gateway.served import served_topology
from experiments.gateway.server import bind
from experiments.plan import make_plan
from experiments.runner import claim_directory
from experiments.runs import Run


@dataclass
class Served:
    gateway: Gateway
    http: httpx.AsyncClient
    """At the server's root, with its token."""
    run: Run

    def client(self, episode: dict[str, Any] | None = None, **options: Any) -> AsyncOpenAI:
        """OpenAI's client, with nothing changed but its base_url; no retries, so that tests see each answer."""
        url = episode["base_url"] if episode else f"{self.gateway.url}/v1"
        return AsyncOpenAI(**{"base_url": url, "api_key": self.gateway.token or "none", "max_retries": 0, **options})

    async def open(self, **start: Any) -> dict[str, Any]:
        return (await self.http.post("/episodes", json=start)).raise_for_status().json()

    async def answer(self, episode: dict[str, Any], answer: str | None = "yes") -> dict[str, Any]:
        posted = await self.http.post(f"/episodes/{episode['id']}/answer", json={"answer": answer})
        return posted.raise_for_status().json()


@asynccontextmanager
async def served(
    root: Path,
    script: Callable[..., str] | dict[str, Any] | Cast,
    env: Any = "arithmetic",
    *,
    roles: tuple[str, ...] = ("solver", "critic"),
    token: str | None = None,
    idle_s: float = 60,
    **options: Any,
) -> AsyncIterator[Served]:
    cast = script if isinstance(script, Cast) else Cast.all(ScriptedEngine(script))
    given = {"tasks": 3, "samples": 1, "seed": 7, "concurrency": 8, "settings": None, **options}
    plan = make_plan(served_topology(roles), env, cast, split="test", backend="local", address=None, **given)
    directory = claim_directory(plan, "served", root)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        serving(plan, directory, bind("127.0.0.1", 0), token, idle_s) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as http,
    ):
        yield Served(gateway, http, Run(directory))
