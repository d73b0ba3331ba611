"""What every request goes through: an id, the key, the rate, and on the way back headers, log line, counters.

Written against ASGI itself: it costs some 20 microseconds, and a request without a key or beyond its rate is
answered before a byte of its body is read.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dermseg.apps.api.keys import KeyRing
from dermseg.apps.api.limits import RateLimiter, whole_seconds
from dermseg.apps.api.metrics import Metrics
from dermseg.apps.api.problems import Problem, problem_of
from dermseg.apps.api.settings import LOOPBACK

# These read their own bodies, within limits of their own. What else has a body has a few lines of JSON.
UPLOADS = frozenset({"/v1/segment", "/v1/jobs"})
_SMALL_BODY, _SMALL_BODY_S = 65_536, 10.0
PUBLIC = frozenset({"/health", "/ready", "/openapi.json"})
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_HSTS = (b"strict-transport-security", b"max-age=31536000")
CLIENT_GONE = 499  # nothing is sent; for log and counters
_log = logging.getLogger("dermseg.api")


class Gate:
    """ASGI middleware; see the module's text."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing, metrics: Metrics, origins: Sequence[str] = ()) -> None:
        self.app = app
        self._keys = keys
        self._metrics = metrics
        self._origins = origins
        self._rates = RateLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = _request_id(headers.get(b"x-request-id", b""))
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = CLIENT_GONE
        extra = [*_HEADERS, (b"x-request-id", request_id.encode())]
        if scope.get("scheme") == "https":
            extra.append(_HSTS)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            self._admit(scope, headers, state)
            if scope["method"] != "GET" and scope["path"] not in UPLOADS:
                receive = _small(receive)
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except (Exception, asyncio.CancelledError) as error:
            problem = problem_of(error)
            if status != CLIENT_GONE:  # the answer has begun: nothing can be said any more
                raise RuntimeError("failed amid the answer") from None
            await problem.response(request_id)(scope, receive, send_with_headers)
        finally:
            self._note(scope, state, status, time.perf_counter() - start)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], state: dict[str, Any]) -> None:
        if scope["path"] in PUBLIC:
            return
        if self._keys.open:
            self._check_browser(scope, headers)
        client = self._keys.find(headers.get(b"authorization", b"").decode("latin-1") or None)
        if client is None:
            raise Problem(
                401,
                "key",
                "the API key is missing or wrong",
                hint="send the header Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        state["client"] = client
        wait = self._rates.wait_for(client)
        if wait:
            self._metrics.shed.labels("rate").inc()
            raise Problem(
                429, "rate", "more requests than this key may send", retry_after=whole_seconds(wait)
            )

    def _check_browser(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Where nothing but the loopback protects the server, keep out web pages from elsewhere.

        The browser of whoever sits at this machine comes from the loopback too. A page may give its own name
        the address 127.0.0.1 (DNS rebinding), which shows in Host, or send a form, which shows in Origin.
        """
        host = headers.get(b"host", b"localhost").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if _name_of(f"//{host}") not in LOOPBACK:
            raise Problem(
                403,
                "host",
                "without API keys the server answers to a name of this machine only",
                hint="call it as 127.0.0.1 or localhost, or give it keys (dermseg serve new-key NAME)",
            )
        own = f"{scope.get('scheme', 'http')}://{host}"
        if origin and origin.lower() != own.lower() and not {origin, "*"} & set(self._origins):
            raise Problem(
                403,
                "origin",
                "without API keys the server takes nothing from web pages of other places",
                hint="--cors-origin allows one",
            )

    def _note(self, scope: Scope, state: dict[str, Any], status: int, seconds: float) -> None:
        route = getattr(
            scope.get("route"), "path", "other"
        )  # the template: the path itself may hold anything
        method = (
            scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
        )
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        client = state.get("client")
        _log.info(
            "request",
            extra={
                "request_id": state["request_id"],
                "key": None if client is None else client.id,
                "method": method,
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                **state.get("log", {}),
            },
        )


def _small(receive: Receive) -> Receive:
    """Take a body of a few lines only, and not for long."""
    left, ends = _SMALL_BODY, float("inf")

    async def limited() -> Message:
        nonlocal left, ends
        now = time.monotonic()
        ends = min(ends, now + _SMALL_BODY_S)  # of the whole: a byte at a time would last for days
        try:
            message = await asyncio.wait_for(receive(), max(0.0, ends - now))
        except TimeoutError:
            raise Problem(408, "slow", "the body did not come in time") from None
        left -= len(message.get("body", b""))
        if left < 0:
            raise Problem(413, "too-large", f"the body is larger than {_SMALL_BODY} bytes")
        return message

    return limited


def _name_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _request_id(given: bytes) -> str:
    """The client's id as it came where it is a UUID, else a new one: free text could be about a patient."""
    text = given.decode("latin-1")
    return text if _UUID.fullmatch(text) else uuid.uuid4().hex
