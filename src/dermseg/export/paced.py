"""Steps that take minutes on thousands of images say how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_LINE_EVERY_S = 10.0
T = TypeVar("T")


def counted(items: Iterable[T], total: int, what: str, report: Callable[[str], None]) -> Iterator[T]:
    """Each of these in turn, and now and then a line such as ``reading: 120 of 2000``."""
    last = time.monotonic()
    for done, item in enumerate(items):
        if done and time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            report(f"{what}: {done} of {total}")
        yield item
