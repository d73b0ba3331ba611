"""Limits that keep a busy server alive: requests per key, and bytes of bodies in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dermseg.apps.api.keys import Client
from dermseg.apps.api.problems import Problem

_BURST_S = 10.0  # a client may use so many seconds' worth of its rate at once


class RateLimiter:
    """A token bucket for each key. Used from the event loop only."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}  # id -> (tokens, time)

    def wait_for(self, client: Client) -> float:
        """Take one request from the client's share: 0.0, or the seconds until there is one."""
        if client.requests_per_minute is None:
            return 0.0
        rate = client.requests_per_minute / 60.0
        size = max(1.0, rate * _BURST_S)
        now = time.monotonic()
        tokens, before = self._buckets.get(client.id, (size, now))
        tokens = min(size, tokens + (now - before) * rate)
        if tokens < 1.0:
            self._buckets[client.id] = (tokens, now)
            return (1.0 - tokens) / rate
        self._buckets[client.id] = (tokens - 1.0, now)
        return 0.0


class ByteBudget:
    """Bytes of request bodies that may be in memory at once. Used from the event loop only.

    ``refused`` is called for each that finds no room.
    """

    def __init__(self, size: int, refused: Callable[[], None]) -> None:
        self.size = size
        self.used = 0
        self._refused = refused

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Set `size` bytes aside.

        Raises
        ------
        Problem
            503: there is no room now.
        """
        if self.used + size > self.size:
            self._refused()
            raise Problem(503, "busy", "too many images are being sent at once", retry_after=1)
        self.used += size
        try:
            yield
        finally:
            self.used -= size


def whole_seconds(seconds: float) -> int:
    """For ``Retry-After``: at least 1."""
    return max(1, math.ceil(seconds))
