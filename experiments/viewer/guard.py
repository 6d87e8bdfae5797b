"""Who may look: the same checks as the gateway's, with a cookie for browsers, and what browsers are held to.

Beyond loopback a token is needed. The address that the command prints holds it once; the server takes it from there
into a cookie that scripts cannot read, and sends the browser on to the address without it.
"""

import hashlib
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from experiments.gateway.guard import Guard

BODY = 4 * 2**20
"""Most bytes of a request's body: an edited message or reply."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class ViewerGuard(Guard):
    """ASGI middleware: the right host, origin and token; and the headers that keep pages to our own scripts."""

    expected = "expected the server's token: open the address that palaestra view printed"

    def __init__(self, app: ASGIApp, token: str | None, loopback: bool):
        super().__init__(app, token, loopback, BODY)
        self._cookie = "" if token is None else f"palaestra-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        if scope["type"] == "http" and (entry := self._entry(scope)) is not None:
            await entry(scope, receive, with_headers)
            return
        await super().__call__(scope, receive, with_headers)

    def shows_token(self, headers: Headers) -> bool:
        if super().shows_token(headers):
            return True
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return found is not None and self.is_token(found.value)

    def _entry(self, scope: Scope) -> RedirectResponse | None:
        """On to the same address without the token, which a cookie then holds."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        shown = next((value for name, value in query if name == "token"), None)
        if self._token is None or shown is None or not self.is_token(shown):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # One slash alone: two would name another host.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(self._cookie, shown, httponly=True, samesite="strict", path="/")
        return answer
