"""HTTP/1.1 with time limits: uvicorn's own protocol has none for slow heads and slow readers.

- A head that is not complete in time is answered with 408, one that is too long with 431.
- A client that does not take what it is sent is cut off, and so is one that goes on sending a body after its
  request was answered. What it sends in between is thrown away, so that it gets to read the answer.
- More connections than the limit are answered with 503 at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dermseg.apps.api.settings import Settings

MAX_HEAD_BYTES = 32_768
MAX_CONNECTIONS = 1000
_LINGER_S = 5.0


class GuardedProtocol(H11Protocol):
    """One connection. ``guarded`` makes the class with a server's time limits."""

    header_timeout_s: ClassVar[float] = 10.0
    send_timeout_s: ClassVar[float] = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "too many connections", {"Retry-After": "1"})
            return
        self._start("head", self.header_timeout_s, self._head_too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        for name in list(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop("head")
        elif self.conn.trailing_data[0] and "head" not in self._timers:  # the next request has begun
            self._start("head", self.header_timeout_s, self._head_too_slow)

    def on_response_complete(self) -> None:
        """The answer is sent, perhaps before the request was."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start("linger", _LINGER_S, self._still_sending, self.cycle)

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        super().pause_writing()
        self._start("send", self.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._stop("send")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What the client sent is not HTTP, or its head is too long."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        self._refuse(status if status in (431, 501, 505) else 400, msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: Java's client offers HTTP/2 with every first request, and takes HTTP/1.1 as well."""

    def _head_too_slow(self) -> None:
        if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
            self._refuse(408, "the request did not come in time")

    def _still_sending(self, answered: object) -> None:
        if self.cycle is answered and self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()

    def _refuse(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        """Answer without the application, and end the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # amid another answer
            return
        phrase = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": phrase, "status": status, "detail": detail}
        body = json.dumps(problem).encode()
        head = {
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(body)),
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **(headers or {}),
        }
        for event in (
            h11.Response(status_code=status, headers=list(head.items()), reason=phrase.encode()),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _start(self, name: str, seconds: float, call: Any, *args: Any) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, call, *args)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def guarded(settings: Settings) -> type[GuardedProtocol]:
    """The protocol with the time limits of a server; uvicorn makes one object for each connection."""
    return type(
        "Protocol",
        (GuardedProtocol,),
        {"header_timeout_s": settings.header_timeout_s, "send_timeout_s": settings.send_timeout_s},
    )
