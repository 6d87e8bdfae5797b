"""Who may ask: checked before anything of a request is read.

A loopback server is within reach of every page that a browser on the machine shows. So a request must name the server
by a loopback name (a page that had its own name point here would not) and come from no other site.
"""

import hmac
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from experiments.gateway.replies import error

BODY = 16 * 2**20
"""Most bytes of a request's body."""


def is_loopback(host: str) -> bool:
    """Whether this is a loopback address, or localhost."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: the right host and origin, the token, a body that is not too long."""

    expected = "expected the server's token as api_key"

    def __init__(self, app: ASGIApp, token: str | None, loopback: bool, body: int = BODY):
        """
        Args:
            app: what is guarded.
            token: what clients must show as `Authorization: Bearer TOKEN`; None lets everybody in.
            loopback: whether the server listens on loopback alone.
            body: most bytes of a request's body.
        """
        self._app, self._loopback, self._limit = app, loopback, body
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope), scope["path"])
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive), send)

    def _refusal(self, headers: Headers, path: str) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._loopback and not is_loopback(_name(host)):
            return _refuse(HTTPStatus.FORBIDDEN, "this server answers to localhost alone", "wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return _refuse(HTTPStatus.FORBIDDEN, "requests from other sites are refused", "wrong_origin")
        if self._token is not None and path != "/health" and not self.shows_token(headers):
            return _refuse(HTTPStatus.UNAUTHORIZED, self.expected, "invalid_api_key")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_long(), "body_too_long")
        return None

    def shows_token(self, headers: Headers) -> bool:
        """Whether a request shows the token; only asked where there is one."""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(shown.strip())

    def is_token(self, shown: str) -> bool:
        """Takes as long for any text."""
        return self._token is not None and hmac.compare_digest(shown.encode("utf-8", "replace"), self._token)

    def _bounded(self, receive: Receive) -> Receive:
        """For bodies that do not say how long they are."""
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_long())
            return message

        return bounded

    def _too_long(self) -> str:
        return f"a request's body may have {self._limit:,} bytes"


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _refuse(status: HTTPStatus, message: str, code: str) -> JSONResponse:
    headers = {"x-should-retry": "false"}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    kind = "authentication_error" if status is HTTPStatus.UNAUTHORIZED else "invalid_request_error"
    return JSONResponse(error(message, kind, code), status, headers)
