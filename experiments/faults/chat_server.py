"""A server of the chat-completions protocol on loopback, that misbehaves as told."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
"""What a server does with one call, given the parsed body."""


def reply(text: str | None = "fine", model: str | None = None, finish: str = "stop", **fields: Any) -> dict[str, Any]:
    """A reply; `fields` go into the message, but `choice` and `top` elsewhere."""
    choice, top = fields.pop("choice", {}), fields.pop("top", {})
    message = {"role": "assistant", "content": text, **fields}
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    choices = [{"index": 0, "message": message, "finish_reason": finish, **choice}]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": choices,
        "usage": usage,
        **top,
    }


def says(*args: Any, **fields: Any) -> Behaviour:
    """A well-made reply, by the model that was asked for unless another is named."""

    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        made = reply(*args, **fields)
        return web.json_response({**made, "model": made["model"] or body["model"]})

    return behave


def refuses(status: int, message: str = "", headers: Mapping[str, str] | None = None) -> Behaviour:
    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": message, "code": status}}, status=status, headers=headers)

    return behave


def sends(text: str | bytes, status: int = 200) -> Behaviour:
    """A body as it is."""

    async def behave(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        raw = text if isinstance(text, bytes) else text.encode()
        return web.Response(body=raw, status=status, content_type="application/json")

    return behave


async def hangs(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def resets(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def breaks_off(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Announces more than it sends before it hangs up."""
    whole = json.dumps(reply(model=body["model"])).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


async def drips(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Sends a byte at a time and never comes to an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


class ChatServer:
    """Plays behaviours in order, one a call; the last one for all further calls. Runs in a thread of its own.

    `with ChatServer(resets, says("5")) as server:` … `server.url`, `server.asked`, `server.headers`, `server.times`.
    """

    def __init__(self, *behaviours: Behaviour, models: tuple[str, ...] = ("tiny", "large")):
        self._behaviours, self._models = behaviours, models
        self.asked: list[dict[str, Any]] = []
        """Bodies of all calls."""
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        """When they came, by the monotonic clock."""
        self.url = ""

    def __enter__(self) -> "ChatServer":
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="chat server")
        self._thread.start()
        assert started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._complete)
        app.router.add_get("/v1/models", self._list)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.times.append(time.monotonic())
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        return await self._behaviours[min(len(self.asked), len(self._behaviours)) - 1](request, body)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self._models]})
