"""The HTTP application: chat completions by role, and every error in OpenAI's form."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from agents.types import EngineError
from envs.errors import ConfigError
from experiments.gateway.episodes import RETRY_S, Gateway, RefusedError, no_role
from experiments.gateway.protocol import ChatRequest
from experiments.gateway.replies import WAITING, Json, completion, error, error_event, stream
from graphs.turns import Turn

HEADER = "X-Palaestra-Episode"
"""Names the episode of a call whose path names none."""

WAIT_S = 10.0
"""Until a stream whose reply is not there yet begins, and between its comments."""

_CLIENT_CLOSED = 499


def make_app(gateway: Gateway, routes: APIRouter | None = None) -> FastAPI:
    """The application of a gateway; `routes` come beside its own."""
    app = FastAPI(title="Palaestra", openapi_url=None)
    for kind in (RefusedError, ValidationError, RequestValidationError, HTTPException, EngineError, ConfigError):
        app.add_exception_handler(kind, _answer_problem)
    app.add_exception_handler(Exception, _answer_problem)

    @app.get("/health")
    async def health() -> Json:
        return {"status": "closing" if gateway.closing else "ok", "open_episodes": len(gateway.episodes)}

    @app.get("/v1/models")
    @app.get("/episodes/{id}/v1/models")
    async def models() -> Json:
        return {"object": "list", "data": [_model(role) for role in gateway.roles]}

    @app.get("/v1/models/{role}")
    @app.get("/episodes/{id}/v1/models/{role}")
    async def model(role: str) -> Json:
        gateway.check_role(role)
        return _model(role)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _chat(gateway, request, request.headers.get(HEADER))

    @app.post("/episodes/{id}/v1/chat/completions")
    async def chat_in_episode(id: str, request: Request) -> Response:
        return await _chat(gateway, request, id)

    if routes is not None:
        app.include_router(routes)
    return app


async def _chat(gateway: Gateway, request: Request, id: str | None) -> Response:
    # Read here, from the bytes: the standard library's JSON lets halves of characters through.
    asked = ChatRequest.model_validate_json(await request.body())
    gateway.check_role(asked.model)
    call = asyncio.create_task(gateway.episode(id).ask(asked.call(), asked.n))
    if not await _wait(call, request, WAIT_S if asked.stream else None):
        later = _stream_later(call, asked, gateway)
        return StreamingResponse(later, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    if call.cancelled() and await request.is_disconnected():
        return Response(status_code=_CLIENT_CLOSED)
    turns = _turns(call, gateway)
    if asked.stream:
        return Response("".join(stream(asked, turns)), media_type="text/event-stream")
    return JSONResponse(completion(asked, turns))


async def _wait(call: "asyncio.Task[list[Turn]]", request: Request, seconds: float | None) -> bool:
    """Whether the call has ended within the time; a client that goes away ends it, too."""
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({call, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not call.done():
            call.cancel()
            await asyncio.wait({call})
    except asyncio.CancelledError:
        call.cancel()
        raise
    finally:
        gone.cancel()
    return call.done()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream_later(call: "asyncio.Task[list[Turn]]", asked: ChatRequest, gateway: Gateway) -> AsyncIterator[str]:
    """Comments until the reply is there, so that nobody on the way takes the connection for dead."""
    try:
        while not call.done():
            yield WAITING
            await asyncio.wait({call}, timeout=WAIT_S)
        try:
            turns = _turns(call, gateway)
        except Exception as problem:  # noqa: BLE001 - the status has been sent: the error travels in the stream
            yield error_event(_problem(problem)[1])
            return
        for event in stream(asked, turns):
            yield event
    finally:
        call.cancel()


def _turns(call: "asyncio.Task[list[Turn]]", gateway: Gateway) -> list[Turn]:
    with contextlib.suppress(asyncio.CancelledError):
        return call.result()
    if gateway.closing:
        raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway is closing", "closing")
    raise RefusedError(HTTPStatus.CONFLICT, "the episode has ended", "episode_ended")


async def _answer_problem(_: Request, problem: Exception) -> Response:
    status, body = _problem(problem)
    # What failed here would fail again: pools have tried it as often as is useful. Clients heed this header.
    headers = {"x-should-retry": "false"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(RETRY_S)}
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        headers = {"x-should-retry": "false", "Retry-After": str(RETRY_S)}
    return JSONResponse(body, status, headers)


def _problem(problem: Exception) -> tuple[int, Json]:
    """Status and error object."""
    if isinstance(problem, (ValidationError, RequestValidationError)):
        return HTTPStatus.BAD_REQUEST, _invalid(problem.errors()[0])
    if isinstance(problem, ConfigError):
        problem = no_role(str(problem))
    if isinstance(problem, RefusedError):
        kind = "server_error" if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return problem.status, error(problem.message, kind, problem.code, problem.parameter)
    if isinstance(problem, HTTPException):
        message = str(problem.detail)
        if problem.status_code == HTTPStatus.NOT_FOUND:
            message = "no such path: this server answers POST /v1/chat/completions and GET /v1/models"
        return problem.status_code, error(message, "invalid_request_error")
    if isinstance(problem, EngineError):
        return HTTPStatus.INTERNAL_SERVER_ERROR, error(str(problem), "server_error", "engine_error")
    return HTTPStatus.INTERNAL_SERVER_ERROR, error(f"internal error: {type(problem).__name__}", "server_error")


def _invalid(found: Any) -> Json:
    """The first thing that is wrong with a body."""
    place = [str(part) for part in found["loc"] if part != "body"]
    parameter = found.get("ctx", {}).get("parameter") or ".".join(place)
    message = found["msg"] if found["type"] == "unsupported" else f"{parameter or 'body'}: {found['msg']}"
    return error(message, "invalid_request_error", found["type"], parameter or None)


def _model(role: str) -> Json:
    return {"id": role, "object": "model", "created": 0, "owned_by": "palaestra"}
