"""What a call costs in the gateway: `python -m experiments.benchmarks.gateway` prints CPU milliseconds a call.

The server's process answers `--calls` chat completions from a scripted engine, `--parallel` at a time, each in an
episode of eight calls that is stored; then a bare FastAPI application that reads the same JSON and sends a fixed
reply. The client is another process, so that only the server's CPU time is counted.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from agents import Cast, ScriptedEngine
from experiments.gateway.serve import serving
from experiments.gateway.served import served_topology
from experiments.gateway.server import bind, listening, url_of
from experiments.plan import make_plan
from experiments.runner import claim_directory

EACH = 8
_REPLY = "First I add the two numbers in the brackets, which gives 5.\nThen I add 2 to it.\n\\boxed{7}"


async def measure(calls: int, parallel: int) -> dict[str, float]:
    """CPU milliseconds of this process a call: the gateway, and the bare application."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(
            served_topology(("solver",)),
            "arithmetic",
            Cast.all(ScriptedEngine({"solver": _REPLY})),
            tasks=-(-calls // EACH),
            samples=1,
            seed=0,
            split="test",
            concurrency=parallel,
            settings=None,
            backend="local",
            address=None,
        )
        directory = claim_directory(plan, "gateway", Path(folder))
        async with serving(plan, directory, bind("127.0.0.1", 0), None, 600) as gateway:
            ours = await _load(gateway.url, calls, parallel, "gateway")
    async with AsyncExitStack() as stack:
        at = bind("127.0.0.1", 0)
        await stack.enter_async_context(listening(_bare(), at, None))
        bare = await _load(url_of(at), calls, parallel, "bare")
    return {"gateway_ms": round(ours, 3), "bare_fastapi_ms": round(bare, 3)}


def _bare() -> FastAPI:
    app = FastAPI(openapi_url=None)
    reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": _REPLY}, "finish_reason": "stop"}]}

    @app.post("/v1/chat/completions")
    async def echo(request: Request) -> dict[str, Any]:
        await request.json()
        return reply

    return app


async def _load(url: str, calls: int, parallel: int, what: str) -> float:
    """Have another process make the calls; CPU milliseconds that each costs here."""
    arguments = [sys.executable, "-m", __spec__.name, "--client", url, "--calls", str(calls)]
    arguments += ["--parallel", str(parallel), "--what", what]
    client = await asyncio.create_subprocess_exec(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin and client.stdout
    await client.stdout.readline()  # it has warmed up and waits
    before = time.process_time()
    client.stdin.write(b"\n")
    await client.stdout.readline()
    spent = time.process_time() - before
    await client.wait()
    return spent / calls * 1000


async def _client(url: str, calls: int, parallel: int, what: str) -> None:
    import aiohttp

    asked = {"model": "solver", "messages": [{"role": "user", "content": "What is (2 + 3) + 2?"}], "seed": 0}

    async def episode(session: aiohttp.ClientSession) -> None:
        opened = {"base_url": f"{url}/v1"}
        if what == "gateway":
            async with session.post(f"{url}/episodes", json={}) as reply:
                opened = await reply.json()
        for number in range(EACH):
            body = {**asked, "seed": number}
            async with session.post(f"{opened['base_url']}/chat/completions", json=body) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()
        if what == "gateway":
            async with session.post(f"{url}/episodes/{opened['id']}/answer", json={"answer": "7"}) as reply:
                await reply.read()

    async def worker(session: aiohttp.ClientSession) -> None:
        while left:
            left.pop()
            await episode(session)

    left = list(range(calls // EACH))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=parallel)) as session:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(worker(session) for _ in range(parallel)))
        print("done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4096)
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--what", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        asyncio.run(_client(options.client, options.calls, options.parallel, options.what))
    else:
        print(json.dumps(asyncio.run(measure(options.calls, options.parallel))))


if __name__ == "__main__":
    main()
